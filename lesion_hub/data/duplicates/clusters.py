"""Pairs joined into clusters, and clusters joined with the groups that a data set comes with."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components


def components(count: int, pairs: NDArray[np.integer]) -> NDArray[np.int64]:
    """The connected component (count,) of each of ``count`` images linked by index ``pairs`` (M, 2).

    Components are numbered by their first member, so the numbers do not depend on the order of the pairs.

    >>> components(4, np.array([[3, 1]])).tolist()
    [0, 1, 2, 1]
    """
    links = coo_matrix((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    _, found = connected_components(links, directed=False)
    _, first, inverse = np.unique(found, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[inverse.reshape(-1)]


def unite(*groupings: Sequence[Hashable]) -> NDArray[np.int64]:
    """The component (N,) of each image when images that share a group in ANY of ``groupings`` belong together.

    >>> unite(["a", "a", "b", "c"], [0, 1, 1, 2]).tolist()
    [0, 0, 0, 1]
    """
    count = len(groupings[0])
    pairs: list[tuple[int, int]] = []
    for grouping in groupings:
        first: dict[Hashable, int] = {}
        pairs.extend((first.setdefault(group, row), row) for row, group in enumerate(grouping))
    return components(count, np.array(pairs, np.int64).reshape(-1, 2))


def listed_pairs(groups: NDArray[np.integer], limit: int = 10) -> list[tuple[int, int]]:
    """Index pairs of the members of each group: all of them in groups of up to ``limit``, else each with the first.

    >>> listed_pairs(np.array([0, 1, 0, 0]))
    [(0, 2), (0, 3), (2, 3)]
    """
    order = np.argsort(groups, kind="stable")
    starts = np.flatnonzero(np.diff(groups[order])) + 1
    pairs: list[tuple[int, int]] = []
    for members in np.split(order, starts):
        heads = members[:-1] if len(members) <= limit else members[:1]
        pairs.extend((int(a), int(b)) for place, a in enumerate(heads) for b in members[place + 1 :])
    return sorted(pairs)
