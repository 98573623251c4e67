"""Label sets: fit their limits on validation lesions, and measure how often they keep their promise.

Split-conformal prediction, for each label by itself (Mondrian): the limit of a label is a quantile of how ill the label fits
its own lesions, so the promise holds for melanomas as for nevi. Images of a lesion are not independent. Each lesion counts
once, its images sharing its weight (hierarchical conformal prediction), and one lesion more is counted that no limit covers:
with that the promise holds for a new image of a new lesion, whatever the network is worth.

The quantile is a dozen lines of numpy here, and what travels with a model is a table of numbers. crepes and MAPIE take every
row as a draw of its own, and travel as pickled objects.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lesion_hub.config import LabelSets
from lesion_hub.evaluation.intervals import RESAMPLES, bootstrap_means, group_numbers, measure_bins
from lesion_hub.evaluation.predictions import check_predictions
from lesion_hub.inference.label_sets import COVERAGE, labels_in_sets, lesions_for, nonconformity
from lesion_hub.taxonomy import LabelSpace

COVERAGES = (0.8, 0.85, 0.9, 0.95, 0.975, 0.99)
MEASURED = (0.8, 0.9, 0.95)
_DIGITS = 6
_ROUNDING = 1e-12


def fit_label_sets(
    probabilities: ArrayLike,
    labels: ArrayLike,
    groups: Sequence[Any] | NDArray[Any],
    space: LabelSpace,
    *,
    coverages: Sequence[float] = COVERAGES,
    chosen_on: str = "validation",
) -> LabelSets:
    """Fit the limits of every label on (N, C) ``probabilities``, (N,) ``labels`` and the (N,) lesions they are of.

    A label with too few lesions for a coverage gets the largest limit that they give, which promises less; one without any
    gets none.

    >>> from lesion_hub.taxonomy import label_space
    >>> chances = np.array([[0.1, 0.9]] * 20 + [[0.6, 0.4]] * 20)
    >>> fitted = fit_label_sets(chances, [1] * 20 + [0] * 20, range(40), label_space("binary"), coverages=[0.9])
    >>> fitted.limits, fitted.lesions
    ({'benign': (0.4,), 'malignant': (0.1,)}, {'benign': 20, 'malignant': 20})
    """
    predictions = check_predictions(probabilities, labels, space)
    group = group_numbers(groups, len(predictions))
    scores = nonconformity(predictions.probabilities)
    lesions: dict[str, int] = {}
    limits: dict[str, tuple[float, ...]] = {}
    for place, label in enumerate(space.labels):
        own = predictions.labels == place
        lesions[label] = len(np.unique(group[own]))
        if lesions[label]:
            limits[label] = tuple(limit(scores[own, place], group[own], coverage) for coverage in coverages)
    return LabelSets(coverages=tuple(coverages), lesions=lesions, limits=limits, chosen_on=chosen_on)


def limit(scores: NDArray[np.float64], lesions: NDArray[np.int64], coverage: float) -> float:
    """Return the least limit that promises ``coverage`` for a new image of a new lesion; the largest score where none does.

    ``scores`` (N,) are those of a label on its own images, ``lesions`` (N,) what each is an image of.

    >>> limit(np.arange(9) / 10, np.arange(9), 0.9), limit(np.arange(19) / 100, np.arange(19), 0.9)
    (0.8, 0.17)
    """
    _, lesion, images = np.unique(lesions, return_inverse=True, return_counts=True)
    weights = 1 / images[lesion] / (len(images) + 1)
    order = np.argsort(scores, kind="stable")
    place = int(np.searchsorted(np.cumsum(weights[order]), coverage - _ROUNDING))
    chosen = float(scores[order][min(place, len(scores) - 1)])
    return float(np.ceil(round(chosen * 10**_DIGITS, 3)) / 10**_DIGITS)  # upwards: it must not cover less than it did


def sets_at(
    probabilities: NDArray[np.float64], fitted: LabelSets, space: LabelSpace, coverages: Sequence[float] = MEASURED
) -> dict[float, NDArray[np.bool_]]:
    """Return the (N, C) memberships of the sets of (N, C) probabilities, for those of ``coverages`` that were fitted."""
    return {
        coverage: labels_in_sets(probabilities, fitted, space.labels, coverage)
        for coverage in coverages
        if any(abs(coverage - known) < _ROUNDING for known in fitted.coverages)
    }


def judge_label_sets(
    inside: Mapping[float, NDArray[np.bool_]],
    labels: NDArray[np.int64],
    groups: Sequence[Any] | NDArray[Any],
    space: LabelSpace,
    fitted: LabelSets,
    *,
    bins: Mapping[str, Mapping[str, NDArray[np.int64]]] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Any]:
    """Measure, by coverage, how often (N, C) sets hold the true label and how many they name, over all and for each label.

    ``bins`` are the rows of groups of images by trait and name; they are measured at the coverage that is shown.
    """
    found: dict[str, Any] = {"chosen_on": fitted.chosen_on, "coverages": {}}
    for coverage, member in inside.items():
        hit, size = member[np.arange(len(labels)), labels].astype(float), member.sum(axis=1).astype(float)
        parts = {"": np.ones(len(labels), dtype=bool)} | {label: labels == i for i, label in enumerate(space.labels)}
        names = {
            (what, name): (values, rows) for what, values in (("coverage", hit), ("size", size)) for name, rows in parts.items()
        }
        names[("single", "")] = ((size == 1).astype(float), parts[""])
        means = {name: one.to_dict() for name, one in bootstrap_means(names, groups, resamples, seed).items()}
        section: dict[str, Any] = {
            "promised": coverage,
            "coverage": means[("coverage", "")],
            "size": means[("size", "")],
            "single": means[("single", "")],
            "per_class": {
                label: {
                    "images": int(parts[label].sum()),
                    "lesions_fitted": fitted.lesions[label],
                    "promised": coverage if fitted.lesions[label] >= lesions_for(coverage) else None,
                    "coverage": means[("coverage", label)],
                    "size": means[("size", label)],
                }
                for label in space.labels
            },
        }
        if abs(coverage - COVERAGE) < _ROUNDING:
            every = np.ones(len(labels), dtype=bool)
            section["by_group"] = measure_bins(
                {"coverage": (hit, every), "size": (size, every)}, bins or {}, groups, resamples, seed
            )
        found["coverages"][f"{coverage:g}"] = section
    return found
