"""Link the test part's images into one folder, what heat maps are checked on: test_images.py MANIFEST IMAGES OUT."""

from __future__ import annotations

import sys
from pathlib import Path

from lesion_hub.data.splits import load_manifest


def main(manifest: Path, images: Path, out: Path) -> None:
    part_of = load_manifest(manifest, allow_leaks=True).part_of
    out.mkdir(parents=True)
    for image in images.resolve().rglob("*.jpg"):
        if part_of.get(image.stem) == "test":
            (out / image.name).symlink_to(image)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:4]))
