"""The rows of bulk scoring: images with their ids, and what a data set knows about them, one at a time and undecoded."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lesion_hub.data.images import is_image_name
from lesion_hub.errors import DataError
from lesion_hub.inference.inputs import ImageInput
from lesion_hub.inference.patients import FIELDS, Patient

MASK_ENDING = "_segmentation"


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
    """Rows that can be walked again in the same order. ``identity`` tells two sources apart; ``total`` is None for a stream."""

    identity: str
    total: int | None
    items: Iterable[Any]
    labels: tuple[str, ...] | None = None

    def __iter__(self) -> Iterator[Row]:
        for index, item in enumerate(self.items):
            yield self._row(index, item)

    def _row(self, index: int, item: Any) -> Row:
        if self.labels is None:
            folder, name = item
            return Row(index, name, Path(folder, name))
        label = item["label"]
        truth = self.labels[label] if isinstance(label, int) and 0 <= label < len(self.labels) else None
        patient = {field: item[field] for field in FIELDS}
        return Row(index, str(item["image_id"]), item["image"], truth, item["group"], patient)


def rows_of(
    place: str | os.PathLike[str], *, source: str | None = None, labelled: bool = False, streaming: bool = False, **options: Any
) -> RowSource:
    """The rows of a folder, a table or a Hub data set.

    A folder is walked, unless ``source`` or ``labelled`` is given: every image file in it is a row, labelled or not, but for
    masks (``…_segmentation.png``, as the ISIC archive names them). All else is read by `lesion_hub.data.read`, with
    ``options``, and brings labels, groups and patients along.
    """
    path = Path(place).expanduser()
    if path.is_dir() and not (labelled or source or streaming):
        return _folder(path)
    from lesion_hub.data import read, undecoded

    found = read(place, source=source, streaming=streaming, allow_missing=True, **options)
    labels = found.space.labels
    dataset = undecoded(found.dataset)
    if streaming:
        return RowSource(f"stream of {place} {options.get('revision') or ''}".strip(), None, dataset, labels)
    return RowSource(_digest(dataset["image_id"]), len(dataset), dataset, labels)


def _folder(root: Path) -> RowSource:
    names = sorted(
        str(Path(folder, name).relative_to(root))
        for folder, _, files in os.walk(root)
        for name in files
        if is_image_name(name) and not Path(name).stem.endswith(MASK_ENDING)
    )
    if not names:
        raise DataError(f"{root}: holds no image file; check the folder")
    return RowSource(_digest(names), len(names), [(root, name) for name in names])


def _digest(ids: Iterable[str]) -> str:
    return hashlib.sha256("\n".join(ids).encode()).hexdigest()
