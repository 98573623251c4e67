"""Measured elsewhere: what a model does on a data set that it was neither trained nor chosen on, beside what it does at home.

Home is the test part of the model's own data. Another set seldom has all of its labels, so the figures at home are measured
anew on the images of the labels that the other set has; for that the predictions of the test part must be at hand, as a
training run and ``evaluate --record`` leave them in the model's folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from lesion_hub.config import AnswerRules, OperatingPoint
from lesion_hub.data.sources import ReadResult
from lesion_hub.errors import ConfigError
from lesion_hub.evaluation.assessment import assess, points_that_fit
from lesion_hub.evaluation.rules import answers_by, judge_rules
from lesion_hub.evaluation.scoring import Scored, in_space, read_scored
from lesion_hub.files import read_json
from lesion_hub.hub.layout import METRICS_NAME
from lesion_hub.hub.licences import citations
from lesion_hub.hub.measures import CARD_HEADLINES
from lesion_hub.taxonomy import ABSTAIN, LabelSpace

EXTERNAL = "external"
"""The section of metrics.json that holds, by name, the sets that were measured elsewhere."""

HOME_PART = "test"
HOME_PREDICTIONS = f"predictions_{HOME_PART}.parquet"


@dataclass(frozen=True)
class ExternalSet:
    """What the card says of another data set: its name, where it comes from, its licence, and what else must be known."""

    name: str
    licence: str
    origin: str
    note: str | None = None

    @classmethod
    def of(cls, name: str, data: ReadResult, licence: str | None, origin: str | None, note: str | None) -> ExternalSet:
        """Fill in the citation of a set that we know; a licence that is not stated is one line."""
        if licence is None:
            raise ConfigError(
                f"{name}: a set measured elsewhere is recorded with its licence; add --data-licence cc0-1.0 (say)"
            )
        known = citations([name]) or citations([data.report.source])
        if origin is None and not known:
            raise ConfigError(f"{name}: say where it comes from with --origin, in a few words")
        return cls(name, licence, origin or " ".join(known), note)


def describe_external(
    about: ExternalSet,
    scored: Scored,
    truth: LabelSpace,
    model: LabelSpace,
    folder: Path,
    points: Mapping[str, OperatingPoint],
    rules: AnswerRules | None,
    sampling: Mapping[str, Any],
) -> dict[str, Any]:
    """Describe a set measured elsewhere: origin, licence, which labels were compared, and the figures at home.

    ``scored`` are its images in the labels compared; ``truth`` are the labels that the set has, ``model`` the model's, whose
    ``folder`` keeps the figures at home.
    """
    present = sorted(set(scored.labels.tolist()))
    return {
        "origin": about.origin,
        "licence": about.licence,
        "note": about.note,
        "label_map": label_map(truth, model, scored.space, present),
        "home": home_figures(folder, scored.space, present, model, points, rules, sampling),
    }


def label_map(truth: LabelSpace, model: LabelSpace, compared: LabelSpace, present: list[int]) -> dict[str, Any]:
    """Say what was compared: each label of the set and of the model under the one it counted as, and where these are wider.

    >>> from lesion_hub.taxonomy import label_space
    >>> found = label_map(label_space("isic2017"), label_space("ham7"), label_space("ham7"), [0, 1, 4])
    >>> found["map"]["bkl"], found["absent"]
    ({'data': ['sk'], 'model': ['bkl']}, ['bcc', 'akiec', 'df', 'vasc'])
    >>> found["coarse"]
    ['sk (Seborrheic keratosis) counts as bkl (Benign keratosis-like lesion), which holds more']
    """
    sides = {}
    for side, space in (("data", truth), ("model", model)):
        places = space.map_to(compared).indices
        sides[side] = {
            label: [row for row, to in zip(space.rows, places, strict=True) if to == i]
            for i, label in enumerate(compared.labels)
        }
    coarse = [
        f"{row.code} ({row.name}) counts as {target.code} ({target.name}), which holds more"
        for target in compared.rows
        for row in (*sides["data"][target.code], *sides["model"][target.code])
        if row.entities < target.entities
    ]
    left_out = [row.code for row, to in zip(truth.rows, truth.map_to(compared).indices, strict=True) if to == ABSTAIN]
    return {
        "data": truth.name,
        "model": model.name,
        "compared": compared.name,
        "map": {
            label: {side: [row.code for row in rows[label]] for side, rows in sides.items()}
            for i, label in enumerate(compared.labels)
            if i in present
        },
        "absent": [label for i, label in enumerate(compared.labels) if i not in present],
        "left_out": left_out,
        "coarse": list(dict.fromkeys(coarse)),
    }


def home_figures(
    folder: Path,
    space: LabelSpace,
    present: list[int],
    model: LabelSpace,
    points: Mapping[str, OperatingPoint],
    rules: AnswerRules | None,
    sampling: Mapping[str, Any],
) -> dict[str, Any] | None:
    """Measure the home test part on its images of the labels ``present``; without its predictions, take what is on record.

    ``same_labels`` says which of the two it is; None where there are no figures at home.
    """
    kept = folder / HOME_PREDICTIONS
    if not kept.is_file():
        recorded = read_json(folder / METRICS_NAME, missing_ok=True).get(HOME_PART) or {}
        if "intervals" not in recorded:
            return None
        figures = {name: recorded["intervals"][name] for name in CARD_HEADLINES if name in recorded["intervals"]}
        return {"same_labels": False, "images": recorded["examples"], "intervals": figures}
    native = read_scored(kept, model)
    scored = native if native.space == space else in_space(native, space)
    rows = np.flatnonzero(np.isin(scored.labels, present))
    chosen = scored.select(rows)
    fitting = points_that_fit(points, model, space)
    found = assess(chosen.probabilities, chosen.labels, chosen.groups, space, points=fitting, **sampling)
    answers = answers_by(native.probabilities[rows], model, fitting, rules, chosen)
    wanted = [*CARD_HEADLINES, *(f"per_class.{space.labels[i]}.sensitivity" for i in present)]
    return {
        "same_labels": True,
        "images": len(rows),
        "groups": found["groups_count"],
        "intervals": {name: found["intervals"][name] for name in wanted if name in found["intervals"]},
        "operating_points": {
            name: {rate: point[rate] for rate in ("sensitivity", "specificity")}
            for name, point in found["operating_points"].items()
        },
        **judge_rules(answers, chosen, model, rules, **sampling),
    }
