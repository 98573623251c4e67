"""Named corruptions of five severities: what a worse camera, another light or a phone app does to a picture.

Strengths are fractions of the image's shorter side, so that a severity means the same at every resolution. The artefacts
of :mod:`lesion_hub.data.artefacts` are in the same table, so that an evaluation walks a single one. A new corruption is one
function and one row of `CORRUPTIONS`.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lesion_hub.data.artefacts import ARTEFACTS, SEVERITIES, Pixels, add_artefact, check_severity, seeded, unknown_name
from lesion_hub.errors import DataError


@dataclass(frozen=True)
class Corruption:
    """One corruption: call it with (image uint8 (H, W, 3), severity 1..5, seed); the image comes back in the same form.

    ``kind`` is "camera" (optics, light, compression) or "artefact" (something on the skin). ``apply`` takes (image,
    strength, seed); ``strengths`` holds the strength of each of the five severities.
    """

    name: str
    kind: str
    description: str
    strengths: tuple[float, ...]
    apply: Callable[[Pixels, float, int], Pixels]

    def __call__(self, image: Pixels, severity: int, seed: int) -> Pixels:
        return self.apply(image, self.strengths[severity - 1], seed)


def corrupt(image: Pixels, name: str, severity: int, seed: int) -> Pixels:
    """Return a corrupted copy of ``image``: uint8 (H, W, 3) in and out; severity 1 (faint) to 5 (strong).

    The same arguments give the same pixels.

    >>> image = np.full((32, 48, 3), 128, np.uint8)
    >>> int(corrupt(image, "darken", severity=3, seed=0).max()) < 128
    True
    """
    if name not in CORRUPTIONS:
        raise unknown_name("corruption", name, CORRUPTIONS)
    if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3:
        raise DataError(f"{name}: the image is {image.dtype} {image.shape}; give a uint8 array of shape (height, width, 3)")
    return CORRUPTIONS[name](image, check_severity(severity), seed)


def _to_pixels(values: NDArray[np.floating]) -> Pixels:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def _filtered(image: Pixels, kernel: NDArray[np.floating]) -> Pixels:
    from scipy.signal import oaconvolve

    pad = kernel.shape[0] // 2
    padded = np.pad(image.astype(np.float32), ((pad, pad), (pad, pad), (0, 0)), mode="edge")
    return _to_pixels(oaconvolve(padded, (kernel / kernel.sum())[..., None], mode="valid", axes=(0, 1)))


def _kernel_grid(reach: float) -> NDArray[np.floating]:
    """Return the (row, column) offsets from a kernel's centre that cover ``reach`` pixels, (2, K, K)."""
    half = int(np.ceil(reach)) + 1
    return np.mgrid[-half : half + 1, -half : half + 1].astype(np.float32)


def _gaussian_blur(image: Pixels, strength: float, seed: int) -> Pixels:
    sigma = strength * min(image.shape[:2])
    rows, columns = _kernel_grid(3 * sigma)
    return _filtered(image, np.exp(-(rows**2 + columns**2) / (2 * sigma**2)))


def _defocus_blur(image: Pixels, strength: float, seed: int) -> Pixels:
    radius = strength * min(image.shape[:2])
    rows, columns = _kernel_grid(radius)
    return _filtered(image, np.clip(radius + 1 - np.hypot(rows, columns), 0, 1))


def _motion_blur(image: Pixels, strength: float, seed: int) -> Pixels:
    reach = strength * min(image.shape[:2])
    angle = seeded("motion_blur", seed).uniform(0, np.pi)
    rows, columns = _kernel_grid(reach)
    across = np.abs(rows * np.cos(angle) - columns * np.sin(angle))
    along = np.abs(columns * np.cos(angle) + rows * np.sin(angle))
    return _filtered(image, np.clip(1 - across, 0, 1) * np.clip(reach + 1 - along, 0, 1))


def _jpeg(image: Pixels, quality: float, seed: int) -> Pixels:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=int(quality))
    with Image.open(buffer) as decoded:
        return np.asarray(decoded.convert("RGB"))


def _brighten(image: Pixels, gain: float, seed: int) -> Pixels:
    return _to_pixels(image * np.float32(gain))


def _darken(image: Pixels, exponent: float, seed: int) -> Pixels:
    return _to_pixels(255 * np.linspace(0, 1, 256) ** exponent)[image]


def _contrast(image: Pixels, keep: float, seed: int) -> Pixels:
    mean = np.float32(image.mean(dtype=np.float64))
    return _to_pixels((image - mean) * np.float32(keep) + mean)


def _gaussian_noise(image: Pixels, strength: float, seed: int) -> Pixels:
    noise = seeded("gaussian_noise", seed).standard_normal(image.shape, dtype=np.float32)
    return _to_pixels(image + noise * np.float32(255 * strength))


def _colour_cast(image: Pixels, strength: float, seed: int) -> Pixels:
    """Apply gains of red, green and blue that pull apart in a direction drawn by the seed."""
    angle = seeded("colour_cast", seed).uniform(0, 2 * np.pi)
    return _to_pixels(image.astype(np.float32) * np.exp(strength * np.cos(angle + np.array([0, 2, 4]) * np.pi / 3)))


def _downscale(image: Pixels, keep: float, seed: int) -> Pixels:
    height, width = image.shape[:2]
    small = (max(1, round(width * keep)), max(1, round(height * keep)))
    reduced = Image.fromarray(image).resize(small, Image.Resampling.BILINEAR)
    return np.asarray(reduced.resize((width, height), Image.Resampling.BILINEAR))


def _artefact(name: str, image: Pixels, severity: float, seed: int) -> Pixels:
    return add_artefact(image, name, int(severity), seed)


CORRUPTIONS: dict[str, Corruption] = {
    corruption.name: corruption
    for corruption in (
        Corruption("gaussian_blur", "camera", "a soft lens", (0.008, 0.013, 0.019, 0.026, 0.035), _gaussian_blur),
        Corruption(
            "defocus_blur",
            "camera",
            "out of focus: a disc for every point",
            (0.004, 0.009, 0.016, 0.025, 0.036),
            _defocus_blur,
        ),
        Corruption("motion_blur", "camera", "a moving hand", (0.008, 0.018, 0.031, 0.046, 0.066), _motion_blur),
        Corruption("jpeg", "camera", "heavy compression", (50, 30, 20, 12, 7), _jpeg),
        Corruption("brighten", "camera", "overexposure, with clipped highlights", (1.08, 1.16, 1.25, 1.36, 1.5), _brighten),
        Corruption("darken", "camera", "underexposure", (1.2, 1.45, 1.8, 2.3, 3.0), _darken),
        Corruption("contrast", "camera", "lowered contrast", (0.8, 0.65, 0.5, 0.37, 0.25), _contrast),
        Corruption("gaussian_noise", "camera", "sensor noise", (0.02, 0.04, 0.07, 0.11, 0.16), _gaussian_noise),
        Corruption("colour_cast", "camera", "a wrong white balance", (0.04, 0.08, 0.13, 0.19, 0.26), _colour_cast),
        Corruption("downscale", "camera", "fewer pixels, enlarged again", (0.7, 0.5, 0.35, 0.25, 0.17), _downscale),
        *(
            Corruption(artefact.name, "artefact", artefact.description, SEVERITIES, partial(_artefact, artefact.name))
            for artefact in ARTEFACTS.values()
        ),
    )
}
