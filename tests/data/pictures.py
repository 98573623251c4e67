"""Made-up pictures of spots on textured ground: alike from afar, as lesions are, and each with detail of its own."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter


def spot(seed: int, size: tuple[int, int] = (200, 150)) -> Image.Image:
    """A dark spot near the middle, with grain at three scales; another ``seed`` is another spot."""
    rng = np.random.default_rng(seed)
    width, height = size
    y, x = np.mgrid[0:height, 0:width]
    centre = rng.uniform(0.4, 0.6, 2) * (width, height)
    inside = np.hypot((x - centre[0]) / width, (y - centre[1]) / height) < rng.uniform(0.15, 0.3)
    grain = sum(
        gain * gaussian_filter(rng.standard_normal((height, width)), sigma) * sigma
        for gain, sigma in ((14, 1.5), (22, 4), (30, 12))
    )
    gray = 170 + grain - 70 * gaussian_filter(inside.astype(float), 3) * (1 + grain / 60)
    tint = np.array([1.1, 0.8, 0.7]) * rng.uniform(0.9, 1.1, 3)
    return Image.fromarray(np.clip(gray[..., None] * tint, 0, 255).astype(np.uint8))


def jpeg(image: Image.Image, quality: int = 90) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return stream.getvalue()


def write_tree(root: Path, rows: dict[str, Image.Image]) -> Path:
    """Save each picture at its place below ``root``."""
    for place, image in rows.items():
        (root / place).parent.mkdir(parents=True, exist_ok=True)
        (root / place).write_bytes(jpeg(image))
    return root
