"""Pictures for a page: small enough to travel inside it, and with nothing in them but pixels."""

from __future__ import annotations

import base64
from io import BytesIO

import numpy as np
from PIL import Image

from lesion_hub.inference.overlay import draw_overlay, heat_layer
from lesion_hub.inference.results import Heat, Prediction

# A layer is smooth, and the browser stretches it: 7 x 7 cells of Grad-CAM, 224 pixels of the finest method.
LAYER_SIDE = 192
_WEBP_EFFORT = 0


def shrunk(image: Image.Image, side: int) -> Image.Image:
    """The image with its longer side at most ``side``."""
    if max(image.size) <= side:
        return image
    scale = side / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.reduce(max(1, int(1 / scale))).resize(size, Image.Resampling.BILINEAR)


def jpeg(image: Image.Image, side: int) -> bytes:
    """A JPEG to look at."""
    return _saved(shrunk(image, side), "JPEG", quality=85)


def layer(heat: Heat) -> bytes:
    """A heat map as a WebP of colours whose transparency is the map's, to be stretched over its picture.

    Every so many pixels of it are enough: maps are stretched to the image, and have no detail there.
    """
    step = max(1, max(heat.shape) // LAYER_SIDE)
    return _saved(heat_layer(heat[step // 2 :: step, step // 2 :: step]), "WEBP", quality=80, method=_WEBP_EFFORT)


def overlay(prediction: Prediction, side: int, member: str | None = None) -> bytes:
    """The explained image under its heat map (or a member's) as a JPEG."""
    explained = prediction.explanation
    assert explained is not None, "only an explained prediction has a heat map"
    image = shrunk(explained.image, side)
    heat = explained.heat if member is None else explained.members[member]
    return _saved(draw_overlay(image, _heat_resized(heat, image.size)), "JPEG", quality=88)


def data_uri(content: bytes, media_type: str) -> str:
    """Content as an address that holds it.

    >>> data_uri(b"hi", "text/plain")
    'data:text/plain;base64,aGk='
    """
    return f"data:{media_type};base64,{base64.b64encode(content).decode('ascii')}"


def _heat_resized(heat: Heat, size: tuple[int, int]) -> Heat:
    """(H, W) heat at (width, height)."""
    if (heat.shape[1], heat.shape[0]) == size:
        return heat
    step = max(1, heat.shape[1] // (2 * size[0]))
    thinned = np.ascontiguousarray(heat[step // 2 :: step, step // 2 :: step], dtype=np.float32)
    small = Image.fromarray(thinned).resize(size, Image.Resampling.BILINEAR)
    return np.asarray(small, dtype=np.float32)


def _saved(image: Image.Image, format_: str, **options: int) -> bytes:
    """Encoded pixels; ``info``, where EXIF and the like travel, is left behind."""
    image.info = {}
    stream = BytesIO()
    image.save(stream, format_, **options)
    return stream.getvalue()
