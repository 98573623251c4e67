"""A split on paper: which image is in which part, hashed, and checked by whoever loads it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lesion_hub.data.files import write_whole
from lesion_hub.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset

VERSION = 1
_KEYS = {"version", "hash", "seed", "method", "space", "classes", "parts", "counts", "warnings", "leaks", "images"}


@dataclass(frozen=True)
class SplitManifest:
    """A split of N images, ordered by id.

    ``method`` says how it was made; ``space`` and ``classes`` name the label space and its labels; ``parts`` the parts
    (``train``, ``val``, ``test``, or ``fold0`` ...). Image ``ids[i]`` has the class ``labels[i]``, belongs to the unit
    ``units[i]`` (its group united with its near duplicates) and lies in the part ``places[i]``; the three are indices.
    ``leaks`` counts what the parts share: nothing, except in an official split that is kept as its authors made it.
    """

    seed: int
    method: str
    space: str
    classes: tuple[str, ...]
    parts: tuple[str, ...]
    ids: tuple[str, ...] = field(repr=False)
    labels: tuple[int, ...] = field(repr=False)
    units: tuple[int, ...] = field(repr=False)
    places: tuple[int, ...] = field(repr=False)
    warnings: tuple[str, ...] = ()
    leaks: Mapping[str, int] = field(default_factory=dict)

    @cached_property
    def hash(self) -> str:
        """SHA-256 over everything the manifest says; independent of the order in which the images were given."""
        return hashlib.sha256(_canonical(self._content())).hexdigest()

    @cached_property
    def part_of(self) -> dict[str, str]:
        """The part of every image id."""
        return {image_id: self.parts[place] for image_id, place in zip(self.ids, self.places, strict=True)}

    def counts(self) -> dict[str, dict[str, int]]:
        """Images per part and class."""
        table = np.zeros((len(self.parts), len(self.classes)), np.int64)
        np.add.at(table, (np.array(self.places, int), np.array(self.labels, int)), 1)
        return {part: dict(zip(self.classes, row, strict=True)) for part, row in zip(self.parts, table.tolist(), strict=True)}

    def rows(self, image_ids: Sequence[str], *parts: str) -> NDArray[np.int64]:
        """The positions in ``image_ids`` of the images in any of ``parts``, in the order of ``image_ids``.

        ``dataset.select(manifest.rows(dataset["image_id"], "train"))`` is the training part of a data set.
        """
        for part in parts:
            if part not in self.parts:
                raise DataError(f"the split has no part {part!r}; it has {', '.join(self.parts)}")
        wanted = [row for row, image_id in enumerate(image_ids) if self.part_of.get(image_id) in parts]
        return np.array(wanted, np.int64)

    def without(self, *parts: str) -> tuple[str, ...]:
        """The other parts: what a fold is trained on.

        ``manifest.rows(ids, *manifest.without("fold0"))`` are the training rows of the first fold.
        """
        return tuple(part for part in self.parts if part not in parts)

    def describe(self) -> dict[str, Any]:
        """What a model repo says of the split: everything but the images, and the hash."""
        content = self._content()
        del content["images"]
        return {**content, "hash": self.hash, "images": len(self.ids), "units": len(set(self.units))}

    def _content(self) -> dict[str, Any]:
        return {
            "version": VERSION,
            "seed": self.seed,
            "method": self.method,
            "space": self.space,
            "classes": list(self.classes),
            "parts": list(self.parts),
            "counts": self.counts(),
            "warnings": list(self.warnings),
            "leaks": dict(self.leaks),
            "images": [list(image) for image in zip(self.ids, self.labels, self.units, self.places, strict=True)],
        }

    def to_dict(self) -> dict[str, Any]:
        """The manifest as plain JSON values; ``images`` has one ``[id, class, unit, part]`` per image."""
        return {"hash": self.hash, **self._content()}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the manifest as JSON, one image per line; a file is there whole or not at all."""
        content = self.to_dict()
        images = ",\n".join(json.dumps(image, separators=(",", ":")) for image in content.pop("images"))
        head = json.dumps(content, indent=1)[:-2]
        write_whole(Path(path), f'{head},\n "images": [\n{images}\n]\n}}\n')


def _canonical(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()


def load_manifest(path: str | os.PathLike[str], dataset: Dataset | None = None, *, allow_leaks: bool = False) -> SplitManifest:
    """Read a manifest and check it: its hash, that no unit lies in two parts and, given ``dataset``, that the two agree.

    ``allow_leaks`` accepts an official split that is known to share lesions between its parts. Raises `DataError`.

        manifest = load_manifest("split.json", read("data/ham10000").dataset)
        train = dataset.select(manifest.rows(dataset["image_id"], "train"))
    """
    manifest = _parse(Path(path))
    if not allow_leaks:
        _check_disjoint(manifest, path)
    if dataset is not None:
        check_manifest(manifest, dataset, name=str(path))
    return manifest


def _parse(path: Path) -> SplitManifest:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}); make it with lesion-hub data split") from None
    except ValueError:
        raise DataError(f"{path}: not JSON; make it anew with lesion-hub data split") from None
    if not isinstance(content, dict) or set(content) != _KEYS or content["version"] != VERSION:
        raise DataError(f"{path}: not a split manifest of version {VERSION}; make it anew with lesion-hub data split")
    stated = content.pop("hash")
    if hashlib.sha256(_canonical(content)).hexdigest() != stated:
        raise DataError(
            f"{path}: its hash does not match its content, so it was edited; make it anew with lesion-hub data split"
        )
    ids, labels, units, places = zip(*content["images"], strict=True) if content["images"] else ((), (), (), ())
    return SplitManifest(
        seed=content["seed"],
        method=content["method"],
        space=content["space"],
        classes=tuple(content["classes"]),
        parts=tuple(content["parts"]),
        ids=ids,
        labels=labels,
        units=units,
        places=places,
        warnings=tuple(content["warnings"]),
        leaks=content["leaks"],
    )


def _check_disjoint(manifest: SplitManifest, path: str | os.PathLike[str]) -> None:
    home: dict[int, int] = {}
    for image_id, unit, place in zip(manifest.ids, manifest.units, manifest.places, strict=True):
        if home.setdefault(unit, place) != place:
            parts = f"{manifest.parts[home[unit]]} and {manifest.parts[place]}"
            fix = "split anew, drop what leaks, or allow the leaks of an official split knowingly"
            raise DataError(f"{path}: {image_id} and its group or duplicates lie in both {parts}; {fix}")


def check_manifest(manifest: SplitManifest, dataset: Dataset, *, name: str = "the split", groups: bool = True) -> None:
    """Raise `DataError` unless ``dataset`` holds the manifest's images with the manifest's labels and uncut groups.

    With ``groups`` False cut groups are left for the caller to judge.
    """
    names = dataset.features["label"].names
    known = dict(zip(manifest.ids, zip(manifest.labels, manifest.places, strict=True), strict=True))
    home: dict[str, tuple[str, int]] = {}
    columns = (list(dataset[column]) for column in ("image_id", "label", "group"))
    image_ids = set()
    for image_id, label, group in zip(*columns, strict=True):
        image_ids.add(image_id)
        if image_id not in known:
            if manifest.leaks.get("dropped"):
                continue
            raise DataError(f"{name}: image {image_id} of the data set is not in the split; split this data set anew")
        stated, place = known[image_id]
        if manifest.classes[stated] != names[label]:
            was, found = manifest.classes[stated], names[label]
            raise DataError(f"{name}: image {image_id} is {was!r} in the split but {found!r} in the data set; split anew")
        other, elsewhere = home.setdefault(group, (image_id, place))
        if groups and elsewhere != place and not manifest.leaks:
            raise DataError(f"{name}: group {group} has {other} and {image_id} in two parts; split this data set anew")
    missing = next((image_id for image_id in manifest.ids if image_id not in image_ids), None)
    if missing is not None:
        raise DataError(f"{name}: image {missing} of the split is not in the data set; read the data set that was split")
