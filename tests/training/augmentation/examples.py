"""What the augmentation is tried on: small pictures, everything switched on, everything off."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from scipy.ndimage import map_coordinates

from lesion_hub.data.artefacts import ARTEFACTS
from lesion_hub.training.augmentation import AugmentationOptions, Augmenter
from lesion_hub.training.augmentation.draws import draw_samples

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
STILL = AugmentationOptions.none()
EVERYTHING = AugmentationOptions(
    blur=0.5, erase=0.5, artefacts=dict.fromkeys(ARTEFACTS, 0.4), artefact_layers=3, hue=0.1, brightness=0.4
)


def photos_of(count=4, height=30, width=40, seed=0):
    """Smooth colourful pictures, (N, H, W, 3) uint8."""
    stream = np.random.default_rng(seed)
    coarse = stream.integers(0, 256, (count, 6, 8, 3), np.uint8)
    photos = [np.asarray(Image.fromarray(one).resize((width, height), Image.Resampling.BICUBIC)) for one in coarse]
    return torch.from_numpy(np.stack(photos))


def augmenter_of(options, size=24, **kwargs):
    return Augmenter(options, size, mean=MEAN, std=STD, **kwargs)


def draws_of(options=STILL, count=200, source=(30, 40), size=(24, 24), stretch=None, seed=0, epoch=0):
    return draw_samples(options, seed, epoch, np.arange(count), source=source, size=size, stretch=stretch)


def resample_slowly(image, theta, size):
    """One image through scipy, as the definition of `resample` has it, without halving."""
    down, across = ((np.arange(side) * 2 + 1) / side - 1 for side in size)
    grid = np.stack([*np.meshgrid(across, down), np.ones(size)], axis=-1) @ theta.T.astype(float)
    rows = (grid[..., 1] + 1) * image.shape[0] / 2 - 0.5
    columns = (grid[..., 0] + 1) * image.shape[1] / 2 - 0.5
    channels = [map_coordinates(image[..., c].astype(float), [rows, columns], order=1, mode="reflect") for c in range(3)]
    return np.stack(channels)
