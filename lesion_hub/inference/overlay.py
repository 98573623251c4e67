"""Drawing a heat map over its image."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lesion_hub.errors import ConfigError

COLOURS = "turbo"


def draw_overlay(image: Image.Image, heat: NDArray[np.float32], opacity: float = 0.5) -> Image.Image:
    """The RGB image with the (H, W) heat in [0, 1] in colour over it; cold places stay as they are.

    >>> draw_overlay(Image.new("RGB", (4, 3), "white"), np.zeros((3, 4), np.float32)).getpixel((0, 0))
    (255, 255, 255)
    """
    if not 0 <= opacity <= 1:
        raise ConfigError(f"opacity {opacity} is not in 0..1")
    if heat.shape != (image.height, image.width):
        raise ConfigError(f"the heat map is {heat.shape}, the image {(image.height, image.width)}; they must be of one size")
    colour = _palette()[np.clip(heat * 255, 0, 255).astype(np.uint8)]
    share = (opacity * np.sqrt(np.clip(heat, 0, 1)))[..., None]
    mixed = np.asarray(image, dtype=np.float32) * (1 - share) + colour * share
    return Image.fromarray(np.rint(mixed).astype(np.uint8))


@cache
def _palette() -> NDArray[np.float32]:
    """(256, 3) colours in 0..255."""
    from matplotlib import colormaps

    return np.asarray(colormaps[COLOURS](np.linspace(0, 1, 256))[:, :3] * 255, dtype=np.float32)
