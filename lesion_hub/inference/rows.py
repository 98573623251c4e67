"""Rows: the images of a folder or a data set, in a fixed order, with what is known of each."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lesion_hub.data.images import is_image_name, utf8_name
from lesion_hub.errors import DataError
from lesion_hub.inference.preprocess import PATIENT_FIELDS, ImageInput, Patient

MASK_ENDING = "_segmentation"
"""How the name of a lesion's mask ends."""


@dataclass(frozen=True)
class Row:
    """One image to score. ``truth`` is its label by name, where the source knows it."""

    index: int
    image_id: str
    image: ImageInput
    truth: str | None = None
    group: str | None = None
    patient: Patient | None = None


@dataclass(frozen=True)
class RowSource:
    """Rows that can be walked again in the same order. ``identity`` tells two sources apart; ``total`` is None for a stream.

    With ``labels``, ``items`` are rows of a data set whose label column indexes them; without, they are pairs (folder, name
    of an image file below it).
    """

    identity: str
    total: int | None
    items: Iterable[Any]
    labels: tuple[str, ...] | None = None

    def __iter__(self) -> Iterator[Row]:
        for index, item in enumerate(self.items):
            if self.labels is None:
                folder, name = item
                yield Row(index, utf8_name(name), Path(folder, name))
                continue
            label = item["label"]
            truth = self.labels[label] if isinstance(label, int) and 0 <= label < len(self.labels) else None
            patient = {field: item[field] for field in PATIENT_FIELDS}
            yield Row(index, str(item["image_id"]), item["image"], truth, item["group"], patient)


def open_rows(place: str | os.PathLike[str], *, labelled: bool = False, streaming: bool = False, **options: Any) -> RowSource:
    """Open the rows of a folder, a table or a Hub data set.

    A folder is walked, unless it shall be ``labelled`` or one of the ``options`` of `lesion_hub.data.read` is given: every
    image file in it is a row, labelled or not, but for masks (``…_segmentation.png``, as the ISIC archive names them). All
    else is read with ``options``, rows that cannot be used left out, and brings labels, groups and patients along.
    """
    root = Path(place).expanduser()
    given = {name: value for name, value in options.items() if value is not None}
    if root.is_dir() and not (labelled or streaming or given):
        names = sorted(
            str(Path(folder, name).relative_to(root))
            for folder, _, files in os.walk(root)
            for name in files
            if is_image_name(name) and not Path(name).stem.endswith(MASK_ENDING)
        )
        if not names:
            raise DataError(f"{root}: holds no image file; check the folder")
        return RowSource(_identity(names), len(names), [(root, name) for name in names])

    from lesion_hub.data import read, undecoded

    found = read(place, streaming=streaming, **{**given, "allow_missing": True})
    dataset, labels = undecoded(found.dataset), found.space.labels
    if streaming:
        return RowSource(f"stream of {place} {given.get('revision') or ''}".strip(), None, dataset, labels)
    return RowSource(_identity(dataset["image_id"]), len(dataset), dataset, labels)


def _identity(ids: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(ids).encode("utf-8", "surrogateescape")).hexdigest()
