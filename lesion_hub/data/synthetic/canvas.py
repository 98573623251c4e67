"""The drawing surface of a synthetic lesion: a view on the lesion, and maps of what absorbs or reflects light there.

Everything is given in lesion coordinates: the lesion's centre is (0, 0) and its mean radius 1. A view places that frame in
an image, so the same lesion can be seen again from another distance and at another angle.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

Floats = NDArray[np.float32]
Points = NDArray[np.floating]
Colour = tuple[float, float, float]

# Noise and structures exist out to this many lesion radii from the centre.
REACH = 2.4

# How strongly one unit of pigment darkens red, green and blue, as exponents.
MELANIN = np.array([0.55, 0.88, 1.15], np.float32)
BLOOD = np.array([0.13, 0.95, 0.68], np.float32)


@dataclass(frozen=True)
class View:
    """Where a lesion lies in an image: ``centre`` and ``radius`` in pixels, ``angle`` in radians, mirrored or not."""

    width: int
    height: int
    centre: tuple[float, float]
    radius: float
    angle: float
    mirrored: bool = False

    @property
    def side(self) -> int:
        return min(self.width, self.height)

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

    def pixels(self, points: Points) -> Points:
        """Lesion coordinates (N, 2) as pixel positions (N, 2)."""
        return points @ self._to_image.T + self.centre

    def noise(self, rng: np.random.Generator, cell: float) -> Floats:
        """Smooth noise (H, W) of about unit variance whose bumps are ``cell`` lesion radii apart, fixed to the lesion."""
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
        """Discs at ``points`` (N, 2) with ``radii`` (N,), in lesion radii, as coverage (H, W) in [0, 1].

        ``soft`` blurs their rims, again in lesion radii.
        """
        image, pen, factor = self._sheet()
        centres, sizes = self.pixels(points) * factor, radii * self.radius * factor
        values = np.broadcast_to(np.clip(strengths, 0, 1) * 255, radii.shape)
        # A disc smaller than a drawn pixel keeps its area by becoming fainter.
        faint = np.minimum(1, sizes / 0.6) ** 2
        for (x, y), size, value in zip(
            centres.tolist(), np.maximum(sizes, 0.6).tolist(), (values * faint).tolist(), strict=True
        ):
            pen.ellipse((x - size, y - size, x + size, y + size), fill=int(value))
        return self._coverage(image.reduce(factor), soft)

    def strokes(self, lines: list[Points], widths: list[float], strengths: list[float] | None = None) -> Floats:
        """Polylines (N, 2) of ``widths`` lesion radii as coverage (H, W) in [0, 1]."""
        image, pen, factor = self._sheet()
        for line, width, strength in zip(lines, widths, strengths or [1.0] * len(lines), strict=True):
            size = width * self.radius * factor
            pixels = (self.pixels(line) * factor).ravel().tolist()
            pen.line(pixels, fill=int(255 * strength * min(1, size)), width=round(max(1, size)), joint="curve")
        return self._coverage(image.reduce(factor), 0.0)

    def _coverage(self, image: Image.Image, soft: float) -> Floats:
        blurred = image.filter(ImageFilter.GaussianBlur(soft * self.radius)) if soft else image
        return np.asarray(blurred, np.float32) / np.float32(255)

    def _sheet(self) -> tuple[Image.Image, ImageDraw.ImageDraw, int]:
        factor = 3 if self.side <= 160 else 2
        image = Image.new("L", (self.width * factor, self.height * factor))
        return image, ImageDraw.Draw(image), factor


class Canvas:
    """The maps that add up to a picture: pigment that absorbs light, and cover that hides what is below.

    ``melanin`` and ``blood`` are densities (H, W); ``cover`` lays a colour over everything drawn before it; ``relief``
    (H, W) is a height that the light from the upper left shades.
    """

    def __init__(self, view: View) -> None:
        shape = (view.height, view.width)
        self.view = view
        self.melanin = np.zeros(shape, np.float32)
        self.blood = np.zeros(shape, np.float32)
        self.relief = np.zeros(shape, np.float32)
        self._covers: list[tuple[Colour, Floats]] = []

    def cover(self, colour: Colour, alpha: Floats) -> None:
        """Lay ``colour`` (RGB, 0..255) over the skin with opacity ``alpha`` (H, W) in [0, 1]."""
        self._covers.append((colour, alpha.astype(np.float32, copy=False)))

    def render(self, albedo: Colour, light: Floats, balance: Floats) -> Floats:
        """The picture, float32 (H, W, 3) in 0..255 or brighter: ``albedo`` seen through the pigment.

        ``light`` is the illumination (H, W), ``balance`` (3,) the camera's gains of red, green and blue.
        """
        shaded = light * self._shading()
        picture = np.empty((*shaded.shape, 3), np.float32)
        # One colour after the other: numpy is several times faster on whole planes than across a last axis of three.
        for channel in range(3):
            plane = np.exp(-MELANIN[channel] * self.melanin - BLOOD[channel] * self.blood) * np.float32(albedo[channel])
            for colour, alpha in self._covers:
                plane += (np.float32(colour[channel]) - plane) * alpha
            picture[..., channel] = plane * (shaded * balance[channel])
        return picture

    def _shading(self) -> Floats:
        if not self.relief.any():
            return np.ones_like(self.relief)
        down, right = np.gradient(self.relief * np.float32(self.view.radius))
        return np.clip(1 - 0.3 * (down + right), 0.8, 1.25)
