"""Finding images to check maps on, with the lesion's mask where the set has one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lesion_hub.data.images import load_rgb
from lesion_hub.errors import DataError
from lesion_hub.inference.faithfulness.check import Specimen
from lesion_hub.inference.rows import MASK_ENDING, rows_of

MASK_FOLDERS = ("masks", ".masks")


def specimens_of(root: str | Path, count: int, seed: int = 0) -> list[Specimen]:
    """``count`` images of a folder, drawn at random; masks are ``masks/<image id>_segmentation.png``, as the ISIC archive
    and our synthetic sets name them, white where the lesion is."""
    folder = Path(root).expanduser()
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; name one with images")
    paths = [folder / row.image_id for row in rows_of(folder)]
    drawn = np.random.default_rng(seed).permutation(len(paths))[:count]
    masks = {path.stem: path for name in MASK_FOLDERS for path in (folder / name).glob(f"*{MASK_ENDING}.png")}
    return [_specimen(paths[i], masks.get(paths[i].stem + MASK_ENDING)) for i in sorted(drawn)]


def _specimen(path: Path, mask: Path | None) -> Specimen:
    if mask is None:
        return Specimen(path)
    return Specimen(path, _read_mask(mask, path))


def _read_mask(mask: Path, image: Path) -> NDArray[np.bool_]:
    found, shown = load_rgb(mask), load_rgb(image)
    if found.size != shown.size:
        found = found.resize(shown.size, Image.Resampling.NEAREST)
    return np.asarray(found)[..., 0] > 127
