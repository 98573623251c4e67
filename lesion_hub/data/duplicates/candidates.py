"""Which pairs are worth comparing: exact copies by their hashes, near ones by a nearest-neighbour search.

The search asks for the few nearest of every image, never for all within a radius, so the number of candidates is linear
in the number of images however many of them look alike.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from lesion_hub.data.duplicates.clusters import components

Pairs = NDArray[np.int64]


@dataclass(frozen=True)
class Search:
    """How far to look: up to ``neighbours`` within ``reach``, any of them passed over for one (1 + ``slack``) as far.

    In the unit of the descriptors a crop by 5 % moves an image by 4 (median) to 13 (one in a thousand), 5 % off every
    side by 7 to 22.
    """

    neighbours: int = 24
    reach: float = 24.0
    slack: float = 0.5


THOROUGH = Search()
# Searching 400,000 images thoroughly takes minutes, this one; the price is some of the most heavily cropped copies.
BRISK = Search(neighbours=16, reach=16.0, slack=2.0)
LARGE = 50_000


def search_for(count: int) -> Search:
    """How to search a set of ``count`` images.

    >>> search_for(400_000) == BRISK
    True
    """
    return THOROUGH if count < LARGE else BRISK


def exact_groups(*digests: NDArray[np.void]) -> NDArray[np.int64]:
    """A number (N,) per image, the same for images that share any of their digests, each column (N,) of 32-byte voids.

    >>> exact_groups(np.array([b"a", b"b", b"a"], "S32").view("V32")).tolist()
    [0, 1, 0]
    """
    count = len(digests[0])
    chains = [_chain(np.unique(column, return_inverse=True)[1]) for column in digests]
    return components(count, np.concatenate(chains))


def _chain(groups: NDArray[np.integer]) -> Pairs:
    """Pairs (M, 2) that link each member of a group to the next one."""
    order = np.argsort(groups, kind="stable")
    linked = groups[order[1:]] == groups[order[:-1]]
    return np.stack([order[:-1][linked], order[1:][linked]], axis=1).astype(np.int64)


def near_candidates(
    terms: NDArray[np.float32],
    others: NDArray[np.float32] | None = None,
    *,
    search: Search | None = None,
    workers: int = -1,
) -> Pairs:
    """Index pairs (M, 2) of descriptors (N, TERMS) that lie near each other; M is at most N times the neighbours.

    Without ``others`` the pairs are within ``terms``, each once with the smaller index first; with it they are
    (row of ``terms``, row of ``others``). Points at the same place are compared through one of them, and linked to it.
    ``search`` is by default that of `search_for`; ``workers`` are threads, -1 for all cores.

    >>> near_candidates(np.float32([[0, 0], [1, 0], [50, 0]])).tolist()
    [[0, 1]]
    """
    if others is None:
        return _within(terms, search or search_for(len(terms)), workers)
    if not len(terms) or not len(others):
        return np.zeros((0, 2), np.int64)
    rows, places = _nearest(cKDTree(others), terms, search or search_for(len(others)), workers)
    return np.stack([rows, places], axis=1)


def _within(terms: NDArray[np.float32], search: Search, workers: int) -> Pairs:
    if len(terms) < 2:
        return np.zeros((0, 2), np.int64)
    # A k-d tree degenerates on thousands of equal points, and they would fill each other's lists of neighbours.
    distinct, first, place = np.unique(terms, axis=0, return_index=True, return_inverse=True)
    itself = replace(search, neighbours=search.neighbours + 1)
    rows, others = _nearest(cKDTree(distinct), distinct, itself, workers)
    between = np.stack([first[rows], first[others]], axis=1)[rows != others]
    pairs = np.concatenate([_chain(place.reshape(-1)), between])
    return np.unique(np.sort(pairs, axis=1), axis=0)


def _nearest(
    tree: cKDTree, queries: NDArray[np.float32], search: Search, workers: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(query, neighbour) index arrays of the points of ``tree`` near each query."""
    nearest = np.arange(1, min(search.neighbours, tree.n) + 1)
    _, found = tree.query(queries, k=nearest, eps=search.slack, distance_upper_bound=search.reach, workers=workers)
    rows, slots = np.nonzero(found < tree.n)
    return rows.astype(np.int64), found[rows, slots].astype(np.int64)
