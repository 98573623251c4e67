"""Is a pair of thumbnails one picture? Align them, then compare what different lesions do not share: fine detail.

Two round dark moles correlate at .95 whatever they are; their pores, hairs and pigment network do not. So the verdict
rests on detail with its local contrast evened out, where copies score above .8 and strangers mostly below .5.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
from joblib import Parallel, delayed
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from lesion_hub.data.duplicates.alignment import (
    Fields,
    Laid,
    correlation,
    identity_maps,
    lay,
    refine,
    shrunk,
    symmetry_scores,
    turned_each,
)
from lesion_hub.data.duplicates.candidates import Pairs

DETAIL_THRESHOLD = 0.65

# Each level rejects what cannot be a copy before the next, costlier one: (size, steps, least overall correlation).
_LEVELS = ((16, 4, 0.92), (32, 4, 0.95), (64, 3, 0.95))
_LEAST_DETAIL_HALFWAY = 0.6
# Symmetries that correlate about as well before alignment are tried too: a nearly round lesion may mislead.
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
    progress: Callable[[int, int], None] | None = None,
) -> NDArray[np.bool_]:
    """Which of ``pairs`` (M, 2), rows of ``gray`` and of ``others`` (N, 64, 64), show one picture: (M,) bool.

    >>> rng = np.random.default_rng(0)
    >>> one, two = rng.integers(0, 256, (2, 64, 64), dtype=np.uint8)
    >>> verify(np.stack([one, two]), np.stack([one[:, ::-1]]), np.array([[0, 0], [1, 0]])).tolist()
    [True, False]
    """
    if not len(pairs):
        return np.zeros(0, bool)
    chunks = np.array_split(pairs, -(-len(pairs) // _CHUNK))
    jobs = (-1 if workers is None else workers) if len(chunks) >= _SMALL_POOL else 1
    work = (delayed(_same)(gray[chunk[:, 0]], others[chunk[:, 1]], threshold) for chunk in chunks)
    verdicts, done = [], 0
    for verdict in Parallel(n_jobs=jobs, return_as="generator", pre_dispatch="3*n_jobs", batch_size=1)(work):
        verdicts.append(verdict)
        done += len(verdict)
        if progress is not None:
            progress(done, len(pairs))
    return np.concatenate(verdicts)


def _same(a: NDArray[np.uint8], b: NDArray[np.uint8], threshold: float) -> NDArray[np.bool_]:
    return detail_similarity(a, b) >= threshold


def detail_similarity(a: NDArray[np.uint8], b: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Correlation (N,) of the fine detail of aligned thumbnails (N, 64, 64); 0 for pairs rejected on the way.

    An image without any detail (a blank frame) has none to compare and is similar to nothing: exact hashes find those.
    """
    result = np.zeros(len(a), np.float32)
    left, right = a.astype(np.float32), b.astype(np.float32)
    right, maps, alive = _coarse(left, right)
    left, right, maps = left[alive], right[alive], maps[alive]
    for size, steps, least in _LEVELS[1:]:
        if not len(alive):
            break
        maps, laid, target = _aligned(left, right, maps, size, steps)
        similarity = _detail_correlation(target, laid)
        floor = _LEAST_DETAIL_HALFWAY if size < _LEVELS[-1][0] else -1.0
        keep = (correlation(target, laid.values, laid.inside) >= least) & (similarity >= floor) & _plausible(maps, laid)
        left, right, maps = left[keep], right[keep], maps[keep]
        alive, similarity = alive[keep], similarity[keep]
    if len(alive):
        result[alive] = similarity
    return result


def _coarse(a: Fields, b: Fields) -> tuple[Fields, Fields, NDArray[np.intp]]:
    """``b`` turned to fit ``a``, a first affine map for each pair, and the positions of the pairs that may be copies."""
    size, steps, least = _LEVELS[0]
    small_a, small_b = shrunk(a, size), shrunk(b, size)
    scores = symmetry_scores(small_a, small_b)
    ranked = np.argsort(-scores, axis=1, kind="stable")
    count = len(a)
    best = np.full(count, -1.0, np.float32)
    symmetry, maps = ranked[:, 0].copy(), identity_maps(count)
    for choice in range(_SYMMETRIES_TRIED):
        close = np.flatnonzero(np.take_along_axis(scores, ranked[:, choice, None], 1)[:, 0] >= scores.max(1) - _CLOSE_CALL)
        target, candidate = small_a[close], turned_each(small_b[close], ranked[close, choice])
        found = refine(target, candidate, identity_maps(len(close)), steps)
        laid = lay(candidate, found)
        score = correlation(target, laid.values, laid.inside)
        won = score > best[close]
        better = close[won]
        best[better], symmetry[better], maps[better] = score[won], ranked[better, choice], found[won]
    return turned_each(b, symmetry), maps, np.flatnonzero(best >= least)


def _aligned(a: Fields, b: Fields, maps: Fields, size: int, steps: int) -> tuple[Fields, Laid, Fields]:
    """Maps refined at ``size``, ``b`` laid by them, and ``a``, both smoothed enough for their gradients to be usable."""
    smooth = partial(gaussian_filter, sigma=(0, 0.7, 0.7))
    target, moving = smooth(shrunk(a, size)), smooth(shrunk(b, size))
    maps = refine(target, moving, maps, steps)
    return maps, lay(moving, maps), target


def _detail_correlation(target: Fields, laid: Laid) -> NDArray[np.float32]:
    """Correlation of detail over the whole and over the middle, the lesser of both: strangers may share a frame."""
    fields = (_detail(target), _detail(laid.values), laid.inside)
    rim = target.shape[1] // _RIM_SHARE
    middle = (field[:, rim:-rim, rim:-rim] for field in fields)
    return np.minimum(correlation(*fields), correlation(*middle))


def _detail(fields: Fields) -> Fields:
    """What a blur by 1.8 pixels takes away, divided by its local size so that no single edge or hair dominates."""
    fine = fields - gaussian_filter(fields, (0, 1.8, 1.8))
    # The 1 (gray level squared) keeps compression noise in smooth skin from being magnified into detail.
    return np.asarray(fine / np.sqrt(gaussian_filter(fine * fine, (0, 3.6, 3.6)) + 1))


def _plausible(maps: Fields, laid: Laid) -> NDArray[np.bool_]:
    change = np.abs(maps - identity_maps(len(maps))).max((1, 2))
    return (change <= _LARGEST_CHANGE) & (laid.inside.mean((1, 2)) >= _LEAST_OVERLAP)
