"""Draw one synthetic lesion: skin, body, structures, light, camera, artefacts; and the record that goes with it.

Every part has a random stream of its own, so that what one part draws never moves another: (seed, 1, view) is the
photograph's, (seed, 2) the lesion's, (seed, 3) the skin's, (seed, 4) the patient's.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from lesion_hub.data.artefacts import Floats, Pixels, Size, artefact_layer, blend, unknown_name, width_height
from lesion_hub.data.synthetic.canvas import Canvas, LesionView, draw_body, paint_body, paint_skin, skin_of
from lesion_hub.data.synthetic.diagnoses import APPEARANCES, Appearance, Patient, patient_of
from lesion_hub.data.synthetic.structures import STRUCTURES
from lesion_hub.errors import DataError

MIN_SIDE, MAX_SIDE = 32, 1024

# How often an artefact lies in a picture, whatever the diagnosis.
ARTEFACT_SHARES = {"hair": 0.35, "dark_corners": 0.20, "gel_bubble": 0.12, "ruler": 0.07, "ink": 0.05}


@dataclass(frozen=True)
class SyntheticLesion:
    """A drawn lesion: ``image`` uint8 (H, W, 3), ``mask`` bool (H, W), and the record that a clinic would keep."""

    image: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    diagnosis: str
    patient: Patient
    fitzpatrick: int
    artefacts: tuple[str, ...]


def draw_lesion(diagnosis: str, seed: int, size: Size = 224, *, view: int = 0, artefacts: bool = True) -> SyntheticLesion:
    """Draw the lesion that ``seed`` stands for, as photograph number ``view`` shows it.

    ``diagnosis`` is a key of ``APPEARANCES``; ``size`` a side or (width, height), 32 to 1024 pixels. Other views of one
    seed show the same lesion and patient from another distance and angle, in other light and with other artefacts.

    >>> lesion = draw_lesion("nv", seed=3, size=(60, 48))
    >>> lesion.image.shape, lesion.image.dtype.name, lesion.mask.shape
    ((48, 60, 3), 'uint8', (48, 60))
    """
    if diagnosis not in APPEARANCES:
        raise unknown_name("diagnosis", diagnosis, APPEARANCES)
    if seed < 0 or view < 0:
        raise DataError(f"seed {seed}, view {view}: neither may be negative")
    width, height = drawable_size(size)
    photo_rng, lesion_rng = np.random.default_rng((seed, 1, view)), np.random.default_rng((seed, 2))
    appearance, skin = APPEARANCES[diagnosis], skin_of(seed)

    canvas = Canvas(_draw_view(appearance, lesion_rng, photo_rng, width, height))
    paint_skin(canvas, skin, photo_rng)
    lesion = draw_body(canvas.view, appearance, lesion_rng)
    paint_body(canvas, lesion, appearance, lesion_rng)
    for name, (share, weak, strong) in appearance.structures.items():
        present, strength = lesion_rng.random() < share, lesion_rng.uniform(weak, strong)
        # A stream of its own: how one structure is drawn never moves another.
        structure_rng = lesion_rng.spawn(1)[0]
        if present:
            STRUCTURES[name](canvas, lesion, strength, structure_rng)

    image, seen = _finish(canvas, photo_rng, artefacts)
    return SyntheticLesion(image, lesion.mask, diagnosis, patient_of(diagnosis, seed), skin.fitzpatrick, seen)


def draw_skin(seed: int, size: Size = 224, *, artefacts: bool = True) -> Pixels:
    """Draw skin without a lesion, as the person of ``seed`` has it: uint8 (H, W, 3); ``size`` as for `draw_lesion`.

    >>> draw_skin(3, (60, 48)).shape
    (48, 60, 3)
    """
    width, height = drawable_size(size)
    rng = np.random.default_rng((seed, 1, 0))
    middle, side = (width / 2, height / 2), min(width, height)
    canvas = Canvas(LesionView(width, height, middle, 0.3 * side, angle=0.0))
    paint_skin(canvas, skin_of(seed), rng)
    return _finish(canvas, rng, artefacts)[0]


def _finish(canvas: Canvas, rng: np.random.Generator, artefacts: bool) -> tuple[Pixels, tuple[str, ...]]:
    """Photograph what was painted, and lay artefacts over it: uint8 (H, W, 3), and the artefacts' names."""
    width, height = canvas.view.width, canvas.view.height
    image = _photograph(canvas.render(*_draw_light(rng, width, height)), rng)
    seen: dict[str, int] = {}
    for name, share in ARTEFACT_SHARES.items() if artefacts else ():
        present, severity = rng.random() < share, int(rng.integers(1, 4))
        if present:
            seen[name] = severity
    for name, severity in seen.items():
        image = blend(image, artefact_layer(name, (width, height), severity, int(rng.integers(2**31))))
    return image, tuple(seen)


def drawable_size(size: Size) -> tuple[int, int]:
    """Return ``size`` as (width, height) if a lesion can be drawn at it, else raise."""
    width, height = width_height(size)
    if min(width, height) < MIN_SIDE or max(width, height) > MAX_SIDE:
        raise DataError(f"image size {width}x{height} is out of range; give sides of {MIN_SIDE} to {MAX_SIDE} pixels")
    return width, height


def check_structures(diagnoses: Mapping[str, Appearance]) -> None:
    """Raise on a structure that a diagnosis names and `STRUCTURES` does not hold."""
    for diagnosis, appearance in diagnoses.items():
        for name in appearance.structures:
            if name not in STRUCTURES:
                raise unknown_name(f"structure of {diagnosis}:", name, STRUCTURES)


def _draw_view(
    appearance: Appearance, lesion_rng: np.random.Generator, photo_rng: np.random.Generator, width: int, height: int
) -> LesionView:
    side = min(width, height)
    zoom = np.exp(photo_rng.normal(0, 0.13))
    radius = float(np.clip(lesion_rng.uniform(*appearance.radius) * zoom, 0.08, 0.55)) * side
    shift = photo_rng.normal(0, 0.05, 2) * side
    centre = (width / 2 + float(shift[0]), height / 2 + float(shift[1]))
    return LesionView(width, height, centre, radius, float(photo_rng.uniform(0, 2 * np.pi)), bool(photo_rng.random() < 0.5))


def _draw_light(rng: np.random.Generator, width: int, height: int) -> tuple[Floats, Floats]:
    """Draw the illumination (H, W), about 1, brighter to one side and darker outwards, and the camera's gains (3,)."""
    x = np.linspace(-1, 1, width, dtype=np.float32)[None, :]
    y = np.linspace(-1, 1, height, dtype=np.float32)[:, None]
    angle, slope = rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.12)
    falloff = rng.uniform(0.0, 0.12)
    light = 1 + slope * (np.cos(angle) * x + np.sin(angle) * y) - falloff * (x * x + y * y) / 2
    balance = np.exp(rng.normal(0, 0.05, 3) * (1.0, 0.6, 1.4))
    exposure = np.exp(rng.normal(0.0, 0.09))
    return light.astype(np.float32), (balance * exposure).astype(np.float32)


def _photograph(picture: Floats, rng: np.random.Generator) -> Pixels:
    """Turn ``picture`` (H, W, 3) in 0..255 into uint8, slightly out of focus and noisy as a camera's."""
    blur, sigma = rng.uniform(0.0, 0.006) * min(picture.shape[:2]), rng.uniform(0.8, 3.0)
    grain = rng.standard_normal(picture.shape[:2], dtype=np.float32)[..., None] * np.float32(sigma)
    sharp = Image.fromarray(np.clip(picture + 0.5, 0, 255).astype(np.uint8))
    blurred = np.asarray(sharp.filter(ImageFilter.GaussianBlur(blur)))
    return np.clip(blurred + grain, 0, 255).astype(np.uint8)


check_structures(APPEARANCES)
