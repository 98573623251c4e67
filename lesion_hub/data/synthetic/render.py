"""From a planned image to its pixels and to the bytes of its files."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lesion_hub.data.artefacts import width_height
from lesion_hub.data.synthetic.draw import MAX_SIDE, MIN_SIDE, draw_lesion
from lesion_hub.data.synthetic.plan import PlannedImage
from lesion_hub.data.synthetic.plant import Source
from lesion_hub.data.synthetic.spec import SampleSpec

Pair = tuple[Image.Image, Image.Image]


def draw_planned(
    spec: SampleSpec, image: PlannedImage, source: Source | None = None
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """The pixels of a planned image before compression: uint8 (H, W, 3), and its lesion mask, bool (H, W).

    >>> from lesion_hub.data.synthetic import plan_sample_set
    >>> spec = SampleSpec(count=1, size=48)
    >>> draw_planned(spec, plan_sample_set(spec).images[0])[0].shape
    (48, 48, 3)
    """
    picture, mask = _pictures(spec, image, source)
    return np.asarray(picture), np.asarray(mask) > 0


def encode_planned(spec: SampleSpec, image: PlannedImage, source: Source | None = None) -> tuple[bytes, bytes]:
    """The bytes of an image's JPEG file and of its mask's PNG file."""
    picture, mask = _pictures(spec, image, source)
    return _encoded(picture, "JPEG", quality=_quality(image)), _encoded(mask, "PNG")


def _pictures(spec: SampleSpec, image: PlannedImage, source: Source | None) -> Pair:
    drawn = draw_lesion(image.diagnosis, image.lesion_seed, _size(spec, source), view=image.view, artefacts=spec.artefacts)
    pixels = drawn.image if source is None or source.border is None else _framed(drawn.image, source.border)
    pair = Image.fromarray(pixels), Image.fromarray(drawn.mask.astype(np.uint8) * 255)
    return pair if image.copy_kind in (None, "exact", "view") else _altered(pair, str(image.copy_kind), image.quality)


def _size(spec: SampleSpec, source: Source | None) -> tuple[int, int]:
    width, height = width_height(spec.size)
    across, down = (1.0, 1.0) if source is None or source.scale is None else source.scale
    return tuple(int(np.clip(round(side), MIN_SIDE, MAX_SIDE)) for side in (width * across, height * down))  # type: ignore[return-value]


def _framed(pixels: NDArray[np.uint8], colour: tuple[int, int, int]) -> NDArray[np.uint8]:
    edge = max(2, round(0.03 * min(pixels.shape[:2])))
    framed = np.empty_like(pixels)
    framed[:] = colour
    framed[edge:-edge, edge:-edge] = pixels[edge:-edge, edge:-edge]
    return framed


def _altered(pair: Pair, kind: str, quality: int) -> Pair:
    """A near-duplicate of an image that had been saved before: what people do to pictures they pass on."""
    with Image.open(io.BytesIO(_encoded(pair[0], "JPEG", quality=quality))) as saved:
        picture, mask = saved.convert("RGB"), pair[1]
    width, height = picture.size
    if kind == "flipped":
        return tuple(side.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for side in (picture, mask))  # type: ignore[return-value]
    if kind == "rotated":
        return tuple(side.transpose(Image.Transpose.ROTATE_90) for side in (picture, mask))  # type: ignore[return-value]
    if kind == "recompressed":
        return picture, mask
    margin = 0.05 if kind == "cropped" else 0.0
    box = (width * margin, height * margin, width * (1 - margin), height * (1 - margin))
    scale = 0.75 if kind == "resized" else 1.0
    size = (round(width * scale), round(height * scale))
    return picture.resize(size, Image.Resampling.BICUBIC, box), mask.resize(size, Image.Resampling.NEAREST, box)


def _quality(image: PlannedImage) -> int:
    return max(40, image.quality - 30) if image.copy_kind == "recompressed" else image.quality


def _encoded(picture: Image.Image, kind: str, **options: int) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()
