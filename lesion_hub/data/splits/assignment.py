"""Deal whole units (lesions with all that resembles them) out to parts, so that every part gets its share of each class.

scikit-learn's StratifiedGroupKFold knows only equal folds, depends on the order of the rows, and may leave a rare class
out of a fold that could have had it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def assign(
    ids: Sequence[str],
    labels: NDArray[np.integer],
    units: NDArray[np.integer],
    shares: Sequence[float],
    seed: int,
) -> NDArray[np.int64]:
    """The part (N,) 0..len(shares)-1 of each of N images; a unit is never cut.

    ``ids`` are unique; ``labels`` (N,) are 0..C-1; ``units`` (N,) number what must stay together; ``shares`` sum to 1.
    Classes are served from the rarest on, of each the largest units first, each to the part that lacks most images of
    the class. While a part has none of a class, it comes first as soon as no more units are left than such parts.
    The result depends on what the rows say and on ``seed``, not on their order.

    >>> assign(["a", "b", "c", "d"], np.zeros(4, int), np.array([0, 0, 1, 2]), [0.5, 0.5], seed=0).tolist()
    [0, 0, 1, 1]
    """
    counts = _class_counts(labels, units)
    order = _serving_order(ids, units, counts, seed)
    parts = _Parts(counts, shares)
    dealt = np.zeros(len(counts), np.int64)
    for unit, lead in order:
        dealt[unit] = parts.take(unit, lead)
    return dealt[units]


def _class_counts(labels: NDArray[np.integer], units: NDArray[np.integer]) -> NDArray[np.int64]:
    """Images per unit and class, (U, C)."""
    counts = np.zeros((int(units.max()) + 1, int(labels.max()) + 1), np.int64)
    np.add.at(counts, (units, labels), 1)
    return counts


def _serving_order(
    ids: Sequence[str], units: NDArray[np.integer], counts: NDArray[np.int64], seed: int
) -> list[tuple[int, int]]:
    """(unit, rarest class in it) in the order of being dealt; ties are broken by a hash of the seed and the first id."""
    names: dict[int, str] = {}
    for unit, image_id in zip(units.tolist(), ids, strict=True):
        names[unit] = min(names.get(unit, image_id), image_id)
    rank = np.empty(counts.shape[1], np.int64)
    rank[np.lexsort((np.arange(counts.shape[1]), counts.sum(0)))] = np.arange(counts.shape[1])
    leads = np.where(counts > 0, rank, counts.shape[1]).argmin(1)

    def key(unit: int) -> tuple[int, int, int, bytes]:
        lead = leads[unit]
        chance = hashlib.sha256(f"{seed}\0{names[unit]}".encode()).digest()
        return int(rank[lead]), -int(counts[unit, lead]), -int(counts[unit].sum()), chance

    return [(unit, int(leads[unit])) for unit in sorted(names, key=key)]


class _Parts:
    """The parts while they are filled: what each still lacks per class, and who has none of a class yet."""

    def __init__(self, counts: NDArray[np.int64], shares: Sequence[float]) -> None:
        # Plain lists: half a million times a handful of numbers is where numpy calls cost more than they do.
        self._classes = [np.flatnonzero(row).tolist() for row in counts]
        self._counts = counts
        self._lack = [[share * total for total in counts.sum(0).tolist()] for share in shares]
        self._room = [share * int(counts.sum()) for share in shares]
        self._waiting = [set(range(len(shares))) for _ in range(counts.shape[1])]
        self._left = (counts > 0).sum(0).tolist()

    def take(self, unit: int, lead: int) -> int:
        """Put ``unit``, whose rarest class is ``lead``, into a part and return which."""
        part = max(self._open_to(unit, lead), key=lambda p: (self._lack[p][lead], self._room[p], -p))
        for label in self._classes[unit]:
            number = int(self._counts[unit, label])
            self._lack[part][label] -= number
            self._room[part] -= number
            self._waiting[label].discard(part)
            self._left[label] -= 1
        return part

    def _open_to(self, unit: int, lead: int) -> list[int]:
        for label in (lead, *self._classes[unit]):
            waiting = self._waiting[label]
            if waiting and self._left[label] <= len(waiting):
                return sorted(waiting)
        return list(range(len(self._room)))
