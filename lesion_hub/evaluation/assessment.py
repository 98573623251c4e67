"""All that is said of one set of predictions: measures with intervals, calibration, operating points, results by group.

The result is plain JSON values: it is what ``metrics.json`` holds of a part of the data, and what reports and cards show.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from lesion_hub.config import OperatingPoint
from lesion_hub.evaluation import metrics, operating_points, traits
from lesion_hub.evaluation.calibration import apply_temperature
from lesion_hub.evaluation.intervals import RESAMPLES, bootstrap
from lesion_hub.evaluation.predictions import MALIGNANCY_SPACES, Predictions, check
from lesion_hub.taxonomy import LabelSpace

GROUP_MEASURES = ("balanced_accuracy", "accuracy", "malignancy.auroc")
LEAST_GROUPS = 30
LEAST_OF_EACH = 10
_CALIBRATION = ("ece", "nll")


def assess(
    probabilities: ArrayLike,
    labels: ArrayLike,
    groups: Sequence[Any] | NDArray[Any],
    space: LabelSpace,
    *,
    points: Mapping[str, OperatingPoint] | None = None,
    facts: pd.DataFrame | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Any]:
    """``metrics.compute`` of (N, C) ``probabilities`` and (N,) ``labels``, with all that it lacks.

    Adds ``groups_count``, ``intervals`` (dotted name: value, low, high, defined), ``operating_points`` (each judged here; they
    were chosen elsewhere) and, given ``facts`` of the images, ``by_group``: trait, bin, results.

    >>> from lesion_hub.taxonomy import label_space
    >>> chances = [[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.1, 0.9]]
    >>> found = assess(chances, [0, 1, 1, 1], list("abcd"), label_space("binary"), resamples=50)
    >>> found["accuracy"], sorted(found["intervals"]["accuracy"])
    (0.75, ['defined', 'high', 'low', 'value'])
    """
    predictions = check(probabilities, labels, space)
    result = metrics.compute(predictions.probabilities, predictions.labels, space)
    result["groups_count"] = len(set(groups))
    intervals = bootstrap(predictions.probabilities, predictions.labels, groups, space, resamples, seed)
    result["intervals"] = {name: interval.to_dict() for name, interval in intervals.items()}
    result["operating_points"] = judged_points(predictions, groups, points or {}, resamples, seed)
    if facts is not None:
        result["by_group"] = by_group(predictions, groups, facts, resamples, seed)
    return result


def calibration_effect(
    probabilities: NDArray[np.float64],
    labels: NDArray[np.int64],
    groups: Sequence[Any],
    space: LabelSpace,
    temperature: float,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Any]:
    """ECE and NLL with intervals before and after a temperature that the (N, C) ``probabilities`` already hold.

    Taking it out again is exact: the logarithm of a softmax is its logits but for a constant.
    """
    before = apply_temperature(probabilities, 1 / temperature)
    found: dict[str, Any] = {"temperature": temperature}
    for name, values in (("before", before), ("after", probabilities)):
        intervals = bootstrap(values, labels, groups, space, resamples, seed, metrics=_CALIBRATION)
        found |= {f"{measure}_{name}": intervals[measure].to_dict() for measure in _CALIBRATION}
    return found


def judged_points(
    predictions: Predictions,
    groups: Sequence[Any] | NDArray[Any],
    points: Mapping[str, OperatingPoint],
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Any]:
    """What each stored threshold does on these predictions; empty where their labels say nothing of malignancy."""
    question = predictions.malignancy()
    if question is None or not points or not len(question.truth):
        return {}
    kept = [group for group, keep in zip(groups, question.kept, strict=True) if keep]
    judged = operating_points.evaluate(points, question.scores, question.truth, kept, resamples=resamples, seed=seed)
    return {
        name: {**found, "metric": points[name].metric, "target": points[name].target, "chosen_on": points[name].chosen_on}
        for name, found in judged.items()
    }


def points_that_fit(points: Mapping[str, OperatingPoint], model: LabelSpace, used: LabelSpace) -> dict[str, OperatingPoint]:
    """The thresholds that still mean the same in the space ``used``: none where it counts actinic keratosis otherwise."""
    conventions = [next((name for name in MALIGNANCY_SPACES if space.maps_to(name)), None) for space in (model, used)]
    return dict(points) if conventions[0] == conventions[1] else {}


def by_group(
    predictions: Predictions,
    groups: Sequence[Any] | NDArray[Any],
    facts: pd.DataFrame,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, dict[str, Any]]:
    """Results for each bin of each trait, with a ``warning`` where a bin is too small to tell."""
    names = np.asarray(groups)
    return {
        trait: {name: _bin(predictions, names, rows, resamples, seed) for name, rows in found.items()}
        for trait, found in traits.bins(facts).items()
    }


def _bin(predictions: Predictions, groups: NDArray[Any], rows: NDArray[np.int64], resamples: int, seed: int) -> dict[str, Any]:
    part = Predictions(predictions.probabilities[rows], predictions.labels[rows], predictions.space)
    known = set(metrics.names(part.space))
    wanted = [name for name in GROUP_MEASURES if name in known]
    intervals = bootstrap(part.probabilities, part.labels, groups[rows], part.space, resamples, seed, metrics=wanted)
    return {
        "images": len(part),
        "groups": len(set(groups[rows].tolist())),
        **_malignant_counts(part),
        "intervals": {name: interval.to_dict() for name, interval in intervals.items()},
        "warning": _too_small(part, groups[rows]),
    }


def _malignant_counts(part: Predictions) -> dict[str, int]:
    question = part.malignancy()
    if question is None:
        return {}
    return {"malignant": int(question.truth.sum()), "benign": int((~question.truth).sum())}


def _too_small(part: Predictions, groups: NDArray[Any]) -> str | None:
    lesions = len(set(groups.tolist()))
    if lesions < LEAST_GROUPS:
        return f"{lesions} lesion{'s' * (lesions != 1)} or patient{'s' * (lesions != 1)}, too few to tell"
    for kind, count in _malignant_counts(part).items():
        if count < LEAST_OF_EACH:
            return f"{count} {kind} image{'s' * (count != 1)}, too few to tell"
    return None
