"""Sort pictures that are no lesions into those to fit a gate on and those to measure it by: outliers.py PICTURES OUT.

Names are CATEGORY_NUMBER.jpg or CATEGORY_image_NUMBER.jpg; every second category is fitted on, so that a gate is measured by
kinds of pictures that it does not know.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

OTHERS = "photos and textures of other categories"


def category(picture: Path) -> str:
    return re.sub(r"(_image)?_\d+$", "", picture.stem)


def main(folder: Path, out: Path) -> None:
    pictures = sorted(folder.resolve().rglob("*.jpg"))
    fitted = set(sorted({category(picture) for picture in pictures})[::2])
    for picture in pictures:
        link = out / ("fitted" if category(picture) in fitted else OTHERS) / picture.name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(picture)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:3]))
