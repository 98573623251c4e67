"""ROC and precision-recall measures of one score, for many weightings of the same examples at once.

The scores are sorted once. What changes from one bootstrap resample to the next is how often each group counts, and
between two positives only the *sum* of the negatives matters; so a resample is a sparse product with the counts, followed by
one running sum over the positives.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

Array = NDArray[np.floating]


@dataclass(frozen=True, eq=False)
class Curve:
    """Weighted ROC steps of B weightings, from the highest score down; one step for each score that a positive has.

    ``hits``, ``hits_so_far``, ``alarms`` are (K, B): the positives at a step, those at or above it, the negatives strictly
    above it. ``tied`` is (K, B) negatives at the very score of the step, or None where there is none. ``positives`` and
    ``negatives`` are (B,) totals. Every measure is (B,), NaN where a resample lacks positives or negatives.
    """

    hits: Array
    hits_so_far: Array
    alarms: Array
    tied: Array | None
    positives: Array
    negatives: Array

    @cached_property
    def _alarms_after(self) -> Array:
        return self.alarms if self.tied is None else self.alarms + self.tied

    @cached_property
    def _undefined(self) -> NDArray[np.bool_]:
        return (self.positives == 0) | (self.negatives == 0)

    def auroc(self) -> NDArray[np.float64]:
        """Probability that a positive outranks a negative, ties counting one half."""
        lost = _products(self.hits, self.alarms)
        if self.tied is not None:
            lost += _products(self.hits, self.tied) / 2
        return 1 - _divide(lost, self.positives.astype(np.float64) * self.negatives, self._undefined)

    def average_precision(self) -> NDArray[np.float64]:
        """Sum of precision times the recall gained, without interpolation; NaN only without positives."""
        called = self.hits_so_far + self._alarms_after
        np.divide(self.hits_so_far, called, out=called, where=called > 0)
        return _divide(_products(self.hits, called), self.positives, self.positives == 0)

    def sensitivity_at_specificity(self, specificity: float) -> NDArray[np.float64]:
        """The highest sensitivity of a threshold whose specificity is at least this."""
        with np.errstate(invalid="ignore", divide="ignore"):
            step = _first(lambda rows: self._specificity(rows) < specificity, *self.hits.shape)
            hits = np.where(step > 0, _rows(self.hits_so_far, step - 1), 0.0)
        return _divide(hits, self.positives, self._undefined)

    def specificity_at_sensitivity(self, sensitivity: float) -> NDArray[np.float64]:
        """The highest specificity of a threshold whose sensitivity is at least this."""
        with np.errstate(invalid="ignore", divide="ignore"):
            step = _first(lambda rows: self._sensitivity(rows) >= sensitivity, *self.hits.shape)
            return np.where(self._undefined, np.nan, self._specificity(step).astype(np.float64))

    def partial_auroc(self, sensitivity: float = 0.8) -> NDArray[np.float64]:
        """Area under the ROC curve above this sensitivity, in [0, 1 - sensitivity]; ISIC 2024's pAUC at 0.8."""
        if self._undefined.all():
            return np.full(self.positives.shape, np.nan)
        with np.errstate(invalid="ignore", divide="ignore"):
            first = _first(lambda rows: self._sensitivity(rows) > sensitivity, *self.hits.shape)
            start = int(first[~self._undefined].min())
            share = self.hits[start:] / self.positives
            above = np.minimum(share, np.maximum(self.hits_so_far[start:] / self.positives - sensitivity, 0.0))
            # A tie makes a step slanted: it crosses the limit part of the way along, and the rest counts at its middle.
            missed = self.alarms[start:] / self.negatives
            if self.tied is not None:
                slant = np.divide(above, share, out=np.zeros_like(share), where=share > 0)
                missed += self.tied[start:] / self.negatives * (1 - slant / 2)
            return np.where(self._undefined, np.nan, _products(above, 1 - missed))

    def _specificity(self, step: NDArray[np.int64]) -> Array:
        return (self.negatives - _rows(self._alarms_after, step)) / self.negatives

    def _sensitivity(self, step: NDArray[np.int64]) -> Array:
        return _rows(self.hits_so_far, step) / self.positives


class Ranking:
    """N examples in the order of their score, ready to be weighted.

    ``scores`` (N,) float, ``positive`` (N,) bool, ``column`` (N,) the group of each example in [0, columns).
    """

    def __init__(self, scores: Array, positive: NDArray[np.bool_], column: NDArray[np.int64], columns: int) -> None:
        order = np.argsort(-scores, kind="stable")
        ranked, hit, column = scores[order], positive[order], column[order]
        level = np.append(0, np.cumsum(ranked[1:] != ranked[:-1])) if len(ranked) else np.zeros(0, dtype=np.int64)
        is_step = np.zeros(level[-1] + 1 if len(level) else 0, dtype=bool)
        is_step[level[hit]] = True
        steps = int(is_step.sum())
        step = (np.cumsum(is_step) - is_step)[level]  # of a level that is no step: the step that comes next
        tied = is_step[level] & ~hit
        self._hits = _sums(step[hit], column[hit], (steps, columns))
        self._gaps = _sums(step[~hit & ~tied], column[~hit & ~tied], (steps + 1, columns))
        self._tied = _sums(step[tied], column[tied], (steps, columns)) if tied.any() else None

    def curve(self, counts: Array) -> Curve:
        """Weigh every example by its group's row of ``counts`` (columns, B).

        float32 ``counts`` take half the time; as whole numbers they are exact while they sum to less than 2 ** 24.
        """
        hits = self._hits @ counts
        gaps = self._gaps @ counts
        tied = None if self._tied is None else self._tied @ counts
        if tied is not None:
            gaps[1:] += tied  # negatives at the score of one step lie above the next
        negatives_above = _running_sum(gaps)
        so_far = _running_sum(hits.copy())
        positives = so_far[-1] if len(so_far) else np.zeros(counts.shape[1])
        return Curve(hits, so_far, negatives_above[:-1], tied, positives, negatives_above[-1])


def _sums(row: NDArray[np.int64], column: NDArray[np.int64], shape: tuple[int, int]) -> sparse.csr_array:
    return sparse.coo_array((np.ones(len(row), dtype=np.float32), (row, column)), shape=shape).tocsr()


def _running_sum(rows: Array) -> Array:
    """In-place cumulative sum down the rows: with rows this wide, adding row to row beats numpy's own strided loop."""
    for above, row in pairwise(rows):
        np.add(above, row, out=row)
    return rows


def _products(left: Array, right: Array) -> NDArray[np.float64]:
    return np.einsum("kb,kb->b", left, right, dtype=np.float64)


def _rows(table: Array, row: NDArray[np.int64]) -> Array:
    return table[row.clip(0, len(table) - 1), np.arange(table.shape[1])] if len(table) else np.zeros(table.shape[1])


def _first(condition: Callable[[NDArray[np.int64]], NDArray[np.bool_]], length: int, width: int) -> NDArray[np.int64]:
    """Bisection in every column: the first row at which a condition that stays true once true holds, else ``length``."""
    low, high = np.zeros(width, dtype=np.int64), np.full(width, length, dtype=np.int64)
    while (low < high).any():
        middle = (low + high) // 2
        holds, searching = condition(middle), low < high
        low, high = np.where(searching & ~holds, middle + 1, low), np.where(searching & holds, middle, high)
    return low


def _divide(numerator: Array, denominator: Array, undefined: NDArray[np.bool_]) -> NDArray[np.float64]:
    return np.divide(numerator, denominator, out=np.full(numerator.shape, np.nan), where=~undefined)
