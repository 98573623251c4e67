"""The whole augmentation of a batch: from cached uint8 images to what the network takes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from training.augmentation.colour import blur, recolour
from training.augmentation.draws import Integers, draw_samples
from training.augmentation.geometry import resample
from training.augmentation.options import AugmentationOptions
from training.augmentation.overlays import ArtefactBank, erase


class Augmenter:
    """Augments batches on the device they lie on: resample, artefacts, blur, colour and normalisation, erasing.

    The parameters of a sample are drawn on the CPU from (seed, epoch, place in the epoch) and so are the same, to the bit,
    on every device and in every split into batches; the pixels agree between devices to about 1e-4 of a normalised
    unit in float32 (2e-2 where a GPU is allowed TF32). Nothing waits for the device.

    Args:
        size: height and width of the output, or the side of a square.
        mean, std: of the network's input, in units of 0 to 1.
        seed: of the run.
        dtype: of the output; the arithmetic is float32.
        channels_last: give the output in that memory format.

    >>> augmenter = Augmenter(AugmentationOptions(), 32, mean=(0.5,) * 3, std=(0.5,) * 3)
    >>> augmenter(torch.zeros(4, 40, 53, 3, dtype=torch.uint8), np.arange(4), epoch=0).shape
    torch.Size([4, 3, 32, 32])
    """

    def __init__(
        self,
        options: AugmentationOptions,
        size: int | tuple[int, int],
        *,
        mean: Sequence[float],
        std: Sequence[float],
        seed: int = 0,
        dtype: torch.dtype = torch.float32,
        channels_last: bool = False,
    ) -> None:
        self.options = options
        self.size = (size, size) if isinstance(size, int) else (size[0], size[1])
        self.mean, self.std = tuple(mean), tuple(std)
        self.seed = seed
        self.dtype = dtype
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self._banks: dict[torch.device, ArtefactBank] = {}

    @torch.no_grad()
    def __call__(self, images: Tensor, positions: Integers, epoch: int, stretch: NDArray[np.floating] | None = None) -> Tensor:
        """Augmented, normalised images.

        Args:
            images: (N, H, W, 3) uint8 on the device, of any one shape.
            positions: (N,) int64 places in the order of the epoch (not dataset indices: an image that is drawn twice in
                an epoch is to be changed in two ways).
            epoch: from 0.
            stretch: (N,) how many times wider than cached each image is to be shown (``CacheSpec.stretch``); None is 1.

        Returns:
            (N, 3, h, w) of ``dtype``.
        """
        draws = draw_samples(
            self.options,
            self.seed,
            epoch,
            positions,
            source=(images.shape[1], images.shape[2]),
            size=self.size,
            stretch=stretch,
        )
        # Under autocast the matrix product would round to half precision.
        with torch.autocast(images.device.type, enabled=False):
            pixels = resample(images, draws.theta, self.size)
            if self.options.artefacts:
                pixels = self._artefacts(images.device).lay_over(pixels, draws.layers)
            if self.options.blur:
                pixels = blur(pixels, draws.sigma, self.options.blur_sigma[1])
            factors = draws.colour if self.options.changes_colour else None
            out = recolour(pixels, factors, self.mean, self.std).to(self.dtype, memory_format=self.memory_format)
            return erase(out, draws.erase) if self.options.erase else out

    def _artefacts(self, device: torch.device) -> ArtefactBank:
        """The bank of layers; which one, and where, a sample gets is drawn anew every epoch."""
        if device not in self._banks:
            self._banks[device] = ArtefactBank(self.options, self.size, self.seed, device)
        return self._banks[device]
