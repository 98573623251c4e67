"""Fingerprint the images of a data set, each once: in parallel, and not again while a store knows them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lesion_hub.data.duplicates.fingerprints import Fingerprints, fingerprint_file
from lesion_hub.data.duplicates.store import FingerprintStore
from lesion_hub.data.images import ImageSource
from lesion_hub.data.scan import Progress, scan


def fingerprint(
    sources: Sequence[ImageSource],
    *,
    store: str | os.PathLike[str] | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Fingerprints:
    """Fingerprint every image once, over ``workers`` processes (default: one per core).

    ``sources`` are paths, encoded bytes or ``{"path", "bytes"}`` mappings. With ``store``, an ``.npz`` file, images
    that it knows (by path, size and time of change, or by hash where there is no file) are not read again, and new ones
    are added to it. ``progress(done, total)`` counts the images that are read.

    >>> prints = fingerprint([b"no image"])
    >>> len(prints), list(prints.failures)
    (1, [0])
    """
    table = Fingerprints.empty(len(sources))
    kept = FingerprintStore(Path(store)) if store is not None else None
    wanted = kept.fill(table, sources) if kept is not None else list(range(len(sources)))
    found = scan(fingerprint_file, _Chosen(sources, wanted), workers=workers, progress=progress)
    for row, result in zip(wanted, found, strict=True):
        table.put(row, result)
    if kept is not None and wanted:
        kept.save(table, sources)
    return table


class _Chosen(Sequence[ImageSource]):
    """Some of ``sources``, each fetched only when asked for."""

    def __init__(self, sources: Sequence[ImageSource], rows: Sequence[int]) -> None:
        self._sources, self._rows = sources, rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, position: Any) -> Any:
        return self._sources[self._rows[position]]
