"""Colour jitter and normalisation as one 3x4 matrix per sample, and Gaussian blur."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from training.transfer import to_device

GRAY = np.array([0.299, 0.587, 0.114])
_ACROSS_GRAY = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / np.sqrt(3)

# A kernel this many sigmas long to either side leaves out less than 0.3 % of the weight.
_REACH = 3.0


def recolour(pixels: Tensor, factors: NDArray[np.float32] | None, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """(N, 3, h, w) float32, 0 to 255, to the same normalised by ``mean`` and ``std`` (of 0 to 1), jittered on the way.

    ``factors`` (N, 4): brightness times b; contrast c about the image's mean gray; saturation s about each pixel's gray;
    the hue turned by h of the colour circle; colours out of range are clipped, once, at the end. Each is linear (the hue
    is turned about the gray axis, which keeps a pixel's mean where a turn in HSV keeps its maximum), so that all of them
    and the normalisation are one product. None only normalises.
    """
    mean_row, std_row = np.asarray(mean), np.asarray(std)
    matrix, gray_share = _matrices(np.tile([1.0, 1, 1, 0], (len(pixels), 1)) if factors is None else factors.astype(float))
    scaled = _float_tensor(matrix / std_row[:, None] / 255, pixels.device)
    shift = _float_tensor(-mean_row / std_row, pixels.device)[None, :, None]
    if factors is None:
        return torch.baddbmm(shift, scaled, pixels.flatten(2)).view_as(pixels)
    gray = (pixels.mean(dim=(2, 3)) * _float_tensor(GRAY / 255, pixels.device)).sum(dim=1)
    gray_per_std = _float_tensor(gray_share[:, None] / std_row, pixels.device)
    shift = shift + (gray[:, None] * gray_per_std)[:, :, None]
    jittered = torch.baddbmm(shift, scaled, pixels.flatten(2)).view_as(pixels)
    black, white = (_float_tensor((limit - mean_row) / std_row, pixels.device)[:, None, None] for limit in (0, 1))
    return torch.clamp(jittered, black, white)


def _matrices(factors: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(N, 3, 3) linear parts, and (N,) how much of the image's mean gray is added to every channel."""
    brightness, contrast, saturation, hue = factors.T
    gain = (saturation * contrast * brightness)[:, None, None]
    desaturated = ((1 - saturation) * contrast * brightness)[:, None, None]
    linear = gain * np.eye(3) + desaturated * np.tile(GRAY, (3, 1))
    return _hue_turns(hue) @ linear, (1 - contrast) * brightness


def _hue_turns(hue: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, 3, 3) rotations about the gray axis; they leave every gray as it is."""
    cos, sin = (wave(2 * np.pi * hue)[:, None, None] for wave in (np.cos, np.sin))
    return cos * np.eye(3) + (1 - cos) / 3 + sin * _ACROSS_GRAY


def blur(pixels: Tensor, sigma: NDArray[np.float32], longest: float) -> Tensor:
    """Blur each of (N, 3, h, w) by its ``sigma`` (N,) pixels, the border reflected; 0 leaves a sample as it is.

    ``longest`` is the largest sigma that may come, in any batch: it fixes the kernel's length.
    """
    rows = np.flatnonzero(sigma > 0)
    if not len(rows):
        return pixels
    index = to_device(torch.from_numpy(rows), pixels.device)
    reach = min(int(np.ceil(_REACH * longest)), min(pixels.shape[-2:]) - 1)
    offsets = np.arange(-reach, reach + 1)
    weights = np.exp(-0.5 * (offsets / sigma[rows, None].astype(float)) ** 2)
    kernels = _float_tensor((weights / weights.sum(axis=1, keepdims=True)).repeat(3, axis=0), pixels.device)
    chosen = pixels[index]
    channels = F.pad(chosen, (reach,) * 4, mode="reflect").flatten(0, 1)[None]
    across = F.conv2d(channels, kernels[:, None, None, :], groups=len(kernels))
    down = F.conv2d(across, kernels[:, None, :, None], groups=len(kernels))
    return pixels.index_copy_(0, index, down[0].view_as(chosen))


def _float_tensor(values: NDArray[np.floating], device: torch.device) -> Tensor:
    return to_device(torch.from_numpy(np.ascontiguousarray(values, np.float32)), device)
