"""Abstention: risk against the share of images that are answered, and the threshold for an error that is stated.

Images are sorted by the doubt in them (`inference.abstention`), and the model answers those with the least. The error of the
most probable label among the answered ones, as more of them are answered, is the risk-coverage curve; the area under it is
AURC: 0 for a model that is never wrong, its error for one whose doubts mean nothing.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesion_hub.config import Abstention, Signal
from lesion_hub.evaluation.intervals import RESAMPLES, bootstrap_means, bootstrap_statistic, group_numbers, measure_bins
from lesion_hub.evaluation.weighting import Array, Counts
from lesion_hub.inference.abstention import doubt_of, signals_of
from lesion_hub.taxonomy import LabelSpace

ERRORS = (0.02, 0.05, 0.1)
_STEPS = (0.0, 0.25, 0.5, 1.0)
_DIGITS = 6
_STRIP = 128  # resamples at a time: more would fill the memory with weights of every image
_LEAST = 20  # answered images below which an error is no estimate


def risk_coverage(doubt: NDArray[np.float64], wrong: NDArray[np.bool_]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the (N,) shares answered and the error among them, for (N,) doubts and whether each answer is wrong.

    Images of equal doubt are answered together: where the order among them is chance, each counts for their mean.

    >>> risk_coverage(np.array([0.1, 0.3, 0.2]), np.array([False, True, False]))[1].round(2).tolist()
    [0.0, 0.0, 0.33]
    """
    order = np.argsort(doubt, kind="stable")
    _, level = np.unique(doubt[order], return_inverse=True)
    errors = wrong[order].astype(np.float64)
    expected = (np.bincount(level, weights=errors) / np.bincount(level))[level]
    counted = np.arange(1, len(doubt) + 1)
    return counted / len(doubt), np.cumsum(expected) / counted


def aurc(doubt: NDArray[np.float64], wrong: NDArray[np.bool_]) -> float:
    """Return the area under the risk-coverage curve.

    >>> aurc(np.array([0.1, 0.2]), np.array([False, True]))
    0.25
    """
    return float(risk_coverage(doubt, wrong)[1].mean())


def fit_abstention(
    probabilities: NDArray[np.float64],
    labels: NDArray[np.int64],
    set_sizes: NDArray[np.int64] | None,
    disagreement: NDArray[np.float64] | None,
    *,
    scope: NDArray[np.float64] | None = None,
    errors: Sequence[float] = ERRORS,
    chosen_on: str = "validation",
) -> Abstention:
    """Choose the weights of the signals with the least AURC, and for each of ``errors`` the limit that answers the most images.

    The arrays are of N validation images. An error that is not reached has no limit.
    """
    signals = signals_of(probabilities, set_sizes, disagreement, scope)
    wrong = probabilities.argmax(axis=1) != labels
    names: list[Signal] = list(signals)
    # The confidence counts in full, and what else is known up to as much.
    tried = [dict(zip(names, (1.0, *others), strict=True)) for others in itertools.product(_STEPS, repeat=len(names) - 1)]
    weights = min(tried, key=lambda one: (round(aurc(doubt_of(signals, one), wrong), 6), sum(one.values())))
    doubt = np.ceil(doubt_of(signals, weights) * 10**_DIGITS) / 10**_DIGITS
    limits: dict[str, float] = {}
    answered: dict[str, float] = {}
    order = np.sort(np.unique(doubt))
    counts = np.array([(doubt <= one).sum() for one in order])
    risks = np.array([wrong[doubt <= one].mean() for one in order])
    for error in errors:
        good = np.flatnonzero((risks <= error) & (counts >= min(_LEAST, len(doubt))))
        if len(good):
            limits[f"{error:g}"] = float(min(order[good[-1]], 1.0))
            answered[f"{error:g}"] = float(counts[good[-1]] / len(doubt))
    return Abstention(weights=weights, limits=limits, answered=answered, chosen_on=chosen_on)


def judge_abstention(
    doubt: NDArray[np.float64],
    abstains: Mapping[str, NDArray[np.bool_]],
    predicted: NDArray[np.int64],
    labels: NDArray[np.int64],
    groups: Sequence[Any] | NDArray[Any],
    space: LabelSpace,
    *,
    bins: Mapping[str, Mapping[str, NDArray[np.int64]]] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Any]:
    """Measure (N,) doubts: AURC beside that of no doubt and the best there could be, and what each stated error became.

    ``abstains`` holds by stated error whether the model keeps silent about each image; ``bins`` are rows by trait and name.
    """
    wrong = predicted != labels
    group = group_numbers(groups, len(labels))
    area = bootstrap_statistic(_areas(doubt, wrong, group), group, resamples, seed)["aurc"]
    found: dict[str, Any] = {
        "aurc": area.to_dict(),
        "aurc_without_doubt": float(wrong.mean()),
        "aurc_at_best": aurc(wrong.astype(np.float64), wrong),
        "errors": {},
    }
    for error, silent in abstains.items():
        wanted = {"answered": (~silent, np.ones(len(labels), dtype=bool)), "error": (wrong, ~silent)}
        per_class = {label: (~silent, labels == place) for place, label in enumerate(space.labels)}
        overall, answered = (bootstrap_means(values, groups, resamples, seed) for values in (wanted, per_class))
        found["errors"][error] = {
            "stated": float(error),
            **{name: one.to_dict() for name, one in overall.items()},
            "answered_per_class": {label: one.to_dict() for label, one in answered.items()},
            "by_group": measure_bins(wanted, bins or {}, groups, resamples, seed),
        }
    return found


def _areas(doubt: NDArray[np.float64], wrong: NDArray[np.bool_], group: NDArray[np.int64]) -> Any:
    """Return AURC as a function of how often each group counts; equal doubts count for their mean."""
    order = np.argsort(doubt, kind="stable")
    _, level = np.unique(doubt[order], return_inverse=True)
    last = np.append(np.flatnonzero(np.diff(level)), len(level) - 1)
    errors, place = wrong[order].astype(np.float64), group[order]

    first = np.append(0, last[:-1] + 1)

    def areas(counts: Counts) -> dict[str, Array]:
        strips = [counts[:, start : start + _STRIP] for start in range(0, counts.shape[1], _STRIP)]
        return {"aurc": np.concatenate([area(strip[place].astype(np.float64)) for strip in strips])}

    def area(weights: Array) -> Array:
        """Return the (B,) areas for (N, B) weights of the images in order of doubt."""
        hits = np.add.reduceat(weights * errors[:, None], first, axis=0)
        whole = np.add.reduceat(weights, first, axis=0)
        rate = np.divide(hits, whole, out=np.zeros_like(hits), where=whole > 0)
        expected, answered = np.cumsum(rate[level] * weights, axis=0), np.cumsum(weights, axis=0)
        risk = np.divide(expected, answered, out=np.zeros_like(expected), where=answered > 0)
        return np.asarray((risk * weights).sum(axis=0) / np.maximum(answered[-1], 1e-12))

    return areas
