"""Draw one synthetic lesion: skin, body, structures, light, artefacts, camera; and the record that goes with it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lesion_hub.data.artefacts import Size, artefact_layer, blend, unknown_name, width_height
from lesion_hub.data.synthetic import pigment_structures, surface_structures
from lesion_hub.data.synthetic.canvas import Canvas, View
from lesion_hub.data.synthetic.diagnoses import DIAGNOSES, Appearance
from lesion_hub.data.synthetic.lesion import Lesion, draw_body, paint_body
from lesion_hub.data.synthetic.patients import Patient, draw_patient
from lesion_hub.data.synthetic.skin import ALBEDO, Skin, draw_light, paint_skin, photograph
from lesion_hub.errors import DataError

MIN_SIDE, MAX_SIDE = 32, 1024

# How often an artefact lies in a picture, whatever the diagnosis.
ARTEFACT_SHARES = {"hair": 0.35, "dark_corners": 0.20, "gel_bubble": 0.12, "ruler": 0.07, "ink": 0.05}

Structure = Callable[[Canvas, Lesion, float, np.random.Generator], None]


@dataclass(frozen=True)
class SyntheticLesion:
    """A drawn lesion: ``image`` uint8 (H, W, 3), ``mask`` bool (H, W), and what a clinic would have written down."""

    image: NDArray[np.uint8]
    mask: NDArray[np.bool_]
    diagnosis: str
    patient: Patient
    fitzpatrick: int
    artefacts: tuple[str, ...]


def draw_lesion(diagnosis: str, seed: int, size: Size = 224, *, view: int = 0, artefacts: bool = True) -> SyntheticLesion:
    """Draw the lesion that ``seed`` stands for, as photograph number ``view`` shows it.

    ``diagnosis`` is a key of ``DIAGNOSES``; ``size`` a side or (width, height), 32 to 1024 pixels. Other views of one
    seed show the same lesion and patient from another distance and angle, in other light and with other artefacts.

    >>> lesion = draw_lesion("nv", seed=3, size=(60, 48))
    >>> lesion.image.shape, lesion.image.dtype.name, lesion.mask.shape
    ((48, 60, 3), 'uint8', (48, 60))
    """
    width, height = _checked(diagnosis, seed, size, view)
    shot = np.random.default_rng((seed, 1, view))
    growth = np.random.default_rng((seed, 2))
    look, skin = DIAGNOSES[diagnosis], skin_of(seed)

    canvas = Canvas(_draw_view(look, growth, shot, width, height))
    paint_skin(canvas, skin, shot)
    lesion = draw_body(canvas.view, look, growth)
    paint_body(canvas, lesion, look, growth)
    _paint_features(canvas, lesion, look, growth)
    picture = canvas.render(ALBEDO, *draw_light(shot, width, height))
    image = photograph(picture, shot)
    seen = _draw_artefacts(shot) if artefacts else {}
    for name, severity in seen.items():
        image = blend(image, artefact_layer(name, (width, height), severity, int(shot.integers(2**31))))
    return SyntheticLesion(image, lesion.mask, diagnosis, patient_of(diagnosis, seed), skin.fitzpatrick, tuple(seen))


def patient_of(diagnosis: str, seed: int) -> Patient:
    """The patient of the lesion that ``seed`` stands for, without drawing the lesion."""
    return draw_patient(diagnosis, np.random.default_rng((seed, 4)))


def skin_of(seed: int) -> Skin:
    """The skin that the lesion of ``seed`` lies on; it does not depend on the diagnosis."""
    return Skin.draw(np.random.default_rng((seed, 3)))


def _checked(diagnosis: str, seed: int, size: Size, view: int) -> tuple[int, int]:
    if diagnosis not in DIAGNOSES:
        raise unknown_name("diagnosis", diagnosis, DIAGNOSES)
    if seed < 0 or view < 0:
        raise DataError(f"seed {seed}, view {view}: neither may be negative")
    width, height = width_height(size)
    if min(width, height) < MIN_SIDE or max(width, height) > MAX_SIDE:
        raise DataError(f"image size {width}x{height} is out of range; give sides of {MIN_SIDE} to {MAX_SIDE} pixels")
    return width, height


def _draw_view(look: Appearance, growth: np.random.Generator, shot: np.random.Generator, width: int, height: int) -> View:
    side = min(width, height)
    zoom = np.exp(shot.normal(0, 0.13))
    radius = float(np.clip(growth.uniform(*look.radius) * zoom, 0.08, 0.55)) * side
    shift = shot.normal(0, 0.05, 2) * side
    centre = (width / 2 + float(shift[0]), height / 2 + float(shift[1]))
    return View(width, height, centre, radius, float(shot.uniform(0, 2 * np.pi)), bool(shot.random() < 0.5))


def _paint_features(canvas: Canvas, lesion: Lesion, look: Appearance, growth: np.random.Generator) -> None:
    """Draw the structures of the lesion, each from a stream of its own: how one is drawn never moves another."""
    for name, (share, weak, strong) in look.features.items():
        present, strength = growth.random() < share, growth.uniform(weak, strong)
        stream = growth.spawn(1)[0]
        if present:
            STRUCTURES[name](canvas, lesion, strength, stream)


def _draw_artefacts(shot: np.random.Generator) -> dict[str, int]:
    """The artefacts of one photograph and their severities."""
    drawn = {name: (shot.random() < share, int(shot.integers(1, 4))) for name, share in ARTEFACT_SHARES.items()}
    return {name: severity for name, (present, severity) in drawn.items() if present}


STRUCTURES: dict[str, Structure] = {
    name: getattr(module, name)
    for module in (pigment_structures, surface_structures)
    for name in sorted({name for look in DIAGNOSES.values() for name in look.features})
    if hasattr(module, name)
}
