"""Write a sample set to a folder: in parallel, file by file, so that an interrupted run can simply be repeated.

From top to bottom: writing a set, drawing and encoding a planned image, where files lie in each layout, and the tables and
the README beside the images. A new layout is one row of ``plan.SAMPLE_LAYOUTS``, of `_IMAGE_FOLDERS` and, where it has
tables, of `_TABLES`.
"""

from __future__ import annotations

import csv
import io
import json
import multiprocessing
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import starmap
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lesion_hub.data.artefacts import width_height
from lesion_hub.data.synthetic.diagnoses import ISIC_SITES
from lesion_hub.data.synthetic.drawing import MAX_SIDE, MIN_SIDE, draw_lesion
from lesion_hub.data.synthetic.plan import Clinic, PlannedImage, SamplePlan, SampleSpec, plan_sample_set
from lesion_hub.errors import DataError
from lesion_hub.progress import Progress

SPEC_FILE = "sample_set.json"

# Images that a drawing process is handed at a time.
_CHUNK = 16

_IMAGE_FOLDERS = {
    "ham10000": "HAM10000_images",
    "isic2019": "ISIC_2019_Training_Input",
    "splits": "{split}/{label}",
    "folders": "{label}",
}

CLINICAL_FOLDERS = {
    "infectious": "Enfeksiyonel",
    "eczema": "Ekzama",
    "acne": "Akne",
    "pigment": "Pigment",
    "benign_pigmented": "Benign",
    "malignant": "Malign",
}

ISIC_COLUMNS = ("MEL", "NV", "BCC", "AK", "BKL", "DF", "VASC", "SCC", "UNK")

# How a diagnosis was confirmed, as in HAM10000; where a label is not listed, by histology.
_CONFIRMED_BY = {
    "nv": {"follow_up": 0.55, "histo": 0.37, "consensus": 0.08},
    "bkl": {"histo": 0.70, "consensus": 0.24, "confocal": 0.06},
    "df": {"consensus": 0.52, "histo": 0.48},
    "vasc": {"consensus": 0.53, "histo": 0.47},
}


@dataclass(frozen=True)
class SampleSet:
    """A written set: its ``root``, the number of ``images`` and ``lesions``, images per label, and where masks and the
    record of planted flaws lie."""

    root: Path
    images: int
    lesions: int
    labels: dict[str, int]
    masks: Path
    planted: Path


def write_sample_set(
    out: str | os.PathLike[str], spec: SampleSpec, *, processes: int = 1, progress: Progress | None = None
) -> SampleSet:
    """Write the sample set of ``spec`` into the folder ``out`` and return what was written.

    ``progress`` is called with (images done, images in all). Files do not depend on ``processes``; more than one needs a
    caller that can be imported (a script behind ``if __name__ == "__main__"``). Run again after an interruption, it draws
    only what is missing; a folder that holds anything else is refused.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_sample_set(folder, SampleSpec(space="binary", count=4, size=32)).images
    4
    """
    if processes < 1:
        raise DataError(f"processes {processes} is too small; give 1 or more")
    root, plan = Path(out), plan_sample_set(spec)
    with _disk_errors(root):
        _claim(root, spec)
        paths = [(root / image_path(spec, image), root / mask_path(spec, image)) for image in plan.images]
        for folder in {path.parent for pair in paths for path in pair}:
            folder.mkdir(parents=True, exist_ok=True)
        for done, _ in enumerate(_written(root, spec, plan, processes), start=1):
            if progress:
                progress(done, len(plan.images))
        for name, text in _texts(spec, plan).items():
            _write(root / name, text.encode())
    return SampleSet(
        root=root,
        images=len(plan.images),
        lesions=len({image.lesion_id for image in plan.images}),
        labels=dict(Counter(image.label for image in plan.images)),
        masks=root / mask_folder(spec),
        planted=root / "planted.json",
    )


@contextmanager
def _disk_errors(root: Path) -> Iterator[None]:
    """Turn the errors of the disk and of the drawing processes into one line."""
    try:
        yield
    except OSError as error:
        place, why = error.filename or root, error.strerror or type(error).__name__
        raise DataError(f"{place}: cannot be written ({why}); make room or choose another folder, then run again") from error
    except BrokenProcessPool as error:
        raise DataError(f"{root}: a drawing process was killed; run again with fewer processes, nothing is lost") from error


def _claim(root: Path, spec: SampleSpec) -> None:
    """Mark the folder as this set's; refuse one that holds another set or other files."""
    root.mkdir(parents=True, exist_ok=True)
    marker, wanted = root / SPEC_FILE, json.dumps(spec.as_json(), indent=1) + "\n"
    if marker.exists():
        if marker.read_text(encoding="utf-8", errors="replace") != wanted:
            raise DataError(f"{root}: holds a sample set of another spec; choose another folder or delete it")
        return
    others = sorted(entry.name for entry in root.iterdir() if entry.name != f"{SPEC_FILE}.part")
    if others:
        raise DataError(f"{root}: is not empty (it holds {others[0]!r}); choose a new or empty folder")
    _write(marker, wanted.encode())


def _written(root: Path, spec: SampleSpec, plan: SamplePlan, processes: int) -> Iterator[None]:
    """Write the images, in this process or in several, and yield once per image."""
    tasks = [(root, spec, image, plan.clinics.get(image.clinic or "")) for image in plan.images]
    if processes == 1:
        yield from starmap(_write_image, tasks)
        return
    # Spawned, not forked: a caller with threads (torch, a web server) must not hand its locks down.
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield from pool.map(_write_image, *zip(*tasks, strict=True), chunksize=_CHUNK)


def _write_image(root: Path, spec: SampleSpec, image: PlannedImage, clinic: Clinic | None) -> None:
    picture_file, mask_file = root / image_path(spec, image), root / mask_path(spec, image)
    if picture_file.exists() and mask_file.exists():
        return
    picture, mask = encode_planned(spec, image, clinic)
    _write(mask_file, mask)
    _write(picture_file, picture)


def _write(path: Path, content: bytes) -> None:
    """Write aside and rename, so that a file that is there is whole.

    Unlike `lesion_hub.files.replacing` it does not wait for the disk: that would cost thousands of small files a third of
    their time, and what a power cut takes can be drawn again.
    """
    aside = path.with_name(f"{path.name}.part")
    aside.write_bytes(content)
    aside.replace(path)


# ------------------------------------------------------------------------------------------------------ pixels and files


def draw_planned(
    spec: SampleSpec, image: PlannedImage, clinic: Clinic | None = None
) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Return the pixels of a planned image before compression: uint8 (H, W, 3), and its lesion mask, bool (H, W).

    >>> from lesion_hub.data.synthetic import plan_sample_set
    >>> spec = SampleSpec(count=1, size=48)
    >>> draw_planned(spec, plan_sample_set(spec).images[0])[0].shape
    (48, 48, 3)
    """
    picture, mask = _pictures(spec, image, clinic)
    return np.asarray(picture), np.asarray(mask) > 0


def encode_planned(spec: SampleSpec, image: PlannedImage, clinic: Clinic | None = None) -> tuple[bytes, bytes]:
    """Return the bytes of an image's JPEG file and of its mask's PNG file."""
    picture, mask = _pictures(spec, image, clinic)
    quality = max(40, image.quality - 30) if image.copy_kind == "recompressed" else image.quality
    return _encoded(picture, "JPEG", quality=quality), _encoded(mask, "PNG")


def _pictures(spec: SampleSpec, image: PlannedImage, clinic: Clinic | None) -> tuple[Image.Image, Image.Image]:
    """Draw the picture and the mask of a planned image, with its clinic's size and border, altered if it is a copy."""
    width, height = width_height(spec.size)
    if clinic and clinic.scale:
        width, height = (
            int(np.clip(round(side * scale), MIN_SIDE, MAX_SIDE))
            for side, scale in zip((width, height), clinic.scale, strict=True)
        )
    drawn = draw_lesion(image.diagnosis, image.lesion_seed, (width, height), view=image.view, artefacts=spec.artefacts)
    pixels = drawn.image
    if clinic and clinic.border:
        edge = max(2, round(0.03 * min(width, height)))
        pixels = np.empty_like(drawn.image)
        pixels[:] = clinic.border
        pixels[edge:-edge, edge:-edge] = drawn.image[edge:-edge, edge:-edge]
    picture, mask = Image.fromarray(pixels), Image.fromarray(drawn.mask.astype(np.uint8) * 255)
    if image.copy_kind in (None, "exact", "view"):
        return picture, mask

    # A near-duplicate is made of an image that had been saved before: what people do to pictures they pass on.
    with Image.open(io.BytesIO(_encoded(picture, "JPEG", quality=image.quality))) as saved:
        picture = saved.convert("RGB")
    if image.copy_kind == "recompressed":
        return picture, mask
    if image.copy_kind in ("flipped", "rotated"):
        flipped = image.copy_kind == "flipped"
        turn = Image.Transpose.FLIP_LEFT_RIGHT if flipped else Image.Transpose.ROTATE_90
        return picture.transpose(turn), mask.transpose(turn)
    margin = 0.05 if image.copy_kind == "cropped" else 0.0
    box = (width * margin, height * margin, width * (1 - margin), height * (1 - margin))
    scale = 0.75 if image.copy_kind == "resized" else 1.0
    size = (round(width * scale), round(height * scale))
    return picture.resize(size, Image.Resampling.BICUBIC, box), mask.resize(size, Image.Resampling.NEAREST, box)


def _encoded(picture: Image.Image, kind: str, **options: int) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


# --------------------------------------------------------------------------------------------------------------- layouts


def image_path(spec: SampleSpec, image: PlannedImage) -> str:
    """Return where an image's file lies below the root of the set.

    >>> from lesion_hub.data.synthetic import plan_sample_set
    >>> spec = SampleSpec(count=1)
    >>> image_path(spec, plan_sample_set(spec).images[0]).startswith("HAM10000_images/ISIC_")
    True
    """
    label = CLINICAL_FOLDERS[image.label] if spec.space == "clinical6" else image.label
    folder = _IMAGE_FOLDERS[spec.layout_used].format(split=image.split, label=label)
    return f"{folder}/{image.image_id}.jpg"


def mask_folder(spec: SampleSpec) -> str:
    """Return the folder of the masks below the root of the set.

    Where folders are classes it is a hidden one: to any reader of such trees a plain folder of masks would be a class.
    """
    return ".masks" if "{label}" in _IMAGE_FOLDERS[spec.layout_used] else "masks"


def mask_path(spec: SampleSpec, image: PlannedImage) -> str:
    """Return where the mask of an image lies; its name is that of the ISIC archive's segmentations."""
    return f"{mask_folder(spec)}/{image.image_id}_segmentation.png"


# ------------------------------------------------------------------------------------------------------ tables and README


def _csv(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()


def _ham_metadata(images: Sequence[PlannedImage]) -> str:
    rows = []
    for image in images:
        patient, means = image.patient, _CONFIRMED_BY.get(image.label, {"histo": 1.0})
        rng = np.random.default_rng((image.lesion_seed, 5))
        confirmed = str(rng.choice(list(means), p=list(means.values())))
        age = "" if patient.age is None else f"{patient.age:.1f}"
        sex, site = patient.sex or "unknown", patient.localization or "unknown"
        rows.append((image.lesion_id, image.image_id, image.label, confirmed, age, sex, site))
    return _csv(("lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization"), rows)


def _isic_truth(images: Sequence[PlannedImage]) -> str:
    rows = ((image.image_id, *(float(image.label.upper() == column) for column in ISIC_COLUMNS)) for image in images)
    return _csv(("image", *ISIC_COLUMNS), rows)


def _isic_metadata(images: Sequence[PlannedImage]) -> str:
    rows = []
    for image in images:
        patient = image.patient
        site = ISIC_SITES[patient.localization] if patient.localization else ""
        age = "" if patient.age is None else str(patient.age)
        rows.append((image.image_id, age, site, image.lesion_id, patient.sex or ""))
    return _csv(("image", "age_approx", "anatom_site_general", "lesion_id", "sex"), rows)


# The tables of a layout: file name -> what makes it.
_TABLES: dict[str, dict[str, Callable[[Sequence[PlannedImage]], str]]] = {
    "ham10000": {"HAM10000_metadata.csv": _ham_metadata},
    "isic2019": {
        "ISIC_2019_Training_GroundTruth.csv": _isic_truth,
        "ISIC_2019_Training_Metadata.csv": _isic_metadata,
    },
}


def _texts(spec: SampleSpec, plan: SamplePlan) -> dict[str, str]:
    """Return the text files of a set: file name -> content."""
    images = sorted(plan.images, key=lambda image: image.image_id)
    # A line holds what a picture shows, known from drawing it, which no clinic would know.
    lines = (
        {
            "image_id": image.image_id,
            "file": image_path(spec, image),
            "mask": mask_path(spec, image),
            "lesion_id": image.lesion_id,
            "view": image.view,
            "label": image.label,
            "diagnosis_drawn": image.diagnosis,
            "fitzpatrick": image.fitzpatrick,
            **vars(image.patient),
        }
        for image in images
    )
    return {
        "lesions.jsonl": "".join(json.dumps(line) + "\n" for line in lines),
        "planted.json": json.dumps(plan.planted, indent=1) + "\n",
        "README.txt": _readme(spec, plan),
        **{name: table(images) for name, table in _TABLES.get(spec.layout_used, {}).items()},
    }


def _readme(spec: SampleSpec, plan: SamplePlan) -> str:
    """Return the README of a set: above all, that nothing in it is real."""
    width, height = width_height(spec.size)
    flaws = ", ".join(f"{len(plan.planted[kind])} {kind.replace('_', ' ')}" for kind in ("duplicates", "leaks", "label_noise"))
    return f"""SYNTHETIC IMAGES - NOT PATIENTS

Every picture in this folder was drawn by a program (lesion_hub.data.synthetic). No person, lesion, patient or clinic is
real, and neither are ages, sexes and sites. The set serves demonstrations and tests. It must not be used for medical
decisions, and what a model scores on it says nothing about real skin.

label space   {spec.space}: {", ".join(spec.labels)}
images        {len(plan.images)} of {width}x{height} pixels, seed {spec.seed}, layout {spec.layout_used}
masks         {mask_folder(spec)}/<image id>_segmentation.png: white where the lesion is
lesions.jsonl what each picture shows: lesion, view, diagnosis drawn, skin type, patient
planted.json  flaws put in on purpose: {flaws}, confound {list(spec.confound) or "none"}
sample_set.json  the spec this set was made from: the same spec makes the same files

The identifiers look like those of public archives so that the same readers take them; they refer to nothing there.
"""
