"""Temperature scaling, fitted on validation predictions alone, and the reliability diagram that shows its effect.

Dividing logits by one positive number leaves every decision as it is and mends how sure the model says it is. As a function
of the inverse temperature the likelihood is convex, so the fit is the root of one increasing function: no step size, no
starting point, no local minimum.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import brentq
from scipy.special import log_softmax, softmax

from lesion_hub.evaluation.predictions import checked_labels, checked_scores

TEMPERATURE_BOUNDS = (0.05, 20.0)
BINS = 15
PROBABILITY_FLOOR = float(np.finfo(np.float64).eps)


@dataclass(frozen=True)
class CalibrationResult:
    """A fitted temperature and what it did to the data it was fitted on; ``note`` says when it is not an inner optimum."""

    temperature: float
    nll_before: float
    nll_after: float
    ece_before: float
    ece_after: float
    examples: int
    note: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON-able values."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class ReliabilityBins:
    """A reliability diagram: (bins + 1,) edges; (bins,) example counts, mean confidence and accuracy, NaN in empty bins."""

    edges: NDArray[np.float64]
    counts: NDArray[np.int64]
    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]


def fit_temperature(logits: ArrayLike, labels: ArrayLike) -> float:
    """The temperature that minimises the NLL of ``softmax(logits / temperature)``, within ``TEMPERATURE_BOUNDS``.

    ``logits`` are (N, C) logits or log-probabilities (an ensemble's log of its mean probability), ``labels`` (N,) integers in
    [0, C). The NLL at the result is never above that at 1.

    >>> 3.6 < fit_temperature([[4.0, 0.0]] * 4, [0, 0, 0, 1]) < 3.7
    True
    """
    return calibrate(logits, labels).temperature


def calibrate(logits: ArrayLike, labels: ArrayLike) -> CalibrationResult:
    """Fit the temperature as ``fit_temperature`` does and report NLL and ECE before and after."""
    scores = _finite_logits(checked_scores(logits, "logits"))
    truth = checked_labels(labels, scores.shape[1], rows=len(scores), where="the logits' columns")
    temperature, note = _minimise(scores, truth)
    before, after = (softmax(scores / t, axis=1) for t in (1.0, temperature))
    nll_before, nll_after = (_nll(scores, truth, t) for t in (1.0, temperature))
    if nll_after > nll_before:
        temperature, note, after, nll_after = 1.0, "the logits are as calibrated as they get", before, nll_before
    return CalibrationResult(
        temperature=temperature,
        nll_before=nll_before,
        nll_after=nll_after,
        ece_before=expected_calibration_error(before, truth),
        ece_after=expected_calibration_error(after, truth),
        examples=len(truth),
        note=note,
    )


def apply_temperature(probabilities: ArrayLike, temperature: float) -> NDArray[np.float64]:
    """Temper (..., C) probabilities through their logarithm, as an ensemble does with its mean probability.

    >>> apply_temperature([[0.8, 0.2]], 2.0).round(3).tolist()
    [[0.667, 0.333]]
    """
    values = np.maximum(np.asarray(probabilities, dtype=np.float64), PROBABILITY_FLOOR)
    return softmax(np.log(values) / temperature, axis=-1)


def bin_of(confidence: NDArray[np.float64], bins: int = BINS) -> NDArray[np.int64]:
    """The equal-width bin of each value in [0, 1]: closed below, open above, and 1 belongs to the last."""
    edges = np.linspace(0.0, 1.0, bins + 1)
    return np.clip(np.searchsorted(edges, confidence, side="right") - 1, 0, bins - 1).astype(np.int64)


def reliability_bins(probabilities: ArrayLike, labels: ArrayLike, bins: int = BINS) -> ReliabilityBins:
    """Confidence against accuracy of the top label, for (N, C) ``probabilities`` and (N,) ``labels``."""
    values = checked_scores(probabilities, "probabilities")
    truth = checked_labels(labels, values.shape[1], rows=len(values), where="the probabilities' columns")
    confidence, correct = values.max(axis=1), values.argmax(axis=1) == truth
    place = bin_of(confidence, bins)
    counts = np.bincount(place, minlength=bins)
    filled = np.where(counts > 0, counts, np.nan)
    return ReliabilityBins(
        edges=np.linspace(0.0, 1.0, bins + 1),
        counts=counts,
        confidence=np.bincount(place, weights=confidence, minlength=bins) / filled,
        accuracy=np.bincount(place, weights=correct, minlength=bins) / filled,
    )


def expected_calibration_error(probabilities: ArrayLike, labels: ArrayLike, bins: int = BINS) -> float:
    """Mean distance between confidence and accuracy of the top label over equal-width bins, in [0, 1]."""
    diagram = reliability_bins(probabilities, labels, bins)
    distance = np.nan_to_num(np.abs(diagram.confidence - diagram.accuracy))
    return float(distance @ diagram.counts / diagram.counts.sum())


def _finite_logits(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """The logarithm of a zero becomes that of the floor, so that one impossible class cannot make the likelihood infinite."""
    top = scores.max(axis=1, keepdims=True)
    return np.where(np.isneginf(scores), np.where(np.isfinite(top), top, 0.0) + np.log(PROBABILITY_FLOOR), scores)


def _nll(scores: NDArray[np.float64], labels: NDArray[np.int64], temperature: float) -> float:
    log_probabilities = log_softmax(scores / temperature, axis=1)
    return float(-log_probabilities[np.arange(len(labels)), labels].mean())


def _minimise(scores: NDArray[np.float64], labels: NDArray[np.int64]) -> tuple[float, str | None]:
    coldest, hottest = TEMPERATURE_BOUNDS
    truth = scores[np.arange(len(labels)), labels]

    def slope(log_inverse: float) -> float:
        """Derivative of the NLL by the inverse temperature: increasing, hence at most one root."""
        inverse = np.exp(log_inverse)
        return float(((softmax(scores * inverse, axis=1) * scores).sum(axis=1) - truth).mean())

    low, high = -np.log(hottest), -np.log(coldest)
    at_low, at_high = slope(low), slope(high)
    if at_low >= 0 >= at_high:
        return 1.0, "the logits do not depend on the class, so no temperature changes them"
    if at_high <= 0:
        return coldest, "every label is the top one by far (separable data), so the lower bound was taken"
    if at_low >= 0:
        return hottest, "the logits carry no information on the labels, so the upper bound was taken"
    return float(np.exp(-brentq(slope, low, high, xtol=1e-10))), None
