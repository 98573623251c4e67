"""Label sets: the labels that an image may well have, with a promise of how often the true one is among them.

The promise is that of split-conformal prediction, kept for each label by itself: of new lesions of a label, from the same
clinics and cameras as the validation lesions, the set names the label in the promised share. `evaluation.label_sets` fits
the limits; here they are applied. Nothing is drawn at random, so that the same image has the same set every time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import betaincinv

from lesion_hub.config import AnswerRules, LabelSets
from lesion_hub.errors import ConfigError

COVERAGE = 0.9
"""The coverage that is shown where none is asked for."""

_ROUNDING = 1e-9
_SURE = 0.95
_SCANNED = 6  # lesions over the share that may be missed: from about three on, all numbers are enough


@dataclass(frozen=True)
class LabelSet:
    """The labels that an image may well have, the most probable first; ``str`` says them in words.

    ``unpromised`` are the labels of the model, named here or not, that had too few lesions for the promise of ``coverage``.

    >>> str(LabelSet(("mel", "bkl"), 0.9, (), {"mel": "Melanoma", "bkl": "Benign keratosis"}))
    'one of melanoma, benign keratosis'
    """

    labels: tuple[str, ...]
    coverage: float
    unpromised: tuple[str, ...] = ()
    names: Mapping[str, str] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.labels)

    def __contains__(self, label: object) -> bool:
        return label in self.labels

    def __str__(self) -> str:
        said = ", ".join(_within_a_sentence(self.names.get(label, label)) for label in self.labels)
        return said if len(self.labels) == 1 else f"one of {said}"

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, ready for JSON."""
        return {
            "labels": list(self.labels),
            "coverage": self.coverage,
            "unpromised": list(self.unpromised),
            "words": str(self),
        }


def _within_a_sentence(name: str) -> str:
    """Write a diagnosis small, but for an abbreviation.

    >>> _within_a_sentence("Melanoma"), _within_a_sentence("UV damage")
    ('melanoma', 'UV damage')
    """
    return name[:1].lower() + name[1:] if name[1:2].islower() else name


def nonconformity(probabilities: ArrayLike) -> NDArray[np.float64]:
    """Return how ill each label fits an image, for (..., C) probabilities: 0 for a certain label, up to 1."""
    return np.asarray(1 - np.asarray(probabilities, dtype=np.float64))


def labels_in_sets(
    probabilities: NDArray[np.float64], fitted: LabelSets, labels: tuple[str, ...], coverage: float
) -> NDArray[np.bool_]:
    """Tell for (N, C) ``probabilities`` of ``labels`` which are in the set: (N, C), at least one in every row.

    >>> fitted = LabelSets(coverages=(0.9,), lesions={"a": 40, "b": 50}, limits={"a": (0.8,), "b": (0.4,)})
    >>> labels_in_sets(np.array([[0.7, 0.3], [0.3, 0.7], [0.1, 0.9]]), fitted, ("a", "b"), 0.9).tolist()
    [[True, False], [True, True], [False, True]]
    """
    inside = probabilities >= least_probabilities(fitted, labels, coverage)
    # Where no label fits, the set is the most probable one: it cannot make the promise any weaker.
    empty = ~inside.any(axis=1)
    inside[empty, probabilities[empty].argmax(axis=1)] = True
    return inside


def least_probabilities(fitted: LabelSets, labels: tuple[str, ...], coverage: float) -> NDArray[np.float64]:
    """Return from which probability on each label is in a set, (C,); infinity for one without a limit.

    `nonconformity` solved for the probability: change them together.
    """
    place = coverage_index(coverage, fitted)
    return np.array([1 - fitted.limits[label][place] - _ROUNDING if label in fitted.limits else np.inf for label in labels])


def label_set_of(
    probabilities: Mapping[str, float], rules: AnswerRules | None, coverage: float, names: Mapping[str, str] | None = None
) -> LabelSet:
    """Return the label set of one image."""
    if rules is None or rules.label_sets is None:
        raise ConfigError("label sets are not fitted for this model; fit them on validation images with lesion-hub calibrate")
    fitted = rules.label_sets
    labels = tuple(probabilities)
    inside = labels_in_sets(np.array([list(probabilities.values())]), fitted, labels, coverage)[0]
    named = sorted((label for label, there in zip(labels, inside, strict=True) if there), key=lambda one: -probabilities[one])
    return LabelSet(tuple(named), coverage, unpromised(fitted, labels, coverage), names or {})


def unpromised(fitted: LabelSets, labels: tuple[str, ...], coverage: float) -> tuple[str, ...]:
    """Return the labels with too few lesions for the promise of ``coverage``.

    >>> fitted = LabelSets(coverages=(0.9, 0.95), lesions={"mel": 60, "df": 8}, limits={"mel": (0.9, 0.9), "df": (0.9, 0.9)})
    >>> unpromised(fitted, ("mel", "df"), 0.9), lesions_for(0.9)
    (('df',), 30)
    """
    return tuple(label for label in labels if fitted.lesions.get(label, 0) < lesions_for(coverage))


@cache
def lesions_for(coverage: float) -> int:
    """Return how many lesions of a label it takes to promise a coverage.

    A limit fitted on n lesions covers a share of later ones that is Beta(k, n + 1 - k) distributed, with k the rank of the
    quantile. The promise holds for its mean from n = coverage / (1 - coverage) on. Here it takes more: from this number on,
    in nineteen fits of twenty the labels that are missed are at most twice as many as promised.
    """
    numbers = np.arange(1, math.ceil(_SCANNED / (1 - coverage)))
    rank = np.ceil(coverage * (numbers + 1) - _ROUNDING)
    there = rank <= numbers
    low = betaincinv(np.where(there, rank, 1), np.where(there, numbers + 1 - rank, 1), 1 - _SURE)
    too_few = numbers[~there | (low < 1 - 2 * (1 - coverage))]
    return int(too_few.max()) + 1 if len(too_few) else 1


def coverage_index(coverage: float, fitted: LabelSets) -> int:
    """Return the place of a coverage among those that were fitted; another one is one line."""
    found = [i for i, one in enumerate(fitted.coverages) if abs(one - coverage) < _ROUNDING]
    if not found:
        known = ", ".join(f"{one:g}" for one in fitted.coverages)
        raise ConfigError(f"coverage {coverage:g}: not fitted; those that are: {known}")
    return found[0]
