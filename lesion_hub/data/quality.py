"""The quality of an image: a few cheap measures, and the flags that they raise, which warn and never refuse.

Predictions show the flags, the audit of a data set summarises the measures. The limits were set so that about one of a
hundred images of HAM10000 and of ISIC 2017 raises a flag.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

FLAGS = {
    "tiny": "the image is smaller than the networks were made for",
    "blurred": "the image is out of focus at the scale that networks look at",
    "dark": "the image is under-exposed",
    "bright": "the image is over-exposed",
    "low_contrast": "nothing stands out in the image",
    "not_skin_like": "colours or texture are not those of skin under a dermatoscope",
}

TINY_SIDE = 96
BLURRED_BELOW = 0.006
NOISY_ABOVE = 6.0
DARK_BELOW = 45.0
BRIGHT_ABOVE = 235.0
LOW_CONTRAST_BELOW = 4.0
SKIN_BELOW = 0.06
THUMBNAIL = 128
_GRAY = np.array([0.299, 0.587, 0.114], np.float32)


@dataclass(frozen=True)
class ImageQuality:
    """Measures of an image and the flags that they raise.

    ``short_side`` in pixels; ``sharpness`` >= 0, the finest detail relative to the contrast, at about 150 pixels of short
    side; ``brightness`` the mean luminance and ``contrast`` its standard deviation, both of 0..255; ``skin_share`` in
    [0, 1], pixels of skin-like hue.
    """

    short_side: int
    sharpness: float
    brightness: float
    contrast: float
    skin_share: float

    @property
    def flags(self) -> tuple[str, ...]:
        """The names in ``FLAGS`` that this image raises; empty for a good one."""
        raised = {
            "tiny": self.short_side < TINY_SIDE,
            "low_contrast": self.contrast < LOW_CONTRAST_BELOW,
            "blurred": self.contrast >= LOW_CONTRAST_BELOW and self.sharpness < BLURRED_BELOW,
            "dark": self.brightness < DARK_BELOW,
            "bright": self.brightness > BRIGHT_ABOVE,
            "not_skin_like": self.skin_share < SKIN_BELOW or self.sharpness > NOISY_ABOVE,
        }
        return tuple(name for name in FLAGS if raised[name])

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "flags": list(self.flags)}


def luminance(rgb: NDArray[Any]) -> NDArray[np.float32]:
    """Return the gray values 0..255 of ``rgb`` (..., 3).

    >>> luminance(np.full((1, 1, 3), 200, np.uint8)).round().tolist()
    [[200.0]]
    """
    return np.asarray(rgb.astype(np.float32) @ _GRAY)


def judge_quality(image: Image.Image) -> ImageQuality:
    """Measure an RGB image, averaged down to about 150 pixels of short side.

    >>> judge_quality(Image.new("RGB", (64, 48), (0, 0, 0))).flags
    ('tiny', 'dark', 'low_contrast', 'not_skin_like')
    """
    short = min(image.size)
    small = np.asarray(image.reduce(max(1, short // THUMBNAIL)), dtype=np.float32)
    light = luminance(small)
    return ImageQuality(
        short_side=short,
        sharpness=_sharpness(light),
        brightness=float(light.mean()),
        contrast=float(light.std()),
        skin_share=float(_skin_like(small).mean()),
    )


def _sharpness(light: NDArray[np.float32]) -> float:
    """Divide the variance of the Laplacian by that of the luminance: a blur takes the first and leaves the second."""
    if min(light.shape) < 3:
        return 0.0
    inner = light[1:-1, 1:-1]
    laplacian = light[:-2, 1:-1] + light[2:, 1:-1] + light[1:-1, :-2] + light[1:-1, 2:] - 4 * inner
    return float(laplacian.var() / (light.var() + 1e-6))


def _skin_like(pixels: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Mark pixels whose red leads and whose colour is neither gray nor pure: pink to brown, whatever the skin tone."""
    red, green, blue = pixels[..., 0], pixels[..., 1], pixels[..., 2]
    spread = red - np.minimum(green, blue)
    return (red >= green) & (red >= 0.9 * blue) & (spread > 0.04 * red) & (spread < 0.92 * red) & (red > 20)
