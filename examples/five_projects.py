"""Run the recipes of five published projects on the data at hand, at a small budget, and tabulate what came out.

    python examples/five_projects.py --data DATA --out runs/five --budget small      # run, or go on where it stopped
    python examples/five_projects.py --table                                         # docs/five_projects.json -> the page

DATA holds ham10000/, isic2017/ and isic2019/ as docs/data.md lays them out; the table says which stand-in each recipe ran
on. ``--weights FOLDER`` holds ImageNet weights as BACKBONE.safetensors; a network without a file there starts from random
weights. ``--budget full`` leaves image size, epochs and the number of images to the recipe. ``--dry-run`` prints the commands.
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
    """A data set below OUT/data: what the table calls it, and how a recipe is told of it."""

    title: str
    settings: tuple[str, ...] = ()
    whole: tuple[str, ...] = ()

    def of(self, budget: str) -> tuple[str, ...]:
        """Settings at a budget; ``whole`` takes the place of the subset's where all images may be used."""
        return self.settings if budget == "small" or not self.whole else self.whole


_HAM = ("data.train.layout=ham10000", "data.train.name=HAM10000")
_HAM_SUBSET = ("data.train.folder=ham10000_subset", "data.train.images=[ham10000]")
_ISIC8 = ("data.train.images=[ham10000]", "data.train.allow_missing=true")
_HELD_OUT = ("data.split.kind=grouped", "data.split.test=0.2")

DATA = {
    "ham": StandIn("HAM10000"),
    "ham subset": StandIn(f"HAM10000, {SUBSET:,} images by whole lesions", _HAM_SUBSET, ("data.train.folder=ham10000",)),
    "isic8": StandIn("HAM10000's part of ISIC 2019, its 8 labels", _ISIC8),
    "isic8 subset": StandIn(
        f"HAM10000's part of ISIC 2019, its 8 labels, {SUBSET:,} images by whole lesions",
        ("data.train.folder=isic2019_subset", "data.train.images=[ham10000]"),
        _ISIC8,
    ),
    "isic binary": StandIn(
        f"HAM10000 as benign / malignant, {SUBSET:,} images by whole lesions; "
        f"test: {OFFICIAL_TEST} training images of ISIC 2017",
        (*_HAM, *_HAM_SUBSET, "data.test.folder=isic2017_subset", "data.test.part=null", "data.test.images=[isic2017]"),
        (*_HAM, "data.train.folder=ham10000", "data.test.part=null"),
    ),
    "melanoma": StandIn(
        f"HAM10000 as benign / malignant, {SUBSET:,} images by whole lesions",
        (*_HAM, *_HAM_SUBSET, *_HELD_OUT),
        (*_HAM, "data.train.folder=ham10000", *_HELD_OUT),
    ),
    "clinical6": StandIn(
        "synthetic pictures, 6 classes",
        ("data.train.folder=clinical6", "data.train.name=synthetic", "data.train.license=cc0-1.0"),
    ),
}


@dataclass(frozen=True)
class Job:
    """One recipe at the small budget. ``extra`` are further settings; ``members`` make it an ensemble of finished jobs."""

    recipe: str
    project: str
    data: str
    epochs: int = 1
    size: int = 64
    extra: tuple[str, ...] = ()
    members: tuple[str, ...] = ()
    weights: tuple[float, ...] = ()


_SHORT = ("phases.0.epochs=1",)
_BINARY_DRAW = ("data.draw.per_class=300",)
_CLINICAL = ("data.draw.per_class=100", *_SHORT)
_BINARY = ("alexnet", "inception_v3", "resnet50", "densenet121", "efficientnet_b0")
_TRIO = ("mobilenetv2", "efficientnet_b1", "resnet50")

JOBS = (
    Job("clinical6_mobilenetv2", "clinical six", "clinical6", 4, 96, _CLINICAL),
    Job("clinical6_efficientnet_b1", "clinical six", "clinical6", 4, 96, _CLINICAL),
    Job("clinical6_resnet50", "clinical six", "clinical6", 3, 96, _CLINICAL),
    Job(
        "clinical6_ensemble",
        "clinical six",
        "clinical6",
        members=tuple(f"clinical6_{name}" for name in _TRIO),
        weights=(0.3, 0.3, 0.4),
    ),
    Job("melanoma10k_mobilenetv2", "Kaggle melanoma", "melanoma", 3),
    Job("melanoma10k_efficientnet_b0", "Kaggle melanoma", "melanoma", 2),
    Job("melanoma10k_resnet34", "Kaggle melanoma", "melanoma", 2),
    Job("isic_binary_alexnet", "ISIC benign / malignant", "isic binary", 3, 64, _BINARY_DRAW),
    Job("isic_binary_resnet50", "ISIC benign / malignant", "isic binary", 2, 64, _BINARY_DRAW),
    Job("isic_binary_efficientnet_b0", "ISIC benign / malignant", "isic binary", 2, 64, _BINARY_DRAW),
    Job("isic_binary_densenet121", "ISIC benign / malignant", "isic binary", 1, 64, _BINARY_DRAW),
    Job("isic_binary_inception_v3", "ISIC benign / malignant", "isic binary", 1, 80, _BINARY_DRAW),
    Job(
        "isic_binary_ensemble",
        "ISIC benign / malignant",
        "isic binary",
        members=tuple(f"isic_binary_{name}" for name in _BINARY),
        weights=(0.2,) * 5,
    ),
    Job("ham10000_focal_cnn", "HAM10000", "ham", 4, 64),
    Job("isic2019_custom_cnn", "ISIC 2019", "isic8", 4, 64),
    Job("ham10000_efficientnet_b4", "HAM10000", "ham subset", 1, 64, ("batch_size=16",)),
    Job("isic2019_efficientnet_b5", "ISIC 2019", "isic8 subset", 2, 64, _SHORT),
    Job("ham10000_efficientnet_b7", "HAM10000", "ham subset", 1, 64, ("accumulation=2",)),
    Job("melanoma10k_resnext101", "Kaggle melanoma", "melanoma", 1, 64),
)


# ------------------------------------------------------------------------------------------------ the data


def prepare_data(data: Path, out: Path) -> None:
    """OUT/data: links to the sets of DATA, subsets of their tables, and the synthetic clinical set."""
    out.mkdir(parents=True, exist_ok=True)
    for name in ("ham10000", "isic2017", "isic2019"):
        if not (data / name).is_dir():
            sys.exit(f"{data / name}: no such folder; docs/data.md says what it holds and where to get it")
        if not (out / name).exists():
            (out / name).symlink_to((data / name).resolve())
    ham = pd.read_csv(out / "ham10000" / "HAM10000_metadata.csv")
    lesions = ham["lesion_id"].drop_duplicates().sample(frac=1, random_state=0)
    order = ham.set_index("lesion_id").loc[lesions, "image_id"]
    chosen = set(order.iloc[:SUBSET])
    take_rows(out / "ham10000" / "HAM10000_metadata.csv", out / "ham10000_subset", "image_id", chosen)
    for part in ("GroundTruth", "Metadata"):
        take_rows(out / "isic2019" / f"ISIC_2019_Training_{part}.csv", out / "isic2019_subset", "image", chosen)
    truth = out / "isic2017" / "ISIC-2017_Training_Part3_GroundTruth.csv"
    test = set(pd.read_csv(truth)["image_id"].sample(OFFICIAL_TEST, random_state=0))
    take_rows(truth, out / "isic2017_subset", "image_id", test)
    if not (out / "clinical6").is_dir():
        sample = ("data", "sample", out / "clinical6", "--classes", 6, "--count", 600, "--size", 96, "--seed", 7)
        subprocess.run([*lesion_hub(), *map(str, sample)], check=True)


def take_rows(table: Path, folder: Path, column: str, chosen: set[str]) -> None:
    """The rows of a csv whose ``column`` is among ``chosen``, under the same file name in ``folder``."""
    folder.mkdir(exist_ok=True)
    if not (folder / table.name).exists():
        rows = pd.read_csv(table, dtype=str)
        rows[rows[column].isin(chosen)].to_csv(folder / table.name, index=False)


# ------------------------------------------------------------------------------------------------ the runs


def lesion_hub() -> list[str]:
    return [sys.executable, "-c", "from lesion_hub.cli import main; main()"]


def settings(job: Job, budget: str, start: str) -> list[str]:
    """What ``--set`` is given: the stand-in data, and at the small budget fewer and smaller images and epochs."""
    found = list(DATA[job.data].of(budget))
    if budget == "small":
        found += [f"epochs={job.epochs}", f"model.image_size={job.size}", *job.extra]
    return [*found, *([f"model.pretrained={start}"] if start else [])]


def starting_weights(job: Job, weights: Path | None) -> Path | None:
    """The ImageNet file of the job's backbone, where there is one and the recipe wants it."""
    model = yaml.safe_load((ROOT / "training" / "recipes" / f"{job.recipe}.yaml").read_text())["model"]
    path = weights / f"{model['backbone']}.safetensors" if weights else None
    return path if path and path.is_file() and model["pretrained"] else None


def training_command(job: Job, out: Path, weights: Path | None, budget: str) -> list[str]:
    """The arguments of ``python`` that train the job."""
    file = starting_weights(job, weights)
    start = str(file) if file else "" if budget == "full" else "false"
    places = ["--data", f"{out}/data", "--out", f"{out}/{job.recipe}", "--cache", f"{out}/cache/images"]
    return ["-m", "training.train", "--recipe", job.recipe, *places, "--set", *settings(job, budget, start)]


def ensemble_commands(job: Job, out: Path) -> Iterator[list[str]]:
    """The arguments of ``lesion-hub`` that publish the members, combine them and measure the ensemble on their test part."""
    registry = ["--registry", f"{out}/registry"]
    for name in job.members:
        if not (out / "registry" / name / "v1.0.0").is_dir():
            yield ["publish", f"{out}/{name}", name, "--version", "1.0.0", "--notes", "A small-budget run.", *registry]
    if not (out / job.recipe / "ensemble.json").is_file():
        weights = ",".join(f"{weight:g}" for weight in job.weights)
        yield ["ensemble", "create", *job.members, "--weights", weights, "--out", f"{out}/{job.recipe}", *registry]
    data = ["--data", f"{out}/data/isic2017_subset", "--images", f"{out}/data/isic2017"]
    if job.data == "clinical6":
        data = ["--data", f"{out}/data/clinical6"]
    yield ["evaluate", "--model", f"{out}/{job.recipe}", *data, "--out", f"{out}/{job.recipe}_evaluation", *registry]


def run(job: Job, out: Path, weights: Path | None, budget: str) -> float:
    """Run what the job still lacks; returns the processor seconds that it took."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    if job.members:
        commands = [[*lesion_hub(), *arguments] for arguments in ensemble_commands(job, out)]
    else:
        commands = [[sys.executable, *training_command(job, out, weights, budget)]]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for command in commands:
        subprocess.run(command, check=True, cwd=Path.cwd(), env=environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def shown_command(job: Job, weights: Path | None, budget: str) -> str:
    """The command as a reader types it, whatever the folders were called when it ran."""
    out = Path("runs/five")
    if job.members:
        return " && ".join(f"lesion-hub {shlex.join(arguments)}" for arguments in ensemble_commands(job, out))
    arguments = training_command(job, out, weights, budget)
    shown = [a.replace(str(weights), "weights") if weights else a for a in arguments]
    return f"python {shlex.join(shown)}"


def record(job: Job, out: Path, weights: Path | None, budget: str, seconds: float) -> dict[str, Any]:
    """What the results file says of a finished job."""
    folder = out / (f"{job.recipe}_evaluation" if job.members else job.recipe)
    metrics = json.loads((folder / "metrics.json").read_text())
    facts: dict[str, Any] = {"recipe": job.recipe, "project": job.project, "budget": budget}
    facts |= {"data": DATA[job.data].title, "synthetic": job.data == "clinical6"}
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


def run_all(options: argparse.Namespace) -> None:
    """Every job that the ledger does not hold yet, in turn; the results file is written anew after each."""
    prepare_data(options.data, options.out / "data")
    ledger = options.out / f"results_{options.budget}.json"
    done = {entry["recipe"]: entry for entry in json.loads(ledger.read_text())} if ledger.is_file() else {}
    for job in JOBS:
        if job.recipe in done or (options.only and job.recipe not in options.only):
            continue
        print(f"== {job.recipe}", flush=True)
        # An interrupted run's earlier seconds are kept beside it, so that the sum is that of the whole run.
        spent_file = options.out / f"{job.recipe}.seconds"
        spent = float(spent_file.read_text()) if spent_file.is_file() else 0.0
        try:
            spent += run(job, options.out, options.weights, options.budget)
        except subprocess.CalledProcessError as error:
            print(f"{job.recipe} failed with status {error.returncode}; run again to go on", file=sys.stderr)
            continue
        spent_file.write_text(f"{spent:.1f}")
        done[job.recipe] = record(job, options.out, options.weights, options.budget, spent)
        ledger.write_text(json.dumps(list(done.values()), indent=1) + "\n")
        options.results.write_text(ledger.read_text())
    missing = [job.recipe for job in JOBS if job.recipe not in done and not options.only]
    if missing:
        sys.exit(f"not finished: {', '.join(missing)}")


# ------------------------------------------------------------------------------------------------ the table


def rendered(results: Sequence[dict[str, Any]]) -> str:
    """The results as Markdown: a table, then the commands.

    >>> print(rendered([]).splitlines()[0])
    | recipe | data | images: training / test | px | epochs | start | accuracy | balanced accuracy | AUROC | CPU s |
    """
    header = ["recipe", "data", "images: training / test", "px", "epochs", "start", *MEASURES.values(), "CPU s"]
    lines = [_row(header), _row(["---"] * len(header))]
    order = {job.recipe: place for place, job in enumerate(JOBS)}
    entries = sorted(results, key=lambda entry: (entry["project"], order[entry["recipe"]]))
    lines += [_row(_cells(entry)) for entry in entries]
    block = ["<!-- not run: takes many minutes -->", "```bash", *(entry["command"] for entry in entries), "```"]
    return "\n".join([*lines, "", "<details><summary>The commands</summary>", "", *block, "", "</details>"])


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cells(entry: dict[str, Any]) -> list[str]:
    data = f"**{entry['data']}**" if entry["synthetic"] else entry["data"]
    if "training_images" in entry:
        drawn = entry["drawn_per_class"]
        training = f"{entry['training_images']:,}" + (f" ({drawn} drawn per class)" if drawn else "")
        network = [str(entry["image_size"]), str(entry["epochs"]), entry["start"]]
    else:
        training, network = "-", ["-", "-", "its members"]
    about = [f"`{entry['recipe']}`", data, f"{training} / {entry['test_images']:,}", *network]
    return [*about, *map(_interval, entry["test"].values()), f"{entry['cpu_seconds']:,}"]


def _interval(found: dict[str, Any]) -> str:
    if found["value"] is None or found["low"] is None:
        return "not defined"
    return f"{found['value']:.3f} ({found['low']:.3f}–{found['high']:.3f})"


def write_table(results: Path, page: Path) -> None:
    """Put the rendered results between the page's markers."""
    before, begin, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        sys.exit(f"{page}: the lines {BEGIN!r} and {END!r} are missing; put them where the table belongs")
    table = rendered(json.loads(results.read_text(encoding="utf-8")))
    page.write_text(f"{before}{BEGIN}\n{table}\n{END}{after}", encoding="utf-8")


def parsed() -> argparse.Namespace:
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
    return parser.parse_args()


def main() -> None:
    options = parsed()
    if options.dry_run:
        for job in JOBS:
            print(f"{shown_command(job, options.weights, options.budget)}\n")
    elif options.table:
        write_table(options.results, options.page)
    elif options.data is None:
        sys.exit("--data is missing; name the folder that holds ham10000/, isic2017/ and isic2019/")
    else:
        run_all(options)


if __name__ == "__main__":
    main()
