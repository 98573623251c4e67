"""Run the recipes of five published projects on the data at hand, at a small budget, and tabulate what came out.

    python examples/five_projects.py --data DATA --out runs/five --budget small      # run, or go on where it stopped
    python examples/five_projects.py --table                                         # docs/five_projects.json -> the page

DATA holds ham10000/, isic2017/ and isic2019/ as docs/data.md lays them out; the table says which stand-in each recipe ran
on. ``--weights FOLDER`` holds ImageNet weights as BACKBONE.safetensors. A recipe that fine-tunes a network without a file there
is not run at the small budget, in which random weights learn nothing, and the table says so. ``--budget full`` leaves image
size, epochs, the number of images and the weights to the recipe. ``--dry-run`` prints the commands.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "five_projects.json"
PAGE = ROOT / "docs" / "five-projects.md"
BEGIN, END = "<!-- table: examples/five_projects.py --table -->", "<!-- end of table -->"

MEASURES = {"accuracy": "accuracy", "balanced_accuracy": "balanced accuracy", "macro_auroc": "AUROC"}
SUBSET = 1500
OFFICIAL_TEST = 600


# ------------------------------------------------------------------------------------------------ the plan


@dataclass(frozen=True)
class StandIn:
    """A data set below OUT/data: its title in the table, and the settings that point a recipe to it, at each budget.

    ``whole`` is the title at the full budget where that takes more images.
    """

    title: str
    small: tuple[str, ...] = ()
    full: tuple[str, ...] = ()
    whole: str = ""

    def title_at(self, budget: str) -> str:
        return self.whole if self.whole and budget == "full" else self.title


@dataclass(frozen=True)
class Job:
    """One recipe at the small budget. ``extra`` are further settings; ``members`` (job -> weight) make it an ensemble."""

    recipe: str
    project: str
    data: StandIn
    epochs: int = 1
    size: int = 64
    extra: tuple[str, ...] = ()
    members: dict[str, float] | None = None


_NAMED = ("data.train.layout=ham10000", "data.train.name=HAM10000")
_SUBSET = ("data.train.folder=ham10000_subset", "data.train.images=[ham10000]")
_WHOLE = ("data.train.folder=ham10000",)
_PART = ("data.train.images=[ham10000]", "data.train.allow_missing=true")
_HELD_OUT = ("data.split.kind=grouped", "data.split.test=0.2")
_ISIC_TEST = ("data.test.folder=isic2017_subset", "data.test.part=null", "data.test.images=[isic2017]")
_DRAWN = ("data.train.folder=clinical6", "data.train.name=synthetic", "data.train.license=cc0-1.0")
_LESIONS = f"{SUBSET:,} images by whole lesions"

HAM = StandIn("HAM10000")
HAM_SUBSET = StandIn(f"HAM10000, {_LESIONS}", _SUBSET, _WHOLE, HAM.title)
ISIC8 = StandIn("HAM10000's part of ISIC 2019, its 8 labels", _PART, _PART)
ISIC8_SUBSET = StandIn(f"{ISIC8.title}, {_LESIONS}", ("data.train.folder=isic2019_subset", _PART[0]), _PART, ISIC8.title)
ISIC_BINARY = StandIn(
    f"HAM10000 as benign / malignant; test: {OFFICIAL_TEST} training images of ISIC 2017",
    (*_NAMED, *_WHOLE, *_ISIC_TEST),
    (*_NAMED, *_WHOLE, "data.test.part=null"),
    "HAM10000 as benign / malignant; test: all training images of ISIC 2017",
)
MELANOMA = StandIn(
    f"HAM10000 as benign / malignant, {_LESIONS}",
    (*_NAMED, *_SUBSET, *_HELD_OUT),
    (*_NAMED, *_WHOLE, *_HELD_OUT),
    "HAM10000 as benign / malignant",
)
CLINICAL6 = StandIn("synthetic pictures, 6 classes", _DRAWN, _DRAWN)

_SHORT = ("phases.0.epochs=1",)
_CLINICAL = ("clinical six", CLINICAL6)
_KAGGLE = ("Kaggle melanoma", MELANOMA)
_BINARY = ("ISIC benign / malignant", ISIC_BINARY)
_CLINICAL_DRAW = ("data.draw.per_class=100", *_SHORT)
_BINARY_DRAW = ("data.draw.per_class=1000",)
_TRIO = {"clinical6_mobilenetv2": 0.3, "clinical6_efficientnet_b1": 0.3, "clinical6_resnet50": 0.4}
_FIVE = ("alexnet", "inception_v3", "resnet50", "densenet121", "efficientnet_b0")

JOBS = (
    Job("clinical6_mobilenetv2", *_CLINICAL, 4, 96, _CLINICAL_DRAW),
    Job("clinical6_efficientnet_b1", *_CLINICAL, 4, 96, _CLINICAL_DRAW),
    Job("clinical6_resnet50", *_CLINICAL, 3, 96, _CLINICAL_DRAW),
    Job("clinical6_ensemble", *_CLINICAL, members=_TRIO),
    Job("melanoma10k_mobilenetv2", *_KAGGLE, 3),
    Job("melanoma10k_efficientnet_b0", *_KAGGLE, 2),
    Job("melanoma10k_resnet34", *_KAGGLE, 2),
    Job("isic_binary_alexnet", *_BINARY, 12, 96, _BINARY_DRAW),
    Job("isic_binary_resnet50", *_BINARY, 3, 96, _BINARY_DRAW),
    Job("isic_binary_efficientnet_b0", *_BINARY, 2, 64, _BINARY_DRAW),
    Job("isic_binary_densenet121", *_BINARY, 1, 64, _BINARY_DRAW),
    Job("isic_binary_inception_v3", *_BINARY, 1, 80, _BINARY_DRAW),
    Job("isic_binary_ensemble", *_BINARY, members={f"isic_binary_{name}": 0.2 for name in _FIVE}),
    Job("ham10000_focal_cnn", "HAM10000", HAM, 4),
    Job("isic2019_custom_cnn", "ISIC 2019", ISIC8, 4),
    Job("ham10000_efficientnet_b4", "HAM10000", HAM_SUBSET, 1, 64, ("batch_size=16",)),
    Job("isic2019_efficientnet_b5", "ISIC 2019", ISIC8_SUBSET, 2, 64, _SHORT),
    Job("ham10000_efficientnet_b7", "HAM10000", HAM_SUBSET, 1, 64, ("accumulation=2",)),
    Job("melanoma10k_resnext101", *_KAGGLE, 1),
)
BY_RECIPE = {job.recipe: job for job in JOBS}


# ------------------------------------------------------------------------------------------------ the runs


def settings(job: Job, budget: str, start: str) -> list[str]:
    """Return what ``--set`` is given: the stand-in data, and at the small budget fewer and smaller images and epochs."""
    small = [*job.data.small, f"epochs={job.epochs}", f"model.image_size={job.size}", *job.extra]
    return [*(small if budget == "small" else job.data.full), *([f"model.pretrained={start}"] if start else [])]


def network_of(job: Job) -> dict[str, Any]:
    """Return the section ``model`` of the job's recipe."""
    return dict(yaml.safe_load((ROOT / "training" / "recipes" / f"{job.recipe}.yaml").read_text())["model"])


def starting_weights(job: Job, weights: Path | None) -> str:
    """Return ``model.pretrained``: the ImageNet file of the backbone, where the recipe wants one and it is there; else "",
    which leaves it to the recipe."""
    model = network_of(job)
    path = weights / f"{model['backbone']}.safetensors" if weights else None
    return str(path) if path and path.is_file() and model["pretrained"] else ""


def why_not_run(job: Job, weights: Path | None, budget: str) -> str | None:
    """Say why a job would show nothing at this budget; None where it is run."""
    if budget == "full":
        return None
    if job.members:
        others = [name for name in job.members if why_not_run(BY_RECIPE[name], weights, budget)]
        return f"{len(others)} of its {len(job.members)} members are not run" if others else None
    model = network_of(job)
    if not model["pretrained"] or starting_weights(job, weights):
        return None
    return f"no ImageNet weights of {model['backbone']} were at hand"


def training_command(job: Job, out: Path, start: str, budget: str) -> list[str]:
    places = ["--data", f"{out}/data", "--out", f"{out}/{job.recipe}", "--cache", f"{out}/cache/images"]
    command = ["python", "-m", "lesion_hub.training.train", "--recipe", job.recipe, *places]
    return [*command, "--set", *settings(job, budget, start)]


def ensemble_commands(job: Job, out: Path, budget: str) -> Iterator[tuple[list[str], Path | None]]:
    """Yield the commands that publish the members, combine them and measure the ensemble on their test part, each with the
    path whose existence says that it need not run again."""
    members, registry = job.members or {}, ["--registry", f"{out}/registry"]
    for name in members:
        published = ["lesion-hub", "publish", f"{out}/{name}", name, "--version", "1.0.0", "--notes", "A small-budget run."]
        yield [*published, *registry], out / "registry" / name / "v1.0.0"
    weights = ",".join(f"{weight:g}" for weight in members.values())
    combined = ["lesion-hub", "ensemble", "create", *members, "--weights", weights, "--out", f"{out}/{job.recipe}"]
    yield [*combined, *registry], out / job.recipe / "ensemble.json"
    data = ["--data", f"{out}/data/{'clinical6' if job.data is CLINICAL6 else 'isic2017'}"]
    if job.data is ISIC_BINARY and budget == "small":
        data = ["--data", f"{out}/data/isic2017_subset", "--images", f"{out}/data/isic2017"]
    measured = ["lesion-hub", "evaluate", "--model", f"{out}/{job.recipe}", *data]
    yield [*measured, "--out", f"{out}/{job.recipe}_evaluation", *registry], None


def shown_command(job: Job, weights: Path | None, budget: str) -> str:
    """Return the command as a reader types it, with the same folder names wherever it ran."""
    out, start = Path("runs/five"), starting_weights(job, weights) if not job.members else ""
    if job.members:
        return " && ".join(shlex.join(command) for command, _ in ensemble_commands(job, out, budget))
    shown_start = f"weights/{Path(start).name}" if start.endswith(".safetensors") else start
    return shlex.join(training_command(job, out, shown_start, budget))


def run(command: Sequence[str]) -> None:
    """Run a command that begins with ``python`` or ``lesion-hub`` with this interpreter and this checkout."""
    program = ["-c", "from lesion_hub.cli import main; main()"] if command[0] == "lesion-hub" else []
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    subprocess.run([sys.executable, *program, *command[1:]], check=True, env=environment)


def run_all(options: argparse.Namespace) -> None:
    """Run every job that has no result in OUT yet, in turn; the results file is written anew after each."""
    prepare_data(options.data, options.out / "data")
    finished = options.out / f"results_{options.budget}.json"
    done = {entry["recipe"]: entry for entry in json.loads(finished.read_text())} if finished.is_file() else {}
    not_run: dict[str, dict[str, Any]] = {}
    for job in JOBS:
        if job.recipe in done:
            continue
        reason = why_not_run(job, options.weights, options.budget)
        if reason is not None:
            not_run[job.recipe] = {"recipe": job.recipe, "project": job.project, "budget": options.budget, "not_run": reason}
            continue
        if options.only and job.recipe not in options.only:
            continue
        print(f"== {job.recipe}", flush=True)
        if job.members:
            steps = ensemble_commands(job, options.out, options.budget)
            commands = [command for command, made in steps if not (made and made.exists())]
        else:
            start = starting_weights(job, options.weights)
            commands = [training_command(job, options.out, start, options.budget)]
        # An interrupted run's earlier seconds are kept beside it, so that the sum is that of the whole run.
        spent_file = options.out / f"{job.recipe}.seconds"
        earlier, before = float(spent_file.read_text()) if spent_file.is_file() else 0.0, processor_time()
        try:
            for command in commands:
                run(command)
        except subprocess.CalledProcessError as error:
            print(f"{job.recipe} failed with status {error.returncode}; run again to go on", file=sys.stderr)
            continue
        finally:
            spent = earlier + processor_time() - before
            spent_file.write_text(f"{spent:.1f}")
        done[job.recipe] = result_of(job, options.out, options.weights, options.budget, spent)
        finished.write_text(json.dumps(list(done.values()), indent=1) + "\n")
    entries = {**done, **not_run}
    options.results.write_text(json.dumps([entries[job.recipe] for job in JOBS if job.recipe in entries], indent=1) + "\n")
    missing = [job.recipe for job in JOBS if job.recipe not in entries and not options.only]
    if missing:
        sys.exit(f"not finished: {', '.join(missing)}")


def processor_time() -> float:
    """Return the seconds that the commands so far have computed."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def prepare_data(data: Path, out: Path) -> None:
    """Fill OUT/data: links to the sets of DATA, subsets of their tables, and the synthetic clinical set."""
    out.mkdir(parents=True, exist_ok=True)
    for name in ("ham10000", "isic2017", "isic2019"):
        if not (data / name).is_dir():
            sys.exit(f"{data / name}: no such folder; docs/data.md says what it holds and where to get it")
        if not (out / name).exists():
            (out / name).symlink_to((data / name).resolve())
    ham = pd.read_csv(out / "ham10000" / "HAM10000_metadata.csv")
    lesions = ham["lesion_id"].drop_duplicates().sample(frac=1, random_state=0)
    chosen = set(ham.set_index("lesion_id").loc[lesions, "image_id"].iloc[:SUBSET])
    truth = "ISIC-2017_Training_Part3_GroundTruth.csv"
    test = set(pd.read_csv(out / "isic2017" / truth)["image_id"].sample(OFFICIAL_TEST, random_state=0))
    for name, table, column, kept in (
        ("ham10000", "HAM10000_metadata.csv", "image_id", chosen),
        ("isic2019", "ISIC_2019_Training_GroundTruth.csv", "image", chosen),
        ("isic2019", "ISIC_2019_Training_Metadata.csv", "image", chosen),
        ("isic2017", truth, "image_id", test),
    ):
        subset = out / f"{name}_subset" / table
        subset.parent.mkdir(exist_ok=True)
        if not subset.exists():
            rows = pd.read_csv(out / name / table, dtype=str)
            rows[rows[column].isin(kept)].to_csv(subset, index=False)
    if not (out / "clinical6").is_dir():
        sample = ("data", "sample", out / "clinical6", "--classes", 6, "--count", 600, "--size", 96, "--seed", 7)
        run(["lesion-hub", *map(str, sample)])


def result_of(job: Job, out: Path, weights: Path | None, budget: str, seconds: float) -> dict[str, Any]:
    """Return the entry of a finished job in the results file."""
    folder = out / (f"{job.recipe}_evaluation" if job.members else job.recipe)
    metrics = json.loads((folder / "metrics.json").read_text())
    facts: dict[str, Any] = {"recipe": job.recipe, "project": job.project, "budget": budget}
    facts |= {"data": job.data.title_at(budget), "synthetic": job.data is CLINICAL6}
    if not job.members:
        recipe = metrics["training"]["recipe"]
        counts = json.loads((folder / "split.json").read_text())["counts"]
        drawn = recipe["data"]["draw"]
        facts |= {
            "training_images": sum(counts["train"].values()),
            "drawn_per_class": drawn and drawn["per_class"],
            "image_size": recipe["model"]["image_size"],
            "epochs": metrics["training"]["epochs"],
            "start": "ImageNet" if recipe["model"]["pretrained"] else "random",
        }
    facts |= {"test_images": metrics["test"]["data"]["images"]}
    facts |= {"test": {name: metrics["test"]["intervals"][name] for name in MEASURES}}
    return {**facts, "cpu_seconds": round(seconds), "command": shown_command(job, weights, budget)}


# ------------------------------------------------------------------------------------------------ the table


def write_table(results: Path, page: Path) -> None:
    """Put the table of the results between the page's markers."""
    before, begin, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        sys.exit(f"{page}: the lines {BEGIN!r} and {END!r} are missing; put them where the table belongs")
    table = results_table(json.loads(results.read_text(encoding="utf-8")))
    page.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}", encoding="utf-8")


def results_table(results: Sequence[dict[str, Any]]) -> str:
    """The results as Markdown: a table, then the commands.

    >>> print(results_table([]).splitlines()[0])
    | recipe | data | images: training / test | px | epochs | start | accuracy | balanced accuracy | AUROC | CPU s |
    """
    header = ["recipe", "data", "images: training / test", "px", "epochs", "start", *MEASURES.values(), "CPU s"]
    order = {job.recipe: place for place, job in enumerate(JOBS)}
    entries = sorted(results, key=lambda entry: (entry["project"], order[entry["recipe"]]))
    rows = [header, ["---"] * len(header)]
    for entry in entries:
        if "not_run" in entry:
            rows.append([f"`{entry['recipe']}`", f"not run: {entry['not_run']}", *["-"] * (len(header) - 2)])
            continue
        training, network = "-", ["-", "-", "its members"]
        if "training_images" in entry:
            drawn = entry["drawn_per_class"]
            training = f"{entry['training_images']:,}" + (f" ({drawn} drawn per class)" if drawn else "")
            network = [str(entry["image_size"]), str(entry["epochs"]), entry["start"]]
        data = f"**{entry['data']}**" if entry["synthetic"] else entry["data"]
        scores = [
            "not defined"
            if found["value"] is None or found["low"] is None
            else f"{found['value']:.3f} ({found['low']:.3f}–{found['high']:.3f})"
            for found in entry["test"].values()
        ]
        images = f"{training} / {entry['test_images']:,}"
        rows.append([f"`{entry['recipe']}`", data, images, *network, *scores, f"{entry['cpu_seconds']:,}"])
    lines = [f"| {' | '.join(row)} |" for row in rows]
    commands = [entry["command"] for entry in entries if "command" in entry]
    block = ["<!-- not run: takes many minutes -->", "```bash", *commands, "```"]
    return "\n".join([*lines, "", "<details><summary>The commands</summary>", "", *block, "", "</details>"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder that holds ham10000/, isic2017/ and isic2019/")
    parser.add_argument("--out", type=Path, default=Path("runs/five"), help="folder of the runs (default: runs/five)")
    parser.add_argument("--weights", type=Path, help="folder of ImageNet weights, BACKBONE.safetensors")
    parser.add_argument("--budget", choices=("small", "full"), default="small")
    parser.add_argument("--only", nargs="+", metavar="RECIPE", help="run these alone")
    parser.add_argument("--results", type=Path, default=RESULTS, help="file of results (default: docs/five_projects.json)")
    parser.add_argument("--page", type=Path, default=PAGE, help="page that holds the table (default: docs/five-projects.md)")
    parser.add_argument("--dry-run", action="store_true", help="print the commands and stop")
    parser.add_argument("--table", action="store_true", help="write the table of --results into --page and stop")
    options = parser.parse_args()
    if options.dry_run:
        for job in (job for job in JOBS if why_not_run(job, options.weights, options.budget) is None):
            print(f"{shown_command(job, options.weights, options.budget)}\n")
    elif options.table:
        write_table(options.results, options.page)
    elif options.data is None:
        sys.exit("--data is missing; name the folder that holds ham10000/, isic2017/ and isic2019/")
    else:
        run_all(options)


if __name__ == "__main__":
    main()
