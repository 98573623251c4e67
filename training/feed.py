"""From cached images to batches on the device, in an order that any number of processes agree on.

The images of a training part are read one of three ways, all with the same pixels: *resident* in the accelerator's memory,
*mapped* from the cache on disk with batches read ahead into pinned memory, or *streamed*, decoded again every epoch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lesion_hub.data.cache import CacheSpec, ImageReader, cache_or_stream
from lesion_hub.data.images import ImageSource, probe
from training import samplers
from training.parts import Part
from training.samplers import IndexBatch, Indices
from training.transfer import to_device

Prepare = Callable[[Tensor, Indices, int, NDArray[np.float32]], Tensor]

# The share of the accelerator's free memory that images may take; the rest is for the network and its activations.
RESIDENT_SHARE = 0.4
READ_AHEAD = 3
PROBED = 64


@dataclass(frozen=True)
class Batch:
    """One process's part of a micro-batch.

    ``images`` (N, 3, h, w) float32 normalised, ``targets`` (N,) int64 and ``metadata`` (N, D) or None are on the device, as
    are ``weights`` (N,): what each loss counts in the mean over all processes of the optimiser step, 0 for padding.
    ``indices`` (N,) are rows of the training part. ``number`` counts micro-batches from the start of the epoch;
    ``closes_step`` marks the last of an optimiser step.
    """

    images: Tensor
    targets: Tensor
    metadata: Tensor | None
    weights: Tensor
    indices: Indices
    number: int
    closes_step: bool


@dataclass(frozen=True)
class Slot:
    """The plan of one ``Batch`` before its images are read. ``images_in_step`` counts those of all processes."""

    part: IndexBatch
    number: int
    images_in_step: int
    closes_step: bool


class PixelSource(ABC):
    """Uint8 images of one part on the device, batch by batch."""

    def __init__(self, reader: ImageReader, device: torch.device) -> None:
        self.reader = reader
        self.device = device

    @abstractmethod
    def batches(self, batches: Iterable[Indices]) -> Iterator[Tensor]:
        """(N, H, W, 3) uint8 on the device for every batch of rows."""

    def stretch(self, rows: Indices) -> NDArray[np.float32]:
        """(N,) how many times wider than cached each of ``rows`` is to be shown; a stream knows it once it has read them."""
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
    """Images read a few batches ahead by threads, pinned so that the copy to the device does not wait."""

    def batches(self, batches: Iterable[Indices]) -> Iterator[Tensor]:
        for pixels in self.reader.batches(batches, prefetch=READ_AHEAD):
            yield to_device(torch.from_numpy(pixels), self.device)


def open_pixels(part: Part, spec: CacheSpec, root: Path, device: torch.device) -> PixelSource:
    """The fastest source that memory and disk permit."""
    budget = int(RESIDENT_SHARE * torch.cuda.mem_get_info(device)[0]) if device.type == "cuda" else 0
    access, reader = cache_or_stream(part.images, root, spec, ids=part.ids, device_budget=budget)
    return (Resident if access == "resident" else ReadAhead)(reader, device)


def usual_aspect(images: Sequence[ImageSource]) -> float:
    """Median width / height of some images spread over all; others are squashed to it, and shown in their own again."""
    some = np.linspace(0, len(images) - 1, min(len(images), PROBED)).astype(int)
    sizes = [probe(images[row]).upright_size for row in some.tolist()]
    return float(np.median([width / height for width, height in sizes]))


@dataclass(frozen=True)
class Plan:
    """How the order of an epoch is cut into optimiser steps, micro-batches and the parts of this process.

    ``batch_size`` is that of one process and micro-batch. ``smallest`` is the least that a process's last micro-batch may
    hold: batch norm cannot work on one image, so a smaller remainder is left out, another one every epoch.
    """

    batch_size: int
    accumulation: int = 1
    rank: int = 0
    world: int = 1
    smallest: int = 1

    @property
    def micro_batch(self) -> int:
        """Images of a micro-batch over all processes."""
        return self.batch_size * self.world

    def kept(self, images: int) -> int:
        """How many of an epoch's images take part."""
        rest = images % self.micro_batch
        return images - rest if rest < images and -(-rest // self.world) < self.smallest else images

    def steps(self, images: int) -> int:
        """Optimiser steps of an epoch over ``images`` images."""
        return -(-self.kept(images) // (self.micro_batch * self.accumulation))

    def slots(self, order: Indices, start: int = 0) -> Iterator[Slot]:
        """This process's micro-batches of the epoch from optimiser step ``start`` on.

        >>> plan = Plan(batch_size=2, rank=1, world=2)
        >>> [slot.part.indices.tolist() for slot in plan.slots(np.arange(6))]
        [[1, 3], [5]]
        """
        order = order[: self.kept(len(order))]
        step_size = self.micro_batch * self.accumulation
        first = start * self.accumulation
        parts = samplers.batches(order, self.micro_batch, rank=self.rank, world=self.world, start_batch=first)
        for number, part in enumerate(parts, start=first):
            step_start = number // self.accumulation * step_size
            end = (number + 1) * self.micro_batch
            closes_step = end % step_size == 0 or end >= len(order)
            yield Slot(part, number, min(step_size, len(order) - step_start), closes_step)


class TrainingFeed:
    """Batches of one training part, epoch by epoch, each a function of (epoch, position) alone.

    ``order`` gives the rows of an epoch; ``prepare`` (an ``Augmenter``) turns uint8 (N, H, W, 3) into the network's input.
    """

    def __init__(
        self,
        part: Part,
        pixels: PixelSource,
        plan: Plan,
        order: Callable[[int], Indices],
        prepare: Prepare,
        device: torch.device,
    ) -> None:
        self.part = part
        self.pixels = pixels
        self.plan = plan
        self.order = order
        self.prepare = prepare
        self.targets = torch.from_numpy(part.labels).to(device)
        self.metadata = None if part.metadata is None else part.metadata.to(device)
        self.steps_per_epoch = plan.steps(len(order(0)))

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of ``epoch`` from optimiser step ``start`` on."""
        slots = list(self.plan.slots(self.order(epoch), start))
        for slot, pixels in zip(slots, self.pixels.batches([slot.part.indices for slot in slots]), strict=True):
            yield self._batch(slot, pixels, epoch)

    def _batch(self, slot: Slot, pixels: Tensor, epoch: int) -> Batch:
        part, device = slot.part, self.targets.device
        rows = to_device(torch.from_numpy(part.indices), device)
        # Processes average their gradients, hence the factor: the sum of all weights is the number of processes.
        weights = part.valid.astype(np.float32) * (self.plan.world / slot.images_in_step)
        return Batch(
            images=self.prepare(pixels, part.positions, epoch, self.pixels.stretch(part.indices)),
            targets=self.targets[rows],
            metadata=None if self.metadata is None else self.metadata[rows],
            weights=to_device(torch.from_numpy(weights), device),
            indices=part.indices,
            number=slot.number,
            closes_step=slot.closes_step,
        )

    def names(self, indices: Sequence[int] | Indices) -> list[str]:
        """Image ids of rows, for messages."""
        return [self.part.ids[int(i)] for i in indices]
