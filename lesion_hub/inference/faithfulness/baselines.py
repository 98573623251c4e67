"""Maps that know nothing of the model: what a method must beat before its maps mean anything."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from lesion_hub.inference.attribution.maps import Heat, scaled

Pixels = NDArray[np.uint8]
_GAUSSIAN_WIDTH = 0.25


def random_map(image: Pixels, seed: int) -> Heat:
    """Uniform noise."""
    return np.random.default_rng(seed).random(image.shape[:2], dtype=np.float32)


def centre_gaussian(image: Pixels, seed: int) -> Heat:
    """A bell over the middle: photographers centre the lesion, so this is hard to beat."""
    rows, columns = (np.linspace(-1, 1, side, dtype=np.float32) for side in image.shape[:2])
    return scaled(np.exp(-(rows[:, None] ** 2 + columns[None, :] ** 2) / (2 * (2 * _GAUSSIAN_WIDTH) ** 2)))


def edges(image: Pixels, seed: int) -> Heat:
    """The gradient of the luminance: what methods that fail the randomisation check come down to."""
    light = image.astype(np.float32).mean(axis=2)
    down, right = np.gradient(light) if min(light.shape) > 1 else (np.zeros_like(light), np.zeros_like(light))
    return scaled(np.hypot(down, right).astype(np.float32))


BASELINES: Mapping[str, Callable[[Pixels, int], Heat]] = MappingProxyType(
    {"random": random_map, "centre_gaussian": centre_gaussian, "edges": edges}
)
