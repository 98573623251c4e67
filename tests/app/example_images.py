"""The example pictures of the Space, drawn anew: ``python -m tests.app.example_images`` writes them."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from lesion_hub.data.synthetic import draw_lesion
from tests.data.pictures import jpeg

FOLDER = Path(__file__).parents[2] / "spaces" / "lesion-ensemble" / "examples"
SIZE = (450, 338)
EXAMPLES = {
    "drawn_as_actinic_keratosis.jpg": ("ak", 512),
    "drawn_as_basal_cell_carcinoma.jpg": ("bcc", 214),
    "drawn_as_benign_keratosis.jpg": ("bkl", 312),
    "drawn_as_melanocytic_nevus.jpg": ("nv", 113),
    "drawn_as_melanoma.jpg": ("mel", 13),
    "drawn_as_vascular_lesion.jpg": ("vasc", 411),
}
"""File name to the diagnosis and seed of `draw_lesion`."""


def drawn(name: str) -> bytes:
    """The JPEG that is to stand in the file."""
    diagnosis, seed = EXAMPLES[name]
    return jpeg(Image.fromarray(draw_lesion(diagnosis, seed=seed, size=SIZE).image))


if __name__ == "__main__":
    for name in EXAMPLES:
        (FOLDER / name).write_bytes(drawn(name))
