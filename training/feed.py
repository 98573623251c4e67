"""Batches of a training part on the device, in an order that does not depend on the number of processes.

An epoch is an order, a flat array of the part's rows, that a sampler makes from (seed, epoch) alone. Batches are cut from the
global order first and dealt to the processes second, so one process with batches of 32 and two with 16 each see the same
images in the same step. Their images are read one of three ways, all with the same pixels: *resident* in the accelerator's
memory, *mapped* from the cache on disk with batches read ahead into pinned memory, or *streamed*, decoded again every epoch.

Images in shards are streamed in an order that a walk through the shards can serve (`streamed_order`): what a shuffle buffer
does to them is worked out beforehand, from the index of the shards. So a run resumes in mid-epoch at exactly the next image,
where the buffer of `datasets`, whose state leaves its content out, would be filled anew.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from lesion_hub.data.cache import CacheSpec, ImageReader, ShardStream, cache_or_stream
from lesion_hub.data.images import ImageSource, probe
from lesion_hub.data.shards import ShardedImages
from lesion_hub.errors import ConfigError, DataError
from lesion_hub.taxonomy import nearest
from lesion_hub.training.device import to_device

if TYPE_CHECKING:
    from lesion_hub.training.data import Part

Indices = NDArray[np.int64]
Prepare = Callable[[Tensor, Indices, int, NDArray[np.float32]], Tensor]

# The share of the accelerator's free memory that images may take; the rest is for the network and its activations.
RESIDENT_SHARE = 0.4
READ_AHEAD = 3  # batches
PROBED_IMAGES = 64


# ------------------------------------------------------------------------------------------------ the order of an epoch


def natural_order(images: int, seed: int, epoch: int) -> Indices:
    """Take every image once, shuffled.

    >>> sorted(natural_order(5, seed=0, epoch=3).tolist())
    [0, 1, 2, 3, 4]
    """
    return np.random.default_rng((seed, epoch)).permutation(images)


def weighted_order(labels: ArrayLike, seed: int, epoch: int, *, images: int | None = None) -> Indices:
    """Draw ``images`` rows (default: as many as there are) with replacement, every class that occurs equally likely.

    >>> order = weighted_order([0] * 990 + [1] * 10, seed=0, epoch=0)
    >>> bool(0.4 < (order >= 990).mean() < 0.6)
    True
    """
    labels = np.asarray(labels)
    if not len(labels):
        raise DataError("sampler weighted: there is no training image to draw from")
    _, classes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    chances = 1 / (len(counts) * counts[classes])
    return np.random.default_rng((seed, epoch)).choice(len(labels), images or len(labels), p=chances)


def balanced_order(draw: ArrayLike | None, seed: int, epoch: int) -> Indices:
    """Take the rows of a balanced draw, repeats and all, in a new order every epoch."""
    if draw is None:
        raise ConfigError("sampler balanced takes a balanced draw; give data.draw its images per class")
    return np.random.default_rng((seed, epoch)).permutation(np.asarray(draw, np.int64))


# Each takes the part's labels, its balanced draw or None, seed and epoch.
SAMPLERS: dict[str, Callable[[NDArray[Any], ArrayLike | None, int, int], Indices]] = {
    "natural": lambda labels, draw, seed, epoch: natural_order(len(labels), seed, epoch),
    "weighted": lambda labels, draw, seed, epoch: weighted_order(labels, seed, epoch),
    "balanced": lambda labels, draw, seed, epoch: balanced_order(draw, seed, epoch),
}


def epoch_order(kind: str, labels: ArrayLike, seed: int, epoch: int, *, draw: ArrayLike | None = None) -> Indices:
    """Return the rows that an epoch shows, in order, by the sampler ``kind``; balanced takes the saved ``draw``."""
    if kind not in SAMPLERS:
        raise ConfigError(f"unknown sampler {kind!r}; {nearest(kind, SAMPLERS)}")
    return SAMPLERS[kind](np.asarray(labels), draw, seed, epoch)


def streamed_order(shards: ArrayLike, buffer: int, seed: int, epoch: int, *, world: int = 1) -> Indices:
    """Take every image once, as ``world`` processes show them that walk through shards with a shuffle buffer each.

    ``shards`` (N,) is the shard of every row, rows being in the order of their shards. The shards are laid one behind the
    other in an order of the epoch, each process takes a stretch of them, and holds ``buffer`` images, from which it draws and
    which it fills up again. Places rank, rank + world, … are those of process rank, as `batches` deals them.

    >>> order = streamed_order([0] * 4 + [1] * 4, buffer=2, seed=0, epoch=0, world=2)
    >>> sorted(order[::2].tolist()), sorted(order[1::2].tolist())
    ([0, 1, 2, 3], [4, 5, 6, 7])
    """
    shards = np.asarray(shards)
    rng = np.random.default_rng((seed, epoch))
    walk = [np.flatnonzero(shards == shard) for shard in rng.permutation(np.unique(shards))]
    order = np.empty(len(shards), np.int64)
    for rank, stretch in enumerate(np.array_split(np.concatenate(walk), world)):
        held, coming = stretch[:buffer].tolist(), stretch[buffer:].tolist()
        shown = []
        for drawn, image in zip(rng.integers(len(held) or 1, size=len(coming)).tolist(), coming, strict=True):
            shown.append(held[drawn])
            held[drawn] = image
        order[rank::world] = [*shown, *rng.permutation(np.asarray(held, np.int64)).tolist()]
    return order


# ------------------------------------------------------------------------------------------------ cut into batches


@dataclass(frozen=True)
class IndexBatch:
    """One process's share of a batch.

    Attributes:
        indices: (n,) int64 rows of the part; the same one may come more than once in an epoch.
        positions: (n,) int64 places in the epoch's order, each unique within the epoch: what random augmentation is keyed by.
        valid: (n,) bool, False where a sample only repeats another to make the processes' shares equally long.
    """

    indices: Indices
    positions: Indices
    valid: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.indices)


def batches(order: Indices, batch_size: int, *, rank: int = 0, world: int = 1, start_batch: int = 0) -> Iterator[IndexBatch]:
    """Cut from every global batch the share of process ``rank`` of ``world``, from batch ``start_batch`` on.

    Args:
        order: (M,) rows of the epoch.
        batch_size: of all processes together, a multiple of ``world``.
        start_batch: batches of this epoch that were done before an interruption.

    All shares of a batch are equally long: in the last one at most ``world - 1`` samples repeat others of the same
    epoch, not ``valid``. Dropping those and sorting by ``positions`` gives back the order.

    >>> [batch.indices.tolist() for batch in batches(np.arange(7), 4, rank=1, world=2)]
    [[1, 3], [5, 0]]
    """
    if batch_size < 1 or batch_size % world:
        raise ConfigError(f"batch size {batch_size} does not divide among {world} processes; use a multiple of {world}")
    if not 0 <= rank < world:
        raise ConfigError(f"rank {rank} is not one of {world} processes")
    for batch in range(start_batch, -(-len(order) // batch_size)):
        start, stop = batch * batch_size, min(len(order), (batch + 1) * batch_size)
        positions = np.arange(start + rank, stop + -(stop - start) % world, world, dtype=np.int64)
        valid = positions < stop
        # Padding keeps its place beyond the order's end, so that no two samples of an epoch share augmentation.
        yield IndexBatch(order[np.where(valid, positions, positions % len(order))], positions, valid)


@dataclass(frozen=True)
class PlannedBatch:
    """A `Batch` whose images are not read yet. ``images_in_step`` counts those of the optimiser step over all processes."""

    share: IndexBatch
    number: int
    images_in_step: int
    closes_step: bool


@dataclass(frozen=True)
class EpochPlan:
    """How the order of an epoch is cut into optimiser steps, micro-batches and the shares of this process.

    ``batch_size`` counts the images of one micro-batch in one process. A last micro-batch of fewer than ``smallest`` images
    per process is left out, other images in every epoch: batch norm cannot work on a single one.
    """

    batch_size: int
    accumulation: int = 1
    rank: int = 0
    world: int = 1
    smallest: int = 1

    @property
    def micro_batch(self) -> int:
        """The images of a micro-batch in all processes together."""
        return self.batch_size * self.world

    def kept(self, images: int) -> int:
        """Count the images of an epoch that take part."""
        rest = images % self.micro_batch
        return images - rest if rest < images and -(-rest // self.world) < self.smallest else images

    def steps(self, images: int) -> int:
        """Count the optimiser steps of an epoch over ``images`` images."""
        return -(-self.kept(images) // (self.micro_batch * self.accumulation))

    def batches(self, order: Indices, start: int = 0) -> Iterator[PlannedBatch]:
        """Cut this process's micro-batches of the epoch from optimiser step ``start`` on.

        >>> plan = EpochPlan(batch_size=2, rank=1, world=2)
        >>> [planned.share.indices.tolist() for planned in plan.batches(np.arange(6))]
        [[1, 3], [5]]
        """
        order = order[: self.kept(len(order))]
        step_size = self.micro_batch * self.accumulation
        first = start * self.accumulation
        shares = batches(order, self.micro_batch, rank=self.rank, world=self.world, start_batch=first)
        for number, share in enumerate(shares, start=first):
            step_start = number // self.accumulation * step_size
            end = (number + 1) * self.micro_batch
            closes_step = end % step_size == 0 or end >= len(order)
            yield PlannedBatch(share, number, min(step_size, len(order) - step_start), closes_step)


# ------------------------------------------------------------------------------------------------ images


class PixelSource(ABC):
    """Uint8 images of one part on the device, batch by batch."""

    def __init__(self, reader: ImageReader, device: torch.device) -> None:
        self.reader = reader
        self.device = device

    @abstractmethod
    def batches(self, batches: Iterable[Indices]) -> Iterator[Tensor]:
        """Yield the images of every batch of rows, (N, H, W, 3) uint8 on the device."""

    def stretch(self, rows: Indices) -> NDArray[np.float32]:
        """Return how many times wider than cached each of ``rows`` is to be shown, (N,); call it once they are read."""
        return self.reader.spec.stretch(self.reader.sizes[rows])


class Resident(PixelSource):
    """All images in the device's memory: a batch is an index into them."""

    def __init__(self, reader: ImageReader, device: torch.device) -> None:
        super().__init__(reader, device)
        self.pixels = torch.from_numpy(reader.to_numpy()).to(device)

    def batches(self, batches: Iterable[Indices]) -> Iterator[Tensor]:
        for rows in batches:
            yield self.pixels[to_device(torch.from_numpy(rows), self.device)]


class ReadAhead(PixelSource):
    """Images that threads read a few batches ahead, copied to the device from pinned memory without a wait."""

    def batches(self, batches: Iterable[Indices]) -> Iterator[Tensor]:
        for pixels in self.reader.batches(batches, prefetch=READ_AHEAD):
            yield to_device(torch.from_numpy(pixels), self.device)


def open_pixels(part: Part, spec: CacheSpec, root: Path, device: torch.device) -> PixelSource:
    """Choose the fastest source that memory and disk permit; images in shards are streamed."""
    if isinstance(part.images, ShardedImages):
        return ReadAhead(ShardStream(part.images, spec, ids=part.ids), device)
    budget = int(RESIDENT_SHARE * torch.cuda.mem_get_info(device)[0]) if device.type == "cuda" else 0
    access, reader = cache_or_stream(part.images, root, spec, ids=part.ids, device_budget=budget)
    return (Resident if access == "resident" else ReadAhead)(reader, device)


def usual_aspect(images: Sequence[ImageSource]) -> float:
    """Return the median width / height of some images: the aspect of the cache, from which each is shown in its own again."""
    if isinstance(images, ShardedImages):
        # The first: to look here and there would open every shard.
        some = images[:PROBED_IMAGES]
    else:
        rows = np.linspace(0, len(images) - 1, min(len(images), PROBED_IMAGES)).astype(int)
        some = [images[row] for row in rows.tolist()]
    sizes = [probe(image).upright_size for image in some]
    return float(np.median([width / height for width, height in sizes]))


# ------------------------------------------------------------------------------------------------ batches on the device


@dataclass(frozen=True)
class Batch:
    """One process's share of a micro-batch.

    ``images`` (N, 3, h, w) float32 normalised, ``targets`` (N,) int64 and ``metadata`` (N, D) or None are on the device, as
    are ``weights`` (N,): what each loss counts in the mean over all processes of the optimiser step, 0 for padding.
    ``indices`` (N,) are rows of the training part. ``number`` counts the epoch's micro-batches from 0; ``closes_step`` is True
    for the last one of an optimiser step.
    """

    images: Tensor
    targets: Tensor
    metadata: Tensor | None
    weights: Tensor
    indices: Indices
    number: int
    closes_step: bool


class TrainingFeed:
    """Batches of one training part, epoch by epoch, each a function of (epoch, position) alone.

    ``order`` gives the rows of an epoch; ``prepare`` (an ``Augmenter``) turns uint8 (N, H, W, 3) into the network's input.
    """

    def __init__(
        self,
        part: Part,
        pixels: PixelSource,
        plan: EpochPlan,
        order: Callable[[int], Indices],
        prepare: Prepare,
        device: torch.device,
    ) -> None:
        self.part = part
        self.pixels = pixels
        self.plan = plan
        self.order = order
        self.prepare = prepare
        self.device = device
        self.targets = torch.from_numpy(part.labels).to(device)
        self.metadata = None if part.metadata is None else part.metadata.to(device)
        self.steps_per_epoch = plan.steps(len(order(0)))

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """Yield the batches of ``epoch`` from optimiser step ``start`` on."""
        planned = list(self.plan.batches(self.order(epoch), start))
        for one, pixels in zip(planned, self.pixels.batches([one.share.indices for one in planned]), strict=True):
            share = one.share
            rows = to_device(torch.from_numpy(share.indices), self.device)
            # Processes average their gradients: so the weights of a step sum to the number of processes.
            weights = share.valid.astype(np.float32) * (self.plan.world / one.images_in_step)
            yield Batch(
                images=self.prepare(pixels, share.positions, epoch, self.pixels.stretch(share.indices)),
                targets=self.targets[rows],
                metadata=None if self.metadata is None else self.metadata[rows],
                weights=to_device(torch.from_numpy(weights), self.device),
                indices=share.indices,
                number=one.number,
                closes_step=one.closes_step,
            )

    def names(self, indices: Iterable[int] | Indices) -> list[str]:
        """Return the image ids of rows, for messages."""
        return [self.part.ids[int(i)] for i in indices]
