"""Paint skin and the body of a lesion: the view, the canvas of maps, the skin, and the lesion's outlines and pigment.

Everything is given in lesion coordinates: the lesion's centre is (0, 0) and its mean radius 1. A view places that frame in
an image, so the same lesion can be seen again from another distance and at another angle. The canvas holds maps of what
absorbs or reflects light, and adds them up to a picture.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lesion_hub.data.artefacts import Floats, Points, Sheet, enlarged
from lesion_hub.data.synthetic.diagnoses import Appearance

Colour = tuple[float, float, float]

# Noise and structures exist out to this many lesion radii from the centre.
REACH = 2.4

# The colour of skin without pigment, and how strongly one unit of pigment darkens red, green and blue, as exponents.
ALBEDO = (240.0, 214.0, 200.0)
MELANIN = (0.55, 0.88, 1.15)
BLOOD = (0.13, 0.95, 0.68)

# Melanin density of the Fitzpatrick types I to VI, and how often a type is drawn.
TONES = (0.02, 0.10, 0.22, 0.42, 0.75, 1.20)
TONE_SHARES = (0.20, 0.28, 0.22, 0.13, 0.10, 0.07)

# Pigment in the depth of the skin looks gray: a veil of this colour, more or less of it, lies over every lesion.
HAZE = (150.0, 122.0, 118.0)

_ANGLES = 720


@dataclass(frozen=True)
class LesionView:
    """Where a lesion lies in an image: ``centre`` and ``radius`` in pixels, ``angle`` in radians, mirrored or not."""

    width: int
    height: int
    centre: tuple[float, float]
    radius: float
    angle: float
    mirrored: bool = False

    @cached_property
    def _to_image(self) -> NDArray[np.float64]:
        """The 2x2 matrix from lesion coordinates to pixels."""
        cos, sin = np.cos(self.angle) * self.radius, np.sin(self.angle) * self.radius
        flip = -1 if self.mirrored else 1
        return np.array([[cos * flip, -sin], [sin * flip, cos]])

    @cached_property
    def _to_lesion(self) -> NDArray[np.float64]:
        return np.asarray(np.linalg.inv(self._to_image), np.float64)

    @cached_property
    def uv(self) -> tuple[Floats, Floats]:
        """The lesion coordinates (u, v) of every pixel, each (H, W)."""
        x = (np.arange(self.width) - self.centre[0])[None, :]
        y = (np.arange(self.height) - self.centre[1])[:, None]
        (a, b), (c, d) = self._to_lesion
        return (a * x + b * y).astype(np.float32), (c * x + d * y).astype(np.float32)

    def in_pixels(self, points: Points) -> Points:
        """Convert lesion coordinates (N, 2) to pixel positions (N, 2)."""
        return points @ self._to_image.T + self.centre

    def noise(self, rng: np.random.Generator, cell: float) -> Floats:
        """Draw smooth noise (H, W) of about unit variance whose bumps are ``cell`` lesion radii apart, fixed to the lesion."""
        count = int(np.ceil(2 * REACH / cell)) + 3
        grid = Image.fromarray(rng.standard_normal((count, count), dtype=np.float32) * np.float32(1.3))
        # Wide bumps are drawn small and enlarged: they look the same and cost a fraction.
        factor = int(np.clip(self.radius * cell / 4, 1, 4))
        (a, b), (c, d) = self._to_lesion / cell * factor
        x, y = self.centre[0] / factor, self.centre[1] / factor
        middle = count / 2
        affine = (a, b, middle - a * x - b * y, c, d, middle - c * x - d * y)
        small = (-(-self.width // factor), -(-self.height // factor))
        noise = grid.transform(small, Image.Transform.AFFINE, affine, Image.Resampling.BICUBIC)
        if factor > 1:
            box = (0, 0, self.width / factor, self.height / factor)
            noise = noise.resize((self.width, self.height), Image.Resampling.BICUBIC, box)
        return np.asarray(noise)

    def dots(self, points: Points, radii: Points, strengths: Points | float = 1.0, soft: float = 0.0) -> Floats:
        """Draw discs at ``points`` (N, 2) with ``radii`` (N,), in lesion radii, as coverage (H, W) in [0, 1].

        ``soft`` blurs their rims, again in lesion radii.
        """
        sheet = self._sheet()
        centres, sizes = self.in_pixels(points) * sheet.factor, radii * self.radius * sheet.factor
        values = np.broadcast_to(np.clip(strengths, 0, 1) * 255, radii.shape)
        # A disc smaller than a drawn pixel keeps its area by becoming fainter.
        faint = np.minimum(1, sizes / 0.6) ** 2
        drawn = zip(centres.tolist(), np.maximum(sizes, 0.6).tolist(), (values * faint).tolist(), strict=True)
        for (x, y), size, value in drawn:
            sheet.pen.ellipse((x - size, y - size, x + size, y + size), fill=int(value))
        return sheet.coverage(blur=soft * self.radius)

    def strokes(self, lines: list[Points], widths: list[float]) -> Floats:
        """Draw polylines (N, 2) of ``widths`` lesion radii as coverage (H, W) in [0, 1]."""
        sheet = self._sheet()
        for line, width in zip(lines, widths, strict=True):
            sheet.stroke(self.in_pixels(line), width * self.radius, joint="curve")
        return sheet.coverage()

    def _sheet(self) -> Sheet:
        return Sheet(self.width, self.height, factor=3 if min(self.width, self.height) <= 160 else 2)


class Canvas:
    """The maps that add up to a picture: pigment that absorbs light, and cover that hides what is below.

    ``melanin`` and ``blood`` are densities (H, W); ``cover`` lays a colour over everything drawn before it; ``relief``
    (H, W) is a height that the light from the upper left shades.
    """

    def __init__(self, view: LesionView) -> None:
        shape = (view.height, view.width)
        self.view = view
        self.melanin = np.zeros(shape, np.float32)
        self.blood = np.zeros(shape, np.float32)
        self.relief = np.zeros(shape, np.float32)
        self._covers: list[tuple[Colour, Floats]] = []

    def cover(self, colour: Colour, alpha: Floats) -> None:
        """Lay ``colour`` (RGB, 0..255) over the skin with opacity ``alpha`` (H, W) in [0, 1]."""
        self._covers.append((colour, alpha.astype(np.float32, copy=False)))

    def render(self, light: Floats, balance: Floats) -> Floats:
        """Return the picture, float32 (H, W, 3) in 0..255 or brighter.

        ``light`` is the illumination (H, W), ``balance`` (3,) the camera's gains of red, green and blue.
        """
        if self.relief.any():
            down, right = np.gradient(self.relief * np.float32(self.view.radius))
            light = light * np.clip(1 - 0.3 * (down + right), 0.8, 1.25)
        picture = np.empty((*light.shape, 3), np.float32)
        # One colour after the other: numpy is several times faster on whole planes than across a last axis of three.
        for channel in range(3):
            melanin, blood = np.float32(MELANIN[channel]), np.float32(BLOOD[channel])
            plane = np.exp(-melanin * self.melanin - blood * self.blood) * np.float32(ALBEDO[channel])
            for colour, alpha in self._covers:
                plane += (np.float32(colour[channel]) - plane) * alpha
            picture[..., channel] = plane * (light * balance[channel])
        return picture


# ------------------------------------------------------------------------------------------------------------- skin


@dataclass(frozen=True)
class Skin:
    """One person's skin: ``fitzpatrick`` 1..6, its pigment densities, and how strong furrows, freckles and vessels are."""

    fitzpatrick: int
    melanin: float
    blood: float
    furrows: float
    freckles: float
    vessels: float


def skin_of(seed: int) -> Skin:
    """Return the skin that the lesion of ``seed`` lies on; it does not depend on the diagnosis."""
    rng = np.random.default_rng((seed, 3))
    kind = int(rng.choice(6, p=TONE_SHARES))
    freckled, sun_damaged = rng.random() < 0.15, rng.random() < 0.12
    return Skin(
        fitzpatrick=kind + 1,
        melanin=TONES[kind] * rng.uniform(0.75, 1.25) + rng.uniform(0, 0.04),
        blood=rng.triangular(0.02, 0.08, 0.40) * (1 - 0.1 * kind),
        furrows=rng.uniform(0.01, 0.07),
        freckles=rng.uniform(0.05, 0.22) if freckled else 0.0,
        vessels=rng.uniform(0.1, 0.3) if sun_damaged else 0.0,
    )


def paint_skin(canvas: Canvas, skin: Skin, rng: np.random.Generator) -> None:
    """Fill the canvas with skin: tone, mottling, furrows, and sometimes freckles or fine vessels."""
    width, height = canvas.view.width, canvas.view.height
    side = min(width, height)

    def noise(cell: float) -> Floats:
        """Draw smooth noise (H, W) of about unit variance, fixed to the image, with a bump every ``cell`` sides."""
        columns, rows = (max(2, round(length / (side * cell)) + 2) for length in (width, height))
        return enlarged(rng.standard_normal((rows, columns), dtype=np.float32) * np.float32(1.3), width, height)

    coarse, fine = noise(0.22), noise(0.045)
    canvas.melanin += skin.melanin * (1 + 0.05 * coarse + 0.04 * fine)
    canvas.blood += np.maximum(0, skin.blood * (1 - 0.1 * coarse + 0.08 * fine) + 0.022 * noise(0.11))

    # The fine lines of the skin are the zero crossings of noise that is drawn out in one direction.
    stretch = rng.uniform(1.0, 2.2)
    furrows = np.zeros((height, width), np.float32)
    cell = side * 0.026
    for wide, tall in ((stretch, 1.0), (1.0, stretch)):
        columns, rows = max(3, round(width / cell / wide)), max(3, round(height / cell / tall))
        field = enlarged(rng.standard_normal((rows, columns), dtype=np.float32), width, height)
        furrows += np.clip(1 - np.abs(field) / 0.5, 0, 1)
    canvas.melanin += skin.furrows * furrows

    if skin.freckles:
        spots = noise(0.05) + 0.6 * coarse
        canvas.melanin += skin.freckles * np.clip((spots - 0.9) * 0.7, 0, 1)
    if skin.vessels:
        web = np.abs(noise(0.07) + 0.4 * fine)
        canvas.blood += skin.vessels * np.clip(1 - web / 0.22, 0, 1) * np.clip(0.5 + 0.7 * coarse, 0, 1)


# --------------------------------------------------------------------------------------------------- the lesion's body


@dataclass(frozen=True)
class Outline:
    """One closed outline: a bent, stretched circle about ``centre`` of mean radius ``size`` lesion radii."""

    centre: tuple[float, float]
    size: float
    radii: Floats

    @classmethod
    def draw(cls, rng: np.random.Generator, wobble: float, stretch: float, centre: Points, size: float) -> Outline:
        """Draw an outline that is ``stretch`` times as wide as long and bent by ``wobble``."""
        theta = np.linspace(0, 2 * np.pi, _ANGLES, endpoint=False)
        orders = np.arange(2, 8)
        weights = rng.normal(0, 1, 6) / orders**1.1
        bends = (weights[:, None] * np.cos(orders[:, None] * theta + rng.uniform(0, 2 * np.pi, (6, 1)))).sum(0)
        turned = theta - rng.uniform(0, np.pi)
        oval = stretch / np.sqrt((stretch * np.cos(turned)) ** 2 + np.sin(turned) ** 2)
        radii = oval / oval.mean() * np.exp(wobble * bends)
        return cls((float(centre[0]), float(centre[1])), size, (radii * size).astype(np.float32))

    def depth(self, u: Floats, v: Floats) -> Floats:
        """Return how far out each pixel lies: 0 in the centre, 1 on the outline."""
        du, dv = u - np.float32(self.centre[0]), v - np.float32(self.centre[1])
        step = (np.arctan2(dv, du) * np.float32(_ANGLES / (2 * np.pi))).astype(np.int32)
        return np.sqrt(du * du + dv * dv) / self.radii[step]

    def at(self, theta: Points, reach: Points | float) -> Points:
        """Return points (N, 2) at the angles ``theta`` (N,) and ``reach`` times the outline's radius from its centre."""
        radius = self.radii[(theta * (_ANGLES / (2 * np.pi))).astype(int) % _ANGLES] * reach
        return np.stack([np.cos(theta), np.sin(theta)], -1) * radius[:, None] + self.centre


@dataclass(frozen=True)
class Lesion:
    """A lesion under a view. ``depth`` (H, W): 0 in the middle, 1 on the border, more outside."""

    view: LesionView
    outlines: tuple[Outline, ...]
    depth: Floats
    soft: float

    @cached_property
    def body(self) -> Floats:
        """The opacity (H, W): 1 inside, 0 outside, with a border as soft as the lesion's."""
        inside = np.clip((1 - self.depth) / self.soft + 0.5, 0, 1)
        return inside * inside * (3 - 2 * inside)

    @property
    def mask(self) -> NDArray[np.bool_]:
        """Mask (H, W), True where the lesion is."""
        return self.depth < 1

    def points(self, rng: np.random.Generator, count: int, near: float = 0.0, far: float = 0.9) -> Points:
        """Draw ``count`` points (N, 2), spread evenly between the fractions ``near`` and ``far`` of the outline's radius."""
        home = rng.integers(len(self.outlines), size=count)
        theta, reach = rng.uniform(0, 2 * np.pi, count), np.sqrt(rng.uniform(near**2, far**2, count))
        spread = np.empty((count, 2))
        for number, outline in enumerate(self.outlines):
            spread[home == number] = outline.at(theta[home == number], reach[home == number])
        return spread


def draw_body(view: LesionView, appearance: Appearance, rng: np.random.Generator) -> Lesion:
    """Draw the outline(s) of a lesion; all random draws are the same whatever the view."""
    ragged, soft = rng.uniform(*appearance.ragged), rng.uniform(*appearance.soft)
    wobble = rng.uniform(*appearance.wobble)
    count = int(rng.integers(appearance.scatter[0], appearance.scatter[1] + 1))
    u, v = view.uv
    outlines: list[Outline] = []
    depth = np.full(u.shape, 9.0, np.float32)
    for number in range(count):
        centre = np.zeros(2) if count == 1 else rng.uniform(-1.1, 1.1, 2) * (number > 0)
        size = 1.0 if count == 1 else rng.uniform(0.16, 0.34) * (1.6 if appearance.dome[1] == 0 else 1.0)
        outlines.append(Outline.draw(rng, wobble, rng.uniform(*appearance.stretch), centre, size))
        depth = np.minimum(depth, outlines[-1].depth(u, v))
    fray = ragged * (0.45 * view.noise(rng, 0.4) + 0.4 * view.noise(rng, 0.15) + 0.28 * view.noise(rng, 0.06))
    return Lesion(view, tuple(outlines), depth + fray, soft)


def paint_body(canvas: Canvas, lesion: Lesion, appearance: Appearance, rng: np.random.Generator) -> None:
    """Paint the lesion without its structures: pigment, blood, unevenness and height."""
    melanin, blood, patchy = (rng.uniform(*limits) for limits in (appearance.melanin, appearance.blood, appearance.patchy))
    dome = rng.uniform(*appearance.dome)
    zones = patchy * (canvas.view.noise(rng, 0.5) + 0.5 * canvas.view.noise(rng, 0.2))
    fine = 0.10 * canvas.view.noise(rng, 0.06) + 0.06 * canvas.view.noise(rng, 0.12)
    canvas.melanin += lesion.body * np.maximum(0, melanin * (1 + zones + fine))
    reddening = patchy * canvas.view.noise(rng, 0.45)
    canvas.blood += lesion.body * np.maximum(0, blood * (1 + reddening + fine))
    canvas.cover(HAZE, rng.uniform(0, 0.28) * lesion.body)
    if dome:
        canvas.relief += dome * lesion.body * (1 - 0.5 * lesion.depth)
