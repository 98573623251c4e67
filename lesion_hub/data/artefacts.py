"""Artefacts: what lies on top of the skin in a dermoscopic image: hair, scale bars, ink, dark corners, gel bubbles.

Each artefact is a layer (a colour and an opacity per pixel), so that the generator of synthetic lesions, the robustness
evaluation and a training loop that blends on a GPU batch all draw the very same thing:
``image * (1 - alpha) + rgb * alpha``. A new artefact is one function and one row of `ARTEFACTS`.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter, ImageFont

from lesion_hub.errors import DataError
from lesion_hub.taxonomy import nearest

# Every artefact and corruption comes in these severities, from faint to strong.
SEVERITIES = (1, 2, 3, 4, 5)

Pixels = NDArray[np.uint8]
Floats = NDArray[np.float32]
Points = NDArray[np.floating]
Layer = tuple[Pixels, Floats]
Size = int | tuple[int, int]


@dataclass(frozen=True)
class Artefact:
    """One kind of artefact: ``draw(width, height, severity, rng)`` gives its layer."""

    name: str
    description: str
    draw: Callable[[int, int, int, np.random.Generator], Layer]


def width_height(size: Size) -> tuple[int, int]:
    """Return ``size`` as (width, height); an int is a square.

    >>> width_height(64)
    (64, 64)
    """
    width, height = (size, size) if isinstance(size, int) else size
    if min(width, height) < 1:
        raise DataError(f"image size {width}x{height} is empty; give a positive width and height")
    return int(width), int(height)


def seeded(name: str, seed: int) -> np.random.Generator:
    """Return the random stream of ``name`` under ``seed``; streams of different names do not depend on each other."""
    if seed < 0:
        raise DataError(f"seed {seed} is negative; give a seed of 0 or more")
    return np.random.default_rng((seed, zlib.crc32(name.encode())))


def check_severity(severity: int) -> int:
    """Return ``severity`` if it is one of `SEVERITIES`, else raise."""
    if severity not in SEVERITIES:
        raise DataError(f"severity {severity!r} is not one of 1 to 5; give a whole number from 1 (faint) to 5 (strong)")
    return severity


def unknown_name(kind: str, name: str, known: Iterable[str]) -> DataError:
    """Return the error for a ``name`` that is not among ``known``; it names the nearest one."""
    return DataError(f"unknown {kind} {name!r}; {nearest(name, known)}")


def artefact_layer(name: str, size: Size, severity: int, seed: int) -> Layer:
    """Draw one artefact for an image of ``size`` (side, or (width, height) in pixels).

    Returns ``(rgb, alpha)``: rgb uint8 (H, W, 3); alpha float32 (H, W) in [0, 1], 0 where the skin shows through. The
    same name, size, severity and seed give the same layer; a higher severity under the same seed gives more of it.

    >>> rgb, alpha = artefact_layer("dark_corners", (60, 40), severity=3, seed=0)
    >>> rgb.shape, alpha.shape, bool(alpha[0, 0] > alpha[20, 30])
    ((40, 60, 3), (40, 60), True)
    """
    if name not in ARTEFACTS:
        raise unknown_name("artefact", name, ARTEFACTS)
    width, height = width_height(size)
    return ARTEFACTS[name].draw(width, height, check_severity(severity), seeded(name, seed))


def blend(image: Pixels, layer: Layer) -> Pixels:
    """Lay an artefact over an image: uint8 (H, W, 3) in and out, the layer of the same height and width.

    >>> image = np.full((40, 60, 3), 200, np.uint8)
    >>> int(blend(image, artefact_layer("dark_corners", (60, 40), 5, seed=0))[0, 0, 0]) < 200
    True
    """
    rgb, alpha = layer
    weight = alpha[..., None]
    return np.rint(image * (1 - weight) + rgb * weight).astype(np.uint8)


def add_artefact(image: Pixels, name: str, severity: int, seed: int) -> Pixels:
    """Return ``image``, uint8 (H, W, 3), with one artefact over it.

    >>> add_artefact(np.full((32, 48, 3), 200, np.uint8), "hair", severity=3, seed=1).shape
    (32, 48, 3)
    """
    height, width = image.shape[:2]
    return blend(image, artefact_layer(name, (width, height), severity, seed))


class Sheet:
    """A drawing surface ``factor`` times as large as the image (H, W), so that thin strokes come out anti-aliased."""

    def __init__(self, width: int, height: int, factor: int) -> None:
        self.factor = factor
        self.image = Image.new("L", (width * factor, height * factor))
        self.pen = ImageDraw.Draw(self.image)

    def stroke(self, points: Points, width: float, value: float = 255, joint: str | None = None) -> None:
        """Draw a line through ``points`` (N, 2) in image pixels; one thinner than the sheet can show becomes fainter."""
        wanted = width * self.factor
        pixels = (points * self.factor).ravel().tolist()
        self.pen.line(pixels, fill=int(value * min(1, wanted)), width=round(max(1, wanted)), joint=joint)

    def coverage(self, blur: float = 0.0) -> Floats:
        """Return what was drawn, (H, W) in [0, 1], blurred by a Gaussian of ``blur`` image pixels."""
        image = self.image.reduce(self.factor)
        if blur:
            image = image.filter(ImageFilter.GaussianBlur(blur))
        return np.asarray(image, np.float32) / np.float32(255)


def enlarged(grid: Floats, width: int, height: int) -> Floats:
    """Stretch ``grid`` (rows, columns) smoothly to (H, W)."""
    return np.asarray(Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC))


def grain(width: int, height: int, cells: int, rng: np.random.Generator) -> Floats:
    """Draw smooth noise in about [-1, 1], (H, W), with ``cells`` bumps along each side."""
    return enlarged(rng.uniform(-1, 1, (cells, cells)).astype(np.float32), width, height)


def _sheet(width: int, height: int) -> Sheet:
    return Sheet(width, height, factor=4 if max(width, height) <= 256 else 2)


def _plain(width: int, height: int, colour: NDArray[np.floating]) -> Pixels:
    return np.broadcast_to(np.clip(colour, 0, 255).astype(np.uint8), (height, width, 3)).copy()


HAIR_COLOURS = np.array([[28, 20, 18], [46, 32, 26], [72, 50, 38], [20, 18, 22], [150, 118, 84], [168, 160, 152]], float)


def _hair(width: int, height: int, severity: int, rng: np.random.Generator) -> Layer:
    sheet, side = _sheet(width, height), min(width, height)
    colour = rng.choice(HAIR_COLOURS, p=(0.3, 0.25, 0.2, 0.15, 0.06, 0.04)) + rng.normal(0, 5, 3)
    lean, spread = rng.uniform(0, np.pi), rng.uniform(0.25, 1.2)
    thickness, length = rng.uniform(0.004, 0.011), rng.uniform(0.25, 0.9)
    steps = np.linspace(0, 1, 14)[:, None]
    for _ in range(int(2.2 * severity**1.5 * rng.uniform(0.7, 1.3)) + 1):
        middle = rng.uniform(0, 1, 2) * (width, height)
        angle = lean + rng.normal(0, spread)
        along = np.array([np.cos(angle), np.sin(angle)]) * side * length * rng.uniform(0.5, 1.3) / 2
        bow = np.array([-along[1], along[0]]) * rng.normal(0, 0.3)
        curve = (1 - steps) ** 2 * (middle - along) + 2 * steps * (1 - steps) * (middle + bow) + steps**2 * (middle + along)
        sheet.stroke(curve, max(0.6, side * thickness * rng.uniform(0.6, 1.3)), int(rng.uniform(170, 250)))
    sheen = 1 + 0.25 * grain(width, height, 6, rng)[..., None]
    return np.clip(colour * sheen, 0, 255).astype(np.uint8), sheet.coverage()


def _ruler(width: int, height: int, severity: int, rng: np.random.Generator) -> Layer:
    """Draw ticks along one edge, every fifth one longer; half of the time on a paper strip, with figures."""
    sheet, side = _sheet(width, height), min(width, height)
    edge, pitch = int(rng.integers(4)), side * rng.uniform(0.035, 0.06)
    printed_on_paper, tick = rng.random() < 0.5, side * rng.uniform(0.035, 0.055) * (0.7 + 0.15 * severity)
    start, offset = rng.uniform(0, 0.4), side * rng.uniform(0.0, 0.03)
    length = width if edge % 2 == 0 else height
    font = ImageFont.load_default(max(6.0, side * 0.05 * sheet.factor)) if printed_on_paper else None
    for number in range(min(6 + 5 * severity, int(length * (1 - start) / pitch))):
        at = length * start + number * pitch
        reach = tick * (1.8 if number % 5 == 0 else 1)
        # The two ends of the tick and the place of its figure, inside edge 0 top, 1 right, 2 bottom, 3 left.
        along, depth = np.full(3, at), np.array([offset, offset + reach, offset + 2.6 * tick])
        points = np.stack([(along, depth), (width - depth, along), (along, height - depth), (depth, along)][edge], -1)
        sheet.stroke(points[:2], max(0.8, side * 0.006))
        if font and number % 5 == 0:
            place = tuple((points[2] * sheet.factor).tolist())
            sheet.pen.text(place, str(number // 5), fill=255, font=font, anchor="mm")
    ink = sheet.coverage() * rng.uniform(0.75, 0.95)
    if not printed_on_paper:
        return _plain(width, height, rng.uniform(10, 45, 3)), ink
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    from_edge = (rows, width - 1 - columns, height - 1 - rows, columns)[edge]
    paper = np.clip((offset + 3.4 * tick - from_edge) / max(1.0, side * 0.01) + 0.5, 0, 1) * rng.uniform(0.75, 0.95)
    paper_colour = np.array([232, 230, 222]) + rng.normal(0, 6, 3)
    alpha = (1 - (1 - paper) * (1 - ink)).astype(np.float32)
    share = (ink / np.maximum(alpha, 1e-6))[..., None]
    return np.clip(paper_colour * (1 - share) + 25 * share, 0, 255).astype(np.uint8), alpha


INK_COLOURS = np.array([[96, 60, 140], [70, 62, 150], [112, 54, 128], [52, 70, 142]], float)


def _ink(width: int, height: int, severity: int, rng: np.random.Generator) -> Layer:
    """Draw strokes of a surgical pen round the middle of the image: arcs, dashes, dots; drier towards their end."""
    sheet, side = _sheet(width, height), min(width, height)
    thickness = side * rng.uniform(0.018, 0.034)
    turn, style = rng.uniform(0, 2 * np.pi), int(rng.integers(3))
    for stroke in range(1 + severity):
        angle = turn + stroke * 2 * np.pi / (1 + severity) + rng.normal(0, 0.15)
        reach = rng.uniform(0.36, 0.47)
        span = (rng.uniform(0.5, 1.0), 0.0, 0.02)[style]
        sweep = angle + np.linspace(-span / 2, span / 2, 12)
        radii = np.linspace(reach, reach + rng.uniform(0.1, 0.2), 12) if style == 1 else np.full(12, reach)
        wobble = 1 + rng.normal(0, 0.0 if style == 2 else 0.008, 12).cumsum()
        points = np.stack([np.cos(sweep) * width, np.sin(sweep) * height], -1) * (radii * wobble)[:, None]
        sheet.stroke(
            points + np.array([width, height]) / 2, thickness * (2.0 if style == 2 else 1.0), int(rng.uniform(190, 255))
        )
    dryness = np.clip(0.75 + 0.5 * grain(width, height, max(8, side // 6), rng) + 0.3 * grain(width, height, 7, rng), 0.1, 1)
    colour = rng.choice(INK_COLOURS) + rng.normal(0, 6, 3)
    return _plain(width, height, colour), (sheet.coverage() * dryness * rng.uniform(0.7, 0.9)).astype(np.float32)


def _dark_corners(width: int, height: int, severity: int, rng: np.random.Generator) -> Layer:
    """Draw the rim of a round dermatoscope: black outside a circle that is a little off centre."""
    side, corner = min(width, height), np.hypot(width, height) / 2
    shift = rng.normal(0, 0.03, 2) * side
    rows, columns = np.ogrid[:height, :width]
    distance = np.hypot(columns - (width - 1) / 2 - shift[0], rows - (height - 1) / 2 - shift[1])
    radius = corner * (0.99 - 0.055 * severity + rng.uniform(-0.015, 0.015))
    blur = side * rng.uniform(0.015, 0.07)
    alpha = np.clip((distance - radius) / blur + 0.5, 0, 1)
    smooth = alpha * alpha * (3 - 2 * alpha) * rng.uniform(0.93, 1.0)
    return _plain(width, height, np.array([8, 6, 8]) + rng.uniform(0, 8, 3)), smooth.astype(np.float32)


def _gel_bubble(width: int, height: int, severity: int, rng: np.random.Generator) -> Layer:
    """Draw bubbles in the contact gel: a thin dark rim, a bright crescent towards the light, a slight haze within."""
    side = min(width, height)
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    light = rng.uniform(0, 2 * np.pi)
    bright, dark = np.zeros((height, width), np.float32), np.zeros((height, width), np.float32)
    for _ in range(int(severity * rng.uniform(1.0, 2.2)) + 1):
        radius = side * rng.uniform(0.015, 0.03 + 0.014 * severity)
        x, y = rng.uniform(0, width), rng.uniform(0, height)
        dx, dy = (columns - x) / radius, (rows - y) / radius
        distance = np.hypot(dx, dy)
        edge = 1.2 / radius + 0.05
        facing = np.clip((dx * np.cos(light) + dy * np.sin(light)) / np.maximum(distance, 1e-3), -1, 1)
        crescent = np.exp(-(((distance - 0.78) / (0.08 + edge)) ** 2)) * np.clip(facing - 0.3, 0, 1) * 1.3
        haze = np.clip((1 - distance) / edge, 0, 1) * 0.10
        bright = np.maximum(bright, np.clip(crescent + haze, 0, 0.95))
        dark = np.maximum(dark, np.exp(-(((distance - 1) / edge) ** 2)) * (0.35 - 0.2 * facing))
    alpha = 1 - (1 - bright) * (1 - dark)
    share = (bright / np.maximum(alpha, 1e-6))[..., None]
    rgb = 252 * share + np.array([70, 52, 50]) * (1 - share)
    return np.clip(rgb, 0, 255).astype(np.uint8), alpha.astype(np.float32)


ARTEFACTS: dict[str, Artefact] = {
    artefact.name: artefact
    for artefact in (
        Artefact("hair", "hairs across the field", _hair),
        Artefact("ruler", "a scale bar along one edge", _ruler),
        Artefact("ink", "marks of a surgical pen", _ink),
        Artefact("dark_corners", "the black rim of a round dermatoscope", _dark_corners),
        Artefact("gel_bubble", "bubbles in the contact gel", _gel_bubble),
    )
}
