"""The skin round a lesion, and the light on it. Nothing here knows the diagnosis."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from lesion_hub.data.synthetic.canvas import Canvas, Floats

# Melanin density of the Fitzpatrick types I to VI, and how often a type is drawn.
TONES = (0.02, 0.10, 0.22, 0.42, 0.75, 1.20)
TONE_SHARES = (0.20, 0.28, 0.22, 0.13, 0.10, 0.07)
ALBEDO = (240.0, 214.0, 200.0)


@dataclass(frozen=True)
class Skin:
    """One person's skin: ``fitzpatrick`` 1..6, its pigment densities, and what marks it."""

    fitzpatrick: int
    melanin: float
    blood: float
    furrows: float
    freckles: float
    vessels: float

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Skin:
        kind = int(rng.choice(6, p=TONE_SHARES))
        freckled, sun_damaged = rng.random() < 0.15, rng.random() < 0.12
        return cls(
            fitzpatrick=kind + 1,
            melanin=TONES[kind] * rng.uniform(0.75, 1.25) + rng.uniform(0, 0.04),
            blood=rng.triangular(0.02, 0.08, 0.40) * (1 - 0.1 * kind),
            furrows=rng.uniform(0.01, 0.07),
            freckles=rng.uniform(0.05, 0.22) if freckled else 0.0,
            vessels=rng.uniform(0.1, 0.3) if sun_damaged else 0.0,
        )


def smooth_noise(rng: np.random.Generator, width: int, height: int, cell: float) -> Floats:
    """Smooth noise (H, W) of about unit variance, fixed to the image, with a bump every ``cell`` pixels."""
    columns, rows = max(2, round(width / cell) + 2), max(2, round(height / cell) + 2)
    grid = Image.fromarray(rng.standard_normal((rows, columns), dtype=np.float32) * np.float32(1.3))
    return np.asarray(grid.resize((width, height), Image.Resampling.BICUBIC))


def paint_skin(canvas: Canvas, skin: Skin, rng: np.random.Generator) -> None:
    """Fill the canvas with skin: tone, mottling, furrows, and sometimes freckles or fine vessels."""
    view = canvas.view
    width, height, side = view.width, view.height, view.side
    coarse = smooth_noise(rng, width, height, side * 0.22)
    fine = smooth_noise(rng, width, height, side * 0.045)
    canvas.melanin += skin.melanin * (1 + 0.05 * coarse + 0.04 * fine)
    canvas.blood += np.maximum(
        0, skin.blood * (1 - 0.1 * coarse + 0.08 * fine) + 0.022 * smooth_noise(rng, width, height, side * 0.11)
    )
    canvas.melanin += skin.furrows * _furrows(rng, width, height, side)
    if skin.freckles:
        spots = smooth_noise(rng, width, height, side * 0.05) + 0.6 * coarse
        canvas.melanin += skin.freckles * np.clip((spots - 0.9) * 0.7, 0, 1)
    if skin.vessels:
        web = np.abs(smooth_noise(rng, width, height, side * 0.07) + 0.4 * fine)
        canvas.blood += skin.vessels * np.clip(1 - web / 0.22, 0, 1) * np.clip(0.5 + 0.7 * coarse, 0, 1)


def _furrows(rng: np.random.Generator, width: int, height: int, side: int) -> Floats:
    """The fine lines of the skin: the zero crossings of noise that is drawn out in one direction."""
    stretch = rng.uniform(1.0, 2.2)
    lines = np.zeros((height, width), np.float32)
    for wide, tall in ((stretch, 1.0), (1.0, stretch)):
        cell = side * 0.026
        columns, rows = max(3, round(width / cell / wide)), max(3, round(height / cell / tall))
        grid = Image.fromarray(rng.standard_normal((rows, columns), dtype=np.float32))
        field = np.asarray(grid.resize((width, height), Image.Resampling.BICUBIC))
        lines += np.clip(1 - np.abs(field) / 0.5, 0, 1)
    return lines


def draw_light(rng: np.random.Generator, width: int, height: int) -> tuple[Floats, Floats]:
    """Illumination (H, W) about 1, brighter to one side and darker outwards, and the camera's gains (3,)."""
    x = np.linspace(-1, 1, width, dtype=np.float32)[None, :]
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    angle, slope = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.12)
    falloff = rng.uniform(0.0, 0.12)
    field = 1 + slope * (np.cos(angle) * x + np.sin(angle) * y) - falloff * (x * x + y * y) / 2
    balance = np.exp(rng.normal(0, 0.05, 3) * (1.0, 0.6, 1.4))
    exposure = np.exp(rng.normal(0.0, 0.09))
    return field.astype(np.float32), (balance * exposure).astype(np.float32)


def photograph(picture: Floats, rng: np.random.Generator) -> NDArray[np.uint8]:
    """What the camera makes of ``picture`` (H, W, 3) in 0..255: slightly out of focus, slightly noisy, uint8."""
    sharpness, sigma = rng.uniform(0.0, 0.006) * min(picture.shape[:2]), rng.uniform(0.8, 3.0)
    grain = rng.standard_normal(picture.shape[:2], dtype=np.float32)[..., None] * np.float32(sigma)
    sharp = Image.fromarray(np.clip(picture + 0.5, 0, 255).astype(np.uint8))
    blurred = np.asarray(sharp.filter(ImageFilter.GaussianBlur(sharpness)))
    return np.clip(blurred + grain, 0, 255).astype(np.uint8)
