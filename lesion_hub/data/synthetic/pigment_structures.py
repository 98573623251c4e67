"""Dermoscopic structures of pigment: network, globules, blotches, blue-white veil and their like.

Each one draws on the canvas with a ``strength`` of about 0 to 1. Random draws never depend on the view.
"""

from __future__ import annotations

import numpy as np

from lesion_hub.data.synthetic.canvas import Canvas, Floats
from lesion_hub.data.synthetic.lesion import Lesion

BLUE_GRAY = (112.0, 114.0, 132.0)
SCAR_WHITE = (228.0, 208.0, 204.0)


def _mesh(lesion: Lesion, rng: np.random.Generator, spacing: float, warp: float) -> Floats:
    """A honeycomb of lines about 1 with holes about 0 (H, W), bent by noise."""
    u, v = lesion.view.uv
    bend = (lesion.view.noise(rng, 0.4) + 0.35 * lesion.view.noise(rng, 0.13)) * np.float32(warp)
    turn = rng.uniform(0, np.pi)
    waves = np.zeros_like(u)
    for step in range(3):
        angle = turn + step * np.pi / 3
        along = u * np.float32(np.cos(angle)) + v * np.float32(np.sin(angle))
        waves += np.cos((along + bend * (1 - 0.5 * step)) * np.float32(2 * np.pi / spacing))
    return np.clip(0.55 - waves / 2.2, 0, 1)


def network(canvas: Canvas, lesion: Lesion, strength: float, rng: np.random.Generator) -> None:
    """A regular pigment network that thins out towards the border."""
    mesh = _mesh(lesion, rng, rng.uniform(0.14, 0.22), 0.06)
    where = np.clip(0.75 + 0.4 * lesion.view.noise(rng, 0.5), 0, 1.2)
    canvas.melanin += strength * 0.65 * (mesh - 0.35) * where * lesion.body


def rim_network(canvas: Canvas, lesion: Lesion, strength: float, rng: np.random.Generator) -> None:
    """A delicate network round the edge only."""
    mesh = _mesh(lesion, rng, rng.uniform(0.14, 0.20), 0.06) * np.clip(0.8 + 0.4 * lesion.view.noise(rng, 0.5), 0, 1.2)
    ring = np.clip(1 - np.abs(lesion.depth - 0.85) / 0.4, 0, 1)
    canvas.melanin += strength * 0.45 * mesh * ring


def wild_network(canvas: Canvas, lesion: Lesion, strength: float, rng: np.random.Generator) -> None:
    """An atypical network: wide, bent meshes, thick in some parts and gone in others."""
    mesh = _mesh(lesion, rng, rng.uniform(0.19, 0.28), 0.11)
    where = np.clip(0.4 + 0.9 * lesion.view.noise(rng, 0.7), 0, 1.3)
    canvas.melanin += strength * 0.95 * (mesh - 0.3) * where * lesion.body


def globules(canvas: Canvas, lesion: Lesion, strength: float, rng: np.random.Generator) -> None:
    """Round brown globules of one size, evenly spread."""
    count, size = int(rng.integers(25, 70)), rng.uniform(0.035, 0.06)
    points = lesion.points(rng, count, far=rng.uniform(0.6, 1.0))
    spots = lesion.view.dots(points, size * rng.uniform(0.8, 1.2, count), soft=0.012)
    canvas.melanin += strength * 0.9 * spots


def wild_dots(canvas: Canvas, lesion: Lesion, strength: float, rng: np.random.Generator) -> None:
    """Dots and globules of all sizes, crowded to one side."""
    count = int(rng.integers(15, 45))
    points = lesion.points(rng, count, near=0.2, far=1.05)
    lean = rng.uniform(0, 2 * np.pi)
    crowded = (points @ [np.cos(lean), np.sin(lean)]) > rng.normal(0.0, 0.35, count)
    radii = rng.uniform(0.012, 0.06, count)
    spots = lesion.view.dots(points[crowded], radii[crowded], rng.uniform(0.5, 1, count)[crowded], soft=0.01)
    canvas.melanin += strength * 1.3 * spots


def central_shade(canvas: Canvas, lesion: Lesion, strength: float, rng: np.random.Generator) -> None:
    """A middle that is darker, or paler, than the border."""
    canvas.melanin += strength * 0.9 * lesion.core * lesion.body * canvas.melanin


def blotches(canvas: Canvas, lesion: Lesion, strength: float, rng: np.random.Generator) -> None:
    """Dark structureless areas off the centre."""
    centres = lesion.points(rng, int(rng.integers(1, 4)), near=0.2, far=0.8)
    areas = lesion.view.dots(centres, rng.uniform(0.2, 0.42, len(centres)), soft=0.07)
    frayed = np.clip(areas * (1 + 0.5 * lesion.view.noise(rng, 0.15)), 0, 1)
    canvas.melanin += strength * 1.2 * frayed * np.minimum(1, lesion.body * 1.3)


def veil(canvas: Canvas, lesion: Lesion, strength: float, rng: np.random.Generator) -> None:
    """A blue-white veil over a part of the lesion."""
    centre = lesion.points(rng, 1, near=0.1, far=0.6)
    area = lesion.view.dots(centre, rng.uniform(0.35, 0.7, 1), soft=0.12)
    haze = area * np.clip(0.75 + 0.3 * lesion.view.noise(rng, 0.3) + 0.2 * lesion.view.noise(rng, 0.1), 0, 1)
    canvas.cover(BLUE_GRAY, strength * haze * lesion.body)


def nests(canvas: Canvas, lesion: Lesion, strength: float, rng: np.random.Generator) -> None:
    """Blue-gray ovoid nests and small leaf-like areas."""
    count = int(rng.integers(3, 11))
    centres = lesion.points(rng, count, far=0.95)
    spots = lesion.view.dots(centres, rng.uniform(0.05, 0.15, count), rng.uniform(0.4, 1, count), soft=0.045)
    canvas.cover((92.0, 92.0, 108.0), np.clip(strength * 0.75 * spots, 0, 0.9))


def streaks(canvas: Canvas, lesion: Lesion, strength: float, rng: np.random.Generator) -> None:
    """Radial streaks and pseudopods on a part of the rim."""
    outline = lesion.outlines[0]
    count, sector = int(rng.integers(10, 30)), rng.uniform(1.2, 3.5)
    theta = rng.uniform(0, 2 * np.pi) + rng.uniform(-sector / 2, sector / 2, count)
    inner, outer = (
        outline.at(theta, 0.78),
        outline.at(theta + rng.normal(0, 0.04, count), rng.uniform(1.05, 1.3, count)),
    )
    lines = [np.stack(ends) for ends in zip(inner, outer, strict=True)]
    rays = lesion.view.strokes(lines, rng.uniform(0.02, 0.05, count).tolist())
    bulbs = lesion.view.dots(outer, rng.uniform(0.01, 0.05, count))
    canvas.melanin += strength * 0.85 * np.maximum(rays, bulbs)


def regression(canvas: Canvas, lesion: Lesion, strength: float, rng: np.random.Generator) -> None:
    """Scar-like white areas with blue-gray pepper."""
    centre = lesion.points(rng, 2, near=0.1, far=0.7)
    area = lesion.view.dots(centre, rng.uniform(0.2, 0.4, 2), soft=0.08)
    canvas.cover(SCAR_WHITE, strength * area * np.clip(0.7 + 0.4 * lesion.view.noise(rng, 0.2), 0, 1) * lesion.body)
    pepper = lesion.view.dots(centre[rng.integers(2, size=40)] + rng.normal(0, 0.15, (40, 2)), np.full(40, 0.014))
    canvas.cover(BLUE_GRAY, 0.7 * strength * pepper * lesion.body)


def ridges(canvas: Canvas, lesion: Lesion, strength: float, rng: np.random.Generator) -> None:
    """Fissures and ridges, like the surface of a brain or a fingerprint."""
    u, v = lesion.view.uv
    turn, spacing = rng.uniform(0, np.pi), rng.uniform(0.18, 0.32)
    along = (
        u * np.float32(np.cos(turn))
        + v * np.float32(np.sin(turn))
        + 0.2 * lesion.view.noise(rng, 0.5)
        + 0.05 * lesion.view.noise(rng, 0.15)
    )
    waves = np.cos(along * np.float32(2 * np.pi / spacing))
    canvas.melanin += strength * 0.26 * np.clip(waves + 0.3 * lesion.view.noise(rng, 0.12), -0.8, 1) * lesion.body
    canvas.relief += 0.008 * strength * waves * lesion.body


def comedones(canvas: Canvas, lesion: Lesion, strength: float, rng: np.random.Generator) -> None:
    """Comedo-like openings: brown to black plugs with a pale rim."""
    count = int(rng.integers(5, 20))
    points, radii = lesion.points(rng, count, far=0.85), rng.uniform(0.03, 0.08, count)
    rims = lesion.view.dots(points, radii * 1.5, soft=0.015)
    plugs = lesion.view.dots(points, radii, rng.uniform(0.5, 1, count), soft=0.01)
    canvas.melanin += strength * (1.4 * plugs - 0.2 * (rims - plugs)) * np.minimum(1, lesion.body + 0.2)


def freckling(canvas: Canvas, lesion: Lesion, strength: float, rng: np.random.Generator) -> None:
    """Small darker spots within a flat macule."""
    count = int(rng.integers(10, 40))
    spots = lesion.view.dots(lesion.points(rng, count, far=1.0), rng.uniform(0.015, 0.05, count), soft=0.015)
    canvas.melanin += strength * 0.5 * spots


def pale(canvas: Canvas, lesion: Lesion, strength: float, rng: np.random.Generator) -> None:
    """Loss of pigment: the macule is lighter than the skin round it."""
    kept = 1 - strength * 0.95 * lesion.body
    canvas.melanin *= kept
    canvas.blood *= 1 - 0.6 * strength * lesion.body
    canvas.cover((240.0, 220.0, 210.0), 0.22 * strength * lesion.body)
