"""From a decoded image to what a network sees, and back: resize, crop, normalise as timm does, and where the crop lay."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from lesion_hub.config import InputConfig

Pixels = NDArray[np.uint8]
_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


@dataclass(frozen=True)
class Placement:
    """Where a network's input lies on the image.

    ``resized`` is the (height, width) of the whole image after resizing, ``corner`` the (top, left) of the input in it,
    negative where the input reaches beyond the image, and ``size`` the input's (height, width).
    """

    resized: tuple[int, int]
    corner: tuple[int, int]
    size: tuple[int, int]


@dataclass(frozen=True)
class Framing:
    """Resize and crop of one network. Members with equal framings share the work, which is why it is hashable."""

    size: tuple[int, int]
    scale_size: tuple[int, int]
    mode: Literal["center", "squash", "border"]
    interpolation: str
    fill: tuple[int, int, int]

    @classmethod
    def of(cls, config: InputConfig) -> Framing:
        size = (config.input_size[1], config.input_size[2])
        scale_size = (math.floor(size[0] / config.crop_pct), math.floor(size[1] / config.crop_pct))
        border = (round(255 * config.mean[0]), round(255 * config.mean[1]), round(255 * config.mean[2]))
        fill = border if config.crop_mode == "border" else (0, 0, 0)
        return cls(size, scale_size, config.crop_mode, config.interpolation, fill)

    def place(self, image_size: tuple[int, int]) -> Placement:
        """The placement on an image of (height, width)."""
        resized = self._resized(image_size)
        corner = (_corner(resized[0], self.size[0]), _corner(resized[1], self.size[1]))
        return Placement(resized, corner, self.size)

    def _resized(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """The numbers of timm's three crop modes: torchvision truncates in the one, timm rounds in the others."""
        height, width = image_size
        if self.mode == "squash":
            return self.scale_size
        if self.mode == "center" and self.scale_size[0] == self.scale_size[1]:
            short = self.scale_size[0]
            long = int(short * max(height, width) / min(height, width))
            return (long, short) if height > width else (short, long)
        ratios = height / self.scale_size[0], width / self.scale_size[1]
        ratio = max(ratios) if self.mode == "border" else min(ratios)
        return round(height / ratio), round(width / ratio)

    def crop(self, image: Image.Image) -> Pixels:
        """RGB image to the (H, W, 3) uint8 pixels of the network's input: bit for bit those of timm's transform.

        >>> framing = Framing((32, 32), (36, 36), "center", "bicubic", (0, 0, 0))
        >>> framing.crop(Image.new("RGB", (60, 45))).shape
        (32, 32, 3)
        """
        place = self.place((image.height, image.width))
        resized = image
        if (image.height, image.width) != place.resized:
            # The whole image, though only the crop is kept: Pillow holds a resize box in single precision, and then some
            # pixels round to the other side.
            resized = image.resize(place.resized[::-1], _FILTERS[self.interpolation])
        top, left = place.corner
        height, width = place.size
        if min(top, left) >= 0 and top + height <= resized.height and left + width <= resized.width:
            return np.asarray(resized)[top : top + height, left : left + width]
        framed = Image.new("RGB", (width, height), self.fill)
        framed.paste(resized, (-left, -top))
        return np.asarray(framed)


def _corner(resized: int, size: int) -> int:
    return -((size - resized) // 2) if size > resized else round((resized - size) / 2.0)


@dataclass(frozen=True)
class Normalisation:
    """(pixel / 255 - mean) / std, as one multiplication and one addition."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __call__(self, crops: Sequence[Pixels], device: torch.device, dtype: torch.dtype) -> Tensor:
        """N crops of (H, W, 3) uint8 to an (N, 3, H, W) batch in channels-last memory, on the device and in the dtype."""
        pixels = torch.from_numpy(np.stack(crops)).to(device)
        batch = pixels.permute(0, 3, 1, 2).to(torch.float32)
        std = torch.tensor(self.std, dtype=torch.float64)
        scale = (1 / (255 * std)).to(device, torch.float32).view(3, 1, 1)
        shift = (torch.tensor(self.mean, dtype=torch.float64) / std).to(device, torch.float32).view(3, 1, 1)
        return batch.mul_(scale).sub_(shift).to(dtype)
