"""Pictures without a skin lesion, for fitting an input gate: drawn by a program, or made of pictures that do show one.

They stand for what people hand to a classifier by mistake: other photographs, pages of text, plain surfaces, bare skin, broken
files. Many take their colours from a lesion's picture, so that colour alone does not tell the two apart. A new kind is one
function and one row of `OUTLIERS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from lesion_hub.data.artefacts import ARTEFACTS, Floats, Pixels, Size, add_artefact, grain
from lesion_hub.data.corruptions import CORRUPTIONS, corrupt
from lesion_hub.data.synthetic.drawing import draw_skin

# The faults of a camera but for those that blur by a convolution, which take a hundred times as long: loss of pixels is alike.
_LIGHT_FAULTS = [name for name, fault in CORRUPTIONS.items() if fault.kind == "camera" and not name.endswith("blur")]
_DRAWABLE = 32  # pixels: bare skin of a smaller picture is drawn at this size and reduced
_WORDS = (
    "lorem",
    "ipsum",
    "of",
    "a",
    "page",
    "which",
    "is",
    "set",
    "in",
    "lines",
    "42",
    "0.5",
    "and",
    "so",
    "on",
    "nothing",
    "else",
)


@dataclass(frozen=True)
class Outlier:
    """One kind of picture without a lesion.

    ``draw`` takes (picture, random numbers) and gives uint8 (H, W, 3) of the picture's size; it may take the picture's colours,
    or make something else of the picture itself.
    """

    name: str
    description: str
    draw: Callable[[Pixels, np.random.Generator], Pixels]


def draw_outliers(pictures: Sequence[Pixels], count: int, seed: int = 0, *, first: int = 0) -> Iterator[tuple[str, Pixels]]:
    """Draw the pictures without a lesion that have the numbers ``first`` to ``first + count``, the kinds in turn.

    What comes are pairs of a kind's name and uint8 (H, W, 3). ``pictures`` are some of the training images, uint8 (H, W, 3);
    each outlier is made with one of them, of whose size it is. The same arguments give the same pixels.

    >>> [name for name, _ in draw_outliers([np.full((32, 48, 3), 128, np.uint8)], 2)]
    ['plain', 'gradient']
    """
    names = list(OUTLIERS)
    for i in range(first, first + count):
        rng = np.random.default_rng((seed, i))
        name = names[i % len(names)]
        yield name, OUTLIERS[name].draw(pictures[int(rng.integers(len(pictures)))], rng)


def vary(picture: Pixels, seed: int) -> Pixels:
    """Return a lesion's picture as another clinic might have taken it, which a gate must not refuse for that.

    Nearer or stretched; through a narrower dermatoscope or in other light; with hair, ink, a ruler, bubbles or a coloured
    sticker beside the lesion. uint8 (H, W, 3) in and out; the same seed gives the same pixels.

    >>> vary(np.full((32, 48, 3), 128, np.uint8), seed=0).shape
    (32, 48, 3)
    """
    rng = np.random.default_rng((seed, 2))
    if rng.random() < 0.4:
        picture = _nearer(picture, rng)
    if rng.random() < 0.6:
        picture = add_artefact(picture, str(rng.choice(list(ARTEFACTS))), int(rng.integers(2, 6)), int(rng.integers(2**31)))
    if rng.random() < 0.2:
        picture = _with_sticker(picture, rng)
    if rng.random() < 0.15:
        picture = _narrowed(picture, rng)
    if rng.random() < 0.5:
        picture = corrupt(picture, str(rng.choice(_LIGHT_FAULTS)), int(rng.integers(1, 4)), int(rng.integers(2**31)))
    return picture


def _nearer(picture: Pixels, rng: np.random.Generator) -> Pixels:
    """Cut out the middle, 65 to 100 % of each side, and stretch it over the whole."""
    height, width = picture.shape[:2]
    rows, columns = np.array([height, width]) * rng.uniform(0.65, 1, 2)
    left, top = (width - columns) / 2, (height - rows) / 2
    box = (float(left), float(top), float(left + columns), float(top + rows))
    return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BILINEAR, box))


def _with_sticker(picture: Pixels, rng: np.random.Generator) -> Pixels:
    """Lay a round coloured sticker, as they mark where to look, over the rim of the picture."""
    height, width = picture.shape[:2]
    side, angle = min(height, width), rng.uniform(0, 2 * np.pi)
    y, x = np.mgrid[:height, :width]
    away = np.hypot(x - width / 2 - np.cos(angle) * width / 2, y - height / 2 - np.sin(angle) * height / 2)
    radius, covered = side * rng.uniform(0.12, 0.33), picture.copy()
    for share in (1.0, 0.55)[: int(rng.integers(1, 3))]:
        covered[away < radius * share] = rng.uniform(0, 255, 3).astype(np.uint8)
    return covered


def _narrowed(picture: Pixels, rng: np.random.Generator) -> Pixels:
    """Blacken what lies outside the round field of a narrow dermatoscope."""
    height, width = picture.shape[:2]
    y, x = np.mgrid[:height, :width]
    radius = min(height, width) * rng.uniform(0.36, 0.55)
    away = np.hypot(x - width / 2, y - height / 2) - radius
    return (picture * np.clip(0.5 - away / (0.03 * radius + 1), 0, 1)[..., None]).astype(np.uint8)


# ------------------------------------------------------------------------------------------------ colours and fields


def _colours(picture: Pixels, rng: np.random.Generator, count: int) -> NDArray[np.float64]:
    """Draw ``count`` colours (count, 3) in 0..255: those of single pixels of the picture, or any about a common one."""
    if rng.random() < 0.5:
        pixels = picture.reshape(-1, 3)
        return pixels[rng.integers(len(pixels), size=count)].astype(np.float64)
    about, spread = rng.uniform(0, 255, 3), rng.uniform(10, 110)
    return np.clip(about + rng.normal(0, spread, (count, 1)) + rng.normal(0, spread / 2, (count, 3)), 0, 255)


def _clouds(height: int, width: int, rng: np.random.Generator) -> Floats:
    """Draw noise of every scale in [0, 1], (H, W): the finer, the fainter, by how much is drawn too."""
    fall, total = rng.uniform(0.35, 0.95), np.zeros((height, width), np.float32)
    for step in range(int(np.log2(max(4, min(height, width))))):
        total += np.float32(fall**step) * grain(width, height, 2 << step, rng)
    low, high = np.quantile(total, (0.02, 0.98))
    return np.clip((total - low) / max(float(high - low), 1e-6), 0, 1)


def _between(field: Floats, colours: NDArray[np.float64]) -> Pixels:
    """Colour a field (H, W) in [0, 1] along the given colours (K, 3)."""
    places = np.linspace(0, 1, len(colours))
    return np.stack([np.interp(field, places, colours[:, channel]) for channel in range(3)], axis=-1).astype(np.uint8)


# ------------------------------------------------------------------------------------------------ drawn


def _plain(picture: Pixels, rng: np.random.Generator) -> Pixels:
    """Fill the picture with black, gray, white, or another colour, with a camera's noise or without any."""
    gray = np.repeat(rng.choice([0, 255, rng.uniform(0, 255)]), 3)
    colour = gray if rng.random() < 0.6 else _colours(picture, rng, 1)[0]
    noise = rng.normal(0, rng.choice([0.0, 3.0]), picture.shape[:2])[..., None]
    return np.clip(colour + noise, 0, 255).astype(np.uint8)


def _gradient(picture: Pixels, rng: np.random.Generator) -> Pixels:
    height, width = picture.shape[:2]
    x, y = np.linspace(-1, 1, width)[None, :], np.linspace(-1, 1, height)[:, None]
    if rng.random() < 0.5:
        angle = rng.uniform(0, 2 * np.pi)
        field = 0.5 + (np.cos(angle) * x + np.sin(angle) * y) / 2.9
    else:
        field = np.hypot(x - rng.uniform(-1, 1), y - rng.uniform(-1, 1)) / 2.9
    return _between(field.astype(np.float32), _colours(picture, rng, int(rng.integers(2, 4))))


def _noise(picture: Pixels, rng: np.random.Generator) -> Pixels:
    """Draw dots that know nothing of each other, fine or coarse, gray or coloured."""
    height, width = picture.shape[:2]
    cell = int(rng.choice([1, 1, 2, 4, 8]))
    shape = (-(-height // cell), -(-width // cell), int(rng.choice([1, 3])))
    dots = rng.uniform(0, 255, shape) if rng.random() < 0.5 else rng.normal(128, 50, shape)
    coloured: Pixels = np.clip(np.repeat(dots, 3 // shape[2], axis=2), 0, 255).astype(np.uint8)
    return coloured.repeat(cell, axis=0).repeat(cell, axis=1)[:height, :width]


def _cloudy(picture: Pixels, rng: np.random.Generator) -> Pixels:
    """Draw clouds, or marble: noise of every scale in a few colours."""
    field = _clouds(picture.shape[0], picture.shape[1], rng)
    if rng.random() < 0.3:
        field = np.abs(2 * field - 1)
    return _between(field, _colours(picture, rng, int(rng.integers(2, 5))))


def _pattern(picture: Pixels, rng: np.random.Generator) -> Pixels:
    """Draw stripes, checks, dots, bricks or a weave, bent a little, unevenly lit."""
    height, width = picture.shape[:2]
    y, x = np.mgrid[:height, :width].astype(np.float32)
    angle, period = rng.uniform(0, np.pi), min(height, width) * rng.uniform(0.03, 0.3)
    bend = rng.uniform(0, 0.25) * period * grain(width, height, int(rng.integers(2, 7)), rng)
    u = ((np.cos(angle) * x + np.sin(angle) * y) + bend) / period
    v = ((np.cos(angle) * y - np.sin(angle) * x) + bend) / (period * rng.uniform(0.4, 2.5))
    kind = int(rng.integers(5))
    if kind == 0:
        field = np.sin(2 * np.pi * u)
    elif kind == 1:
        field = np.sin(2 * np.pi * u) * np.sin(2 * np.pi * v)
    elif kind == 2:
        field = 1 - 3 * np.hypot((u + 0.5 * (np.floor(v) % 2)) % 1 - 0.5, v % 1 - 0.5)
    elif kind == 3:
        field = 0.7 - 2 * (((u + 0.5 * (np.floor(v) % 2)) % 1 < 0.1) | (v % 1 < 0.1))
    else:
        field = np.where((np.floor(u) + np.floor(v)) % 2 == 0, np.sin(np.pi * u), np.sin(np.pi * v))
    field = 0.5 + 0.5 * np.clip(field * rng.choice([1.0, 4.0]), -1, 1)
    field = np.clip(field + rng.uniform(0, 0.5) * (_clouds(height, width, rng) - 0.5), 0, 1)
    shade = 1 + 0.3 * grain(width, height, 3, rng)[..., None]
    return np.clip(_between(field, _colours(picture, rng, int(rng.integers(2, 4)))) * shade, 0, 255).astype(np.uint8)


def _leaves(picture: Pixels, rng: np.random.Generator) -> Pixels:
    """Lay shapes of every size over each other, each with a colour and a texture, as things hide each other in a photograph."""
    height, width = picture.shape[:2]
    side, colours = min(height, width), _colours(picture, rng, 24)
    layers = np.zeros((height, width), np.int32)
    sheet = Image.fromarray(layers, mode="I")
    pen = ImageDraw.Draw(sheet)
    count, corners = int(rng.integers(25, 220)), int(rng.choice([0, 0, 3, 4, 5, 8]))
    sizes = side * np.clip(0.03 / rng.uniform(0.04, 1, count) ** rng.uniform(0.6, 1.1), 0.02, 0.6)
    for number, size in enumerate(np.sort(sizes)[::-1], start=1):
        middle, turn = rng.uniform(0, 1, 2) * (width, height), rng.uniform(0, 2 * np.pi)
        angles = turn + np.linspace(0, 2 * np.pi, corners or 14, endpoint=False)
        reach = size * (rng.uniform(0.5, 1.2, len(angles)) if corners else 1.0)
        outline = np.stack([np.cos(angles), rng.uniform(0.4, 1) * np.sin(angles)], -1) * np.reshape(reach, (-1, 1)) + middle
        pen.polygon([tuple(point) for point in outline.tolist()], fill=number)
    layers = np.asarray(sheet)
    own = colours[rng.integers(len(colours), size=count + 1)]
    texture, weight = _clouds(height, width, rng), rng.uniform(0, 0.7, count + 1)
    shade = 1 + weight[layers] * (2 * np.roll(texture.ravel(), 17).reshape(height, width) - 1)
    return np.clip(own[layers] * shade[..., None], 0, 255).astype(np.uint8)


def _text(picture: Pixels, rng: np.random.Generator) -> Pixels:
    """Set lines of words on paper, dark on light, or as on a screen, light on dark."""
    height, width = picture.shape[:2]
    paper, ink = (int(rng.uniform(200, 256)), int(rng.uniform(0, 90)))[:: rng.choice([1, 1, 1, -1])]
    tint = np.clip(paper + rng.normal(0, 8, 3), 0, 255).astype(int)
    page = Image.new("RGB", (width, height), tuple(tint.tolist()))
    pen, size = ImageDraw.Draw(page), max(6.0, min(height, width) * rng.uniform(0.035, 0.14))
    font, left = ImageFont.load_default(size), rng.uniform(-0.1, 0.12) * width
    line = rng.uniform(-size, size)
    while line < height:
        if rng.random() < 0.88:
            words = " ".join(rng.choice(_WORDS, int(rng.integers(2, 24))))
            pen.text((left, line), words, fill=(ink, ink, ink), font=font)
        line += size * 1.3
    return np.asarray(page.rotate(rng.normal(0, 3), fillcolor=tuple(tint.tolist())))


def _drawing(picture: Pixels, rng: np.random.Generator) -> Pixels:
    """Draw a few lines and shapes on an even ground: a diagram, a sign, a thing before a wall."""
    height, width = picture.shape[:2]
    colours = [tuple(colour) for colour in _colours(picture, rng, 8).astype(int).tolist()]
    ground = colours[0] if rng.random() < 0.6 else (255, 255, 255)
    sheet = Image.new("RGB", (width, height), ground)
    pen = ImageDraw.Draw(sheet)
    for _ in range(int(rng.integers(2, 16))):
        points = (rng.uniform(0, 1, (int(rng.integers(2, 6)), 2)) * (width, height)).tolist()
        colour, thick = colours[int(rng.integers(len(colours)))], int(max(1, rng.uniform(0.005, 0.05) * min(height, width)))
        shape = int(rng.integers(4))
        (a, b), (c, d) = points[0], points[1]
        box = (min(a, c), min(b, d), max(a, c), max(b, d))
        if shape == 0:
            pen.line([tuple(point) for point in points], fill=colour, width=thick)
        elif shape == 1:
            pen.polygon([tuple(point) for point in points], fill=colour)
        elif shape == 2:
            pen.ellipse(box, fill=colour if rng.random() < 0.5 else None, outline=colour, width=thick)
        else:
            pen.rectangle(box, fill=colour if rng.random() < 0.5 else None, outline=colour, width=thick)
    return np.asarray(sheet)


def _bare_skin(picture: Pixels, rng: np.random.Generator) -> Pixels:
    """Draw skin without a lesion, perhaps with hair, a ruler, ink or dark corners."""
    height, width = picture.shape[:2]
    size: Size = (max(width, _DRAWABLE), max(height, _DRAWABLE))
    skin = draw_skin(int(rng.integers(2**31)), size, artefacts=bool(rng.random() < 0.6))
    return skin if size == (width, height) else np.asarray(Image.fromarray(skin).resize((width, height)))


# ------------------------------------------------------------------------------------------------ made of a lesion's picture


def _shuffled(picture: Pixels, rng: np.random.Generator) -> Pixels:
    """Cut the picture into a grid, and put the pieces back in another order, each turned."""
    height, width = picture.shape[:2]
    cells = int(rng.integers(3, 9))
    rows, columns = height // cells, width // cells
    if min(rows, columns) < 1:
        return picture[rng.permutation(height)]
    mixed = picture.copy()
    for place, source in enumerate(rng.permutation(cells * cells)):
        (a, b), (c, d) = divmod(place, cells), divmod(int(source), cells)
        piece = picture[c * rows : (c + 1) * rows, d * columns : (d + 1) * columns]
        mixed[a * rows : (a + 1) * rows, b * columns : (b + 1) * columns] = piece[
            :: rng.choice([1, -1]), :: rng.choice([1, -1])
        ]
    return mixed


def _recoloured(picture: Pixels, rng: np.random.Generator) -> Pixels:
    """Exchange the colours: a negative, or the channels in another order."""
    orders = [(2, 1, 0), (1, 0, 2), (2, 0, 1), (1, 2, 0)]
    turned = picture[..., list(orders[int(rng.integers(len(orders)))])]
    return 255 - (picture if rng.random() < 0.5 else turned) if rng.random() < 0.5 else turned


def _ruined(picture: Pixels, rng: np.random.Generator) -> Pixels:
    """Spoil the picture by three of the strongest faults of a camera, each twice, until little is left of it."""
    for name in rng.choice(_LIGHT_FAULTS, 3, replace=False).repeat(2):
        picture = corrupt(picture, str(name), 5, int(rng.integers(2**31)))
    return picture


OUTLIERS: dict[str, Outlier] = {
    outlier.name: outlier
    for outlier in (
        Outlier("plain", "one colour", _plain),
        Outlier("gradient", "one colour that becomes another", _gradient),
        Outlier("noise", "dots at random", _noise),
        Outlier("clouds", "clouds and marble", _cloudy),
        Outlier("pattern", "stripes, checks, dots, bricks", _pattern),
        Outlier("leaves", "shapes that hide each other, as things do in a photograph", _leaves),
        Outlier("text", "a page of text", _text),
        Outlier("drawing", "a few lines and shapes", _drawing),
        Outlier("bare_skin", "drawn skin without a lesion", _bare_skin),
        Outlier("shuffled", "a lesion's picture, cut into pieces", _shuffled),
        Outlier("recoloured", "a lesion's picture in wrong colours", _recoloured),
        Outlier("ruined", "a lesion's picture, spoiled until little is left of it", _ruined),
    )
}
