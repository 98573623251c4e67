"""Condense what make.sh or ablation.sh measured into one file, from which results.py makes its tables.

records.py make OUT RECORDS FIRST
records.py ablation OUT RECORDS
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lesion_hub.files import read_json, write_json
from lesion_hub.hub.layout import METRICS_NAME
from lesion_hub.hub.store import resolve

MEASURES = ("balanced_accuracy", "accuracy", "macro_auroc", "malignancy.auroc", "per_class.mel.sensitivity", "nll", "ece")
PARTS = ("validation", "second_source", "elsewhere")


def intervals(metrics: Path) -> dict[str, Any]:
    """Return the measures of the one part that an evaluation measured, with their intervals."""
    return chosen(next(part for part in read_json(metrics).values() if isinstance(part, dict) and "intervals" in part))


def chosen(section: dict[str, Any]) -> dict[str, Any]:
    return {name: section["intervals"][name] for name in MEASURES if name in section["intervals"]}


def trained(log: Path) -> dict[str, float]:
    """Return how long the epochs of a run took, and at how many images per second."""
    epochs = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    speeds = [epoch["images_per_second"] for epoch in epochs]
    return {"epochs": len(epochs), "minutes": sum(epoch["seconds"] for epoch in epochs) / 60, "images_per_second": max(speeds)}


def compared(path: Path) -> dict[str, Any]:
    """Return what a paired comparison found over all images."""
    whole = read_json(path)
    return {key: whole[key] for key in ("first", "second", "images", "groups", "differences", "mcnemar")}


def by_name(pattern: str, read: Callable[[Path], Any], out: Path) -> dict[str, Any]:
    """Return what ``read`` makes of each file that matches, by the name of its folder."""
    return {path.parent.name: read(path) for path in sorted(out.glob(pattern))}


def measured(out: Path) -> dict[str, Any]:
    """Return the measures of the parts that both scripts measure, and the paired comparisons."""
    parts = {part: by_name(f"{part}/*/metrics.json", intervals, out) for part in PARTS}
    return {**parts, "comparison": by_name("comparison/*/comparison.json", compared, out)}


def from_make(out: Path, first: str) -> dict[str, Any]:
    """Return what make.sh measured; ``first`` is the ensemble of the first stage."""
    return {
        **measured(out),
        "training": by_name("*_*/log.jsonl", trained, out),
        "probe": chosen(read_json(out / "probe" / METRICS_NAME)["test"]),
        "first_trio": chosen(read_json(resolve(first).folder / METRICS_NAME)["test"]),
    }


def from_ablation(out: Path) -> dict[str, Any]:
    """Return what ablation.sh measured."""
    return {
        **measured(out),
        "test": by_name("test/*/metrics.json", intervals, out),
        "training": by_name("runs/*/log.jsonl", trained, out),
    }


def main(script: str, out: Path, records: Path, *first: str) -> None:
    records.mkdir(parents=True, exist_ok=True)
    name, found = ("records.json", from_make(out, *first)) if script == "make" else ("ablation.json", from_ablation(out))
    write_json(records / name, found)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), *sys.argv[4:])
