"""Evaluation preprocessing of cached images, in batch on the device: what ``LesionClassifier.transform`` does to one file."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as transforms

from lesion_hub.config import InputConfig
from training.augmentation.colour import recolour
from training.transfer import to_device


@torch.no_grad()
def eval_batch(
    images: Tensor,
    config: InputConfig,
    *,
    stretch: NDArray[np.floating] | None = None,
    dtype: torch.dtype = torch.float32,
    channels_last: bool = False,
) -> Tensor:
    """uint8 (N, H, W, 3) to normalised (N, 3, h, w) of ``dtype``: resize, central crop, normalise, as ``config`` says.

    ``stretch`` (N,) is how many times wider than cached each image is to be shown (``CacheSpec.stretch``). On images as
    they were decoded this is the model's transform, to a rounding of the last of 255 grey levels. A cache has resized
    them once before: where it has the very size that the transform resizes to (298 x 224 for 4:3 and a 224 network), the
    agreement stays; otherwise sharp edges differ, half a grey level on average. A cache with ``fit="crop"`` or
    ``"pad"`` shows another part of images that do not have its aspect, and cannot agree there.
    """
    factors = np.ones(len(images)) if stretch is None else np.asarray(stretch, np.float64)
    shapes = [shown_size((images.shape[1], images.shape[2] * factor), config) for factor in factors]
    height, width = config.input_size[1:]
    if len(distinct := sorted(set(shapes))) == 1:
        pixels = _fitted(images, distinct[0], config)
    else:
        pixels = images.new_empty((len(images), 3, height, width))
        for shape in distinct:
            rows = torch.tensor([i for i, own in enumerate(shapes) if own == shape])
            index = to_device(rows, images.device)
            pixels[index] = _fitted(images[index], shape, config)
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    with torch.autocast(images.device.type, enabled=False):
        return recolour(pixels.float(), None, config.mean, config.std).to(dtype, memory_format=memory_format)


def shown_size(size: tuple[float, float], config: InputConfig) -> tuple[int, int]:
    """Height and width that timm resizes an image of ``size`` to, before it crops."""
    height, width = size
    target_height, target_width = (math.floor(side / config.crop_pct) for side in config.input_size[1:])
    if config.crop_mode == "squash":
        return target_height, target_width
    if config.crop_mode == "center" and target_height == target_width:
        long = _whole(target_height * max(height, width) / min(height, width))
        return (long, target_width) if height > width else (target_height, long)
    ratios = (height / target_height, width / target_width)
    ratio = max(ratios) if config.crop_mode == "border" else min(ratios)
    return round(height / ratio), round(width / ratio)


def _whole(length: float) -> int:
    """Torchvision rounds down; the margin absorbs the float32 of ``stretch``."""
    return int(length + 1e-3)


def _fitted(images: Tensor, shape: tuple[int, int], config: InputConfig) -> Tensor:
    """uint8 (N, H, W, 3) resized to ``shape`` and cropped to (N, 3, h, w) uint8."""
    pixels = images.permute(0, 3, 1, 2)
    if pixels.shape[2:] != shape:
        mode = InterpolationMode(config.interpolation)
        pixels = transforms.resize(pixels, list(shape), interpolation=mode, antialias=True)
    target = list(config.input_size[1:])
    if config.crop_mode == "border":
        fill = [float(round(255 * value)) for value in config.mean]
        room = [max(0, side - have) for side, have in zip(target, pixels.shape[2:], strict=True)]
        padding = [room[1] // 2, room[0] // 2, room[1] - room[1] // 2, room[0] - room[0] // 2]
        pixels = transforms.pad(pixels, padding, fill=fill)
    return transforms.center_crop(pixels, target)
