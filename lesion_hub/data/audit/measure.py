"""What one pass over the images notes of each: its fingerprint, its technical traits, and its quality."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePath

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lesion_hub.data.duplicates import Fingerprint, fingerprint_image
from lesion_hub.data.duplicates.descriptor import luminance
from lesion_hub.data.images import ImageFacts, load_rgb, probe

# Sharpness is measured at one scale, or large images would look blurred beside small ones.
_SHARPNESS_SIDE = 256
_DARK, _BRIGHT = 16, 245
_FRAME_SHARE = 0.04
_USUAL_SUFFIXES = {"JPEG": (".jpg", ".jpeg"), "PNG": (".png",), "WEBP": (".webp",), "BMP": (".bmp",), "TIFF": (".tif", ".tiff")}
TINY = 64
BLANK = 2.0


@dataclass(frozen=True)
class Quality:
    """``sharpness`` is the variance of the Laplacian; ``brightness`` and ``contrast`` mean and spread of gray 0..255;
    ``dark`` and ``bright`` the shares of nearly black and nearly white pixels."""

    sharpness: float
    brightness: float
    contrast: float
    dark: float
    bright: float


@dataclass(frozen=True)
class Measured:
    """One image: ``border`` is the mean colour of its frame (3 values 0..255), ``name_pattern`` its file name with
    every digit as 9, ``oddities`` what is unusual about the file."""

    facts: ImageFacts
    quality: Quality
    border: tuple[float, float, float]
    name_pattern: str
    oddities: tuple[str, ...]


def measure(encoded: bytes, name: str) -> tuple[Fingerprint, Measured]:
    """Measure an encoded image; raises `ImageError` naming ``name``.

    >>> from io import BytesIO
    >>> stream = BytesIO()
    >>> Image.new("RGB", (90, 80), "red").save(stream, "PNG")
    >>> _, measured = measure(stream.getvalue(), "mole_07.jpg")
    >>> measured.name_pattern, measured.oddities
    ('mole_99.jpg', ('a PNG file named .jpg', 'blank'))
    """
    facts = probe(encoded, name=name)
    image = load_rgb(encoded, name=name)
    gray = luminance(np.asarray(image))
    quality = _quality(image, gray)
    pattern = re.sub(r"\d", "9", PurePath(name).name)
    measured = Measured(facts, quality, _border(np.asarray(image)), pattern, _oddities(facts, quality, name))
    return fingerprint_image(image, encoded), measured


def _quality(image: Image.Image, gray: NDArray[np.float32]) -> Quality:
    shrink = _SHARPNESS_SIDE / max(image.size)
    size = (max(3, round(image.width * shrink)), max(3, round(image.height * shrink)))
    plane = np.asarray(image.convert("L").resize(size, Image.Resampling.BILINEAR), np.float32)
    laplacian = plane[:-2, 1:-1] + plane[2:, 1:-1] + plane[1:-1, :-2] + plane[1:-1, 2:] - 4 * plane[1:-1, 1:-1]
    return Quality(
        float(laplacian.var()),
        float(gray.mean()),
        float(gray.std()),
        float((gray < _DARK).mean()),
        float((gray > _BRIGHT).mean()),
    )


def _border(rgb: NDArray[np.uint8]) -> tuple[float, float, float]:
    depth = max(1, round(min(rgb.shape[:2]) * _FRAME_SHARE))
    sides = (rgb[:depth], rgb[-depth:], rgb[depth:-depth, :depth], rgb[depth:-depth, -depth:])
    red, green, blue = np.concatenate([side.reshape(-1, 3) for side in sides]).mean(0).tolist()
    return red, green, blue


def _oddities(facts: ImageFacts, quality: Quality, name: str) -> tuple[str, ...]:
    suffix = PurePath(name).suffix.lower()
    expected = _USUAL_SUFFIXES.get(facts.format, ())
    checks = (
        (expected and suffix and suffix not in expected, f"a {facts.format} file named {suffix}"),
        (facts.mode != "RGB", f"stored as {facts.mode}, not RGB"),
        (facts.orientation != 1, f"rotated by EXIF orientation {facts.orientation}"),
        (min(facts.width, facts.height) < TINY, f"only {facts.width}x{facts.height} pixels"),
        (quality.contrast < BLANK, "blank"),
    )
    return tuple(text for odd, text in checks if odd)
