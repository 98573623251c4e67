"""Class-per-folder trees: ``benign/ malignant/``, or the same below ``train/``, ``val/`` and ``test/``."""

from __future__ import annotations

import re

from lesion_hub.data.sources.inventory import Inventory
from lesion_hub.data.sources.rows import SPLITS, Reader, ReadOptions, Rows, archive_id, frame
from lesion_hub.errors import DataError

# Folders of images that look like classes once their csv is gone: reading them as such would be silent nonsense.
_NOT_CLASSES = re.compile(r".*(_part_\d+|_input|_data|_images)|images?|imgs.*", re.IGNORECASE)


def _depth(images: tuple[str, ...]) -> int:
    """How many wrapping folders, such as an unpacked archive leaves, all images share above the classes or splits."""
    depth = 0
    while True:
        heads = {tuple(path.split("/")[depth : depth + 2]) for path in images}
        names = {head[0] for head in heads}
        inside_folder = all(len(head) == 2 for head in heads)
        if len(names) != 1 or not inside_folder or names.pop().lower() in SPLITS:
            return depth
        depth += 1


def _parts(path: str, depth: int, splits: bool) -> tuple[str | None, str | None]:
    """(split, class) of an image path, None where its place gives none."""
    folders = path.split("/")[depth:-1]
    split = SPLITS.get(folders[0].lower()) if splits and folders else None
    if splits and split is None:
        return None, None
    folders = folders[1:] if splits else folders
    return split, folders[0] if folders else None


def _classes(inventory: Inventory) -> tuple[list[tuple[str | None, str | None]], int, bool]:
    depth = _depth(inventory.images) if inventory.images else 0
    tops = {path.split("/")[depth] for path in inventory.images if path.count("/") > depth}
    splits = any(top.lower() in SPLITS for top in tops)
    return [_parts(path, depth, splits) for path in inventory.images], depth, splits


def _names(inventory: Inventory) -> set[str]:
    return {label for _, label in _classes(inventory)[0] if label is not None}


def _recognises(inventory: Inventory) -> bool:
    names = _names(inventory)
    return len(names) >= 2 and not any(_NOT_CLASSES.fullmatch(name) for name in names)


def _image_id(path: str) -> str:
    """An archive id where the file bears one, so that sets can be compared; else the path, unique in the tree."""
    stem = archive_id(path) or ""
    return stem if re.fullmatch(r"ISIC_\d{7}", stem) else path


def _read(inventory: Inventory, options: ReadOptions) -> Rows:
    parts, _, _ = _classes(inventory)
    labelled = [(path, part) for path, part in zip(inventory.images, parts, strict=True) if part[1] is not None]
    if len({part[1] for _, part in labelled}) < 2:
        raise DataError(f"{inventory.root}: fewer than two class folders with images; put each class in its own folder")
    base = inventory.root.absolute().as_posix()
    rows = frame(
        image_id=[_image_id(path) for path, _ in labelled],
        label=[part[1] for _, part in labelled],
        split=[part[0] for _, part in labelled],
        path=[f"{base}/{path}" for path, _ in labelled],
    )
    return Rows(rows, None, None, inventory.images, _image_id)


READER = Reader("folders", "two or more class folders (or train/ and test/ with them)", _recognises, _read)
