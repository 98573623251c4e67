"""Which images an epoch shows, in which order, and how processes share them: pure functions of (seed, epoch).

An epoch is an order: a flat array of dataset indices. Batches are cut from the global order first and dealt to the
processes second, so that one process with batches of 32 and two with 16 each see the same images in the same step.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lesion_hub.errors import ConfigError, DataError
from lesion_hub.taxonomy import nearest

Indices = NDArray[np.int64]

SAMPLERS = ("natural", "weighted", "balanced")


@dataclass(frozen=True)
class IndexBatch:
    """One process's part of a batch.

    Attributes:
        indices: (n,) int64 dataset indices; the same one may come more than once in an epoch.
        positions: (n,) int64 places in the epoch's order, each unique within the epoch: what random augmentation is keyed by.
        valid: (n,) bool, False where a sample only repeats another to make the processes' parts equally long.
    """

    indices: Indices
    positions: Indices
    valid: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.indices)


def natural_order(images: int, seed: int, epoch: int) -> Indices:
    """Every image once, shuffled.

    >>> sorted(natural_order(5, seed=0, epoch=3).tolist())
    [0, 1, 2, 3, 4]
    """
    return _stream(seed, epoch).permutation(images)


def weighted_order(labels: ArrayLike, seed: int, epoch: int, *, images: int | None = None) -> Indices:
    """``images`` draws (default: as many as there are) with replacement, every class that occurs equally likely.

    >>> order = weighted_order([0] * 990 + [1] * 10, seed=0, epoch=0)
    >>> bool(0.4 < (order >= 990).mean() < 0.6)
    True
    """
    labels = np.asarray(labels)
    if not len(labels):
        raise DataError("sampler weighted: there is no training image to draw from")
    _, classes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    chances = 1 / (len(counts) * counts[classes])
    return _stream(seed, epoch).choice(len(labels), images or len(labels), p=chances)


def balanced_order(draw: ArrayLike, seed: int, epoch: int) -> Indices:
    """The dataset indices of a balanced draw, repeats and all, in a new order every epoch."""
    return _stream(seed, epoch).permutation(np.asarray(draw, np.int64))


def epoch_order(kind: str, labels: ArrayLike, seed: int, epoch: int, *, draw: Sequence[int] | None = None) -> Indices:
    """The training order of ``kind``: natural, weighted, or balanced (which takes the saved ``draw``)."""
    labels = np.asarray(labels)
    if kind not in SAMPLERS:
        raise ConfigError(f"unknown sampler {kind!r}; {nearest(kind, SAMPLERS)}")
    if kind == "balanced":
        if draw is None:
            raise ConfigError("sampler balanced takes a balanced draw; give data.draw its images per class")
        return balanced_order(draw, seed, epoch)
    return natural_order(len(labels), seed, epoch) if kind == "natural" else weighted_order(labels, seed, epoch)


def batches(order: Indices, batch_size: int, *, rank: int = 0, world: int = 1, start_batch: int = 0) -> Iterator[IndexBatch]:
    """The part of every global batch that process ``rank`` of ``world`` takes, from batch ``start_batch`` on.

    Args:
        order: (M,) dataset indices of the epoch.
        batch_size: of all processes together, a multiple of ``world``.
        start_batch: batches of this epoch that were done before an interruption.

    All parts of a batch are equally long: in the last one at most ``world - 1`` samples repeat others of the same
    epoch, not ``valid``. Dropping those and sorting by ``positions`` gives back the order.

    >>> [batch.indices.tolist() for batch in batches(np.arange(7), 4, rank=1, world=2)]
    [[1, 3], [5, 0]]
    """
    if batch_size < 1 or batch_size % world:
        raise ConfigError(f"batch size {batch_size} does not divide among {world} processes; use a multiple of {world}")
    if not 0 <= rank < world:
        raise ConfigError(f"rank {rank} is not one of {world} processes")
    for batch in range(start_batch, -(-len(order) // batch_size)):
        yield _part(order, batch * batch_size, min(len(order), (batch + 1) * batch_size), rank, world)


def _part(order: Indices, start: int, stop: int, rank: int, world: int) -> IndexBatch:
    padded_stop = stop + -(stop - start) % world
    positions = np.arange(start + rank, padded_stop, world, dtype=np.int64)
    valid = positions < stop
    # Padding keeps its place beyond the order's end, so that no two samples of an epoch share augmentation.
    return IndexBatch(order[np.where(valid, positions, positions % len(order))], positions, valid)


def _stream(seed: int, epoch: int) -> np.random.Generator:
    return np.random.default_rng((seed, epoch))
