"""Balanced draws: a fixed number of images per class, drawn once with replacement and shared by several trainings.

Members of an ensemble must see the same draw and number the classes alike. So a draw is a file: the ids, the label
space with its labels in order, the seed, and a hash over all of it that is checked when it is loaded.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lesion_hub.data.schema import check_schema
from lesion_hub.errors import DataError
from lesion_hub.files import sha256_of_json, write_text
from lesion_hub.taxonomy import LabelSpace, space_from_labels

if TYPE_CHECKING:
    from datasets import Dataset

DRAW_FORMAT = 1
_KEYS = {"format", "space", "labels", "per_class", "seed", "ids", "hash"}


@dataclass(frozen=True)
class Draw:
    """The images drawn: ``ids`` maps every label of ``space``, in its order, to ``per_class`` image ids, repeats included."""

    space: LabelSpace
    per_class: int
    seed: int
    ids: Mapping[str, tuple[str, ...]] = field(repr=False)

    @property
    def hash(self) -> str:
        """The SHA-256 of the draw's content; equal draws have equal hashes wherever they were made."""
        return sha256_of_json(self._content())

    def _content(self) -> dict[str, Any]:
        return {
            "format": DRAW_FORMAT,
            "space": self.space.name,
            "labels": list(self.space.labels),
            "per_class": self.per_class,
            "seed": self.seed,
            "ids": {label: list(ids) for label, ids in self.ids.items()},
        }

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the draw as JSON, whole or not at all."""
        write_text(Path(path), json.dumps({**self._content(), "hash": self.hash}, indent=1))

    def indices(self, dataset: Dataset) -> NDArray[np.int64]:
        """Return the drawn rows of ``dataset``, (labels x per_class,) int64, class by class; for ``dataset.select``.

        `DataError` where the data set has other labels, lacks a drawn image, or labels one otherwise than the draw did.
        """
        check_schema(dataset, self.space)
        rows = {image_id: row for row, image_id in enumerate(dataset["image_id"])}
        labels = dataset.with_format("numpy")["label"][:]
        chosen = []
        for index, (label, ids) in enumerate(self.ids.items()):
            for image_id in ids:
                row = rows.get(image_id)
                if row is None:
                    raise DataError(f"draw: image {image_id!r} is not in the data set; give the one drawn from")
                if labels[row] != index:
                    raise DataError(f"draw: image {image_id!r} was drawn as {label!r}, its label now differs; draw anew")
                chosen.append(row)
        return np.asarray(chosen, dtype=np.int64)


def balanced_draw(dataset: Dataset, space: LabelSpace, *, per_class: int, seed: int) -> Draw:
    """Draw ``per_class`` images of every label of ``space`` from ``dataset``, with replacement.

    The same images and seed give the same draw, whatever the order of the rows. Draw from the training part alone. A
    label without an image raises `DataError`.

        draw = balanced_draw(train, result.space, per_class=3000, seed=0)
        draw.save("runs/draw.json")
        balanced = train.select(draw.indices(train))
    """
    check_schema(dataset, space)
    if per_class < 1:
        raise DataError(f"a draw of {per_class} images per class is empty; ask for at least 1")
    if seed < 0:
        raise DataError(f"seed {seed} is negative; give 0 or more")
    labels = np.asarray(dataset.with_format("numpy")["label"][:])
    ids = np.asarray(dataset["image_id"][:], dtype=object)
    if len(set(ids)) != len(ids):
        raise DataError("image ids repeat in the data set, so a draw of them would be ambiguous; read it anew")
    drawn = {}
    for index, label in enumerate(space.labels):
        pool = sorted(ids[labels == index])
        if not pool:
            raise DataError(f"class {label!r} of {space.name!r} has no image to draw; add some or drop the class")
        # A stream per class: what one class holds does not change what is drawn from another.
        places = np.random.default_rng([seed, index]).integers(len(pool), size=per_class)
        drawn[label] = tuple(pool[place] for place in places)
    return Draw(space, per_class, seed, drawn)


def load_draw(path: str | os.PathLike[str]) -> Draw:
    """Read a draw that `Draw.save` wrote, and verify it: its keys, its labels' order, its counts and its hash."""
    try:
        stored = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: the draw cannot be read ({error.strerror}); check the path") from None
    except ValueError:
        raise DataError(f"{path}: not a draw (no valid JSON); draw anew") from None
    if not isinstance(stored, dict) or set(stored) != _KEYS or stored["format"] != DRAW_FORMAT:
        raise DataError(f"{path}: not a draw of format {DRAW_FORMAT} ({', '.join(sorted(_KEYS))}); draw anew")
    try:
        space = space_from_labels(stored["space"], stored["labels"])
        ids = {label: tuple(stored["ids"][label]) for label in space.labels}
        draw = Draw(space, stored["per_class"], stored["seed"], ids)
        unchanged = draw.hash == stored["hash"] and all(len(drawn) == draw.per_class for drawn in ids.values())
    except (KeyError, TypeError):
        raise DataError(f"{path}: the draw lists no ids for some label; draw anew") from None
    if not unchanged:
        raise DataError(f"{path}: changed after it was drawn (its hash does not fit); restore it or draw anew")
    return draw
