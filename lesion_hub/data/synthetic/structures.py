"""Dermoscopic structures: pigment network, globules, veils, vessels, scale, crusts and others.

Each one is a function under `structure` that draws on the canvas with a ``strength`` of about 0 to 1; nothing else is needed
for an `Appearance` to name it. Random draws never depend on the view.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from lesion_hub.data.artefacts import Floats, Points
from lesion_hub.data.synthetic.canvas import Canvas, Lesion

Structure = Callable[[Canvas, Lesion, float, np.random.Generator], None]

BLUE_GRAY = (112.0, 114.0, 132.0)
SCAR_WHITE = (228.0, 208.0, 204.0)
WHITE = (240.0, 230.0, 226.0)
KERATIN = (236.0, 212.0, 160.0)
PUS = (240.0, 224.0, 168.0)
CRUST = (208.0, 150.0, 84.0)

STRUCTURES: dict[str, Structure] = {}


def structure(draw: Structure) -> Structure:
    """Register a structure under the name of its function."""
    STRUCTURES[draw.__name__] = draw
    return draw


# ---------------------------------------------------------------------------------------------------------- pigment


def _mesh(lesion: Lesion, rng: np.random.Generator, spacing: float, warp: float) -> Floats:
    """Draw a honeycomb of lines about 1 with holes about 0 (H, W), bent by noise."""
    u, v = lesion.view.uv
    bend = (lesion.view.noise(rng, 0.4) + 0.35 * lesion.view.noise(rng, 0.13)) * np.float32(warp)
    turn = rng.uniform(0, np.pi)
    waves = np.zeros_like(u)
    for step in range(3):
        angle = turn + step * np.pi / 3
        along = u * np.float32(np.cos(angle)) + v * np.float32(np.sin(angle))
        waves += np.cos((along + bend * (1 - 0.5 * step)) * np.float32(2 * np.pi / spacing))
    return np.clip(0.55 - waves / 2.2, 0, 1)


@structure
def network(canvas: Canvas, lesion: Lesion, strength: float, rng: np.random.Generator) -> None:
    """Draw a regular pigment network that thins out towards the border."""
    mesh = _mesh(lesion, rng, rng.uniform(0.14, 0.22), 0.06)
    where = np.clip(0.75 + 0.4 * lesion.view.noise(rng, 0.5), 0, 1.2)
    canvas.melanin += strength * 0.65 * (mesh - 0.35) * where * lesion.body


@structure
def rim_network(canvas: Canvas, lesion: Lesion, strength: float, rng: np.random.Generator) -> None:
    """Draw a delicate network round the edge only."""
    mesh = _mesh(lesion, rng, rng.uniform(0.14, 0.20), 0.06) * np.clip(0.8 + 0.4 * lesion.view.noise(rng, 0.5), 0, 1.2)
    ring = np.clip(1 - np.abs(lesion.depth - 0.85) / 0.4, 0, 1)
    canvas.melanin += strength * 0.45 * mesh * ring


@structure
def atypical_network(canvas: Canvas, lesion: Lesion, strength: float, rng: np.random.Generator) -> None:
    """Draw an atypical network: wide, bent meshes, thick in some parts and gone in others."""
    mesh = _mesh(lesion, rng, rng.uniform(0.19, 0.28), 0.11)
    where = np.clip(0.4 + 0.9 * lesion.view.noise(rng, 0.7), 0, 1.3)
    canvas.melanin += strength * 0.95 * (mesh - 0.3) * where * lesion.body


@structure
def globules(canvas: Canvas, lesion: Lesion, strength: float, rng: np.random.Generator) -> None:
    """Draw round brown globules of one size, evenly spread."""
    count, size = int(rng.integers(25, 70)), rng.uniform(0.035, 0.06)
    points = lesion.points(rng, count, far=rng.uniform(0.6, 1.0))
    spots = lesion.view.dots(points, size * rng.uniform(0.8, 1.2, count), soft=0.012)
    canvas.melanin += strength * 0.9 * spots


@structure
def irregular_dots(canvas: Canvas, lesion: Lesion, strength: float, rng: np.random.Generator) -> None:
    """Draw dots and globules of all sizes, crowded to one side."""
    count = int(rng.integers(15, 45))
    points = lesion.points(rng, count, near=0.2, far=1.05)
    lean = rng.uniform(0, 2 * np.pi)
    crowded = (points @ [np.cos(lean), np.sin(lean)]) > rng.normal(0.0, 0.35, count)
    radii = rng.uniform(0.012, 0.06, count)
    spots = lesion.view.dots(points[crowded], radii[crowded], rng.uniform(0.5, 1, count)[crowded], soft=0.01)
    canvas.melanin += strength * 1.3 * spots


@structure
def central_shade(canvas: Canvas, lesion: Lesion, strength: float, rng: np.random.Generator) -> None:
    """Draw a middle that is darker, or paler, than the border."""
    canvas.melanin += strength * 0.9 * np.clip(1 - lesion.depth, 0, 1) * lesion.body * canvas.melanin


@structure
def blotches(canvas: Canvas, lesion: Lesion, strength: float, rng: np.random.Generator) -> None:
    """Draw dark structureless areas off the centre."""
    centres = lesion.points(rng, int(rng.integers(1, 4)), near=0.2, far=0.8)
    areas = lesion.view.dots(centres, rng.uniform(0.2, 0.42, len(centres)), soft=0.07)
    frayed = np.clip(areas * (1 + 0.5 * lesion.view.noise(rng, 0.15)), 0, 1)
    canvas.melanin += strength * 1.2 * frayed * np.minimum(1, lesion.body * 1.3)


@structure
def blue_white_veil(canvas: Canvas, lesion: Lesion, strength: float, rng: np.random.Generator) -> None:
    """Draw a blue-white veil over a part of the lesion."""
    centre = lesion.points(rng, 1, near=0.1, far=0.6)
    area = lesion.view.dots(centre, rng.uniform(0.35, 0.7, 1), soft=0.12)
    haze = area * np.clip(0.75 + 0.3 * lesion.view.noise(rng, 0.3) + 0.2 * lesion.view.noise(rng, 0.1), 0, 1)
    canvas.cover(BLUE_GRAY, strength * haze * lesion.body)


@structure
def nests(canvas: Canvas, lesion: Lesion, strength: float, rng: np.random.Generator) -> None:
    """Draw blue-gray ovoid nests and small leaf-like areas."""
    count = int(rng.integers(3, 11))
    centres = lesion.points(rng, count, far=0.95)
    spots = lesion.view.dots(centres, rng.uniform(0.05, 0.15, count), rng.uniform(0.4, 1, count), soft=0.045)
    canvas.cover((92.0, 92.0, 108.0), np.clip(strength * 0.75 * spots, 0, 0.9))


@structure
def streaks(canvas: Canvas, lesion: Lesion, strength: float, rng: np.random.Generator) -> None:
    """Draw radial streaks and pseudopods on a part of the rim."""
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


@structure
def regression(canvas: Canvas, lesion: Lesion, strength: float, rng: np.random.Generator) -> None:
    """Draw scar-like white areas with blue-gray pepper."""
    centre = lesion.points(rng, 2, near=0.1, far=0.7)
    area = lesion.view.dots(centre, rng.uniform(0.2, 0.4, 2), soft=0.08)
    canvas.cover(SCAR_WHITE, strength * area * np.clip(0.7 + 0.4 * lesion.view.noise(rng, 0.2), 0, 1) * lesion.body)
    pepper = lesion.view.dots(centre[rng.integers(2, size=40)] + rng.normal(0, 0.15, (40, 2)), np.full(40, 0.014))
    canvas.cover(BLUE_GRAY, 0.7 * strength * pepper * lesion.body)


@structure
def ridges(canvas: Canvas, lesion: Lesion, strength: float, rng: np.random.Generator) -> None:
    """Draw fissures and ridges, like the surface of a brain or a fingerprint."""
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


@structure
def comedones(canvas: Canvas, lesion: Lesion, strength: float, rng: np.random.Generator) -> None:
    """Draw comedo-like openings: brown to black plugs with a pale rim."""
    count = int(rng.integers(5, 20))
    points, radii = lesion.points(rng, count, far=0.85), rng.uniform(0.03, 0.08, count)
    rims = lesion.view.dots(points, radii * 1.5, soft=0.015)
    plugs = lesion.view.dots(points, radii, rng.uniform(0.5, 1, count), soft=0.01)
    canvas.melanin += strength * (1.4 * plugs - 0.2 * (rims - plugs)) * np.minimum(1, lesion.body + 0.2)


@structure
def freckling(canvas: Canvas, lesion: Lesion, strength: float, rng: np.random.Generator) -> None:
    """Draw small darker spots within a flat macule."""
    count = int(rng.integers(10, 40))
    spots = lesion.view.dots(lesion.points(rng, count, far=1.0), rng.uniform(0.015, 0.05, count), soft=0.015)
    canvas.melanin += strength * 0.5 * spots


@structure
def hypopigmentation(canvas: Canvas, lesion: Lesion, strength: float, rng: np.random.Generator) -> None:
    """Draw loss of pigment: the macule is lighter than the skin round it."""
    kept = 1 - strength * 0.95 * lesion.body
    canvas.melanin *= kept
    canvas.blood *= 1 - 0.6 * strength * lesion.body
    canvas.cover((240.0, 220.0, 210.0), 0.22 * strength * lesion.body)


# --------------------------------------------------------------------------------------------- vessels and surface


@structure
def arborising_vessels(canvas: Canvas, lesion: Lesion, strength: float, rng: np.random.Generator) -> None:
    """Draw sharp red vessels that branch like a tree as they run in from the rim."""
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
    """Add one branch and, thinner, those that leave it."""
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


@structure
def dotted_vessels(canvas: Canvas, lesion: Lesion, strength: float, rng: np.random.Generator) -> None:
    """Draw red dots and small coils."""
    count = int(rng.integers(25, 70))
    spots = lesion.view.dots(lesion.points(rng, count), rng.uniform(0.02, 0.05, count))
    canvas.blood += strength * 0.9 * spots


@structure
def lacunae(canvas: Canvas, lesion: Lesion, strength: float, rng: np.random.Generator) -> None:
    """Draw well-bounded red to purple lagoons, packed together."""
    count = int(rng.integers(8, 26))
    points, radii = lesion.points(rng, count, far=0.85), rng.uniform(0.10, 0.26, count)
    lagoons = lesion.view.dots(points, radii, soft=0.02)
    deep = lesion.view.dots(points, radii * 0.75, rng.uniform(0.2, 1, count), soft=0.04)
    purple = rng.uniform(0.0, 0.35)
    canvas.blood += strength * (0.55 * lagoons + 0.6 * deep)
    canvas.cover((92.0, 40.0, 84.0), np.float32(purple) * deep)


@structure
def clot(canvas: Canvas, lesion: Lesion, strength: float, rng: np.random.Generator) -> None:
    """Draw clots in some lagoons: dark red to black."""
    count = int(rng.integers(2, 7))
    dark = lesion.view.dots(lesion.points(rng, count, far=0.75), rng.uniform(0.12, 0.3, count), soft=0.04)
    canvas.melanin += strength * 1.1 * dark
    canvas.blood += strength * 0.5 * dark


@structure
def white_septa(canvas: Canvas, lesion: Lesion, strength: float, rng: np.random.Generator) -> None:
    """Draw white walls between the lagoons."""
    walls = np.clip(1 - np.abs(lesion.view.noise(rng, 0.3)) * 5, 0, 1)
    canvas.cover((226.0, 196.0, 214.0), 0.7 * strength * walls * lesion.body)


@structure
def red_pseudonetwork(canvas: Canvas, lesion: Lesion, strength: float, rng: np.random.Generator) -> None:
    """Draw red between the hair follicles, the follicles themselves yellowish white ("strawberry")."""
    pitch = rng.uniform(0.2, 0.3)
    grid = np.stack(np.meshgrid(np.arange(-1.5, 1.5, pitch), np.arange(-1.5, 1.5, pitch)), -1).reshape(-1, 2)
    points = grid + rng.normal(0, pitch * 0.2, grid.shape)
    openings = lesion.view.dots(
        points, pitch * rng.uniform(0.18, 0.32, len(points)), rng.uniform(0.2, 1, len(points)), soft=0.03
    )
    canvas.blood += strength * lesion.body * (0.32 - 0.42 * openings)
    canvas.cover((240.0, 218.0, 190.0), np.clip(0.35 * strength, 0, 0.6) * openings * lesion.body)


@structure
def scale(canvas: Canvas, lesion: Lesion, strength: float, rng: np.random.Generator) -> None:
    """Draw white flakes on the surface."""
    flakes = 0.7 * lesion.view.noise(rng, 0.08) + 0.7 * lesion.view.noise(rng, 0.35) + 0.5 * lesion.view.noise(rng, 0.035)
    alpha = np.clip((flakes - 0.45) * 0.6, 0, 0.75) * strength * lesion.body
    canvas.cover(WHITE, alpha)
    canvas.relief += 0.01 * alpha


@structure
def crust(canvas: Canvas, lesion: Lesion, strength: float, rng: np.random.Generator) -> None:
    """Draw honey-coloured to brown crusts."""
    lumps = lesion.view.noise(rng, 0.3) + 0.5 * lesion.view.noise(rng, 0.1) + 0.35 * lesion.view.noise(rng, 0.04)
    alpha = np.clip((lumps - 0.2) * 0.8, 0, 0.85) * min(1.0, strength) * lesion.body
    brown = rng.uniform(0.75, 1.1)
    canvas.cover((CRUST[0] * brown, CRUST[1] * brown, CRUST[2] * brown), alpha)
    canvas.cover((150.0, 84.0, 52.0), alpha * np.clip(0.45 * lesion.view.noise(rng, 0.07), 0, 0.7))
    canvas.relief += 0.02 * alpha


@structure
def ulcer(canvas: Canvas, lesion: Lesion, strength: float, rng: np.random.Generator) -> None:
    """Draw a raw or bleeding spot."""
    points = lesion.points(rng, 3, far=0.5)
    raw = lesion.view.dots(points, rng.uniform(0.08, 0.22, 3), soft=0.03)
    frayed = np.clip(raw * (1 + 0.5 * lesion.view.noise(rng, 0.12)), 0, 1)
    canvas.blood += strength * 1.3 * frayed
    canvas.melanin += strength * 0.5 * frayed


@structure
def keratin(canvas: Canvas, lesion: Lesion, strength: float, rng: np.random.Generator) -> None:
    """Draw a yellow-white horny mass in the middle."""
    mass = np.clip((0.62 - lesion.depth + 0.22 * lesion.view.noise(rng, 0.22)) * 2, 0, 1)
    canvas.cover(KERATIN, np.clip(0.75 * strength, 0, 0.9) * mass * np.clip(0.85 + 0.2 * lesion.view.noise(rng, 0.08), 0, 1))
    canvas.relief += 0.03 * strength * mass


@structure
def white_circles(canvas: Canvas, lesion: Lesion, strength: float, rng: np.random.Generator) -> None:
    """Draw white rings round yellowish plugs."""
    count = int(rng.integers(6, 16))
    points, radii = lesion.points(rng, count), rng.uniform(0.06, 0.12, count)
    rings = lesion.view.dots(points, radii) - lesion.view.dots(points, radii * 0.55)
    canvas.cover(WHITE, np.clip(0.6 * strength * rings, 0, 0.8))


@structure
def white_streaks(canvas: Canvas, lesion: Lesion, strength: float, rng: np.random.Generator) -> None:
    """Draw short shiny white lines at right angles to each other."""
    count, turn = int(rng.integers(8, 20)), rng.uniform(0, np.pi)
    middles, lengths = lesion.points(rng, count, far=0.8), rng.uniform(0.08, 0.25, count)
    angles = turn + rng.integers(2, size=count) * np.pi / 2 + rng.normal(0, 0.1, count)
    halves = np.stack([np.cos(angles), np.sin(angles)], -1) * lengths[:, None]
    lines = [np.stack(ends) for ends in zip(middles - halves, middles + halves, strict=True)]
    canvas.cover(WHITE, 0.7 * strength * lesion.view.strokes(lines, rng.uniform(0.02, 0.04, count).tolist()))


@structure
def white_centre(canvas: Canvas, lesion: Lesion, strength: float, rng: np.random.Generator) -> None:
    """Draw a scar-like white patch in the middle."""
    size = rng.uniform(0.35, 0.6)
    patch = np.exp(-((lesion.depth / size) ** 2)) * np.clip(0.9 + 0.25 * lesion.view.noise(rng, 0.2), 0, 1)
    canvas.cover((236.0, 216.0, 212.0), np.clip(strength * patch, 0, 0.95))


@structure
def milia(canvas: Canvas, lesion: Lesion, strength: float, rng: np.random.Generator) -> None:
    """Draw milia-like cysts: small bright spots, like stars."""
    count = int(rng.integers(8, 26))
    spots = lesion.view.dots(lesion.points(rng, count), rng.uniform(0.022, 0.055, count), soft=0.012)
    canvas.cover((244.0, 230.0, 204.0), np.clip(0.85 * strength * spots, 0, 0.95))


@structure
def pustules(canvas: Canvas, lesion: Lesion, strength: float, rng: np.random.Generator) -> None:
    """Draw yellow heads, each in a red halo, in and about the patch."""
    count = int(rng.integers(5, 16))
    _heads(canvas, lesion, lesion.points(rng, count, far=1.15), rng.uniform(0.05, 0.11, count), strength)


@structure
def papule_heads(canvas: Canvas, lesion: Lesion, strength: float, rng: np.random.Generator) -> None:
    """Draw a head of pus on some of the papules."""
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


@structure
def blackheads(canvas: Canvas, lesion: Lesion, strength: float, rng: np.random.Generator) -> None:
    """Draw open comedones between the papules."""
    count = int(rng.integers(6, 24))
    spots = lesion.view.dots(rng.uniform(-1.5, 1.5, (count, 2)), rng.uniform(0.015, 0.035, count))
    canvas.melanin += strength * 1.3 * spots


@structure
def satellites(canvas: Canvas, lesion: Lesion, strength: float, rng: np.random.Generator) -> None:
    """Draw small red papules about the main patch."""
    count = int(rng.integers(4, 14))
    spots = lesion.view.dots(lesion.points(rng, count, near=1.05, far=1.6), rng.uniform(0.03, 0.09, count), soft=0.025)
    canvas.blood += strength * 0.6 * spots
    canvas.relief += 0.012 * spots


@structure
def scratches(canvas: Canvas, lesion: Lesion, strength: float, rng: np.random.Generator) -> None:
    """Draw excoriations: parallel red-brown lines."""
    count, turn = int(rng.integers(3, 9)), rng.uniform(0, np.pi)
    angles, middles = turn + rng.normal(0, 0.12, count), lesion.points(rng, count, far=0.7)
    halves = np.stack([np.cos(angles), np.sin(angles)], -1) * rng.uniform(0.1, 0.35, (count, 1))
    lines = [np.stack(ends) for ends in zip(middles - halves, middles + halves, strict=True)]
    marks = lesion.view.strokes(lines, rng.uniform(0.015, 0.04, count).tolist())
    canvas.blood += strength * 0.9 * marks
    canvas.melanin += strength * 0.35 * marks


@structure
def thick_lines(canvas: Canvas, lesion: Lesion, strength: float, rng: np.random.Generator) -> None:
    """Draw lichenification: coarse crossing skin lines."""
    ridges = np.abs(lesion.view.noise(rng, 0.14)) + 0.5 * np.abs(lesion.view.noise(rng, 0.09))
    lines = np.clip(1 - ridges / 0.4, 0, 1) * lesion.body
    canvas.melanin += strength * 0.3 * lines
    canvas.relief -= 0.01 * strength * lines
