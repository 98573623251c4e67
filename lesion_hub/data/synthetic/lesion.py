"""The body of a lesion: its outline, how far inside it a pixel lies, and where structures may be put."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lesion_hub.data.synthetic.canvas import Canvas, Floats, Points, View
from lesion_hub.data.synthetic.diagnoses import Appearance

_ANGLES = 720

# Pigment in the depth of the skin looks gray: a veil of this colour, more or less of it, lies over every lesion.
HAZE = (150.0, 122.0, 118.0)


@dataclass(frozen=True)
class Outline:
    """One closed outline: a bent, stretched circle about ``centre`` of mean radius ``size`` lesion radii."""

    centre: tuple[float, float]
    size: float
    radii: Floats

    @classmethod
    def draw(cls, rng: np.random.Generator, wobble: float, stretch: float, centre: Points, size: float) -> Outline:
        theta = np.linspace(0, 2 * np.pi, _ANGLES, endpoint=False)
        orders = np.arange(2, 8)
        weights = rng.normal(0, 1, 6) / orders**1.1
        bends = (weights[:, None] * np.cos(orders[:, None] * theta + rng.uniform(0, 2 * np.pi, (6, 1)))).sum(0)
        turned = theta - rng.uniform(0, np.pi)
        oval = stretch / np.sqrt((stretch * np.cos(turned)) ** 2 + np.sin(turned) ** 2)
        radii = oval / oval.mean() * np.exp(wobble * bends)
        return cls((float(centre[0]), float(centre[1])), size, (radii * size).astype(np.float32))

    def depth(self, u: Floats, v: Floats) -> Floats:
        """How far out each pixel lies: 0 in the centre, 1 on the outline."""
        du, dv = u - np.float32(self.centre[0]), v - np.float32(self.centre[1])
        step = (np.arctan2(dv, du) * np.float32(_ANGLES / (2 * np.pi))).astype(np.int32)
        return np.sqrt(du * du + dv * dv) / self.radii[step]

    def at(self, theta: Points, reach: Points | float) -> Points:
        """Points (N, 2) at the angles ``theta`` (N,) and ``reach`` times the outline's radius from its centre."""
        radius = self.radii[(theta * (_ANGLES / (2 * np.pi))).astype(int) % _ANGLES] * reach
        return np.stack([np.cos(theta), np.sin(theta)], -1) * radius[:, None] + self.centre


@dataclass(frozen=True)
class Lesion:
    """A lesion under a view. ``depth`` (H, W): 0 in the middle, 1 on the border, more outside."""

    view: View
    outlines: tuple[Outline, ...]
    depth: Floats
    soft: float

    @cached_property
    def body(self) -> Floats:
        """1 inside, 0 outside, with a border as soft as the lesion's (H, W)."""
        inside = np.clip((1 - self.depth) / self.soft + 0.5, 0, 1)
        return inside * inside * (3 - 2 * inside)

    @cached_property
    def core(self) -> Floats:
        """1 in the middle, falling to 0 on the border (H, W)."""
        return np.clip(1 - self.depth, 0, 1)

    @property
    def mask(self) -> np.ndarray:
        return self.depth < 1

    def points(self, rng: np.random.Generator, count: int, near: float = 0.0, far: float = 0.9) -> Points:
        """``count`` points (N, 2) spread evenly between the fractions ``near`` and ``far`` of the outline's radius."""
        home = rng.integers(len(self.outlines), size=count)
        theta, reach = rng.uniform(0, 2 * np.pi, count), np.sqrt(rng.uniform(near**2, far**2, count))
        spread = np.empty((count, 2))
        for number, outline in enumerate(self.outlines):
            spread[home == number] = outline.at(theta[home == number], reach[home == number])
        return spread


def draw_body(view: View, look: Appearance, rng: np.random.Generator) -> Lesion:
    """Draw the outline(s) of a lesion; all random draws are the same whatever the view."""
    ragged, soft, wobble = rng.uniform(*look.ragged), rng.uniform(*look.soft), rng.uniform(*look.wobble)
    count = int(rng.integers(look.scatter[0], look.scatter[1] + 1))
    u, v = view.uv
    outlines: list[Outline] = []
    depth = np.full(u.shape, 9.0, np.float32)
    for number in range(count):
        centre = np.zeros(2) if count == 1 else rng.uniform(-1.1, 1.1, 2) * (number > 0)
        size = 1.0 if count == 1 else rng.uniform(0.16, 0.34) * (1.6 if look.dome[1] == 0 else 1.0)
        outlines.append(Outline.draw(rng, wobble, rng.uniform(*look.stretch), centre, size))
        depth = np.minimum(depth, outlines[-1].depth(u, v))
    fray = ragged * (0.45 * view.noise(rng, 0.4) + 0.4 * view.noise(rng, 0.15) + 0.28 * view.noise(rng, 0.06))
    return Lesion(view, tuple(outlines), depth + fray, soft)


def paint_body(canvas: Canvas, lesion: Lesion, look: Appearance, rng: np.random.Generator) -> None:
    """The lesion without its structures: pigment, blood, unevenness and height."""
    melanin, blood, patchy = rng.uniform(*look.melanin), rng.uniform(*look.blood), rng.uniform(*look.patchy)
    dome = rng.uniform(*look.dome)
    zones = patchy * (canvas.view.noise(rng, 0.5) + 0.5 * canvas.view.noise(rng, 0.2))
    fine = 0.10 * canvas.view.noise(rng, 0.06) + 0.06 * canvas.view.noise(rng, 0.12)
    canvas.melanin += lesion.body * np.maximum(0, melanin * (1 + zones + fine))
    reddening = patchy * canvas.view.noise(rng, 0.45)
    canvas.blood += lesion.body * np.maximum(0, blood * (1 + reddening + fine))
    canvas.cover(HAZE, rng.uniform(0, 0.28) * lesion.body)
    if dome:
        canvas.relief += dome * lesion.body * (1 - 0.5 * lesion.depth)
