"""Any csv, tab-separated or Parquet table whose columns a map names; images lie beside it, found by path or by id."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from lesion_hub.data.sources.inventory import Inventory
from lesion_hub.data.sources.rows import (
    SPLITS,
    USUAL_NAMES,
    Reader,
    ReadOptions,
    Rows,
    column,
    frame,
    optional_column,
    read_table,
    without_suffix,
)
from lesion_hub.errors import DataError


def _recognises(inventory: Inventory) -> bool:
    return len(inventory.find(r".*\.(csv|tsv|tab|parquet)")) == 1


def _read(inventory: Inventory, options: ReadOptions) -> Rows:
    tables = inventory.find(r".*\.(csv|tsv|tab|parquet)")
    if len(tables) != 1:
        raise DataError(f"{inventory.root}: {len(tables)} tables where one is due; name the csv or Parquet file itself")
    return read_file(tables[0][0], inventory, options)


def read_file(path: Path, inventory: Inventory, options: ReadOptions) -> Rows:
    """The rows of the table at ``path``, its images below the root of ``inventory``."""
    table = read_table(path)
    cells = {name: _cells(name, table, path, options) for name in USUAL_NAMES}
    place, image_id = cells.pop("image"), cells["image_id"]
    if place is None and image_id is None:
        raise DataError(f"{path}: no column of image ids or paths; map one with --column image_id=NAME")
    named = image_id if image_id is not None else place
    assert named is not None
    cells["image_id"] = named.map(_text_id, na_action="ignore")
    cells["split"] = None if cells["split"] is None else cells["split"].map(_split, na_action="ignore")
    cells["label"] = column(table, path, "label") if cells["label"] is None else cells["label"]
    rows = frame(**{name: values for name, values in cells.items() if values is not None})
    if place is not None:
        rows["path"] = _paths(place, path.parent, inventory.root)
    return Rows(rows, None, None, inventory.images, without_suffix)


def _cells(name: str, table: pd.DataFrame, path: Path, options: ReadOptions) -> pd.Series | None:
    if name in options.columns:
        return column(table, path, options.columns[name])
    return optional_column(table, *USUAL_NAMES[name])


def _text_id(cell: object) -> str:
    return without_suffix(str(cell).strip())


def _split(cell: object) -> str:
    word = str(cell).strip().lower()
    if word not in SPLITS:
        raise DataError(f"split {cell!r} is none of train, val, test; rename it or map the split column elsewhere")
    return SPLITS[word]


def _paths(cells: pd.Series, *bases: Path) -> pd.Series:
    """The file that each cell names, below the first base that has it; missing where none has (then ids decide)."""

    def existing(cell: object) -> str | None:
        candidates = (base.absolute() / str(cell).strip() for base in bases)
        return next((str(path) for path in candidates if path.is_file()), None)

    return cells.map(existing, na_action="ignore").reset_index(drop=True).astype(object)


READER = Reader("table", "a single csv, tsv or Parquet table", _recognises, _read)
