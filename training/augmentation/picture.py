"""A picture of augmented samples, for the eyes of whoever starts a training run."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from training.augmentation.pipeline import Augmenter

_GAP = 4


def augmentation_picture(
    images: NDArray[np.uint8], augmenter: Augmenter, *, copies: int = 7, stretch: NDArray[np.floating] | None = None
) -> Image.Image:
    """A grid on white: each of ``images``, (n, H, W, 3) uint8, at the left of its row, ``copies`` augmented ones beside it.

    The copies are those of the first epochs, as training would make them if these images came first in each.

    >>> from training.augmentation.options import AugmentationOptions
    >>> augmenter = Augmenter(AugmentationOptions(), 32, mean=(0.5,) * 3, std=(0.5,) * 3)
    >>> augmentation_picture(np.zeros((2, 30, 40, 3), np.uint8), augmenter, copies=3).size
    (152, 76)
    """
    batch, positions = torch.from_numpy(np.ascontiguousarray(images)), np.arange(len(images))
    shown = [
        np.stack([_fit(image, factor, augmenter.size) for image, factor in zip(images, _factors(images, stretch), strict=True)])
    ]
    shown += [_pixels(augmenter(batch, positions, epoch, stretch), augmenter) for epoch in range(copies)]
    height, width = (side + _GAP for side in augmenter.size)
    sheet = Image.new("RGB", (width * len(shown) + 2 * _GAP, height * len(images) + _GAP), "white")
    for column, samples in enumerate(shown):
        for row, sample in enumerate(samples):
            # The originals stand a little apart.
            left = _GAP + column * width + (_GAP if column else 0)
            sheet.paste(Image.fromarray(sample), (left, _GAP + row * height))
    return sheet


def _factors(images: NDArray[np.uint8], stretch: NDArray[np.floating] | None) -> NDArray[np.floating]:
    return np.ones(len(images)) if stretch is None else stretch


def _fit(image: NDArray[np.uint8], stretch: float, size: tuple[int, int]) -> NDArray[np.uint8]:
    """The whole image in its own aspect, on white."""
    height, width = image.shape[0], image.shape[1] * stretch
    scale = min(size[0] / height, size[1] / width)
    small = Image.fromarray(image).resize((max(1, round(width * scale)), max(1, round(height * scale))))
    sheet = Image.new("RGB", (size[1], size[0]), "white")
    sheet.paste(small, ((size[1] - small.width) // 2, (size[0] - small.height) // 2))
    return np.asarray(sheet)


def _pixels(normalised: torch.Tensor, augmenter: Augmenter) -> NDArray[np.uint8]:
    values = normalised.float().permute(0, 2, 3, 1).cpu().numpy() * augmenter.std + augmenter.mean
    return np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)
