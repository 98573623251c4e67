"""Write the tables of results from the published metrics and the records that make.sh left here.

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
MEMBERS = ("mobilenetv2", "lite0", "lite2")

BASELINE_PIXELS = "200 × 150 pixels"
"""Size of the test images when the baseline was measured; for the others they are 320 × 240."""

PLAIN = f"plain ImageNet fine-tune, cross-entropy (EfficientNet-lite0), at {BASELINE_PIXELS}"

COLUMNS = {
    "balanced accuracy": "balanced_accuracy",
    "accuracy": "accuracy",
    "macro AUROC": "macro_auroc",
    "malignancy AUROC": "malignancy.auroc",
    "melanoma sensitivity": "per_class.mel.sensitivity",
    "ECE": "ece",
}
STEP_COLUMNS = {name: COLUMNS[name] for name in ("balanced accuracy", "accuracy", "macro AUROC", "malignancy AUROC", "ECE")}
SECOND_COLUMNS = {name: COLUMNS[name] for name in ("malignancy AUROC", "balanced accuracy", "ECE")}
DIFFERENCES = ("balanced_accuracy", "macro_auroc", "malignancy.auroc")
STAGES = {"ham10000": "144 px, HAM10000", "dermoscopy": "192 px, HAM10000 and ISIC 2017"}


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, ["---"] * len(header), *rows))


def with_interval(interval: Mapping[str, Any], sign: str = "") -> str:
    """Return a value and its limits with three decimals and no leading zero."""
    value, low, high = (format(interval[key], f"{sign}.3f").replace("0.", ".", 1) for key in ("value", "low", "high"))
    return f"{value} ({low} to {high})"


def results() -> str:
    """Return each model's measures on the test part and the ensemble's gains, with 95 % intervals."""
    records = read_json(HERE / "records.json")
    published = {name: ROOT / f"registry/dermoscopy-{name}/{VERSION}/metrics.json" for name in (*MEMBERS, "trio")}
    found = {name: read_json(path)["test"]["intervals"] for name, path in published.items()}
    models = {
        PLAIN: read_json(HERE / "plain.json")["test"]["intervals"],
        "linear probe of ImageNet features (EfficientNet-lite0), recipe `probe`": records["probe"],
        "`ham10000-trio`, the ensemble of version 1": records["first_trio"],
        **{f"`dermoscopy-{name}`": found[name] for name in MEMBERS},
        "**`dermoscopy-trio`**, the ensemble": found["trio"],
    }
    rows = [[title, *(with_interval(intervals[key]) for key in COLUMNS.values())] for title, intervals in models.items()]
    plain, first = read_json(HERE / "comparison_with_plain.json"), records["comparison"]["ham10000-trio"]
    images = f"{first['images']:,} test images of {first['groups']:,} lesions"
    return "\n".join(
        [
            table(["model", *COLUMNS], rows),
            "",
            f"Paired over the same {images}, the ensemble less that of version 1: {gains(first)}. That of version 1 less the "
            f"plain fine-tune, both at {BASELINE_PIXELS}: {gains(plain)}.",
        ]
    )


def gains(comparison: Mapping[str, Any]) -> str:
    titles = {key: title for title, key in COLUMNS.items()}
    return ", ".join(f"{titles[key]} {with_interval(comparison['differences'][key], sign='+')}" for key in DIFFERENCES)


def stages() -> str:
    """Return what each stage of the training gave on the validation part of HAM10000."""
    return by_stage("validation", STEP_COLUMNS)


def second_source() -> str:
    """Return what each stage gave on the part of ISIC 2017 that neither has seen."""
    return by_stage("second_source", SECOND_COLUMNS)


def by_stage(part: str, columns: Mapping[str, str]) -> str:
    records = read_json(HERE / "records.json")[part]
    rows = [
        [name, stage, *(with_interval(records[f"{prefix}-{name}"][key]) for key in columns.values())]
        for name in (*MEMBERS, "trio")
        for prefix, stage in STAGES.items()
    ]
    return table(["model", "trained at, on", *columns], rows)


def elsewhere() -> str:
    """Return what those that have not seen ISIC 2017 are worth on all of its images."""
    records = read_json(HERE / "records.json")["elsewhere"]
    names = [f"ham10000-{name}" for name in (*MEMBERS, "trio")]
    rows = [[f"`{name}`", *(with_interval(records[name][key]) for key in SECOND_COLUMNS.values())] for name in names]
    return table(["model", *SECOND_COLUMNS], rows)


def training() -> str:
    """Return how long every run of the second stage took."""
    runs = read_json(HERE / "records.json")["training"]
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
