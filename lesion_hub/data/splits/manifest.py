"""The file of a split, which says of every image which part it is in, and the record of it that a published model keeps.

The file names the images, is hashed, and is checked when it is loaded. The record holds digests in their place: enough to
recognise an image or a lesion again, without listing the data set.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lesion_hub.errors import DataError
from lesion_hub.files import write_text

if TYPE_CHECKING:
    from datasets import Dataset

_VERSION = 1
_KEYS = {"version", "hash", "seed", "method", "space", "classes", "parts", "counts", "warnings", "leaks", "images"}

_DIGEST_LENGTH = 12
RECORD_KEY = "digests"


@dataclass(frozen=True)
class SplitManifest:
    """A split of N images, ordered by id.

    ``method`` says how it was made; ``space`` and ``classes`` name the label space and its labels; ``parts`` the parts
    (``train``, ``val``, ``test``, or ``fold0`` ...). Image ``ids[i]`` has the class ``labels[i]``, belongs to the unit
    ``units[i]`` (its group united with its near duplicates) and lies in the part ``places[i]``; the three are indices.
    ``leaks`` counts what the parts share: nothing, except in an official split that is kept as its authors made it; and of such
    a one the images that were ``dropped`` from a part for that, or that it leaves ``unassigned``.
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
        """The SHA-256 of the content, which does not depend on the order in which the images were given."""
        return _hash(self._content())

    @cached_property
    def part_of(self) -> dict[str, str]:
        """Image id -> part."""
        return {image_id: self.parts[place] for image_id, place in zip(self.ids, self.places, strict=True)}

    def counts(self) -> dict[str, dict[str, int]]:
        """Count the images per part and class."""
        table = np.zeros((len(self.parts), len(self.classes)), np.int64)
        np.add.at(table, (np.array(self.places, int), np.array(self.labels, int)), 1)
        return {part: dict(zip(self.classes, row, strict=True)) for part, row in zip(self.parts, table.tolist(), strict=True)}

    def rows(self, image_ids: Sequence[str], *parts: str) -> NDArray[np.int64]:
        """Return the positions in ``image_ids`` of the images in any of ``parts``, in the order of ``image_ids``.

        ``dataset.select(manifest.rows(dataset["image_id"], "train"))`` is the training part of a data set.
        """
        for part in parts:
            if part not in self.parts:
                raise DataError(f"the split has no part {part!r}; it has {', '.join(self.parts)}")
        wanted = [row for row, image_id in enumerate(image_ids) if self.part_of.get(image_id) in parts]
        return np.array(wanted, np.int64)

    def without(self, *parts: str) -> tuple[str, ...]:
        """Return the parts but ``parts``: without a fold, those that it is trained on.

        ``manifest.rows(ids, *manifest.without("fold0"))`` are the training rows of the first fold.
        """
        return tuple(part for part in self.parts if part not in parts)

    def describe(self) -> dict[str, Any]:
        """Return what a model repo says of the split: everything but the images, and the hash."""
        content = self._content()
        del content["images"]
        return {**content, "hash": self.hash, "images": len(self.ids), "units": len(set(self.units))}

    def _content(self) -> dict[str, Any]:
        return {
            "version": _VERSION,
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
        """Return the manifest as plain JSON values; ``images`` has one ``[id, class, unit, part]`` per image."""
        return {"hash": self.hash, **self._content()}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the manifest as JSON, one image per line, whole or not at all."""
        content = self.to_dict()
        images = ",\n".join(json.dumps(image, separators=(",", ":")) for image in content.pop("images"))
        head = json.dumps(content, indent=1)[:-2]
        write_text(Path(path), f'{head},\n "images": [\n{images}\n]\n}}\n')


def _hash(content: Mapping[str, Any]) -> str:
    # Not `sha256_of_json`: these separators are part of the format.
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def load_manifest(path: str | os.PathLike[str], dataset: Dataset | None = None, *, allow_leaks: bool = False) -> SplitManifest:
    """Read a manifest and check it: its hash, that no unit lies in two parts and, given ``dataset``, that the two agree.

    ``allow_leaks`` accepts an official split that is known to share lesions between its parts. Raises `DataError`.

        manifest = load_manifest("split.json", read("data/ham10000").dataset)
        train = dataset.select(manifest.rows(dataset["image_id"], "train"))
    """
    manifest = _parse(Path(path))
    if not allow_leaks:
        home: dict[int, int] = {}
        for image_id, unit, place in zip(manifest.ids, manifest.units, manifest.places, strict=True):
            if home.setdefault(unit, place) != place:
                parts = f"{manifest.parts[home[unit]]} and {manifest.parts[place]}"
                fix = "split anew, drop what leaks, or allow the leaks of an official split knowingly"
                raise DataError(f"{path}: {image_id} and its group or duplicates lie in both {parts}; {fix}")
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
    if not isinstance(content, dict) or set(content) != _KEYS or content["version"] != _VERSION:
        raise DataError(f"{path}: not a split manifest of version {_VERSION}; make it anew with lesion-hub data split")
    stated = content.pop("hash")
    if _hash(content) != stated:
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


def check_manifest(manifest: SplitManifest, dataset: Dataset, *, name: str = "the split", groups: bool = True) -> None:
    """Raise `DataError` unless ``dataset`` holds the manifest's images with the manifest's labels and uncut groups.

    With ``groups`` False cut groups are left for the caller to judge.
    """
    names = dataset.features["label"].names
    known = dict(zip(manifest.ids, zip(manifest.labels, manifest.places, strict=True), strict=True))
    left_out = sum(manifest.leaks.get(why, 0) for why in ("dropped", "unassigned"))
    cut_knowingly = bool(manifest.leaks.keys() - {"unassigned"})
    home: dict[str, tuple[str, int]] = {}
    image_ids, labels, groups_found = (list(dataset[column]) for column in ("image_id", "label", "group"))
    for image_id, label, group in zip(image_ids, labels, groups_found, strict=True):
        if image_id not in known:
            if left_out:
                continue
            raise DataError(f"{name}: image {image_id} of the data set is not in the split; split this data set anew")
        stated, place = known[image_id]
        if manifest.classes[stated] != names[label]:
            was, found = manifest.classes[stated], names[label]
            raise DataError(f"{name}: image {image_id} is {was!r} in the split but {found!r} in the data set; split anew")
        other, elsewhere = home.setdefault(group, (image_id, place))
        if groups and elsewhere != place and not cut_knowingly:
            raise DataError(f"{name}: group {group} has {other} and {image_id} in two parts; split this data set anew")
    present = set(image_ids)
    missing = next((image_id for image_id in manifest.ids if image_id not in present), None)
    if missing is not None:
        raise DataError(f"{name}: image {missing} of the split is not in the data set; read the data set that was split")


# ------------------------------------------------------------------------------------------------ the published record


@dataclass(frozen=True)
class PartRecord:
    """Digests of the image ids and of the groups (lesions or patients) of one part."""

    images: frozenset[str] = field(repr=False)
    groups: frozenset[str] = field(repr=False)

    @classmethod
    def of(cls, image_ids: Iterable[str], groups: Iterable[str]) -> PartRecord:
        """Make the record of a part from its columns.

        >>> len(PartRecord.of(["a", "b"], ["lesion1", "lesion1"]).groups)
        1
        """
        return cls(frozenset(map(image_digest, image_ids)), frozenset(map(group_digest, groups)))

    def __or__(self, other: PartRecord) -> PartRecord:
        """Return the record of both parts' images together."""
        return PartRecord(self.images | other.images, self.groups | other.groups)

    def to_dict(self) -> dict[str, str]:
        """Return plain JSON values: the sorted digests, run together."""
        return {"images": "".join(sorted(self.images)), "groups": "".join(sorted(self.groups))}


def image_digest(image_id: str) -> str:
    """Return the digest of an image's id."""
    return _digest("image", image_id)


def group_digest(group: str) -> str:
    """Return the digest of a lesion's or patient's id."""
    return _digest("group", group)


def describe_parts(parts: Mapping[str, PartRecord]) -> dict[str, Any]:
    """Return the entry for ``split.json``, to be merged into what `SplitManifest.describe` gives."""
    return {RECORD_KEY: {name: record.to_dict() for name, record in parts.items()}}


def read_parts(split: Mapping[str, Any], where: str = "split.json") -> dict[str, PartRecord]:
    """Return the parts that a ``split.json`` describes; none where it says nothing of its images.

    >>> read_parts(describe_parts({"train": PartRecord.of(["a"], ["a"])}))["train"].images == {image_digest("a")}
    True
    """
    found = split.get(RECORD_KEY) or {}
    try:
        return {name: PartRecord(_separated(part["images"]), _separated(part["groups"])) for name, part in found.items()}
    except (AttributeError, KeyError, TypeError, ValueError):
        raise DataError(f"{where}: its list of images is damaged; restore the file from where it was published") from None


def _digest(kind: str, name: str) -> str:
    return hashlib.sha256(f"lesion-hub {kind} {name}".encode()).hexdigest()[:_DIGEST_LENGTH]


def _separated(digests: str) -> frozenset[str]:
    if len(digests) % _DIGEST_LENGTH:
        raise ValueError(f"{len(digests)} characters are no whole number of digests")
    return frozenset(digests[start : start + _DIGEST_LENGTH] for start in range(0, len(digests), _DIGEST_LENGTH))
