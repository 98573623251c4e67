"""Divide the split of both sources: kept_apart.py SPLIT TABLE OUT.

SPLIT was made of TABLE, which together.py wrote. OUT/manifest.json is that of the models: its test part is HAM10000's alone, so
that whoever has HAM10000 can measure them. OUT/manifest_isic2017.json holds the images of ISIC 2017 that are kept for the test.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Container
from dataclasses import replace
from pathlib import Path

from lesion_hub.data.splits import SplitManifest, load_manifest


def main(split: Path, table: Path, out: Path) -> None:
    whole = load_manifest(split, allow_leaks=True)
    with table.open(newline="", encoding="utf-8") as file:
        second = {row["image_id"] for row in csv.DictReader(file) if not row["group"].startswith("HAM_")}
    kept = {image_id for image_id, part in whole.part_of.items() if part == "test" and image_id in second}
    of(whole, set(whole.ids) - kept).save(out / "manifest.json")
    of(whole, kept).save(out / "manifest_isic2017.json")


def of(manifest: SplitManifest, images: Container[str]) -> SplitManifest:
    rows = zip(manifest.ids, manifest.labels, manifest.units, manifest.places, strict=True)
    ids, labels, units, places = zip(*(row for row in rows if row[0] in images), strict=True)
    return replace(manifest, ids=ids, labels=labels, units=units, places=places)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]))
