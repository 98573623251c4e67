"""HAM10000 as its authors and Kaggle ship it: one metadata csv and one or two image folders."""

from __future__ import annotations

import re

from lesion_hub.data.sources.inventory import Inventory
from lesion_hub.data.sources.rows import Reader, ReadOptions, Rows, archive_id, column, frame, optional_column, read_table
from lesion_hub.errors import DataError
from lesion_hub.taxonomy import label_space

_METADATA = r"HAM10000_metadata\.(csv|tab|tsv)"
_IMAGE_FOLDER = re.compile(r"HAM10000_images(_part_\d)?", re.IGNORECASE)


def _recognises(inventory: Inventory) -> bool:
    return inventory.has(_METADATA)


def _read(inventory: Inventory, options: ReadOptions) -> Rows:
    tables = inventory.find(_METADATA)
    if not tables:
        raise DataError(f"{inventory.root}: no HAM10000_metadata.csv; give the folder that holds it")
    path = tables[0][0]
    table = read_table(path)
    # dx_type, how the diagnosis was confirmed, is left unread: it all but gives the label away.
    rows = frame(
        image_id=column(table, path, "image_id").map(archive_id, na_action="ignore"),
        label=column(table, path, "dx"),
        group=column(table, path, "lesion_id"),
        age=optional_column(table, "age"),
        sex=optional_column(table, "sex"),
        site=optional_column(table, "localization"),
    )
    return Rows(rows, label_space("ham7"), label_space("ham7"), _images(inventory), archive_id)


def _images(inventory: Inventory) -> tuple[str, ...]:
    """The images of the HAM10000 image folders alone, where there are such folders: other sets may lie beside them."""
    inside = tuple(path for path in inventory.images if any(map(_IMAGE_FOLDER.fullmatch, path.split("/")[:-1])))
    return inside or inventory.images


READER = Reader("ham10000", "HAM10000_metadata.csv", _recognises, _read)
