"""The operations of augmentation on a batch of pixels: resampling, colour, blur, artefacts, erasing.

One resampling does crop, stretch, flips and rotation. Every operation takes its parameters per sample, drawn on the CPU, and
does not wait for the device.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from lesion_hub.data.artefacts import artefact_layer
from lesion_hub.training.augmentation.draws import AugmentationOptions
from lesion_hub.training.device import to_device


def resample(images: Tensor, theta: NDArray[np.float32], size: tuple[int, int]) -> Tensor:
    """Turn uint8 (N, H, W, 3) into float32 (N, 3, h, w), still 0 to 255, bilinear, the border reflected.

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
    """Return how often each sample's source is halved, (N,): log2 of source pixels per output pixel, rounded, at least 0."""
    per_output = theta[:, :, :2] * np.array([source[1], source[0]])[:, None] / np.array([size[1], size[0]])
    across, down = np.linalg.norm(per_output, axis=1).T
    return np.maximum(0, np.rint(np.log2(np.sqrt(across * down) + 1e-12))).astype(np.int64)


def _planes(images: Tensor) -> Tensor:
    """Turn uint8 (N, H, W, 3) into float32 (N, 3, H, W), channel after channel in memory: sampling is then a third faster."""
    return images.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)


def _halve(pixels: Tensor, theta: NDArray[np.float32], times: int) -> tuple[Tensor, NDArray[np.float32]]:
    """Box-average pixels ``times`` times, and adapt the maps into them: an odd side grows by half a pixel at its far end."""
    for _ in range(times):
        height, width = pixels.shape[-2:]
        pixels = F.avg_pool2d(pixels, 2, ceil_mode=True, count_include_pad=False)
        grown = np.array([width / (2 * pixels.shape[-1]), height / (2 * pixels.shape[-2])], np.float32)
        theta = theta * grown[:, None]
        theta[:, :, 2] += grown - 1
    return pixels, theta


def _sample(pixels: Tensor, theta: NDArray[np.float32], size: tuple[int, int]) -> Tensor:
    """Sample ``pixels`` at (N, h, w, 2) source coordinates.

    ``F.affine_grid`` multiplies matrices, which TF32 would round to whole pixels on a GPU, and takes longer on a CPU.
    """
    maps = to_device(torch.from_numpy(theta), pixels.device)
    down, across = (torch.arange(1 - side, side, 2, device=pixels.device, dtype=torch.float32) / side for side in size)
    along_x = across[:, None] * maps[:, None, :, 0] + maps[:, None, :, 2]
    along_y = down[:, None] * maps[:, None, :, 1]
    grid = along_x[:, None] + along_y[:, :, None]
    return F.grid_sample(pixels, grid, padding_mode="reflection", align_corners=False)


GRAY = np.array([0.299, 0.587, 0.114])
_ACROSS_GRAY = np.array([[0, -1, 1], [1, 0, -1], [-1, 1, 0]]) / np.sqrt(3)

# A kernel this many sigmas long to either side leaves out less than 0.3 % of the weight.
_REACH = 3.0


def recolour(pixels: Tensor, factors: NDArray[np.float32] | None, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Normalise (N, 3, h, w) float32, 0 to 255, by ``mean`` and ``std`` (of 0 to 1), jittering colours on the way.

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
    """Compute (N, 3, 3) linear parts, and (N,) how much of the image's mean gray is added to every channel."""
    brightness, contrast, saturation, hue = factors.T
    gain = (saturation * contrast * brightness)[:, None, None]
    desaturated = ((1 - saturation) * contrast * brightness)[:, None, None]
    linear = gain * np.eye(3) + desaturated * np.tile(GRAY, (3, 1))
    # The hue turns about the gray axis, which leaves every gray as it is.
    cos, sin = (wave(2 * np.pi * hue)[:, None, None] for wave in (np.cos, np.sin))
    turns = cos * np.eye(3) + (1 - cos) / 3 + sin * _ACROSS_GRAY
    return turns @ linear, (1 - contrast) * brightness


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


class ArtefactBank:
    """Layers of every kind of artefact that the options ask for, drawn once and kept on the device.

    ``layers`` maps a kind to uint8 (L, 4, h, w): red, green, blue and opacity.
    """

    def __init__(self, options: AugmentationOptions, size: tuple[int, int], seed: int, device: torch.device) -> None:
        height, width = size
        mildest, strongest = options.artefact_severity
        self.layers: dict[str, Tensor] = {}
        for kind in options.artefacts:
            drawn = []
            for number in range(options.artefact_layers):
                severity = mildest + number % (strongest - mildest + 1)
                rgb, alpha = artefact_layer(kind, (width, height), severity, seed * options.artefact_layers + number)
                drawn.append(np.concatenate([rgb, np.rint(alpha * 255).astype(np.uint8)[..., None]], axis=-1))
            self.layers[kind] = torch.from_numpy(np.stack(drawn)).permute(0, 3, 1, 2).contiguous().to(device)

    def lay_over(self, pixels: Tensor, chosen: dict[str, NDArray[np.int64]]) -> Tensor:
        """Blend, in place, layer ``chosen[kind][i]`` over sample i of (N, 3, h, w) float32, 0 to 255; -1 is none."""
        for kind, numbers in chosen.items():
            rows = np.flatnonzero(numbers >= 0)
            if not len(rows):
                continue
            index = to_device(torch.from_numpy(rows), pixels.device)
            layers = self.layers[kind][to_device(torch.from_numpy(numbers[rows]), pixels.device)].float()
            blended = torch.lerp(pixels[index], layers[:, :3], layers[:, 3:] / 255)
            pixels.index_copy_(0, index, blended)
        return pixels


def erase(images: Tensor, boxes: NDArray[np.float32]) -> Tensor:
    """Set each box of ``boxes`` (N, 4), top, left, bottom, right in shares of the sides, to 0 in (N, 3, h, w), in place."""
    rows = np.flatnonzero((boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1]))
    if not len(rows):
        return images
    height, width = images.shape[-2:]
    top, left, bottom, right = np.rint(boxes[rows] * (height, width, height, width)).T[:, :, None]
    in_rows = (np.arange(height) >= top) & (np.arange(height) < bottom)
    in_columns = (np.arange(width) >= left) & (np.arange(width) < right)
    index = to_device(torch.from_numpy(rows), images.device)
    erased = to_device(torch.from_numpy(in_rows), images.device)[:, None, :, None]
    erased = erased & to_device(torch.from_numpy(in_columns), images.device)[:, None, None, :]
    return images.index_copy_(0, index, images[index].masked_fill(erased, 0))
