"""What is laid over augmented images: artefacts from a bank of drawings, and erased boxes."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lesion_hub.data.artefacts import artefact_layer
from training.augmentation.options import AugmentationOptions
from training.transfer import to_device


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
