"""What a published model says of the images it was made with, so that others can tell whether theirs are among them.

Names are kept as short digests: a list of ten thousand is some hundred kilobytes, and asking whether an image or a lesion
was there needs no more. They hide nothing from who knows the names already.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from lesion_hub.errors import DataError

DIGITS = 12
RECORD_KEY = "digests"


@dataclass(frozen=True)
class PartRecord:
    """Digests of the image ids and of the groups (lesions or patients) of one part."""

    images: frozenset[str] = field(repr=False)
    groups: frozenset[str] = field(repr=False)

    @classmethod
    def of(cls, image_ids: Iterable[str], groups: Iterable[str]) -> PartRecord:
        """The record of a part's columns.

        >>> len(PartRecord.of(["a", "b"], ["lesion1", "lesion1"]).groups)
        1
        """
        return cls(frozenset(map(image_digest, image_ids)), frozenset(map(group_digest, groups)))

    def to_dict(self) -> dict[str, str]:
        """Plain JSON values: the sorted digests, run together."""
        return {"images": "".join(sorted(self.images)), "groups": "".join(sorted(self.groups))}


def image_digest(image_id: str) -> str:
    """The digest of an image's id."""
    return _digest("image", image_id)


def group_digest(group: str) -> str:
    """The digest of a lesion's or patient's id."""
    return _digest("group", group)


def describe_parts(parts: Mapping[str, PartRecord]) -> dict[str, Any]:
    """The entry for ``split.json``, to be merged into what the manifest says of itself."""
    return {RECORD_KEY: {name: record.to_dict() for name, record in parts.items()}}


def read_parts(split: Mapping[str, Any], where: str = "split.json") -> dict[str, PartRecord]:
    """The parts that a ``split.json`` describes; none where it says nothing of its images.

    >>> read_parts(describe_parts({"train": PartRecord.of(["a"], ["a"])}))["train"].images == {image_digest("a")}
    True
    """
    found = split.get(RECORD_KEY) or {}
    try:
        return {name: PartRecord(_split(part["images"]), _split(part["groups"])) for name, part in found.items()}
    except (AttributeError, KeyError, TypeError, ValueError):
        raise DataError(f"{where}: its list of images is damaged; restore the file from where it was published") from None


def _digest(kind: str, name: str) -> str:
    return hashlib.sha256(f"lesion-hub {kind} {name}".encode()).hexdigest()[:DIGITS]


def _split(digests: str) -> frozenset[str]:
    if len(digests) % DIGITS:
        raise ValueError(f"{len(digests)} characters are no whole number of digests")
    return frozenset(digests[start : start + DIGITS] for start in range(0, len(digests), DIGITS))
