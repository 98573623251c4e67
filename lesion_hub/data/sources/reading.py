"""Read any source: recognise its layout, or take the one that is named, and have its reader and `assemble` read it."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from lesion_hub.data.sources.assemble import ReadResult, assemble
from lesion_hub.data.sources.hub import has_pixels, read_hub
from lesion_hub.data.sources.layouts import READERS, class_folders, read_table_rows
from lesion_hub.data.sources.rows import TABLE_SUFFIXES, Inventory, ReadOptions, take_inventory
from lesion_hub.errors import DataError
from lesion_hub.taxonomy import LabelSpace, label_space, nearest

SOURCES = (*READERS, "hub")

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
    should not be recognised, or where a table lies beside folders that could be classes, so that either may be the labels.
    ``space`` is the label space to read into; `TaxonomyError` where the source's labels are coarser. ``columns`` maps
    columns of the schema (and ``split``) to those of a table or Hub data set, ``labels`` its labels to ours. ``images`` are
    further folders to look for images in. ``revision`` and ``subset`` are those of a Hub data set. ``split`` keeps
    ``train``, ``val`` or ``test`` alone. ``streaming`` gives an `IterableDataset`.

    Missing images, images without a row, unknown labels, repeated ids and classes of one sample raise `DataError`;
    ``allow_missing`` leaves those rows out and counts them in the report.

        result = read("data/ham10000", space="binary")
        result.dataset[0]["label"], result.report.to_dict()
    """
    target = label_space(space) if isinstance(space, str) else space
    folders = tuple(Path(folder).expanduser() for folder in images)
    for folder in folders:
        if not folder.is_dir():
            raise DataError(f"{folder}: no such folder of images; check the path")
    options = ReadOptions(
        space=target,
        columns=dict(columns or {}),
        labels=dict(labels or {}),
        images=folders,
        allow_missing=allow_missing,
        revision=revision,
        subset=subset,
        split=split,
        streaming=streaming,
    )
    if source is not None and source not in SOURCES:
        raise DataError(f"unknown source {source!r}; {nearest(source, SOURCES)}")
    path = Path(place).expanduser()
    if not path.exists():
        if source not in (None, "hub") or not isinstance(place, str) or not _HUB_ID.fullmatch(place):
            raise DataError(f"{place}: no such folder or file, and no Hub id (org/name); check the path")
        return read_hub(place, options)
    if source == "hub":
        return read_hub(str(path), options)
    return _read_file(path, source, options) if path.is_file() else _read_folder(path, source, options)


def _read_file(path: Path, source: str | None, options: ReadOptions) -> ReadResult:
    if source is None and path.suffix == ".tar":
        return read_hub(str(path), options)
    if source not in (None, "table") or path.suffix.lower() not in TABLE_SUFFIXES:
        raise DataError(f"{path}: not a csv, tsv or Parquet table; give such a file, or the folder of the data set")
    if source is None and has_pixels(path):
        return read_hub(str(path), options)
    inventory = take_inventory(path.parent)
    result = assemble(read_table_rows(path, inventory, options), "table", inventory, options)
    return _part_or_stream(result, path, options)


def _read_folder(path: Path, source: str | None, options: ReadOptions) -> ReadResult:
    inventory = take_inventory(path)
    if source is None and inventory.tables and all(has_pixels(path / table) for table in inventory.tables):
        return read_hub(str(path), options)
    if source is None and not (inventory.tables or inventory.images) and next(path.rglob("*.tar"), None):
        return read_hub(str(path), options)
    name = source or _recognised(inventory)
    if options.columns and not READERS[name].columns:
        other = f"; --source table reads {inventory.tables[0]} with them" if inventory.tables else ""
        raise DataError(
            f"{path}: columns are mapped, but the layout {name!r} takes its labels from {READERS[name].labelled_by}; "
            f"leave --column out{other}"
        )
    result = assemble(READERS[name].read(inventory, options), name, inventory, options)
    return _part_or_stream(result, path, options)


def _recognised(inventory: Inventory) -> str:
    """Return the name of the layout that fits; `DataError` names what was looked for where none does, or which several do."""
    fits = [name for name, reader in READERS.items() if not reader.generic and reader.recognises(inventory)]
    if len(fits) > 1:
        raise DataError(f"{inventory.root}: holds several data sets ({', '.join(fits)}); give the folder of one, or --source")
    if not fits:
        fits = [name for name, reader in READERS.items() if reader.generic and reader.recognises(inventory)]
        if "folders" in fits and inventory.tables:
            _refuse_two_labels(inventory)
    if not fits:
        looked_for = "; ".join(reader.looks_for for reader in READERS.values())
        raise DataError(f"{inventory.root}: no known layout; looked for {looked_for}; name one with --source")
    return fits[0]


def _refuse_two_labels(inventory: Inventory) -> None:
    """Raise one line where the labels may be the folders' names as well as a column of a table that lies there too."""
    folders, tables = class_folders(inventory), [path.name for path, _ in inventory.find(".*")]
    named = ", ".join(folders[:3]) + (", …" if len(folders) > 3 else "")
    kind, table = ("a table", "--source table") if len(tables) == 1 else ("tables", "the path of one table")
    raise DataError(
        f"{inventory.root}: the labels may be in {kind} ({', '.join(tables[:3])}) or the names of its folders ({named}); "
        f"give {table} for its columns, or --source folders for the folders' names (in a recipe: layout)"
    )


def _part_or_stream(result: ReadResult, path: Path, options: ReadOptions) -> ReadResult:
    """Return ``result`` cut down to one split and streamed, where that was asked for."""
    if options.split is not None:
        official = result.official_split or {}
        rows = [row for row, image_id in enumerate(result.dataset["image_id"]) if official.get(image_id) == options.split]
        if not rows:
            raise DataError(f"{path}: no official split {options.split!r} there; leave split out to read all")
        result = replace(result, dataset=result.dataset.select(rows), official_split=None)
    if options.streaming:
        return replace(result, dataset=result.dataset.to_iterable_dataset())
    return result
