"""Crop, stretch, flip, rotation and scale of a batch in one resampling."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from training.transfer import to_device


def resample(images: Tensor, theta: NDArray[np.float32], size: tuple[int, int]) -> Tensor:
    """uint8 (N, H, W, 3) to float32 (N, 3, h, w), still 0 to 255, bilinear, the border reflected.

    ``theta`` (N, 2, 3) maps output to source coordinates, both -1 to 1 with ``align_corners=False``. A sample that is
    reduced by 1.4 or more is first halved, as often as brings it nearest to its size: that keeps fine lines
    from breaking up, as an antialiased resize would, at the cost of one pass over a quarter of the pixels.

    >>> identity = np.tile(np.eye(2, 3, dtype=np.float32), (2, 1, 1))
    >>> resample(torch.full((2, 6, 8, 3), 7, dtype=torch.uint8), identity, (4, 4)).unique()
    tensor([7.])
    """
    levels = halvings(theta, (images.shape[1], images.shape[2]), size)
    if not levels.any():
        return _sample(_planes(images), theta, size)
    out = images.new_empty((len(images), 3, *size), dtype=torch.float32)
    for level in np.unique(levels):
        rows = np.flatnonzero(levels == level)
        index = to_device(torch.from_numpy(rows), images.device)
        reduced, maps = _halve(_planes(images[index]), theta[rows], int(level))
        out[index] = _sample(reduced, maps, size)
    return out


def halvings(theta: NDArray[np.float32], source: tuple[int, int], size: tuple[int, int]) -> NDArray[np.int64]:
    """(N,) how often each sample's source is halved: log2 of source pixels per output pixel, rounded, at least 0."""
    per_output = theta[:, :, :2] * np.array([source[1], source[0]])[:, None] / np.array([size[1], size[0]])
    across, down = np.linalg.norm(per_output, axis=1).T
    return np.maximum(0, np.rint(np.log2(np.sqrt(across * down) + 1e-12))).astype(np.int64)


def _planes(images: Tensor) -> Tensor:
    """uint8 (N, H, W, 3) to float32 (N, 3, H, W), channel after channel in memory: sampling from that is a third faster."""
    return images.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)


def _halve(pixels: Tensor, theta: NDArray[np.float32], times: int) -> tuple[Tensor, NDArray[np.float32]]:
    """Pixels box-averaged ``times`` times, and the maps into them: an odd side grows by half a pixel at its far end."""
    for _ in range(times):
        height, width = pixels.shape[-2:]
        pixels = F.avg_pool2d(pixels, 2, ceil_mode=True, count_include_pad=False)
        grown = np.array([width / (2 * pixels.shape[-1]), height / (2 * pixels.shape[-2])], np.float32)
        theta = theta * grown[:, None]
        theta[:, :, 2] += grown - 1
    return pixels, theta


def _sample(pixels: Tensor, theta: NDArray[np.float32], size: tuple[int, int]) -> Tensor:
    return F.grid_sample(pixels, _grid(theta, size, pixels.device), padding_mode="reflection", align_corners=False)


def _grid(theta: NDArray[np.float32], size: tuple[int, int], device: torch.device) -> Tensor:
    """(N, h, w, 2) source coordinates.

    ``F.affine_grid`` multiplies matrices, which TF32 would round to whole pixels on a GPU, and takes longer on a CPU.
    """
    maps = to_device(torch.from_numpy(theta), device)
    down, across = (torch.arange(1 - side, side, 2, device=device, dtype=torch.float32) / side for side in size)
    along_x = across[:, None] * maps[:, None, :, 0] + maps[:, None, :, 2]
    along_y = down[:, None] * maps[:, None, :, 1]
    return along_x[:, None] + along_y[:, :, None]
