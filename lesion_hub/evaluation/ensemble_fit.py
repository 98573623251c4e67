"""Fit an ensemble's weights, temperature and operating points, on images that no member was trained on or is measured with.

Those are the images that are validation for every member whose split holds them. New images that no member has seen will do
as well. Training images would favour the member that learned them by heart, test images would be measured on afterwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import or_
from pathlib import Path

import numpy as np
import pandas as pd

from lesion_hub.config import AnswerRules, OperatingPoint
from lesion_hub.data import undecoded
from lesion_hub.data.sources import ReadResult
from lesion_hub.data.splits.manifest import group_digest, image_digest
from lesion_hub.errors import DataError
from lesion_hub.evaluation.operating_points import choose_for
from lesion_hub.evaluation.overlap import (
    NO_IMAGES,
    ChosenImages,
    TrainingRecord,
    choose_rows,
    completed_from_manifest,
    data_name,
    fitted_on,
    training_record,
)
from lesion_hub.evaluation.predictions import check_predictions
from lesion_hub.evaluation.rules import fit_rules
from lesion_hub.evaluation.scoring import Scored
from lesion_hub.inference.ensemble import Fit, PinnedModel, fit_ensemble, load_members
from lesion_hub.inference.members import Combine
from lesion_hub.inference.rows import RowSource
from lesion_hub.progress import Progress
from lesion_hub.taxonomy import ABSTAIN, LabelSpace, finest_common

VALIDATION = "val"


@dataclass(frozen=True)
class ValidationFit:
    """A fit, the operating points and rules chosen on the same images, and how those were chosen.

    ``unrecorded`` names the members that do not say what they were made with, so that nobody can tell whether it was these.
    """

    fit: Fit
    points: dict[str, OperatingPoint]
    rules: AnswerRules
    selection: str
    unrecorded: tuple[str, ...]


def fit_on_validation(
    pinned: Sequence[PinnedModel],
    data: ReadResult,
    *,
    space: LabelSpace | None = None,
    combine: Combine = "probabilities",
    split: str = VALIDATION,
    manifest: str | Path | None = None,
    progress: Progress | None = None,
) -> ValidationFit:
    """Fit how ``pinned`` models are combined, on the images of ``data`` that ``choose_fitting_images`` allows.

    ``space`` is the label space of the ensemble, by default the finest that its members share. ``split`` and ``manifest`` are
    those of ``choose_fitting_images``.
    """
    common = space or finest_common([model.config.space for model in pinned])
    records = [training_record(model.found.name, model.found.folder) for model in pinned]
    records = completed_from_manifest(records, manifest)
    chosen = choose_fitting_images(data, records, split=split, manifest=manifest)
    mapping = data.space.map_to(common)
    labels = mapping.labels(np.asarray(data.dataset.with_format("numpy")["label"][:], dtype=np.int64))
    dataset = data.dataset.select(chosen.rows[labels[chosen.rows] != ABSTAIN])
    words = tuple("" if place == ABSTAIN else common.labels[place] for place in mapping.indices)
    rows = RowSource(data.report.place, len(dataset), undecoded(dataset), words)
    fit = fit_ensemble(load_members(pinned), rows, space=common, combine=combine, progress=progress)
    facts = pd.DataFrame({"group": dataset["group"][:], "disagreement": fit.disagreement, "scope_score": fit.scope})
    return ValidationFit(
        fit=replace(fit, fitted_on=fitted_on(data_name(data), dataset["image_id"][:], dataset["group"][:])),
        points=choose_for(check_predictions(fit.probabilities, fit.labels, common)),
        rules=fit_rules(Scored(fit.probabilities, fit.labels, common, facts)),
        selection=chosen.how,
        unrecorded=tuple(record.model for record in records if "train" not in record.parts),
    )


def choose_fitting_images(
    data: ReadResult, records: Sequence[TrainingRecord], *, split: str = VALIDATION, manifest: str | Path | None = None
) -> ChosenImages:
    """Choose the images to fit on; `DataError` where one was trained or tested on by any of the models in ``records``.

    By default they are the images that are validation for a model and for no other anything else. Where there are none, or
    another part or ``manifest`` is named, they are chosen as for an evaluation, and no model may have seen any of them.
    """
    images = [image_digest(image_id) for image_id in data.dataset["image_id"][:]]
    groups = [group_digest(group) for group in data.dataset["group"][:]]
    seen_by: dict[int, str] = {}
    validation: set[int] = set()
    for record in records:
        others = [part for name, part in record.parts.items() if name != VALIDATION]
        other = reduce(or_, others, NO_IMAGES)
        own = record.parts.get(VALIDATION, NO_IMAGES)
        for row, (image, group) in enumerate(zip(images, groups, strict=True)):
            if image in other.images or group in other.groups:
                seen_by.setdefault(row, record.model)
            elif image in own.images:
                validation.add(row)
    allowed = sorted(validation - set(seen_by))
    if allowed and split == VALIDATION and manifest is None:
        return ChosenImages(np.array(allowed), "the validation part of the members' splits", own=True)
    chosen = choose_rows(data, split, (), manifest)
    seen = [row for row in chosen.rows.tolist() if row in seen_by]
    if seen:
        first = data.dataset["image_id"][seen[0]]
        raise DataError(
            f"{len(seen):,} of {len(chosen.rows):,} images were trained or tested on by a member (first: {first}, by "
            f"{seen_by[seen[0]]}), and an ensemble is fitted on others; give data that hold the validation part of every "
            "member, or new images as a data set of their own (--fit NEW --split all)"
        )
    return chosen
