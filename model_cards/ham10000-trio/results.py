"""The README's table of results, from the published metrics and the comparisons that make.sh left here.

python model_cards/ham10000-trio/results.py            # print it
python model_cards/ham10000-trio/results.py --write    # put it into README.md
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
README = ROOT / "README.md"
BEGIN, END = "<!-- results: model_cards/ham10000-trio/results.py -->", "<!-- end of results -->"

MODELS = {
    "plain ImageNet fine-tune, cross-entropy (EfficientNet-lite0)": HERE / "plain.json",
    "`ham10000-mobilenetv2`": ROOT / "registry/ham10000-mobilenetv2/v1.0.0/metrics.json",
    "`ham10000-lite0`": ROOT / "registry/ham10000-lite0/v1.0.0/metrics.json",
    "`ham10000-lite2`": ROOT / "registry/ham10000-lite2/v1.0.0/metrics.json",
    "**`ham10000-trio`**, the ensemble": ROOT / "registry/ham10000-trio/v1.0.0/metrics.json",
}
COLUMNS = {
    "balanced accuracy": "balanced_accuracy",
    "accuracy": "accuracy",
    "macro AUROC": "macro_auroc",
    "malignancy AUROC": "malignancy.auroc",
    "melanoma sensitivity": "per_class.mel.sensitivity",
    "ECE": "ece",
}
DIFFERENCES = ("balanced_accuracy", "macro_auroc", "malignancy.auroc")


def results_table() -> str:
    """Every model's numbers on the test part, each with its 95 % interval."""
    lines = ["| model | " + " | ".join(COLUMNS) + " |", "|---|" + "---|" * len(COLUMNS)]
    for title, path in MODELS.items():
        intervals = _read(path)["test"]["intervals"]
        lines.append(f"| {title} | " + " | ".join(_shown(intervals[key]) for key in COLUMNS.values()) + " |")
    return "\n".join(lines)


def difference_line() -> str:
    """How far the ensemble lies above the plain fine-tune, on the same images."""
    found = _read(HERE / "comparison_with_plain.json")
    names = {key: title for title, key in COLUMNS.items()}
    told = ", ".join(f"{names[key]} {_shown(found['differences'][key], sign='+')}" for key in DIFFERENCES)
    over = f"{found['images']:,} test images of {found['groups']:,} lesions"
    return f"The ensemble less the plain fine-tune, paired over the same {over}: {told}."


def rendered() -> str:
    return f"{BEGIN}\n{results_table()}\n\n{difference_line()}\n{END}"


def _shown(interval: dict[str, Any], sign: str = "") -> str:
    value, low, high = (_number(interval[key], sign) for key in ("value", "low", "high"))
    return f"{value} ({low} to {high})"


def _number(value: float, sign: str) -> str:
    return format(value, f"{sign}.3f").replace("0.", ".", 1)


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding="utf-8"))


def main() -> None:
    if "--write" not in sys.argv[1:]:
        sys.stdout.write(rendered() + "\n")
        return
    text = README.read_text(encoding="utf-8")
    before, rest = text.split(BEGIN)
    README.write_text(before + rendered() + rest.split(END)[1], encoding="utf-8")


if __name__ == "__main__":
    main()
