"""From a network's grid to the image: undo resize and crop, scale to [0, 1], average over members."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from lesion_hub.inference.framing import Placement

Heat = NDArray[np.float32]


def on_image(grid: Heat, place: Placement, image_size: tuple[int, int]) -> Heat:
    """(h, w) map over a network's input to the (H, W) image, bilinear; what the network did not see is zero.

    >>> grid = np.array([[1.0, 0.0]], dtype=np.float32)
    >>> on_image(grid, Placement((4, 8), (0, 2), (4, 4)), (4, 8))[0].tolist()
    [0.0, 0.0, 1.0, 0.75, 0.25, 0.0, 0.0, 0.0]
    """
    rows = _weights(grid.shape[0], place.size[0], place.corner[0], place.resized[0], image_size[0])
    columns = _weights(grid.shape[1], place.size[1], place.corner[1], place.resized[1], image_size[1])
    # torch's product, not numpy's: the latter's own thread pool would fight the networks' for the cores.
    product = torch.from_numpy(rows) @ torch.from_numpy(np.ascontiguousarray(grid)) @ torch.from_numpy(columns).T
    return np.asarray(product.numpy())


def _weights(cells: int, size: int, corner: int, resized: int, length: int) -> Heat:
    """(length, cells) weights of the grid's cells at every pixel centre along one side of the image."""
    along = (np.arange(length) + 0.5) * (resized / length) - corner
    position = np.clip(along * (cells / size) - 0.5, 0, cells - 1)
    lower = np.minimum(position.astype(np.int64), max(cells - 2, 0))
    upper = np.minimum(lower + 1, cells - 1)
    share = position - lower
    seen = (along >= 0) & (along <= size)
    weights = np.zeros((length, cells), dtype=np.float32)
    pixels = np.arange(length)
    weights[pixels, lower] += np.where(seen, 1 - share, 0)
    weights[pixels, upper] += np.where(seen, share, 0)
    return weights


def scaled(heat: Heat) -> Heat:
    """A map of zero and positive values with its maximum at 1; zeros everywhere stay so, and NaN counts as zero."""
    top = float(heat.max(initial=0.0))
    if not np.isfinite(top):
        return scaled(np.nan_to_num(heat, nan=0.0, posinf=0.0, neginf=0.0))
    return heat / np.float32(top) if top > 0 else np.zeros_like(heat)


def averaged(maps: Sequence[Heat], weights: Sequence[float]) -> Heat:
    """The weighted mean of maps in [0, 1], scaled to [0, 1] again."""
    total = np.zeros_like(maps[0])
    for weight, one in zip(weights, maps, strict=True):
        total += np.float32(weight) * one
    return scaled(total)
