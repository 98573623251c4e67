"""Everything that follows from a confusion matrix, for B weighted matrices at once.

A matrix is (C, C, B): true label, predicted label, weighting. A ratio without a denominator is NaN per class; in the macro
averages it counts as 0, over the labels that occur in the truth or the predictions, which is scikit-learn's convention with
``zero_division=0``. Balanced accuracy averages over the labels that occur in the truth.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

PER_CLASS = ("sensitivity", "specificity", "ppv", "npv", "f1")
OVERALL = (
    "accuracy",
    "balanced_accuracy",
    "macro_f1",
    "weighted_f1",
    "macro_precision",
    "macro_recall",
    "cohen_kappa",
    "mcc",
)


def per_class(matrix: Array) -> dict[str, Array]:
    """Sensitivity, specificity, PPV, NPV and F1 of each label against the rest, each (C, B) in [0, 1] or NaN."""
    total = matrix.sum(axis=(0, 1))
    true, called = matrix.sum(axis=1), matrix.sum(axis=0)
    hits = np.einsum("ccb->cb", matrix)
    rest = total - true - called + hits
    return {
        "sensitivity": _ratio(hits, true),
        "specificity": _ratio(rest, total - true),
        "ppv": _ratio(hits, called),
        "npv": _ratio(rest, total - called),
        "f1": _ratio(2 * hits, true + called),
    }


def overall(matrix: Array) -> dict[str, Array]:
    """Accuracy, its balanced and averaged relatives, Cohen's kappa and Matthews' coefficient, each (B,)."""
    by_class = per_class(matrix)
    total = matrix.sum(axis=(0, 1))
    true, called = matrix.sum(axis=1), matrix.sum(axis=0)
    accuracy = _ratio(np.einsum("ccb->b", matrix), total)
    occurs = true + called > 0
    return {
        "accuracy": accuracy,
        "balanced_accuracy": mean_over(by_class["sensitivity"], true > 0),
        "macro_f1": mean_over(by_class["f1"], occurs),
        "weighted_f1": _ratio((np.nan_to_num(by_class["f1"]) * true).sum(axis=0), total),
        "macro_precision": mean_over(by_class["ppv"], occurs),
        "macro_recall": mean_over(by_class["sensitivity"], occurs),
        "cohen_kappa": _kappa(accuracy, true, called, total),
        "mcc": _matthews(matrix, true, called, total),
    }


def mean_over(values: Array, included: NDArray[np.bool_]) -> Array:
    """Column-wise mean of (C, B) values where included, NaN counting as 0; NaN where a column includes none."""
    return _ratio(np.where(included, np.nan_to_num(values), 0.0).sum(axis=0), included.sum(axis=0).astype(np.float64))


def _kappa(accuracy: Array, true: Array, called: Array, total: Array) -> Array:
    with np.errstate(invalid="ignore"):
        chance = _ratio((true * called).sum(axis=0), total**2)
        return _ratio(accuracy - chance, 1 - chance)


def _matthews(matrix: Array, true: Array, called: Array, total: Array) -> Array:
    covariance = np.einsum("ccb->b", matrix) * total - (true * called).sum(axis=0)
    spread_true, spread_called = total**2 - (true**2).sum(axis=0), total**2 - (called**2).sum(axis=0)
    return _ratio(covariance, np.sqrt(spread_true * spread_called))


def _ratio(numerator: Array, denominator: Array) -> Array:
    return np.divide(numerator, denominator, out=np.full(denominator.shape, np.nan), where=denominator > 0)
