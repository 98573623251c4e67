"""Pictures to try the page with: a folder's, or drawn here. None of them shows a patient."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from PIL import Image

from lesion_hub.app import pictures
from lesion_hub.data.images import is_image_name, load_rgb
from lesion_hub.data.synthetic import draw_lesion
from lesion_hub.taxonomy import DIAGNOSES

SIDE = 448
_DRAWN = (("mel", 3), ("nv", 5), ("bcc", 2), ("bkl", 4), ("ak", 1), ("vasc", 6))
_MOST = 12


@dataclass(frozen=True)
class Example:
    """A picture as a JPEG, and what to call it."""

    title: str
    content: bytes = field(repr=False)


def examples(folder: Path | None = None) -> list[Example]:
    """The images of ``folder`` by name, or six drawn ones where there is none."""
    if folder is None:
        return [_drawn(code, seed) for code, seed in _DRAWN]
    found = sorted(path for path in folder.iterdir() if is_image_name(path.name))[:_MOST]
    return [Example(path.stem.replace("_", " "), pictures.jpeg(load_rgb(path), SIDE)) for path in found]


def _drawn(code: str, seed: int) -> Example:
    lesion = draw_lesion(code, seed=seed, size=(SIDE, SIDE * 3 // 4), artefacts=False)
    return Example(f"drawn as {DIAGNOSES[code].name.lower()}", pictures.jpeg(Image.fromarray(lesion.image), SIDE))
