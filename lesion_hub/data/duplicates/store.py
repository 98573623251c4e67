"""Fingerprints kept in a file between runs, so that an image is read again only when it has changed."""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lesion_hub.data.duplicates.fingerprints import Fingerprints
from lesion_hub.data.images import ImageSource
from lesion_hub.data.scan import source_parts
from lesion_hub.errors import DataError

_VERSION = 1
_COLUMNS = ("file", "pixels", "gray", "terms")


def source_key(source: ImageSource) -> bytes:
    """What identifies the content of ``source`` without decoding it: path, size and time of change, or the hash.

    >>> source_key(b"abc") == source_key({"path": "elsewhere.jpg", "bytes": b"abc"})
    True
    """
    path, content = source_parts(source)
    if content is not None or path is None:
        return hashlib.sha256(content or b"").digest()
    try:
        status = Path(path).stat()
    except OSError:
        return hashlib.sha256(f"missing\0{path}".encode()).digest()
    return hashlib.sha256(f"{Path(path).absolute()}\0{status.st_size}\0{status.st_mtime_ns}".encode()).digest()


class FingerprintStore:
    """An ``.npz`` file of fingerprints by `source_key`. Unreadable images are not kept: they may be mended."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._rows: dict[bytes, int] = {}
        self._known = self._load() if path.exists() else Fingerprints.empty(0)

    def _load(self) -> Fingerprints:
        try:
            with np.load(self.path, allow_pickle=False) as stored:
                if int(stored["version"]) != _VERSION:
                    return Fingerprints.empty(0)
                self._rows = {key.tobytes(): row for row, key in enumerate(stored["keys"])}
                file, pixels = (stored[f"{column}_sha256"].view("V32")[:, 0] for column in ("file", "pixels"))
                return Fingerprints(file, pixels, stored["gray"], stored["terms"])
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
            raise DataError(f"{self.path}: not a store of fingerprints; delete it, or name another file") from None

    def fill(self, table: Fingerprints, sources: Sequence[ImageSource]) -> list[int]:
        """Copy what is known into ``table``; return the positions that are not."""
        unknown = []
        for position, source in enumerate(sources):
            row = self._rows.get(source_key(source))
            if row is None:
                unknown.append(position)
                continue
            for column in _COLUMNS:
                getattr(table, column)[position] = getattr(self._known, column)[row]
        return unknown

    def save(self, table: Fingerprints, sources: Sequence[ImageSource]) -> None:
        """Add ``table`` to the file, writing aside and renaming, so that a crash leaves the old one whole."""
        readable = np.flatnonzero(table.readable).tolist()
        merged = {key: (self._known, row) for key, row in self._rows.items()}
        merged.update({source_key(sources[row]): (table, row) for row in readable})
        if not merged:
            return
        columns: dict[str, Any] = {
            column: np.stack([getattr(part, column)[row] for part, row in merged.values()]) for column in _COLUMNS
        }
        for column in ("file", "pixels"):
            columns[f"{column}_sha256"] = columns.pop(column).view(np.uint8).reshape(-1, 32)
        keys = np.frombuffer(b"".join(merged), np.uint8).reshape(-1, 32)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        aside = self.path.with_name(f".{self.path.name}.{os.getpid()}.npz")
        try:
            np.savez(aside, version=np.int64(_VERSION), keys=keys, **columns)
            aside.replace(self.path)
        finally:
            aside.unlink(missing_ok=True)
