"""Structures of blood, keratin and the skin's surface: vessels, lacunae, scale, crust, cysts, pustules.

Each one draws on the canvas with a ``strength`` of about 0 to 1. Random draws never depend on the view.
"""

from __future__ import annotations

import numpy as np

from lesion_hub.data.synthetic.canvas import Canvas, Floats, Points
from lesion_hub.data.synthetic.lesion import Lesion

WHITE = (240.0, 230.0, 226.0)
KERATIN = (236.0, 212.0, 160.0)
PUS = (240.0, 224.0, 168.0)
CRUST = (208.0, 150.0, 84.0)


def arborising_vessels(canvas: Canvas, lesion: Lesion, strength: float, rng: np.random.Generator) -> None:
    """Sharp red vessels that branch like a tree as they run in from the rim."""
    lines: list[Points] = []
    widths: list[float] = []
    for _ in range(int(rng.integers(2, 5))):
        theta = rng.uniform(0, 2 * np.pi, 1)
        start = lesion.outlines[0].at(theta, rng.uniform(0.75, 1.1))[0]
        _grow(lines, widths, start, float(theta[0]) + np.pi + rng.normal(0, 0.4), 0.065, rng)
    canvas.blood += strength * 1.1 * lesion.view.strokes(lines, widths)


def _grow(
    lines: list[Points], widths: list[float], start: Points, heading: float, width: float, rng: np.random.Generator
) -> None:
    """One branch and, thinner, those that leave it."""
    turns = heading + rng.normal(0, 0.28, 7).cumsum()
    steps = np.stack([np.cos(turns), np.sin(turns)], -1) * rng.uniform(0.07, 0.14)
    line = np.concatenate([start[None], start + steps.cumsum(0)])
    lines.append(line)
    widths.append(width)
    if width < 0.03:
        return
    for side in (-1, 1):
        fork = int(rng.integers(2, 8))
        _grow(lines, widths, line[fork], turns[fork - 1] + side * rng.uniform(0.4, 1.0), width * 0.6, rng)


def dotted_vessels(canvas: Canvas, lesion: Lesion, strength: float, rng: np.random.Generator) -> None:
    """Red dots and small coils."""
    count = int(rng.integers(25, 70))
    spots = lesion.view.dots(lesion.points(rng, count), rng.uniform(0.02, 0.05, count))
    canvas.blood += strength * 0.9 * spots


def lacunae(canvas: Canvas, lesion: Lesion, strength: float, rng: np.random.Generator) -> None:
    """Well-bounded red to purple lagoons, packed together."""
    count = int(rng.integers(8, 26))
    points, radii = lesion.points(rng, count, far=0.85), rng.uniform(0.10, 0.26, count)
    lagoons = lesion.view.dots(points, radii, soft=0.02)
    deep = lesion.view.dots(points, radii * 0.75, rng.uniform(0.2, 1, count), soft=0.04)
    purple = rng.uniform(0.0, 0.35)
    canvas.blood += strength * (0.55 * lagoons + 0.6 * deep)
    canvas.cover((92.0, 40.0, 84.0), np.float32(purple) * deep)


def clot(canvas: Canvas, lesion: Lesion, strength: float, rng: np.random.Generator) -> None:
    """Some lagoons have clotted: dark red to black."""
    count = int(rng.integers(2, 7))
    dark = lesion.view.dots(lesion.points(rng, count, far=0.75), rng.uniform(0.12, 0.3, count), soft=0.04)
    canvas.melanin += strength * 1.1 * dark
    canvas.blood += strength * 0.5 * dark


def white_septa(canvas: Canvas, lesion: Lesion, strength: float, rng: np.random.Generator) -> None:
    """White walls between the lagoons."""
    walls = np.clip(1 - np.abs(lesion.view.noise(rng, 0.3)) * 5, 0, 1)
    canvas.cover((226.0, 196.0, 214.0), 0.7 * strength * walls * lesion.body)


def red_pseudonetwork(canvas: Canvas, lesion: Lesion, strength: float, rng: np.random.Generator) -> None:
    """Red between the hair follicles, the follicles themselves yellowish white ("strawberry")."""
    pitch = rng.uniform(0.2, 0.3)
    grid = np.stack(np.meshgrid(np.arange(-1.5, 1.5, pitch), np.arange(-1.5, 1.5, pitch)), -1).reshape(-1, 2)
    points = grid + rng.normal(0, pitch * 0.2, grid.shape)
    openings = lesion.view.dots(
        points, pitch * rng.uniform(0.18, 0.32, len(points)), rng.uniform(0.2, 1, len(points)), soft=0.03
    )
    canvas.blood += strength * lesion.body * (0.32 - 0.42 * openings)
    canvas.cover((240.0, 218.0, 190.0), np.clip(0.35 * strength, 0, 0.6) * openings * lesion.body)


def scale(canvas: Canvas, lesion: Lesion, strength: float, rng: np.random.Generator) -> None:
    """White flakes on the surface."""
    flakes = 0.7 * lesion.view.noise(rng, 0.08) + 0.7 * lesion.view.noise(rng, 0.35) + 0.5 * lesion.view.noise(rng, 0.035)
    alpha = np.clip((flakes - 0.45) * 0.6, 0, 0.75) * strength * lesion.body
    canvas.cover(WHITE, alpha)
    canvas.relief += 0.01 * alpha


def crust(canvas: Canvas, lesion: Lesion, strength: float, rng: np.random.Generator) -> None:
    """Honey-coloured to brown crusts."""
    lumps = lesion.view.noise(rng, 0.3) + 0.5 * lesion.view.noise(rng, 0.1) + 0.35 * lesion.view.noise(rng, 0.04)
    alpha = np.clip((lumps - 0.2) * 0.8, 0, 0.85) * min(1.0, strength) * lesion.body
    brown = rng.uniform(0.75, 1.1)
    canvas.cover((CRUST[0] * brown, CRUST[1] * brown, CRUST[2] * brown), alpha)
    canvas.cover((150.0, 84.0, 52.0), alpha * np.clip(0.45 * lesion.view.noise(rng, 0.07), 0, 0.7))
    canvas.relief += 0.02 * alpha


def ulcer(canvas: Canvas, lesion: Lesion, strength: float, rng: np.random.Generator) -> None:
    """A raw or bleeding spot."""
    points = lesion.points(rng, 3, far=0.5)
    raw = lesion.view.dots(points, rng.uniform(0.08, 0.22, 3), soft=0.03)
    frayed = np.clip(raw * (1 + 0.5 * lesion.view.noise(rng, 0.12)), 0, 1)
    canvas.blood += strength * 1.3 * frayed
    canvas.melanin += strength * 0.5 * frayed


def keratin(canvas: Canvas, lesion: Lesion, strength: float, rng: np.random.Generator) -> None:
    """A yellow-white horny mass in the middle."""
    mass = np.clip((0.62 - lesion.depth + 0.22 * lesion.view.noise(rng, 0.22)) * 2, 0, 1)
    canvas.cover(KERATIN, np.clip(0.75 * strength, 0, 0.9) * mass * np.clip(0.85 + 0.2 * lesion.view.noise(rng, 0.08), 0, 1))
    canvas.relief += 0.03 * strength * mass


def white_circles(canvas: Canvas, lesion: Lesion, strength: float, rng: np.random.Generator) -> None:
    """White rings round yellowish plugs."""
    count = int(rng.integers(6, 16))
    points, radii = lesion.points(rng, count), rng.uniform(0.06, 0.12, count)
    rings = lesion.view.dots(points, radii) - lesion.view.dots(points, radii * 0.55)
    canvas.cover(WHITE, np.clip(0.6 * strength * rings, 0, 0.8))


def white_streaks(canvas: Canvas, lesion: Lesion, strength: float, rng: np.random.Generator) -> None:
    """Short shiny white lines at right angles to each other."""
    count, turn = int(rng.integers(8, 20)), rng.uniform(0, np.pi)
    middles, lengths = lesion.points(rng, count, far=0.8), rng.uniform(0.08, 0.25, count)
    angles = turn + rng.integers(2, size=count) * np.pi / 2 + rng.normal(0, 0.1, count)
    halves = np.stack([np.cos(angles), np.sin(angles)], -1) * lengths[:, None]
    lines = [np.stack(ends) for ends in zip(middles - halves, middles + halves, strict=True)]
    canvas.cover(WHITE, 0.7 * strength * lesion.view.strokes(lines, rng.uniform(0.02, 0.04, count).tolist()))


def white_centre(canvas: Canvas, lesion: Lesion, strength: float, rng: np.random.Generator) -> None:
    """A scar-like white patch in the middle."""
    size = rng.uniform(0.35, 0.6)
    patch = np.exp(-((lesion.depth / size) ** 2)) * np.clip(0.9 + 0.25 * lesion.view.noise(rng, 0.2), 0, 1)
    canvas.cover((236.0, 216.0, 212.0), np.clip(strength * patch, 0, 0.95))


def milia(canvas: Canvas, lesion: Lesion, strength: float, rng: np.random.Generator) -> None:
    """Milia-like cysts: small bright spots, like stars."""
    count = int(rng.integers(8, 26))
    spots = lesion.view.dots(lesion.points(rng, count), rng.uniform(0.022, 0.055, count), soft=0.012)
    canvas.cover((244.0, 230.0, 204.0), np.clip(0.85 * strength * spots, 0, 0.95))


def pustules(canvas: Canvas, lesion: Lesion, strength: float, rng: np.random.Generator) -> None:
    """Yellow heads, each in a red halo, in and about the patch."""
    count = int(rng.integers(5, 16))
    _heads(canvas, lesion, lesion.points(rng, count, far=1.15), rng.uniform(0.05, 0.11, count), strength)


def spot_heads(canvas: Canvas, lesion: Lesion, strength: float, rng: np.random.Generator) -> None:
    """A head of pus on some of the papules."""
    centres = np.array([outline.centre for outline in lesion.outlines])
    sizes = np.array([outline.size for outline in lesion.outlines])
    ripe = rng.random(len(sizes)) < 0.6
    _heads(canvas, lesion, centres[ripe], sizes[ripe] * 0.33, strength)


def _heads(canvas: Canvas, lesion: Lesion, points: Points, radii: Points, strength: float) -> None:
    halo: Floats = lesion.view.dots(points, radii * 1.9, soft=0.05)
    heads: Floats = lesion.view.dots(points, radii, soft=0.03)
    canvas.blood += strength * 0.6 * halo
    canvas.cover(PUS, np.clip(0.75 * strength * heads, 0, 0.9))
    canvas.relief += 0.03 * heads + 0.02 * halo


def blackheads(canvas: Canvas, lesion: Lesion, strength: float, rng: np.random.Generator) -> None:
    """Open comedones between the papules."""
    count = int(rng.integers(6, 24))
    spots = lesion.view.dots(rng.uniform(-1.5, 1.5, (count, 2)), rng.uniform(0.015, 0.035, count))
    canvas.melanin += strength * 1.3 * spots


def satellites(canvas: Canvas, lesion: Lesion, strength: float, rng: np.random.Generator) -> None:
    """Small red papules about the main patch."""
    count = int(rng.integers(4, 14))
    spots = lesion.view.dots(lesion.points(rng, count, near=1.05, far=1.6), rng.uniform(0.03, 0.09, count), soft=0.025)
    canvas.blood += strength * 0.6 * spots
    canvas.relief += 0.012 * spots


def scratches(canvas: Canvas, lesion: Lesion, strength: float, rng: np.random.Generator) -> None:
    """Excoriations: parallel red-brown lines."""
    count, turn = int(rng.integers(3, 9)), rng.uniform(0, np.pi)
    angles, middles = turn + rng.normal(0, 0.12, count), lesion.points(rng, count, far=0.7)
    halves = np.stack([np.cos(angles), np.sin(angles)], -1) * rng.uniform(0.1, 0.35, (count, 1))
    lines = [np.stack(ends) for ends in zip(middles - halves, middles + halves, strict=True)]
    marks = lesion.view.strokes(lines, rng.uniform(0.015, 0.04, count).tolist())
    canvas.blood += strength * 0.9 * marks
    canvas.melanin += strength * 0.35 * marks


def thick_lines(canvas: Canvas, lesion: Lesion, strength: float, rng: np.random.Generator) -> None:
    """Lichenification: coarse crossing skin lines."""
    ridges = np.abs(lesion.view.noise(rng, 0.14)) + 0.5 * np.abs(lesion.view.noise(rng, 0.09))
    lines = np.clip(1 - ridges / 0.4, 0, 1) * lesion.body
    canvas.melanin += strength * 0.3 * lines
    canvas.relief -= 0.01 * strength * lines
