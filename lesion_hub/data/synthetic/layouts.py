"""Where the files of a sample set lie and what its tables hold, for each layout that is written."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from lesion_hub.data.synthetic.patients import ISIC_SITES
from lesion_hub.data.synthetic.plan import PlannedImage
from lesion_hub.data.synthetic.plant import SamplePlan
from lesion_hub.data.synthetic.spec import SampleSpec

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


def image_path(spec: SampleSpec, image: PlannedImage) -> str:
    """Where an image's file lies below the root of the set.

    >>> from lesion_hub.data.synthetic import plan_sample_set
    >>> spec = SampleSpec(count=1)
    >>> image_path(spec, plan_sample_set(spec).images[0]).startswith("HAM10000_images/ISIC_")
    True
    """
    folder = {
        "ham10000": "HAM10000_images",
        "isic2019": "ISIC_2019_Training_Input",
        "splits": f"{image.split}/{_class_folder(spec, image.label)}",
        "folders": _class_folder(spec, image.label),
    }[spec.layout_used]
    return f"{folder}/{image.image_id}.jpg"


def mask_folder(spec: SampleSpec) -> str:
    """The folder of the masks below the root of the set.

    Where folders are classes it is a hidden one: to any reader of such trees a plain folder of masks would be a class.
    """
    return ".masks" if spec.layout_used in ("splits", "folders") else "masks"


def mask_path(spec: SampleSpec, image: PlannedImage) -> str:
    """Where the mask of an image lies; its name is that of the ISIC archive's segmentations."""
    return f"{mask_folder(spec)}/{image.image_id}_segmentation.png"


def _class_folder(spec: SampleSpec, label: str) -> str:
    return CLINICAL_FOLDERS[label] if spec.space == "clinical6" else label


def tables(spec: SampleSpec, plan: SamplePlan) -> dict[str, str]:
    """The text files of a set: file name -> content."""
    images = sorted(plan.images, key=lambda image: image.image_id)
    files = {
        "lesions.jsonl": "".join(json.dumps(_facts(spec, image)) + "\n" for image in images),
        "planted.json": json.dumps(plan.planted, indent=1) + "\n",
        "README.txt": readme(spec, plan),
    }
    if spec.layout_used == "ham10000":
        files["HAM10000_metadata.csv"] = _ham_table(images)
    if spec.layout_used == "isic2019":
        files["ISIC_2019_Training_GroundTruth.csv"] = _isic_truth(images)
        files["ISIC_2019_Training_Metadata.csv"] = _isic_metadata(images)
    return files


def _facts(spec: SampleSpec, image: PlannedImage) -> dict[str, Any]:
    """What the drawing hand knows of an image, which no clinic would: one line of ``lesions.jsonl``."""
    return {
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


def _csv(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    return text.getvalue()


def _ham_table(images: Sequence[PlannedImage]) -> str:
    header = ("lesion_id", "image_id", "dx", "dx_type", "age", "sex", "localization")
    return _csv(header, (_ham_row(image) for image in images))


def _ham_row(image: PlannedImage) -> tuple[str, ...]:
    patient = image.patient
    age = "" if patient.age is None else f"{patient.age:.1f}"
    means = _CONFIRMED_BY.get(image.label, {"histo": 1.0})
    confirmed = str(np.random.default_rng((image.lesion_seed, 5)).choice(list(means), p=list(means.values())))
    sex, site = patient.sex or "unknown", patient.localization or "unknown"
    return image.lesion_id, image.image_id, image.label, confirmed, age, sex, site


def _isic_truth(images: Sequence[PlannedImage]) -> str:
    rows = ((image.image_id, *(float(image.label.upper() == column) for column in ISIC_COLUMNS)) for image in images)
    return _csv(("image", *ISIC_COLUMNS), rows)


def _isic_metadata(images: Sequence[PlannedImage]) -> str:
    def row(image: PlannedImage) -> tuple[str, ...]:
        patient = image.patient
        site = ISIC_SITES[patient.localization] if patient.localization else ""
        age = "" if patient.age is None else str(patient.age)
        return image.image_id, age, site, image.lesion_id, patient.sex or ""

    return _csv(("image", "age_approx", "anatom_site_general", "lesion_id", "sex"), map(row, images))


def readme(spec: SampleSpec, plan: SamplePlan) -> str:
    """The README of a set: above all, that nothing in it is real."""
    width, height = spec.as_json()["size"]
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
