"""Pictures for the page: small enough to travel inside it, and with nothing in them but pixels."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from lesion_hub.data.images import is_image_name, load_rgb
from lesion_hub.hub.space import packaged_space
from lesion_hub.inference.results import HeatMap, Prediction, draw_overlay, heat_layer

# A layer is smooth, and the browser stretches it: 7 x 7 cells of Grad-CAM, 224 pixels of the finest method.
_LAYER_SIDE = 192
_WEBP_EFFORT = 0
_EXAMPLE_SIDE = 448
_MOST_EXAMPLES = 12


def shrunk(image: Image.Image, side: int) -> Image.Image:
    """Shrink an image until its longer side is at most ``side``."""
    if max(image.size) <= side:
        return image
    scale = side / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return image.reduce(max(1, int(1 / scale))).resize(size, Image.Resampling.BILINEAR)


def jpeg(image: Image.Image, side: int) -> bytes:
    """Encode an image as a JPEG whose longer side is at most ``side``."""
    return _encoded(shrunk(image, side), "JPEG", quality=85)


def heat_webp(heat: HeatMap) -> bytes:
    """Encode an (H, W) heat map as a WebP whose transparency is the map's, to be stretched over its picture.

    The map is thinned first: it was stretched to the image, and has no detail at that size.
    """
    step = max(1, max(heat.shape) // _LAYER_SIDE)
    return _encoded(heat_layer(heat[step // 2 :: step, step // 2 :: step]), "WEBP", quality=80, method=_WEBP_EFFORT)


def overlay_jpeg(prediction: Prediction, side: int, member: str | None = None) -> bytes:
    """Draw the explained image under its heat map (or a member's), as a JPEG whose longer side is at most ``side``."""
    explained = prediction.explanation
    assert explained is not None, "only an explained prediction has a heat map"
    image = shrunk(explained.image, side)
    heat = explained.heat if member is None else explained.members[member]
    if heat.shape != (image.height, image.width):
        step = max(1, heat.shape[1] // (2 * image.width))
        thinned = np.ascontiguousarray(heat[step // 2 :: step, step // 2 :: step], dtype=np.float32)
        heat = np.asarray(Image.fromarray(thinned).resize(image.size, Image.Resampling.BILINEAR), dtype=np.float32)
    return _encoded(draw_overlay(image, heat), "JPEG", quality=88)


def data_uri(content: bytes, media_type: str) -> str:
    """Encode content as a ``data:`` address that holds it.

    >>> data_uri(b"hi", "text/plain")
    'data:text/plain;base64,aGk='
    """
    return f"data:{media_type};base64,{base64.b64encode(content).decode('ascii')}"


def _encoded(image: Image.Image, format_: str, **options: int) -> bytes:
    """Encode pixels without ``info``, which holds EXIF and other metadata."""
    image.info = {}
    stream = BytesIO()
    image.save(stream, format_, **options)
    return stream.getvalue()


@dataclass(frozen=True)
class Example:
    """A picture to try the page with: a JPEG, and what to call it."""

    title: str
    content: bytes = field(repr=False)


def examples(folder: Path | None = None) -> list[Example]:
    """Read the first twelve images of ``folder`` by name; without one those of the packaged Space."""
    place = folder or packaged_space() / "examples"
    found = sorted(path for path in place.iterdir() if is_image_name(path.name))[:_MOST_EXAMPLES]
    return [Example(path.stem.replace("_", " "), jpeg(load_rgb(path), _EXAMPLE_SIDE)) for path in found]
