"""Measuring on a part of the data: logits of every image, in order, gathered from all processes without padding or repeats."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import Tensor, nn

from training.feed import PixelSource
from training.parts import Part
from training.samplers import Indices


class Examiner:
    """The logits of one part's images under a network; every process takes its share and all get the whole.

    ``prepare`` turns uint8 (N, H, W, 3) on the device and (N,) stretch into the network's input.
    """

    def __init__(
        self,
        part: Part,
        pixels: PixelSource,
        prepare: Callable[[Tensor, NDArray[np.float32]], Tensor],
        accelerator: Accelerator,
        batch_size: int,
    ) -> None:
        self.part = part
        self.pixels = pixels
        self.prepare = prepare
        self.accelerator = accelerator
        self.batch_size = batch_size

    def logits(self, network: nn.Module) -> NDArray[np.float32]:
        """(N, C) float32 logits in the order of the part."""
        own = np.arange(self.accelerator.process_index, len(self.part), self.accelerator.num_processes)
        batches = [own[start : start + self.batch_size] for start in range(0, len(own), self.batch_size)]
        network.eval()
        local = list(self._forward(network, batches))
        return interleaved(torch.cat(local) if local else None, len(self.part), self.accelerator)

    @torch.no_grad()
    def _forward(self, network: nn.Module, batches: list[Indices]) -> Iterator[Tensor]:
        for rows, pixels in zip(batches, self.pixels.batches(batches), strict=True):
            images = self.prepare(pixels, self.pixels.stretch(rows))
            with self.accelerator.autocast():
                yield call(network, images, self.part.metadata_of(rows, images.device)).float()


def call(network: nn.Module, images: Tensor, metadata: Tensor | None) -> Tensor:
    """Logits; ``metadata`` only where there is any, for most networks take none."""
    return network(images) if metadata is None else network(images, metadata=metadata)


def interleaved(local: Tensor | None, total: int, accelerator: Accelerator) -> NDArray[np.float32]:
    """Rows that processes hold in turn (rank, rank + world, ...) as one array of ``total`` rows, the same on every process."""
    world = accelerator.num_processes
    if world == 1:
        assert local is not None
        return local.cpu().numpy()
    # Every process sends equally many rows; what is filled up here falls off again at the end.
    rows = -(-total // world)
    columns = int(accelerator.gather(torch.tensor([0 if local is None else local.shape[1]], device=accelerator.device)).max())
    padded = torch.zeros(rows, columns, device=accelerator.device)
    if local is not None:
        padded[: len(local)] = local
    gathered = accelerator.gather(padded).reshape(world, rows, columns)
    return gathered.transpose(0, 1).reshape(world * rows, columns)[:total].cpu().numpy()


def quick_metrics(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> dict[str, float]:
    """What every epoch reports: loss, accuracy and balanced accuracy over the classes that occur.

    >>> quick_metrics(np.eye(2, dtype=np.float32), np.array([0, 1]))["balanced_accuracy"]
    1.0
    """
    log_p = torch.log_softmax(torch.from_numpy(logits).double(), dim=1).numpy()
    right = logits.argmax(axis=1) == labels
    counts = np.bincount(labels, minlength=logits.shape[1])
    recalls = np.bincount(labels, weights=right, minlength=len(counts))[counts > 0] / counts[counts > 0]
    return {
        "validation_loss": float(-log_p[np.arange(len(labels)), labels].mean()),
        "accuracy": float(right.mean()),
        "balanced_accuracy": float(recalls.mean()),
    }
