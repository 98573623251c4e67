"""Write HAM10000 and ISIC 2017 as one table that names the part of every image: together.py DATA OUT.

HAM10000 keeps the parts that manifest_ham10000.json gives it; of ISIC 2017, which names no lesions, a fifth is for the test.
``lesion-hub data split OUT/images.csv --respect-official --drop-leaks`` splits it so, without what leaks; see kept_apart.py.
"""

from __future__ import annotations

import csv
import hashlib
import sys
from pathlib import Path

from lesion_hub.data import read
from lesion_hub.data.schema import image_paths
from lesion_hub.data.splits import load_manifest

HERE = Path(__file__).resolve().parent
SOURCES = ("ham10000", "isic2017")
ONE_OF = 5


def main(data: Path, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    parts = load_manifest(HERE / "manifest_ham10000.json", allow_leaks=True).part_of
    rows = []
    for source in SOURCES:
        found = read(data / source, source=source, space="ham7").dataset
        columns = (found["image_id"][:], image_paths(found), found["label"][:], found["group"][:])
        labels = found.features["label"].names
        part_of = parts.__getitem__ if source == "ham10000" else part_of_new
        rows += [
            (image_id, Path(path).resolve(), labels[label], group, part_of(image_id))
            for image_id, path, label, group in zip(*columns, strict=True)
        ]
    with (out / "images.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("image_id", "image", "label", "group", "split"))
        writer.writerows(rows)


def part_of_new(image_id: str) -> str:
    return "test" if int(hashlib.sha256(image_id.encode()).hexdigest(), 16) % ONE_OF == 0 else "train"


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:3]))
