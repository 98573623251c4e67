"""Align one batch of thumbnails with another: one of eight turns and flips, then the affine map between them.

Vectorised over pairs, in coordinates where a thumbnail spans [-1, 1]. Written here because the libraries that align
images (OpenCV, scikit-image) take one pair per call, which costs more than all of this work.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

Fields = NDArray[np.float32]

_IDENTITY = np.eye(3, dtype=np.float32)
# A step beyond this, in half thumbnails, leaves the range where the gradients tell where to go.
_LONGEST_STEP = 0.15


def turned(fields: Fields, symmetry: int) -> Fields:
    """Return ``fields`` (..., S, S) under one of the eight symmetries 0..7 of the square; 0 leaves them.

    >>> turned(np.float32([[1, 2], [3, 4]]), 1).tolist()
    [[2.0, 1.0], [4.0, 3.0]]
    """
    if symmetry & 4:
        fields = np.swapaxes(fields, -1, -2)
    if symmetry & 1:
        fields = fields[..., ::-1]
    return fields[..., ::-1, :] if symmetry & 2 else fields


def turned_each(fields: Fields, symmetries: NDArray[np.integer]) -> Fields:
    """Return each of ``fields`` (N, S, S) under its own symmetry (N,)."""
    result = np.empty_like(fields)
    for symmetry in range(8):
        chosen = symmetries == symmetry
        result[chosen] = turned(fields[chosen], symmetry)
    return result


def averaged_down(fields: Fields, size: int) -> Fields:
    """Return ``fields`` (N, S, S) averaged down to (N, ``size``, ``size``); ``size`` divides S."""
    count, full, _ = fields.shape
    step = full // size
    return np.asarray(fields.reshape(count, size, step, size, step).mean((2, 4)))


def correlation(a: Fields, b: Fields, inside: Fields | None = None) -> NDArray[np.float32]:
    """Return the Pearson correlation (N,) of fields (N, S, S) where ``inside`` is 1; 0 where either is flat."""
    mask = np.ones_like(a) if inside is None else inside
    count = mask.sum((1, 2), keepdims=True) + 1e-3
    a = (a - (a * mask).sum((1, 2), keepdims=True) / count) * mask
    b = (b - (b * mask).sum((1, 2), keepdims=True) / count) * mask
    return np.asarray((a * b).sum((1, 2)) / np.sqrt((a * a).sum((1, 2)) * (b * b).sum((1, 2)) + 1e-2))


def identity_maps(count: int) -> Fields:
    """Return ``count`` affine maps (N, 2, 3) that leave every point where it is."""
    return np.tile(_IDENTITY[:2], (count, 1, 1))


@cache
def _grid(size: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the x and y (S * S,) of the pixels' centres."""
    centres = (np.arange(size, dtype=np.float32) + np.float32(0.5)) * 2 / size - 1
    x, y = np.meshgrid(centres, centres)
    return x.ravel(), y.ravel()


def warp(b: Fields, maps: Fields) -> tuple[Fields, Fields]:
    """Resample ``b`` (N, S, S) at the image of every pixel under ``maps`` (N, 2, 3), bilinearly.

    Returns the values (N, S, S), and a mask (N, S, S) that is 1 where ``b`` has a pixel and 0 outside.
    """
    count, size, _ = b.shape
    x, y = _grid(size)
    column = (maps[:, 0, 0, None] * x + maps[:, 0, 1, None] * y + maps[:, 0, 2, None] + 1) * (size / 2) - 0.5
    row = (maps[:, 1, 0, None] * x + maps[:, 1, 1, None] * y + maps[:, 1, 2, None] + 1) * (size / 2) - 0.5
    inside = (column >= 0) & (column <= size - 1) & (row >= 0) & (row <= size - 1)
    column, row = np.clip(column, 0, size - 1.001), np.clip(row, 0, size - 1.001)
    left, top = column.astype(np.int32), row.astype(np.int32)
    right_share, lower_share = column - left, row - top
    corner = (np.arange(count, dtype=np.int64) * size * size)[:, None] + top * size + left
    flat = b.ravel()
    upper = flat[corner] * (1 - right_share) + flat[corner + 1] * right_share
    lower = flat[corner + size] * (1 - right_share) + flat[corner + size + 1] * right_share
    values = upper * (1 - lower_share) + lower * lower_share
    return values.astype(np.float32).reshape(b.shape), inside.astype(np.float32).reshape(b.shape)


def refine(a: Fields, b: Fields, maps: Fields, steps: int) -> Fields:
    """Improve affine ``maps`` (N, 2, 3) from ``a`` into ``b`` (N, S, S) by inverse compositional Lucas-Kanade steps.

    Gain and offset of brightness are fitted anew at every step, over the pixels that both images have.
    """
    count, size, _ = a.shape
    x, y = _grid(size)
    # How each pixel of `a` changes with each of the six numbers of an affine map: (N, 6, S * S).
    down, right = (np.asarray(slope).reshape(count, -1) * np.float32(size / 2) for slope in np.gradient(a, axis=(1, 2)))
    slopes = np.stack([right * x, right * y, right, down * x, down * y, down], axis=1)
    for _ in range(steps):
        values, inside = warp(b, maps)
        mask = inside.reshape(count, -1)
        error = _residual(a.reshape(count, -1), values.reshape(count, -1), mask)
        weighted = slopes * mask[:, None]
        hessian = weighted @ slopes.transpose(0, 2, 1)
        damping = 1e-3 * np.trace(hessian, axis1=1, axis2=2) / 6 + 1e-3
        hessian += damping[:, None, None] * np.eye(6, dtype=np.float32)
        step = np.linalg.solve(hessian, slopes @ error[:, :, None]).reshape(-1, 2, 3)
        # The map so far, after the inverse of the step.
        whole, change = np.tile(_IDENTITY, (count, 1, 1)), np.tile(_IDENTITY, (count, 1, 1))
        whole[:, :2] = maps
        change[:, :2] += np.clip(step, -_LONGEST_STEP, _LONGEST_STEP)
        maps = np.asarray((whole @ np.linalg.inv(change))[:, :2], np.float32)
    return maps


def _residual(target: Fields, found: Fields, mask: Fields) -> Fields:
    """Return what is left of ``found`` (N, S * S) once its brightness is fitted to ``target``, 0 outside the ``mask``."""
    weight = mask.sum(1, keepdims=True) + 1
    target = (target - (target * mask).sum(1, keepdims=True) / weight) * mask
    found = (found - (found * mask).sum(1, keepdims=True) / weight) * mask
    gain = np.sqrt((target**2).sum(1, keepdims=True) / np.maximum((found**2).sum(1, keepdims=True), 1e-3))
    return np.asarray(found * gain - target)
