"""What two parts of a split share: lesions or patients, the same file, nearly the same picture."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

IdPair = tuple[str, str]


@dataclass(frozen=True)
class Leaks:
    """``groups`` maps each shared group to the parts that hold it; pairs are ids of images in two parts."""

    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    exact: tuple[IdPair, ...] = ()
    near: tuple[IdPair, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.groups or self.exact or self.near)

    def __str__(self) -> str:
        return f"{len(self.groups):,} shared groups, {len(self.exact):,} exact and {len(self.near):,} near duplicate pairs"

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values.

        >>> Leaks().to_dict()
        {'shared_groups': {}, 'exact_duplicate_pairs': [], 'near_duplicate_pairs': []}
        """
        return {
            "shared_groups": {group: list(parts) for group, parts in self.groups.items()},
            "exact_duplicate_pairs": [list(pair) for pair in self.exact],
            "near_duplicate_pairs": [list(pair) for pair in self.near],
        }


def find_leaks(
    ids: Sequence[str],
    parts: Sequence[str | None],
    groups: Sequence[str],
    exact: Iterable[tuple[int, int]] = (),
    near: Iterable[tuple[int, int]] = (),
) -> Leaks:
    """What the parts of a split share. ``parts`` names the part of each image, None for images in no part.

    ``exact`` and ``near`` are the index pairs of `lesion_hub.data.duplicates.find_duplicates`.

    >>> find_leaks(["a", "b"], ["train", "test"], ["lesion1", "lesion1"]).groups
    {'lesion1': ('test', 'train')}
    """
    holders: dict[str, set[str]] = {}
    for group, part in zip(groups, parts, strict=True):
        if part is not None:
            holders.setdefault(group, set()).add(part)

    def crossing(pairs: Iterable[tuple[int, int]]) -> tuple[IdPair, ...]:
        apart = ((a, b) for a, b in pairs if None not in (parts[a], parts[b]) and parts[a] != parts[b])
        return tuple((ids[a], ids[b]) for a, b in apart)

    shared = {group: tuple(sorted(found)) for group, found in sorted(holders.items()) if len(found) > 1}
    return Leaks(shared, crossing(exact), crossing(near))
