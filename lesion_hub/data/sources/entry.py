"""`read`: one entry for every source. The layout is recognised, or named."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from lesion_hub.data.sources import ham10000, isic, table, tree
from lesion_hub.data.sources.assemble import assemble
from lesion_hub.data.sources.hub import has_pixels, read_hub
from lesion_hub.data.sources.inventory import Inventory, take_inventory
from lesion_hub.data.sources.report import ReadResult
from lesion_hub.data.sources.rows import Reader, ReadOptions
from lesion_hub.errors import DataError
from lesion_hub.taxonomy import LabelSpace, label_space, nearest

# In order of how much a layout says about itself; the last two fit many folders and are tried when nothing else fits.
_NAMED = (ham10000.READER, *isic.READERS)
_GENERIC = (tree.READER, table.READER)
_READERS = {reader.name: reader for reader in (*_NAMED, *_GENERIC)}
SOURCES = (*_READERS, "hub")

_HUB_ID = re.compile(r"(\w[\w.-]*/)?\w[\w.-]*")


def read(
    place: str | os.PathLike[str],
    *,
    source: str | None = None,
    space: str | LabelSpace | None = None,
    columns: Mapping[str, str] | None = None,
    labels: Mapping[str, str] | None = None,
    images: Iterable[str | os.PathLike[str]] = (),
    revision: str | None = None,
    subset: str | None = None,
    split: str | None = None,
    streaming: bool = False,
    allow_missing: bool = False,
) -> ReadResult:
    """Read a folder, a table or a Hub data set into the one schema (see `lesion_hub.data.schema`); no image is decoded.

    ``place`` is a folder, a csv or Parquet file, or a Hub id. ``source`` names the layout (one of `SOURCES`) where it
    should not be recognised. ``space`` is the label space to read into; `TaxonomyError` where the source's labels are
    coarser. ``columns`` maps columns of the schema (and ``split``) to those of a table or Hub data set, ``labels`` its
    labels to ours. ``images`` are further folders to look for images in. ``revision`` and ``subset`` are those of a Hub
    data set. ``split`` keeps ``train``, ``val`` or ``test`` alone. ``streaming`` gives an `IterableDataset`.

    Missing images, images without a row, unknown labels, repeated ids and classes of one sample raise `DataError`;
    ``allow_missing`` leaves those rows out and counts them in the report.

        result = read("data/ham10000", space="binary")
        result.dataset[0]["label"], result.report.to_dict()
    """
    target = label_space(space) if isinstance(space, str) else space
    options = ReadOptions(
        space=target,
        columns=dict(columns or {}),
        labels=dict(labels or {}),
        images=tuple(_folder(folder) for folder in images),
        allow_missing=allow_missing,
        revision=revision,
        subset=subset,
        split=split,
        streaming=streaming,
    )
    if source is not None and source not in SOURCES:
        raise DataError(f"unknown source {source!r}; {nearest(source, SOURCES)}")
    path = Path(place).expanduser()
    if source == "hub" or not path.exists():
        return _read_hub(place, path, source, options)
    if path.is_file():
        return _read_file(path, source, options)
    return _read_folder(path, source, options)


def _folder(place: str | os.PathLike[str]) -> Path:
    path = Path(place).expanduser()
    if not path.is_dir():
        raise DataError(f"{path}: no such folder of images; check the path")
    return path


def _read_hub(place: str | os.PathLike[str], path: Path, source: str | None, options: ReadOptions) -> ReadResult:
    if path.exists():
        return read_hub(str(path), options)
    if source not in (None, "hub") or not isinstance(place, str) or not _HUB_ID.fullmatch(place):
        raise DataError(f"{place}: no such folder or file, and no Hub id (org/name); check the path")
    return read_hub(place, options)


def _read_file(path: Path, source: str | None, options: ReadOptions) -> ReadResult:
    suffix = path.suffix.lower()
    if source not in (None, "table") or suffix not in (".csv", ".tsv", ".tab", ".parquet"):
        raise DataError(f"{path}: not a csv, tsv or Parquet table; give such a file, or the folder of the data set")
    if suffix == ".parquet" and source is None and has_pixels(path):
        return read_hub(str(path), options)
    inventory = take_inventory(path.parent)
    rows = table.read_file(path, inventory, options)
    return _finished(assemble(rows, "table", replace(inventory), options), path, options)


def _read_folder(path: Path, source: str | None, options: ReadOptions) -> ReadResult:
    inventory = take_inventory(path)
    if source is None and _is_hub_copy(inventory):
        return read_hub(str(path), options)
    reader = _READERS[source] if source is not None else _recognised(inventory)
    return _finished(assemble(reader.read(inventory, options), reader.name, inventory, options), path, options)


def _is_hub_copy(inventory: Inventory) -> bool:
    return bool(inventory.tables) and all(
        name.lower().endswith(".parquet") and has_pixels(inventory.root / name) for name in inventory.tables
    )


def _recognised(inventory: Inventory) -> Reader:
    """The one layout that fits; a line that names what was looked for where none does, or several do."""
    fits = [reader for reader in _NAMED if reader.recognises(inventory)]
    if len(fits) > 1:
        names = ", ".join(reader.name for reader in fits)
        raise DataError(f"{inventory.root}: holds several data sets ({names}); give the folder of one, or --source")
    if not fits:
        fits = [reader for reader in _GENERIC if reader.recognises(inventory)]
    if not fits:
        looked_for = "; ".join(reader.looks_for for reader in (*_NAMED, *_GENERIC))
        raise DataError(f"{inventory.root}: no known layout; looked for {looked_for}; name one with --source")
    return fits[0]


def _finished(result: ReadResult, path: Path, options: ReadOptions) -> ReadResult:
    """``result`` cut down to one split and streamed, where that was asked for."""
    if options.split is not None:
        result = _only(result, path, options.split)
    if options.streaming:
        return replace(result, dataset=result.dataset.to_iterable_dataset())
    return result


def _only(result: ReadResult, path: Path, split: str) -> ReadResult:
    official = result.official_split or {}
    rows = [row for row, image_id in enumerate(result.dataset["image_id"]) if official.get(image_id) == split]
    if not rows:
        raise DataError(f"{path}: no official split {split!r} there; leave split out to read all")
    return replace(result, dataset=result.dataset.select(rows), official_split=None)
