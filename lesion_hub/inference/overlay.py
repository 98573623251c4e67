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
    colour, strength = _colours(heat)
    share = opacity * strength[..., None]
    mixed = np.asarray(image, dtype=np.float32) * (1 - share) + colour * share
    return Image.fromarray(np.rint(mixed).astype(np.uint8))


def heat_layer(heat: NDArray[np.float32]) -> Image.Image:
    """The (H, W) heat in [0, 1] as an RGBA image; laid over its picture at some opacity, it gives ``draw_overlay``'s.

    >>> heat_layer(np.zeros((3, 4), np.float32)).getpixel((0, 0))[3]
    0
    """
    colour, strength = _colours(heat)
    return Image.fromarray(np.rint(np.dstack([colour, 255 * strength])).astype(np.uint8), "RGBA")


def _colours(heat: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """(H, W, 3) colours in 0..255 and (H, W) how strongly they cover the picture, in [0, 1]."""
    return _palette()[np.clip(heat * 255, 0, 255).astype(np.uint8)], np.sqrt(np.clip(heat, 0, 1))


@cache
def _palette() -> NDArray[np.float32]:
    """(256, 3) colours in 0..255."""
    from matplotlib import colormaps

    return np.asarray(colormaps[COLOURS](np.linspace(0, 1, 256))[:, :3] * 255, dtype=np.float32)
