"""Logits of a part's images, in order and gathered from all processes, and the measures that every epoch reports."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import Tensor, nn

from lesion_hub.training.data import Part
from lesion_hub.training.feed import Indices, PixelSource


class PartScorer:
    """Computes the logits of one part's images: every process scores its share, and all get those of the whole part.

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
        """Compute (N, C) float32 logits in the order of the part."""
        own = np.arange(self.accelerator.process_index, len(self.part), self.accelerator.num_processes)
        batches = [own[start : start + self.batch_size] for start in range(0, len(own), self.batch_size)]
        network.eval()
        local = list(self._forward(network, batches))
        return self._gathered(torch.cat(local) if local else None)

    @torch.no_grad()
    def _forward(self, network: nn.Module, batches: list[Indices]) -> Iterator[Tensor]:
        for rows, pixels in zip(batches, self.pixels.batches(batches), strict=True):
            images = self.prepare(pixels, self.pixels.stretch(rows))
            with self.accelerator.autocast():
                yield logits_of(network, images, self.part.metadata_of(rows, images.device)).float()

    def _gathered(self, local: Tensor | None) -> NDArray[np.float32]:
        """Join the rows that processes hold in turn (rank, rank + world, ...); the same on every process."""
        world, total, device = self.accelerator.num_processes, len(self.part), self.accelerator.device
        if world == 1:
            assert local is not None
            return local.cpu().numpy()
        # Every process must send equally many rows: padding is added here, and cut off after the gathering.
        rows = -(-total // world)
        columns = int(self.accelerator.gather(torch.tensor([0 if local is None else local.shape[1]], device=device)).max())
        padded = torch.zeros(rows, columns, device=device)
        if local is not None:
            padded[: len(local)] = local
        gathered = self.accelerator.gather(padded).reshape(world, rows, columns)
        return gathered.transpose(0, 1).reshape(world * rows, columns)[:total].cpu().numpy()


def logits_of(network: nn.Module, images: Tensor, metadata: Tensor | None) -> Tensor:
    """Run the network, with ``metadata`` only where there is any: most networks take none."""
    return network(images) if metadata is None else network(images, metadata=metadata)


def quick_metrics(logits: NDArray[np.float32], labels: NDArray[np.int64]) -> dict[str, float]:
    """Compute what every epoch reports: loss, accuracy and balanced accuracy over the classes that occur.

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
