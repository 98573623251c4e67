"""Fitting an ensemble's weights and temperature on validation data, by likelihood."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from lesion_hub.errors import DataError
from lesion_hub.inference.combine import Combination
from lesion_hub.inference.members import Member
from lesion_hub.inference.predictor import Predictor
from lesion_hub.inference.rows import RowSource
from lesion_hub.taxonomy import LabelSpace

Array = NDArray[np.float64]
Combine = Literal["probabilities", "logits"]
_TINY = 1e-12
_DECIMALS = 4


@dataclass(frozen=True)
class Fit:
    """Fitted weights and temperature, and the negative log-likelihoods (nats per image) that speak for them.

    ``probabilities`` (N, C) and ``labels`` (N,) are the ensemble's on the fitting data, for choosing operating points.
    """

    weights: tuple[float, ...]
    temperature: float
    images: int
    nll: float
    nll_equal_weights: float
    nll_by_member: dict[str, float]
    probabilities: Array = field(repr=False, compare=False)
    labels: NDArray[np.int64] = field(repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """The numbers, without the predictions."""
        return {key: value for key, value in asdict(self).items() if key not in ("probabilities", "labels")}


def fit_ensemble(
    members: Sequence[Member],
    source: RowSource,
    *,
    space: LabelSpace | None = None,
    combine: Combine = "probabilities",
    progress: Callable[[int, int | None], None] | None = None,
) -> Fit:
    """Score validation images with every member and fit how they are combined. Rows without a known label are left out."""
    equal = Combination.of([m.space for m in members], [1 / len(members)] * len(members), space=space, combine=combine)
    rows = [row for row in source if row.truth is not None and row.truth in equal.space]
    if not rows:
        raise DataError(f"no image has a label of {equal.space.name!r}; fit on labelled validation data of that space")
    predictor = Predictor(members, equal)
    patients = [row.patient for row in rows]
    found = predictor.stream([row.image for row in rows], metadata=patients, progress=progress)
    views = [[prediction.members[member.name] for member in members] for prediction in found]
    by_member = [
        np.array([[view[i][label] for label in member.space.labels] for view in views]) for i, member in enumerate(members)
    ]
    labels = np.array([equal.space.index(str(row.truth)) for row in rows])
    return fit_combination([member.name for member in members], equal, by_member, labels)


def fit_combination(names: Sequence[str], equal: Combination, by_member: Sequence[Array], labels: NDArray[np.int64]) -> Fit:
    """Minimise the negative log-likelihood over the weights' simplex and the temperature.

    Args:
        names: the members'.
        equal: how they are combined before fitting: space, maps and mode are kept.
        by_member: each member's (N, C_m) probabilities.
        labels: (N,) truth in ``equal.space``.
    """

    def combination(values: Array, decimals: int | None = None) -> Combination:
        odds = np.exp(values[:-1] - values[:-1].max())
        weights, temperature = odds / odds.sum(), float(np.exp(values[-1]))
        if decimals is not None:
            weights, temperature = _rounded(weights, decimals), round(temperature, decimals)
        return Combination(equal.space, equal.maps, tuple(map(float, weights)), equal.combine, temperature)

    start = np.zeros(len(names) + 1)
    bounds = [(-8.0, 8.0)] * len(names) + [(-2.0, 2.0)]
    best = minimize(lambda v: _nll(combination(v)(by_member), labels), start, method="L-BFGS-B", bounds=bounds)
    chosen = combination(best.x, _DECIMALS)
    probabilities = chosen(by_member)
    alone = {
        name: _nll(mapping.probabilities(rows), labels)
        for name, mapping, rows in zip(names, equal.maps, by_member, strict=True)
    }
    return Fit(
        weights=chosen.weights,
        temperature=chosen.temperature,
        images=len(labels),
        nll=_nll(probabilities, labels),
        nll_equal_weights=_nll(equal(by_member), labels),
        nll_by_member=alone,
        probabilities=probabilities,
        labels=labels,
    )


def _rounded(weights: Array, decimals: int) -> Array:
    """Weights a person can read, that still sum to 1: the largest takes the rest."""
    short = weights.round(decimals)
    short[short.argmax()] += round(1 - short.sum(), decimals)
    return short


def _nll(probabilities: Array, labels: NDArray[np.int64]) -> float:
    return float(-np.log(np.maximum(probabilities[np.arange(len(labels)), labels], _TINY)).mean())
