"""One walk over a folder: which images and which tables it holds. Nothing is opened."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lesion_hub.data.images import is_image_name
from lesion_hub.errors import DataError

_TABLE_SUFFIXES = frozenset({".csv", ".tsv", ".tab", ".parquet"})


@dataclass(frozen=True)
class Inventory:
    """The images and tables below ``root``, as sorted POSIX paths relative to it."""

    root: Path
    images: tuple[str, ...]
    tables: tuple[str, ...]

    def find(self, pattern: str) -> list[tuple[Path, re.Match[str]]]:
        """Tables whose file name matches ``pattern`` in full, case ignored; of equal names the shallowest alone."""
        found: dict[str, tuple[Path, re.Match[str]]] = {}
        for table in sorted(self.tables, key=lambda path: (path.count("/"), path)):
            name = table.rpartition("/")[2]
            match = re.fullmatch(pattern, name, re.IGNORECASE)
            if match:
                found.setdefault(name.lower(), (self.root / table, match))
        return [found[name] for name in sorted(found)]

    def has(self, pattern: str) -> bool:
        """Whether `find` would find anything."""
        return bool(self.find(pattern))


def take_inventory(root: Path) -> Inventory:
    """Walk ``root`` once, hidden files and archive debris left out, links to folders followed but never in circles."""
    images: list[str] = []
    tables: list[str] = []
    try:
        for path in _files(os.fspath(root), "", set()):
            name = path.rpartition("/")[2]
            if is_image_name(name):
                images.append(path)
            elif Path(name).suffix.lower() in _TABLE_SUFFIXES and not name.startswith("."):
                tables.append(path)
    except OSError as error:
        place = error.filename or root
        raise DataError(f"{place}: cannot be listed ({error.strerror}); check its permissions") from None
    return Inventory(root, tuple(sorted(images)), tuple(sorted(tables)))


def _files(folder: str, prefix: str, seen: set[tuple[int, int]]) -> Iterator[str]:
    identity = Path(folder).stat()
    if (identity.st_dev, identity.st_ino) in seen:
        return
    seen.add((identity.st_dev, identity.st_ino))
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(".") or entry.name == "__MACOSX":
                continue
            if entry.is_dir():
                yield from _files(entry.path, f"{prefix}{entry.name}/", seen)
            else:
                yield prefix + entry.name
