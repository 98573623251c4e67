"""Write the README's table of results from the published metrics and the files that make.sh left here.

python model_cards/ham10000-trio/results.py            # print it
python model_cards/ham10000-trio/results.py --write    # put it into README.md
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from lesion_hub.files import read_json

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
README = ROOT / "README.md"
BEGIN, END = "<!-- results: model_cards/ham10000-trio/results.py -->", "<!-- end of results -->"

BASELINE_PIXELS = "200 × 150 pixels"
"""Size of the test images when the baseline was measured; for the published models they are 320 × 240."""

MODELS = {
    f"plain ImageNet fine-tune, cross-entropy (EfficientNet-lite0), at {BASELINE_PIXELS}": HERE / "plain.json",
    "`ham10000-mobilenetv2`": ROOT / "registry/ham10000-mobilenetv2/v1.2.0/metrics.json",
    "`ham10000-lite0`": ROOT / "registry/ham10000-lite0/v1.2.0/metrics.json",
    "`ham10000-lite2`": ROOT / "registry/ham10000-lite2/v1.2.0/metrics.json",
    "**`ham10000-trio`**, the ensemble": ROOT / "registry/ham10000-trio/v1.2.0/metrics.json",
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


def results_section() -> str:
    """Return the README's section: each model's measures on the test part and the ensemble's gains, with 95 % intervals."""
    lines = ["| model | " + " | ".join(COLUMNS) + " |", "|---|" + "---|" * len(COLUMNS)]
    for title, path in MODELS.items():
        intervals = read_json(path)["test"]["intervals"]
        lines.append(f"| {title} | " + " | ".join(with_interval(intervals[key]) for key in COLUMNS.values()) + " |")
    compared = read_json(HERE / "comparison_with_plain.json")
    titles = {key: title for title, key in COLUMNS.items()}
    gains = ", ".join(f"{titles[key]} {with_interval(compared['differences'][key], sign='+')}" for key in DIFFERENCES)
    images = f"{compared['images']:,} test images of {compared['groups']:,} lesions"
    lines += ["", f"The ensemble less the plain fine-tune, both at {BASELINE_PIXELS}, paired over the same {images}: {gains}."]
    return "\n".join([BEGIN, *lines, END])


def with_interval(interval: dict[str, Any], sign: str = "") -> str:
    """Return a value and its limits with three decimals and no leading zero."""
    value, low, high = (format(interval[key], f"{sign}.3f").replace("0.", ".", 1) for key in ("value", "low", "high"))
    return f"{value} ({low} to {high})"


def main() -> None:
    if "--write" not in sys.argv[1:]:
        sys.stdout.write(results_section() + "\n")
        return
    before, rest = README.read_text(encoding="utf-8").split(BEGIN)
    README.write_text(before + results_section() + rest.split(END)[1], encoding="utf-8")


if __name__ == "__main__":
    main()
