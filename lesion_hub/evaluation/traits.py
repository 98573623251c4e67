"""What results are broken down by: facts of the patient and of the image, and the bins they fall into.

The skin-tone estimate is the individual typology angle (ITA) of the image's rim. Camera, light and white balance move it as
much as skin does, and published ITA estimates disagree with each other: it can point at a gap between images, never at a
Fitzpatrick type.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

UNKNOWN = "unknown"
TRAITS = {
    "sex": "Sex",
    "age": "Age",
    "site": "Body site",
    "size": "Image size (shorter side)",
    "skin_tone": "Skin-tone estimate (rim colour; rough)",
    "source": "Source",
}
_AGES = ((30, "under 30"), (45, "30 to 44"), (60, "45 to 59"), (75, "60 to 74"), (np.inf, "75 and over"))
_SIDES = ((256, "under 256 px"), (512, "256 to 511 px"), (1024, "512 to 1023 px"), (np.inf, "1024 px and over"))
# The customary cuts of the angle, dark to light.
_TONES = (
    (-30, "dark"),
    (10, "brown"),
    (28, "tan"),
    (41, "intermediate"),
    (55, "light"),
    (np.inf, "very light"),
)
_THUMBNAIL = 96
_RIM = 0.12
_LEAST_PIXELS = 40
_FRAME_LIGHTNESS = 25.0  # darker rims are a dermatoscope's, not skin
_TO_XYZ = np.array([[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]])
_WHITE = np.array([0.95047, 1.0, 1.08883])


@dataclass(frozen=True)
class ImageTraits:
    """``width`` and ``height`` in pixels, upright; ``skin_tone`` the angle in degrees in [-90, 90], None without skin."""

    width: int
    height: int
    skin_tone: float | None


def image_traits(image: Image.Image) -> ImageTraits:
    """Measure an RGB image.

    >>> image_traits(Image.new("RGB", (40, 30), (224, 172, 150))).width
    40
    """
    return ImageTraits(image.width, image.height, skin_tone_angle(image))


def skin_tone_angle(image: Image.Image) -> float | None:
    """The individual typology angle of the median rim colour, in degrees; None where the rim is a dark frame.

    >>> light, dark = (Image.new("RGB", (40, 30), colour) for colour in ((240, 205, 190), (90, 60, 45)))
    >>> skin_tone_angle(light) > skin_tone_angle(dark)
    True
    """
    small = np.asarray(image.reduce(max(1, min(image.size) // _THUMBNAIL)), dtype=np.float64)
    depth = max(1, round(min(small.shape[:2]) * _RIM))
    inner = np.zeros(small.shape[:2], dtype=bool)
    inner[depth:-depth, depth:-depth] = True
    lab = _to_lab(small[~inner])
    skin = lab[lab[:, 0] > _FRAME_LIGHTNESS]
    if len(skin) < min(_LEAST_PIXELS, len(lab)):
        return None
    lightness, _, yellow = np.median(skin, axis=0)
    return float(np.degrees(np.arctan2(lightness - 50, max(yellow, 1e-6))))


def _to_lab(rgb: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, 3) sRGB of 0..255 to CIE L*a*b* under D65."""
    share = rgb / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    ratio = linear @ _TO_XYZ.T / _WHITE
    root = np.where(ratio > (6 / 29) ** 3, np.cbrt(ratio), ratio / (3 * (6 / 29) ** 2) + 4 / 29)
    x, y, z = root.T
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=1)


def bins(facts: pd.DataFrame) -> dict[str, dict[str, NDArray[np.int64]]]:
    """Rows of each bin of each trait, in reading order; a trait of one bin says nothing and is left out.

    ``facts`` has a row per image and the columns sex, age, site, source, width, height and skin_tone.

    >>> facts = pd.DataFrame({"sex": ["male", None], "age": [20.0, 40.0], "site": [None] * 2, "source": ["a"] * 2,
    ...     "width": [9, 9], "height": [9, 9], "skin_tone": [None] * 2})
    >>> {trait: list(rows) for trait, rows in bins(facts).items()}
    {'sex': ['male', 'unknown'], 'age': ['under 30', '30 to 44']}
    """
    names = {
        "sex": _words(facts["sex"]),
        "age": _banded(facts["age"], _AGES),
        "site": _words(facts["site"]),
        "size": _banded(facts[["width", "height"]].min(axis=1), _SIDES),
        "skin_tone": _banded(facts["skin_tone"], _TONES),
        "source": _words(facts["source"]),
    }
    orders = {"age": _AGES, "size": _SIDES, "skin_tone": _TONES}
    found = {trait: _rows(column, [name for _, name in orders.get(trait, ())]) for trait, column in names.items()}
    return {trait: rows for trait, rows in found.items() if len(rows) > 1}


def _words(column: pd.Series) -> NDArray[np.object_]:
    return column.astype(object).where(column.notna(), UNKNOWN).to_numpy()


def _banded(column: pd.Series, bands: Sequence[tuple[float, str]]) -> NDArray[np.object_]:
    """The name of the band of each number: the first whose upper end lies above it."""
    values = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64)
    place = np.searchsorted([end for end, _ in bands], values, side="right").clip(0, len(bands) - 1)
    return np.where(np.isnan(values), UNKNOWN, np.array([name for _, name in bands], dtype=object)[place])


def _rows(column: NDArray[np.object_], order: Sequence[str]) -> dict[str, NDArray[np.int64]]:
    present = set(column.tolist())
    listed = [name for name in order if name in present]
    rest = sorted(present - set(listed) - {UNKNOWN})
    unknown = [UNKNOWN] if UNKNOWN in present else []
    return {name: np.flatnonzero(column == name) for name in (*listed, *rest, *unknown)}
