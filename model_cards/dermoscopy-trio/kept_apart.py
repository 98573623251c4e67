"""Divide the split that was made of together.py's table: kept_apart.py SPLIT OUT.

OUT/manifest.json is that of the models: its test part is HAM10000's alone, so that whoever has HAM10000 can measure them.
OUT/manifest_isic2017.json holds the images of ISIC 2017 that are kept for the test.
"""

from __future__ import annotations

import sys
from collections.abc import Container
from dataclasses import replace
from pathlib import Path

from lesion_hub.data.splits import SplitManifest, load_manifest

HERE = Path(__file__).resolve().parent


def main(split: Path, out: Path) -> None:
    whole = load_manifest(split, allow_leaks=True)
    first = load_manifest(HERE / "manifest_ham10000.json", allow_leaks=True).part_of
    kept = {image_id for image_id, part in whole.part_of.items() if part == "test" and image_id not in first}
    of(whole, set(whole.ids) - kept).save(out / "manifest.json")
    of(whole, kept).save(out / "manifest_isic2017.json")


def of(manifest: SplitManifest, images: Container[str]) -> SplitManifest:
    rows = zip(manifest.ids, manifest.labels, manifest.units, manifest.places, strict=True)
    ids, labels, units, places = zip(*(row for row in rows if row[0] in images), strict=True)
    return replace(manifest, ids=ids, labels=labels, units=units, places=places)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:3]))
