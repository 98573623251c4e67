"""Sums over examples, for many weightings of the same examples at once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

_GROUPS_PER_BLOCK = 2048  # a block of counts of a few hundred weightings stays in the processor's cache


class AdditiveSums:
    """R sums, each over some of the examples, of values that are weighted by how often the example's group counts.

    ``value`` (T,) float, ``row`` (T,) the sum it belongs to in [0, R), ``group`` (T,) in [0, G); ``shape`` is (R, G).
    """

    def __init__(
        self, value: NDArray[np.float64], row: NDArray[np.int64], group: NDArray[np.int64], shape: tuple[int, int]
    ) -> None:
        terms = sparse.coo_array((value, (row, group)), shape=shape).tocsc()
        starts = range(0, shape[1], _GROUPS_PER_BLOCK)
        self._rows = shape[0]
        self._blocks = [(start, terms[:, start : start + _GROUPS_PER_BLOCK].tocsr()) for start in starts]

    def weighted(self, counts: NDArray[np.floating]) -> NDArray[np.float64]:
        """(R, B) float64 sums for (G, B) ``counts``."""
        total = np.zeros((self._rows, counts.shape[1]))
        for start, terms in self._blocks:
            total += terms @ counts[start : start + terms.shape[1]].astype(np.float64)
        return total
