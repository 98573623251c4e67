"""Condense what make.sh measured into one file, from which results.py makes its tables: records.py OUT RECORDS FIRST."""

from __future__ import annotations

import json
import sys
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


def main(out: Path, records: Path, first: str) -> None:
    found: dict[str, Any] = {
        part: {path.parent.name: intervals(path) for path in sorted((out / part).glob("*/metrics.json"))} for part in PARTS
    }
    compared = {path.parent.name: read_json(path) for path in sorted((out / "comparison").glob("*/comparison.json"))}
    keys = ("first", "second", "images", "groups", "differences", "mcnemar")
    found["comparison"] = {name: {key: whole[key] for key in keys} for name, whole in compared.items()}
    found["training"] = {path.parent.name: trained(path) for path in sorted(out.glob("*_*/log.jsonl"))}
    found["probe"] = chosen(read_json(out / "probe" / METRICS_NAME)["test"])
    found["first_trio"] = chosen(read_json(resolve(first).folder / METRICS_NAME)["test"])
    records.mkdir(parents=True, exist_ok=True)
    write_json(records / "records.json", found)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3])
