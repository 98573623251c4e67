"""Insertion and deletion: does the probability come back, or go, with the pixels that a map calls important?"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from scipy.integrate import trapezoid

from lesion_hub.inference.attribution.maps import Heat
from lesion_hub.inference.faithfulness.subject import Subject

Pixels = NDArray[np.uint8]
STEPS = 16
_BLUR = 0.1


def deletion_auc(subject: Subject, image: Pixels, heat: Heat, steps: int = STEPS) -> float:
    """Area in [0, 1] under the label's probability while the hottest pixels are taken away first; lower is better."""
    blank = np.broadcast_to(image.mean(axis=(0, 1)).astype(np.uint8), image.shape)
    return _area(subject, image, blank, heat, steps)


def insertion_auc(subject: Subject, image: Pixels, heat: Heat, steps: int = STEPS) -> float:
    """Area in [0, 1] under the label's probability while a blurred image sharpens, hottest pixels first; higher is better."""
    radius = _BLUR * min(image.shape[:2])
    blurred = np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(radius)))
    return _area(subject, blurred, image, heat, steps)


def _area(subject: Subject, start: Pixels, end: Pixels, heat: Heat, steps: int) -> float:
    """Go from ``start`` to ``end`` in equal numbers of pixels, hottest first; the trapezoid under the probabilities."""
    rank = _ranks(heat)
    shares = np.linspace(0, 1, steps + 1)
    stages = [np.where((rank < share * rank.size)[..., None], end, start) for share in shares]
    return float(trapezoid(subject.probabilities(stages), shares))


def _ranks(heat: Heat) -> NDArray[np.int64]:
    """(H, W) place of every pixel by falling heat; equal ones in a random but fixed order, not from the top left."""
    order = np.random.default_rng(0).permutation(heat.size)
    flat = heat.ravel()[order]
    hottest_first = order[np.argsort(-flat, kind="stable")]
    rank = np.empty(heat.size, dtype=np.int64)
    rank[hottest_first] = np.arange(heat.size)
    return rank.reshape(heat.shape)
