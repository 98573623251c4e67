"""Write the tables of results from the published metrics and the records that make.sh and ablation.sh left here.

python model_cards/dermoscopy-trio/results.py            # print them
python model_cards/dermoscopy-trio/results.py --write    # put them into README.md and model_cards/README.md
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lesion_hub.files import read_json

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
VERSION = "v2.0.0"
RECORDS, ABLATION = read_json(HERE / "records.json"), read_json(HERE / "ablation.json")
MEMBERS = ("mobilenetv2", "lite0", "lite2")

COLUMNS = {
    "balanced accuracy": "balanced_accuracy",
    "accuracy": "accuracy",
    "macro AUROC": "macro_auroc",
    "malignancy AUROC": "malignancy.auroc",
    "melanoma sensitivity": "per_class.mel.sensitivity",
    "ECE": "ece",
}
TITLES = {key: title for title, key in COLUMNS.items()}
STEP_COLUMNS = {name: COLUMNS[name] for name in ("balanced accuracy", "accuracy", "macro AUROC", "malignancy AUROC", "ECE")}
SECOND_COLUMNS = {name: COLUMNS[name] for name in ("malignancy AUROC", "balanced accuracy", "ECE")}
DIFFERENCES = ("balanced_accuracy", "macro_auroc", "malignancy.auroc")
STAGES = {
    "ham10000-{}": "144 px, HAM10000",
    "{}_without_isic2017": "192 px, HAM10000",
    "dermoscopy-{}": "192 px, HAM10000 and ISIC 2017",
}
WITHOUT_SOURCE = "lite0_without_isic2017"
CHANGES = {
    "nothing": "nothing",
    "144_pixels": "144 pixels",
    "weighted_draw": "all classes drawn equally often, in place of the logit-adjusted loss",
    "colours": "colours varied twice as much",
    "no_average": "no moving average",
}


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows))


def with_interval(interval: Mapping[str, Any], sign: str = "") -> str:
    """Return a value and its limits with three decimals and no leading zero."""
    value, low, high = (format(interval[key], f"{sign}.3f").replace("0.", ".", 1) for key in ("value", "low", "high"))
    return f"{value} ({low} to {high})"


def results() -> str:
    """Return each model's measures on the test part and the ensemble's gains, with 95 % intervals."""
    published = {name: ROOT / f"registry/dermoscopy-{name}/{VERSION}/metrics.json" for name in (*MEMBERS, "trio")}
    found = {name: read_json(path)["test"]["intervals"] for name, path in published.items()}
    models = {
        "plain ImageNet fine-tune, cross-entropy (EfficientNet-lite0), recipe `ham10000_plain`": ABLATION["test"]["plain"],
        "linear probe of ImageNet features (EfficientNet-lite0), recipe `probe`": RECORDS["probe"],
        "`ham10000-trio`, the ensemble of version 1": RECORDS["first_trio"],
        **{f"`dermoscopy-{name}`": found[name] for name in MEMBERS},
        "**`dermoscopy-trio`**, the ensemble": found["trio"],
    }
    rows = [[title, *(with_interval(intervals[key]) for key in COLUMNS.values())] for title, intervals in models.items()]
    first = RECORDS["comparison"]["ham10000-trio"]
    over_plain = {name: gains(ABLATION["comparison"][f"plain_{name}"]) for name in ("trio", "lite0")}
    images = f"{first['images']:,} test images of {first['groups']:,} lesions"
    return "\n".join(
        [
            table(["model", *COLUMNS], rows),
            "",
            f"Paired over the same {images}, the ensemble less that of version 1: {gains(first)}. Less the plain fine-tune: "
            f"the ensemble {over_plain['trio']}; `dermoscopy-lite0`, a network of the same size, {over_plain['lite0']}.",
        ]
    )


def gains(comparison: Mapping[str, Any]) -> str:
    return ", ".join(f"{TITLES[key]} {with_interval(comparison['differences'][key], sign='+')}" for key in DIFFERENCES)


def stages() -> str:
    """Return what each stage of the training gave on the validation part of HAM10000, and of the second its second source."""
    source = ABLATION["comparison"][WITHOUT_SOURCE]
    gained = f"Paired over the same images, lite0 with ISIC 2017 less lite0 without it: {gains(source)}."
    return "\n".join([by_stage("validation", STEP_COLUMNS), "", gained])


def second_source() -> str:
    """Return what each stage gave on the part of ISIC 2017 that none has seen."""
    return by_stage("second_source", SECOND_COLUMNS)


def by_stage(part: str, columns: Mapping[str, str]) -> str:
    """Return a row of a part's measures for each model of each stage in which it was trained."""
    runs = {**RECORDS[part], **ABLATION[part]}
    rows = [
        [name, stage, *(with_interval(runs[run.format(name)][key]) for key in columns.values())]
        for name in (*MEMBERS, "trio")
        for run, stage in STAGES.items()
        if run.format(name) in runs
    ]
    return table(["model", "trained at, on", *columns], rows)


def elsewhere() -> str:
    """Return what those that have not seen ISIC 2017 are worth on all of its images."""
    models = {f"`ham10000-{name}`": RECORDS["elsewhere"][f"ham10000-{name}"] for name in (*MEMBERS, "trio")}
    models["lite0 as shipped, but for ISIC 2017"] = ABLATION["elsewhere"][WITHOUT_SOURCE]
    rows = [[title, *(with_interval(found[key]) for key in SECOND_COLUMNS.values())] for title, found in models.items()]
    return table(["model", *SECOND_COLUMNS], rows)


def changes() -> str:
    """Return what each choice of the second stage is worth: alone, paired with the run that changes nothing, and elsewhere."""
    header = ["changed", "balanced accuracy", *(f"{title}, difference" for title in map(TITLES.__getitem__, DIFFERENCES))]
    rows = []
    for name, title in CHANGES.items():
        differences = ABLATION["comparison"][name]["differences"] if name != "nothing" else {}
        rows.append(
            [
                title,
                with_interval(ABLATION["validation"][name]["balanced_accuracy"]),
                *(with_interval(differences[key], sign="+") if differences else "-" for key in DIFFERENCES),
                with_interval(ABLATION["second_source"][name]["malignancy.auroc"]),
            ]
        )
    return table([*header, "malignancy AUROC, ISIC 2017"], rows)


def training() -> str:
    """Return how long every run of the second stage took, and those beside it."""
    runs = {**RECORDS["training"], **ABLATION["training"]}
    rows = [
        [f"`{name}`", str(run["epochs"]), f"{run['minutes']:.0f}", f"{run['images_per_second']:.0f}"]
        for name, run in runs.items()
    ]
    return table(["run", "epochs", "minutes", "images/s at best"], rows)


SECTIONS = {
    ROOT / "README.md": {"results": results},
    ROOT / "model_cards" / "README.md": {
        "stages": stages,
        "second source": second_source,
        "elsewhere": elsewhere,
        "ablation": changes,
        "training": training,
    },
}


def with_sections(page: Path) -> str:
    """Return the page with its tables made anew, each between two comments that bear its name."""
    text = page.read_text(encoding="utf-8")
    for name, make in SECTIONS[page].items():
        begin, end = f"<!-- {name}: model_cards/dermoscopy-trio/results.py -->\n", f"\n<!-- end of {name} -->"
        before, rest = text.split(begin)
        text = before + begin + make() + end + rest.split(end, 1)[1]
    return text


def main() -> None:
    for page, sections in SECTIONS.items():
        if "--write" in sys.argv[1:]:
            page.write_text(with_sections(page), encoding="utf-8")
        else:
            sys.stdout.write("\n\n".join(make() for make in sections.values()) + "\n\n")


if __name__ == "__main__":
    main()
