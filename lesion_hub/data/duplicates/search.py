"""Find exact and near duplicates within a set of fingerprints, or between two sets.

Exact copies share a hash. Candidates for near ones come from a nearest-neighbour search, which asks for the few nearest of
every image, never for all within a radius: so their number is linear in the number of images, however many look alike. Each
candidate pair is then verified: aligned and compared level by level, coarse to fine; what agrees in fine detail is one picture.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from joblib import Parallel, delayed
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from lesion_hub.data.duplicates.alignment import (
    Fields,
    averaged_down,
    correlation,
    identity_maps,
    refine,
    turned,
    turned_each,
    warp,
)
from lesion_hub.data.duplicates.fingerprints import Fingerprints
from lesion_hub.progress import Progress

Pairs = NDArray[np.int64]


@dataclass(frozen=True)
class Duplicates:
    """What was found among N images. Pairs are positions, the smaller first, sorted.

    ``exact`` are pairs of the same file or the same pixels (of more than ten copies, each with the first only);
    ``near`` pairs of one picture that was resized, recompressed, flipped, turned, cropped or brightened, of exact copies
    the first standing for all. ``clusters`` (N,) gives every image the number of its cluster, joined by both kinds.
    """

    exact: tuple[tuple[int, int], ...]
    near: tuple[tuple[int, int], ...]
    clusters: NDArray[np.int64] = field(repr=False)


def find_duplicates(prints: Fingerprints, *, workers: int | None = None, progress: Progress | None = None) -> Duplicates:
    """Find exact and near duplicates among ``prints``; ``progress(done, total)`` counts the pairs that are compared.

    >>> find_duplicates(Fingerprints.empty(0)).exact
    ()
    """
    rows = np.flatnonzero(prints.readable)
    groups = exact_groups(prints.file[rows], prints.pixels[rows])
    exact = [(int(rows[a]), int(rows[b])) for a, b in listed_pairs(groups)]
    # The first of exact copies stands for all of them.
    heads = rows[np.unique(groups, return_index=True)[1]]
    # Searching in the order of content makes borderline verdicts the same in whatever order the images come.
    heads = heads[np.argsort(prints.pixels[heads], kind="stable")]
    found = near_candidates(prints.terms[heads], workers=-1 if workers is None else workers)
    same = verify(prints.gray, prints.gray, heads[found], workers=workers, progress=progress)
    near = np.sort(heads[found[same]], axis=1)
    links = np.concatenate([np.array(exact, np.int64).reshape(-1, 2), near])
    return Duplicates(tuple(exact), tuple(sorted(map(tuple, near.tolist()))), components(len(prints), links))


@dataclass(frozen=True)
class CrossDuplicates:
    """Pairs (position in the first set, position in the second) of exact and of near duplicates, sorted.

    An image with many exact copies in the other set is paired with the first of them.
    """

    exact: tuple[tuple[int, int], ...]
    near: tuple[tuple[int, int], ...]


def find_duplicates_between(
    prints: Fingerprints, others: Fingerprints, *, workers: int | None = None, progress: Progress | None = None
) -> CrossDuplicates:
    """Find images of ``prints`` that are also, or nearly, in ``others``.

    >>> find_duplicates_between(Fingerprints.empty(0), Fingerprints.empty(0))
    CrossDuplicates(exact=(), near=())
    """
    ours, theirs = np.flatnonzero(prints.readable), np.flatnonzero(others.readable)
    digests = ((prints.file, others.file), (prints.pixels, others.pixels))
    exact: set[tuple[int, int]] = set()
    for mine, other in digests:
        first: dict[bytes, int] = {}
        for b in theirs.tolist():
            first.setdefault(other[b].tobytes(), b)
        exact.update((a, first[digest]) for a in ours.tolist() if (digest := mine[a].tobytes()) in first)
    found = near_candidates(prints.terms[ours], others.terms[theirs], workers=-1 if workers is None else workers)
    pairs = np.stack([ours[found[:, 0]], theirs[found[:, 1]]], axis=1)
    same = verify(prints.gray, others.gray, pairs, workers=workers, progress=progress)
    near = [
        (a, b) for a, b in sorted(map(tuple, pairs[same].tolist())) if not any(mine[a] == other[b] for mine, other in digests)
    ]
    return CrossDuplicates(tuple(sorted(exact)), tuple(near))


# ------------------------------------------------------------------------------------------------ near candidates


@dataclass(frozen=True)
class Search:
    """How to search: up to ``neighbours`` within ``reach``, each at most (1 + ``slack``) times as far as the true one.

    In the unit of the descriptors a crop by 5 % moves an image by 4 (median) to 13 (one in a thousand), 5 % off every
    side by 7 to 22.
    """

    neighbours: int = 24
    reach: float = 24.0
    slack: float = 0.5


# Of 400,000 images a thorough search takes several minutes, a fast one takes one and misses some heavily cropped copies: sets
# of LARGE or more images are searched fast.
THOROUGH = Search()
FAST = Search(neighbours=16, reach=16.0, slack=2.0)
LARGE = 50_000


def near_candidates(
    terms: NDArray[np.float32],
    others: NDArray[np.float32] | None = None,
    *,
    search: Search | None = None,
    workers: int = -1,
) -> Pairs:
    """Return index pairs (M, 2) of descriptors (N, TERMS) that lie near each other; M is at most N times the neighbours.

    Without ``others`` the pairs are within ``terms``, each once with the smaller index first; with it they are
    (row of ``terms``, row of ``others``). Points at the same place are compared through one of them, and linked to it.
    ``search`` is by default `THOROUGH`, or `FAST` where `LARGE` or more are searched; ``workers`` are threads, -1 for
    all cores.

    >>> near_candidates(np.float32([[0, 0], [1, 0], [50, 0]])).tolist()
    [[0, 1]]
    """
    search = search or (THOROUGH if len(terms if others is None else others) < LARGE else FAST)
    if others is not None:
        return _nearest(others, terms, search, workers)
    if len(terms) < 2:
        return np.zeros((0, 2), np.int64)
    # A k-d tree degenerates on thousands of equal points, and they would fill each other's lists of neighbours.
    distinct, first, place = np.unique(terms, axis=0, return_index=True, return_inverse=True)
    # Every point finds itself too.
    found = _nearest(distinct, distinct, replace(search, neighbours=search.neighbours + 1), workers)
    between = first[found[found[:, 0] != found[:, 1]]]
    pairs = np.concatenate([_chain(place.reshape(-1)), between])
    return np.unique(np.sort(pairs, axis=1), axis=0)


def _nearest(points: NDArray[np.float32], queries: NDArray[np.float32], search: Search, workers: int) -> Pairs:
    """Return (query, point) index pairs of the ``points`` near each of ``queries``."""
    if not len(points) or not len(queries):
        return np.zeros((0, 2), np.int64)
    nearest = np.arange(1, min(search.neighbours, len(points)) + 1)
    tree = cKDTree(points)
    _, found = tree.query(queries, k=nearest, eps=search.slack, distance_upper_bound=search.reach, workers=workers)
    rows, slots = np.nonzero(found < len(points))
    return np.stack([rows, found[rows, slots]], axis=1).astype(np.int64)


# ------------------------------------------------------------------------------------------------ exact copies, groups


def exact_groups(*digests: NDArray[np.void]) -> NDArray[np.int64]:
    """Number the images (N,) so that those that share any of their digests, each column (N,) of 32-byte voids, are one group.

    >>> exact_groups(np.array([b"a", b"b", b"a"], "S32").view("V32")).tolist()
    [0, 1, 0]
    """
    chains = [_chain(np.unique(column, return_inverse=True)[1]) for column in digests]
    return components(len(digests[0]), np.concatenate(chains))


def _chain(groups: NDArray[np.integer]) -> Pairs:
    """Return pairs (M, 2) that link each member of a group to the next one."""
    order = np.argsort(groups, kind="stable")
    linked = groups[order[1:]] == groups[order[:-1]]
    return np.stack([order[:-1][linked], order[1:][linked]], axis=1).astype(np.int64)


def components(count: int, pairs: NDArray[np.integer]) -> NDArray[np.int64]:
    """Return the connected component (count,) of each of ``count`` images linked by index ``pairs`` (M, 2).

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
    """Return the component (N,) of each image when images that share a group in ANY of ``groupings`` belong together.

    >>> unite(["a", "a", "b", "c"], [0, 1, 1, 2]).tolist()
    [0, 0, 0, 1]
    """
    pairs: list[tuple[int, int]] = []
    for grouping in groupings:
        first: dict[Hashable, int] = {}
        pairs.extend((first.setdefault(group, row), row) for row, group in enumerate(grouping))
    return components(len(groupings[0]), np.array(pairs, np.int64).reshape(-1, 2))


def listed_pairs(groups: NDArray[np.integer], limit: int = 10) -> list[tuple[int, int]]:
    """List index pairs of the members of each group: all of them in groups of up to ``limit``, else each with the first.

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


# ------------------------------------------------------------------------------------------------ verifying candidates

DETAIL_THRESHOLD = 0.65

# Each level rejects what cannot be a copy before the next, costlier one: (size, steps, least overall correlation).
_LEVELS = ((16, 4, 0.92), (32, 4, 0.95), (64, 3, 0.95))
_LEAST_DETAIL_HALFWAY = 0.6
# Symmetries that correlate about as well before alignment are tried too: on a nearly round lesion the best may be wrong.
_SYMMETRIES_TRIED, _CLOSE_CALL = 2, 0.15
# A copy that is cropped or tilted more than this is another photograph for our purpose.
_LARGEST_CHANGE = 0.4
_LEAST_OVERLAP = 0.5
_RIM_SHARE = 8
_CHUNK = 512
_SMALL_POOL = 4


def verify(
    gray: NDArray[np.uint8],
    others: NDArray[np.uint8],
    pairs: Pairs,
    *,
    threshold: float = DETAIL_THRESHOLD,
    workers: int | None = None,
    progress: Progress | None = None,
) -> NDArray[np.bool_]:
    """Tell which of ``pairs`` (M, 2), rows of ``gray`` and of ``others`` (N, 64, 64), show one picture: (M,) bool.

    >>> rng = np.random.default_rng(0)
    >>> one, two = rng.integers(0, 256, (2, 64, 64), dtype=np.uint8)
    >>> verify(np.stack([one, two]), np.stack([one[:, ::-1]]), np.array([[0, 0], [1, 0]])).tolist()
    [True, False]
    """
    if not len(pairs):
        return np.zeros(0, bool)
    chunks = np.array_split(pairs, -(-len(pairs) // _CHUNK))
    jobs = (-1 if workers is None else workers) if len(chunks) >= _SMALL_POOL else 1
    work = (delayed(detail_similarity)(gray[chunk[:, 0]], others[chunk[:, 1]]) for chunk in chunks)
    similarities, done = [], 0
    for similarity in Parallel(n_jobs=jobs, return_as="generator", pre_dispatch="3*n_jobs", batch_size=1)(work):
        similarities.append(similarity)
        done += len(similarity)
        if progress is not None:
            progress(done, len(pairs))
    return np.asarray(np.concatenate(similarities) >= threshold)


def detail_similarity(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return the correlation (N,) of the fine detail of aligned thumbnails (N, 64, 64); 0 for pairs rejected on the way.

    An image without any detail (a blank frame) has none to compare and is similar to nothing: exact hashes find those.
    """
    result = np.zeros(len(a), np.float32)
    left = a.astype(np.float32)
    right, maps, alive = _coarse_alignment(left, b.astype(np.float32))
    left, right, maps = left[alive], right[alive], maps[alive]
    for size, steps, least in _LEVELS[1:]:
        if not len(alive):
            return result
        # Smoothed enough for their gradients to be usable.
        target, moving = (gaussian_filter(averaged_down(fields, size), sigma=(0, 0.7, 0.7)) for fields in (left, right))
        maps = refine(target, moving, maps, steps)
        values, inside = warp(moving, maps)
        similarity = _detail_correlation(target, values, inside)
        keep = correlation(target, values, inside) >= least
        if size < _LEVELS[-1][0]:
            keep &= similarity >= _LEAST_DETAIL_HALFWAY
        keep &= np.abs(maps - identity_maps(len(maps))).max((1, 2)) <= _LARGEST_CHANGE
        keep &= inside.mean((1, 2)) >= _LEAST_OVERLAP
        left, right, maps = left[keep], right[keep], maps[keep]
        alive, similarity = alive[keep], similarity[keep]
    result[alive] = similarity
    return result


def _coarse_alignment(a: Fields, b: Fields) -> tuple[Fields, Fields, NDArray[np.intp]]:
    """Return ``b`` turned to fit ``a``, a first affine map for each pair, and the positions of the pairs that may be copies."""
    size, steps, least = _LEVELS[0]
    small_a, small_b = averaged_down(a, size), averaged_down(b, size)
    scores = np.stack([correlation(small_a, turned(small_b, symmetry)) for symmetry in range(8)], axis=1)
    ranked = np.argsort(-scores, axis=1, kind="stable")
    count = len(a)
    best = np.full(count, -1.0, np.float32)
    symmetry, maps = ranked[:, 0].copy(), identity_maps(count)
    for choice in range(_SYMMETRIES_TRIED):
        close = np.flatnonzero(np.take_along_axis(scores, ranked[:, choice, None], 1)[:, 0] >= scores.max(1) - _CLOSE_CALL)
        target, candidate = small_a[close], turned_each(small_b[close], ranked[close, choice])
        found = refine(target, candidate, identity_maps(len(close)), steps)
        score = correlation(target, *warp(candidate, found))
        won = score > best[close]
        better = close[won]
        best[better], symmetry[better], maps[better] = score[won], ranked[better, choice], found[won]
    return turned_each(b, symmetry), maps, np.flatnonzero(best >= least)


def _detail_correlation(target: Fields, values: Fields, inside: Fields) -> NDArray[np.float32]:
    """Correlate detail over the whole and over the middle; return the lesser of both: different pictures may share a frame."""
    fields = (_detail(target), _detail(values), inside)
    rim = target.shape[1] // _RIM_SHARE
    middle = (field[:, rim:-rim, rim:-rim] for field in fields)
    return np.minimum(correlation(*fields), correlation(*middle))


def _detail(fields: Fields) -> Fields:
    """Return what a blur by 1.8 pixels takes away, divided by its local size so that no single edge or hair dominates."""
    fine = fields - gaussian_filter(fields, (0, 1.8, 1.8))
    # The 1 (gray level squared) keeps compression noise in smooth skin from being magnified into detail.
    return np.asarray(fine / np.sqrt(gaussian_filter(fine * fine, (0, 3.6, 3.6)) + 1))
