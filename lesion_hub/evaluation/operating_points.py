"""Malignancy thresholds: chosen on validation, judged on test, with their predictive values where malignancy is rarer.

A lesion is called suspicious when its malignant probability is at least the threshold. A chosen threshold lies half-way
between two neighbouring scores of the validation data, so that a rounding error in a later forward pass changes no call.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import norm

from lesion_hub.config import OperatingPoint
from lesion_hub.errors import DataError
from lesion_hub.evaluation.intervals import LEVEL, RESAMPLES, bootstrap_statistic, group_numbers
from lesion_hub.evaluation.predictions import SUM_TOLERANCE, Predictions
from lesion_hub.evaluation.weighting import AdditiveSums, Array, Counts

logger = logging.getLogger(__name__)

Metric = Literal["sensitivity", "specificity"]
TARGETS: tuple[tuple[Metric, float], ...] = (("sensitivity", 0.90), ("sensitivity", 0.95), ("specificity", 0.95))
PREVALENCES = (0.01, 0.05, 0.10, 0.20)
_CELLS = ("true_negative", "false_positive", "false_negative", "true_positive")
_UNDEFINED = {
    "sensitivity": "the data hold no malignant example",
    "specificity": "the data hold no benign example",
    "ppv": "no lesion is called suspicious",
    "npv": "every lesion is called suspicious",
}


class PredictiveValues(NamedTuple):
    """PPV and NPV, each in [0, 1], or None where no lesion would be called suspicious (ppv) or benign (npv)."""

    ppv: float | None
    npv: float | None


def point_name(metric: Metric, target: float) -> str:
    """Name the operating point of a target, as it is stored.

    >>> point_name("sensitivity", 0.9)
    'sensitivity_90'
    """
    return f"{metric}_{target * 100:g}"


def choose(
    scores: ArrayLike, malignant: ArrayLike, targets: Sequence[tuple[Metric, float]] = TARGETS, chosen_on: str = "validation"
) -> dict[str, OperatingPoint]:
    """Choose the threshold that reaches each target on the given data at least cost; return the points by name.

    ``scores`` are (N,) malignant probabilities in [0, 1], ``malignant`` (N,) the truth (bool). It is the highest
    threshold with the wanted sensitivity, or the lowest with the wanted specificity. Where ``why_none`` gives a reason, the
    result is empty and a warning is logged.

    >>> chosen = choose([0.1, 0.2, 0.6, 0.9], [False, False, True, True])
    >>> chosen["sensitivity_90"].threshold
    0.4
    """
    values, truth = checked_malignancy(scores, malignant)
    reason = why_none(truth)
    if reason:
        logger.warning("no operating points chosen: %s", reason)
        return {}
    chosen = {}
    for metric, target in targets:
        threshold = _threshold(values, truth, metric, target)
        if threshold is None:
            logger.warning("no operating point %s: benign lesions score 1.0", point_name(metric, target))
            continue
        point = OperatingPoint(threshold=threshold, metric=metric, target=target, chosen_on=chosen_on)
        chosen[point_name(metric, target)] = point
    return chosen


def choose_for(
    predictions: Predictions, targets: Sequence[tuple[Metric, float]] = TARGETS, chosen_on: str = "validation"
) -> dict[str, OperatingPoint]:
    """Choose thresholds as ``choose`` does; none where the labels say nothing of malignancy."""
    malignancy = predictions.malignancy()
    return {} if malignancy is None else choose(malignancy.scores, malignancy.truth, targets, chosen_on)


def why_none(malignant: ArrayLike) -> str | None:
    """Say why no threshold can be chosen or judged on this truth, or None where it can.

    >>> why_none([False, False])
    'the data hold no malignant example'
    """
    truth = np.asarray(malignant, dtype=bool)
    if not truth.any():
        return _UNDEFINED["sensitivity"]
    return _UNDEFINED["specificity"] if truth.all() else None


def judge_points(
    points: Mapping[str, OperatingPoint],
    scores: ArrayLike,
    malignant: ArrayLike,
    groups: Sequence[Any] | NDArray[Any],
    prevalences: Sequence[float] = PREVALENCES,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, dict[str, Any]]:
    """Measure what each point does on data it was not chosen on: (N,) ``scores``, bool truth and the groups to resample.

    By name: ``threshold``, ``counts``, ``sensitivity``, ``specificity``, ``ppv`` and ``npv`` (each a value with its 95 %
    interval), ``at_prevalence`` (PPV and NPV by Bayes' rule), and ``undefined``, which says why a value is None. JSON-able.

    >>> point = OperatingPoint(threshold=0.5, metric="sensitivity", target=0.9)
    >>> judged = judge_points({"sensitivity_90": point}, [0.2, 0.9], [False, True], ["a", "b"], resamples=20)
    >>> judged["sensitivity_90"]["counts"]["true_positive"]
    1
    """
    values, truth = checked_malignancy(scores, malignant)
    group = group_numbers(groups, len(values))
    return {name: _judge(point.threshold, values, truth, group, prevalences, resamples, seed) for name, point in points.items()}


def predictive_values(sensitivity: float, specificity: float, prevalence: float) -> PredictiveValues:
    """Compute PPV and NPV by Bayes' rule where a fraction ``prevalence`` of lesions is malignant.

    >>> [round(value, 3) for value in predictive_values(0.9, 0.8, 0.02)]
    [0.084, 0.997]
    """
    for name, value in (("sensitivity", sensitivity), ("specificity", specificity), ("prevalence", prevalence)):
        if not 0 <= value <= 1:
            raise DataError(f"{name} {value} is outside 0..1; give a fraction")
    hits, misses = sensitivity * prevalence, (1 - sensitivity) * prevalence
    alarms, cleared = (1 - specificity) * (1 - prevalence), specificity * (1 - prevalence)
    ppv = hits / (hits + alarms) if hits + alarms > 0 else None
    npv = cleared / (cleared + misses) if cleared + misses > 0 else None
    return PredictiveValues(ppv, npv)


def lesions_needed(rate: float, margin: float) -> int:
    """Return how many lesions it takes to know a ``rate`` to within ``margin`` either way: half of Wilson's 95 % interval.

    Of a sensitivity, malignant lesions count. Images of one lesion do not count twice: they are not independent.

    >>> lesions_needed(0.9, 0.05), lesions_needed(0.9, 0.1)
    (141, 37)
    """
    if not (0 <= rate <= 1 and 0 < margin < 0.5):
        raise DataError(f"rate {rate} must be in 0..1 and margin {margin} between 0 and 0.5; give fractions")
    square = float(norm.isf((1 - LEVEL) / 2)) ** 2
    # A rate of one half takes the most.
    numbers = np.arange(1, math.ceil(square / (4 * margin**2)) + 1)
    half = np.sqrt(square * (rate * (1 - rate) / numbers + square / (4 * numbers**2))) / (1 + square / numbers)
    return int(numbers[np.argmax(half <= margin)])


def checked_malignancy(scores: ArrayLike, malignant: ArrayLike) -> tuple[Array, NDArray[np.bool_]]:
    """Return (N,) float64 scores in [0, 1] and (N,) bool truth, or raise one line that says what is wrong with them."""
    values, truth = np.asarray(scores, dtype=np.float64), np.asarray(malignant)
    if values.ndim != 1 or values.shape != truth.shape:
        raise DataError(f"malignancy scores {values.shape} and truth {truth.shape} differ; give one of each per lesion")
    if truth.dtype != bool and not np.isin(truth, (0, 1)).all():
        raise DataError("malignancy truth must be true or false; leave out lesions whose label abstains")
    bad = ~((values >= 0) & (values <= 1 + SUM_TOLERANCE))
    if bad.any():
        row = int(bad.argmax())
        raise DataError(f"malignancy score {values[row]} in row {row} is outside 0..1; give probabilities, not logits")
    return np.minimum(values, 1.0), truth.astype(bool)


def _judge(
    threshold: float,
    scores: Array,
    truth: NDArray[np.bool_],
    group: NDArray[np.int64],
    prevalences: Sequence[float],
    resamples: int,
    seed: int,
) -> dict[str, Any]:
    """Measure one threshold; ``judge_points`` says what is returned."""
    cell = 2 * truth.astype(np.int64) + (scores >= threshold)
    cells = AdditiveSums(np.ones(len(cell)), cell, group, (len(_CELLS), int(group.max()) + 1))

    def rates_of(counts: Counts) -> dict[str, Array]:
        """Return the (B,) rates by name, NaN where the denominator is zero."""
        clear, alarm, miss, hit = cells.weighted(counts)
        parts = {
            "sensitivity": (hit, hit + miss),
            "specificity": (clear, clear + alarm),
            "ppv": (hit, hit + alarm),
            "npv": (clear, clear + miss),
        }
        return {name: np.divide(a, b, out=np.full(b.shape, np.nan), where=b > 0) for name, (a, b) in parts.items()}

    rates = bootstrap_statistic(rates_of, group, resamples, seed)
    sensitivity, specificity = rates["sensitivity"].value, rates["specificity"].value
    worth = {}
    if sensitivity is not None and specificity is not None:
        worth = {f"{share:g}": predictive_values(sensitivity, specificity, share)._asdict() for share in prevalences}
    return {
        "threshold": threshold,
        "counts": dict(zip(_CELLS, np.bincount(cell, minlength=len(_CELLS)).tolist(), strict=True)),
        **{name: interval.to_dict() for name, interval in rates.items()},
        "at_prevalence": worth,
        "undefined": {name: _UNDEFINED[name] for name, interval in rates.items() if interval.value is None},
    }


def _threshold(scores: Array, truth: NDArray[np.bool_], metric: Metric, target: float) -> float | None:
    """Return the middle between the highest score called benign and the next one; None where even 1.0 must be called benign."""
    levels, place = np.unique(scores, return_inverse=True)
    if metric == "sensitivity":
        # The share of malignant lesions at or above each level falls as levels rise: take the last that suffices.
        found = np.bincount(place[truth], minlength=len(levels))[::-1].cumsum()[::-1] / truth.sum()
        lowest_suspicious = int(np.flatnonzero(found >= target)[-1])
    else:
        # The share of benign lesions at or below each level rises: take the first that suffices.
        cleared = np.bincount(place[~truth], minlength=len(levels)).cumsum() / (~truth).sum()
        lowest_suspicious = int(np.searchsorted(cleared, target)) + 1 if target > 0 else 0
    if lowest_suspicious == len(levels) and levels[-1] >= 1.0:
        return None
    below = levels[lowest_suspicious - 1] if lowest_suspicious else 0.0
    above = levels[lowest_suspicious] if lowest_suspicious < len(levels) else 1.0
    middle = below + (above - below) / 2
    return float(middle if middle > below else above)  # rounding may bring the middle of neighbours down to the lower one
