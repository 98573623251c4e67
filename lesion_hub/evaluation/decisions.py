"""Decisions: choose the power of the balanced one on validation, and measure what each rule finds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import log_softmax

from lesion_hub.config import AnswerRules, BalancedDecision, OperatingPoint
from lesion_hub.evaluation.intervals import RESAMPLES, bootstrap_statistic, group_numbers
from lesion_hub.evaluation.metrics import Measures
from lesion_hub.evaluation.predictions import check_predictions, log_probabilities
from lesion_hub.evaluation.weighting import Array, Counts
from lesion_hub.inference.decisions import BALANCED, MOST_PROBABLE, Decide, Prior, decided, decision_name
from lesion_hub.taxonomy import LabelSpace

POWERS = tuple(round(float(power), 2) for power in np.arange(0, 1.51, 0.05))
MEASURES = ("balanced_accuracy", "accuracy", "macro_f1")


def fit_balanced(
    probabilities: ArrayLike, labels: ArrayLike, space: LabelSpace, *, chosen_on: str = "validation"
) -> BalancedDecision:
    """Choose the power of the shares by which (N, C) probabilities are divided, on (N,) labels.

    It is the one of the least negative log-likelihood where every label counts the same, however few images it has. Balanced
    accuracy itself would hang on a handful of images of the rarest label. Of every label one image is counted more than there
    are, so that none is infinitely rare.

    >>> from lesion_hub.taxonomy import label_space
    >>> chances = np.array([[0.9, 0.1]] * 30 + [[0.6, 0.4]] * 6)
    >>> fit_balanced(chances, [0] * 30 + [1] * 6, label_space("binary")).power
    0.85
    """
    predictions = check_predictions(probabilities, labels, space)
    counts = np.bincount(predictions.labels, minlength=len(space)) + 1.0
    shares = counts / counts.sum()
    images = np.bincount(predictions.labels, minlength=len(space))
    weights = 1 / images[predictions.labels] / (images > 0).sum()
    logs = log_probabilities(predictions.probabilities)
    truth = np.arange(len(predictions)), predictions.labels
    losses = [-float(weights @ log_softmax(logs - power * np.log(shares), axis=1)[truth]) for power in POWERS]
    named = dict(zip(space.labels, map(float, shares.round(6)), strict=True))
    return BalancedDecision(power=POWERS[int(np.argmin(losses))], shares=named, chosen_on=chosen_on)


def decisions_of(
    probabilities: NDArray[np.float64],
    space: LabelSpace,
    points: Mapping[str, OperatingPoint],
    rules: AnswerRules | None,
    *,
    also: Decide | None = None,
    prior: Prior | None = None,
) -> dict[str, NDArray[np.int64]]:
    """Return the (N,) labels of every rule that the model has, by name, and of the one that is asked for ``also``."""
    wanted: list[Decide] = [MOST_PROBABLE]
    if rules is not None and rules.decision is not None:
        wanted.append(BALANCED)
    if space.malignancy_map is not None:
        wanted += list(points)
    found = {decision_name(one): decided(probabilities, one, space, points, rules) for one in wanted}
    if also is not None and (prior is not None or decision_name(also) not in found):
        name = decision_name(also) if prior is None else f"{decision_name(also)}_at_prior"
        found[name] = decided(probabilities, also, space, points, rules, prior)
    return found


def judge_decisions(
    labels_by_rule: Mapping[str, NDArray[np.int64]],
    labels: NDArray[np.int64],
    groups: Sequence[Any] | NDArray[Any],
    space: LabelSpace,
    *,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Any]:
    """Measure the (N,) labels of every rule: ``intervals`` by measure, the sensitivity ``per_class``, and ``gain``.

    ``gain`` is the paired difference of balanced accuracy from the most probable label's.
    """
    per_class = tuple(f"per_class.{label}.sensitivity" for label in space.labels)
    wanted, group = (*MEASURES, *per_class), group_numbers(groups, len(labels))
    by_rule = {
        name: Measures(check_predictions(np.eye(len(space))[chosen], labels, space), group, wanted)
        for name, chosen in labels_by_rule.items()
    }

    def measure_all(counts: Counts) -> dict[str, Array]:
        values = {rule: measures.evaluate(counts) for rule, measures in by_rule.items()}
        flat = {f"{rule} {name}": value for rule, found in values.items() for name, value in found.items()}
        start = values[MOST_PROBABLE]["balanced_accuracy"]
        return flat | {f"{rule} gain": found["balanced_accuracy"] - start for rule, found in values.items()}

    intervals = {name: one.to_dict() for name, one in bootstrap_statistic(measure_all, group, resamples, seed).items()}
    return {
        rule: {
            "intervals": {name: intervals[f"{rule} {name}"] for name in MEASURES},
            "per_class": {label: intervals[f"{rule} {name}"] for label, name in zip(space.labels, per_class, strict=True)},
            **({"gain": intervals[f"{rule} gain"]} if rule != MOST_PROBABLE else {}),
        }
        for rule in by_rule
    }
