"""Find the duplicates within a set of fingerprints, and between two sets."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from lesion_hub.data.duplicates.candidates import Pairs, exact_groups, near_candidates
from lesion_hub.data.duplicates.clusters import components, listed_pairs
from lesion_hub.data.duplicates.fingerprints import Fingerprints
from lesion_hub.data.duplicates.verification import verify
from lesion_hub.data.scan import Progress


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
    """Exact and near duplicates among ``prints``; ``progress(done, total)`` counts the pairs that are compared.

    >>> find_duplicates(Fingerprints.empty(0)).exact
    ()
    """
    rows = np.flatnonzero(prints.readable)
    groups = exact_groups(prints.file[rows], prints.pixels[rows])
    exact = [(int(rows[a]), int(rows[b])) for a, b in listed_pairs(groups)]
    heads = rows[np.unique(groups, return_index=True)[1]]
    # Searching in the order of content makes borderline verdicts the same in whatever order the images come.
    heads = heads[np.argsort(prints.pixels[heads], kind="stable")]
    found = near_candidates(prints.terms[heads], workers=-1 if workers is None else workers)
    same = verify(prints.gray, prints.gray, heads[found], workers=workers, progress=progress)
    near = np.sort(heads[found[same]], axis=1)
    links = np.concatenate([np.array(exact, np.int64).reshape(-1, 2), near])
    return Duplicates(tuple(exact), _sorted_tuples(near), components(len(prints), links))


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
    """Images of ``prints`` that are also, or nearly, in ``others``.

    >>> find_duplicates_between(Fingerprints.empty(0), Fingerprints.empty(0))
    CrossDuplicates(exact=(), near=())
    """
    ours, theirs = np.flatnonzero(prints.readable), np.flatnonzero(others.readable)
    exact = {(int(ours[a]), int(theirs[b])) for a, b in _shared(prints, others, ours, theirs)}
    found = near_candidates(prints.terms[ours], others.terms[theirs], workers=-1 if workers is None else workers)
    pairs = np.stack([ours[found[:, 0]], theirs[found[:, 1]]], axis=1)
    same = verify(prints.gray, others.gray, pairs, workers=workers, progress=progress)
    near = [pair for pair in _sorted_tuples(pairs[same]) if not _identical(prints, others, *pair)]
    return CrossDuplicates(tuple(sorted(exact)), tuple(near))


def _shared(
    prints: Fingerprints, others: Fingerprints, ours: NDArray[np.intp], theirs: NDArray[np.intp]
) -> list[tuple[int, int]]:
    pairs: list[tuple[int, int]] = []
    for column in ("file", "pixels"):
        first: dict[bytes, int] = {}
        for b, digest in enumerate(getattr(others, column)[theirs]):
            first.setdefault(digest.tobytes(), b)
        mine = enumerate(getattr(prints, column)[ours])
        pairs.extend((a, first[digest.tobytes()]) for a, digest in mine if digest.tobytes() in first)
    return pairs


def _identical(prints: Fingerprints, others: Fingerprints, a: int, b: int) -> bool:
    return bool(prints.file[a] == others.file[b] or prints.pixels[a] == others.pixels[b])


def _sorted_tuples(pairs: Pairs) -> tuple[tuple[int, int], ...]:
    return tuple(sorted((int(a), int(b)) for a, b in pairs))
