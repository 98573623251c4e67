"""Write HAM10000 and ISIC 2017 as one table: together.py DATA OUT, where DATA holds ham10000/ and isic2017/."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

from lesion_hub.data import read
from lesion_hub.data.schema import image_paths

SOURCES = ("ham10000", "isic2017")


def main(data: Path, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    rows = []
    for source in SOURCES:
        found = read(data / source, source=source, space="ham7").dataset
        columns = (found["image_id"][:], image_paths(found), found["label"][:], found["group"][:])
        labels = found.features["label"].names
        rows += [
            (image_id, Path(path).resolve(), labels[label], group)
            for image_id, path, label, group in zip(*columns, strict=True)
        ]
    with (out / "images.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("image_id", "image", "label", "group"))
        writer.writerows(rows)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:3]))
