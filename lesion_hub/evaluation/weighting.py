"""Weighted sums and rankings of examples, for many weightings at once: measures and their intervals are computed from them.

A weighting says how often each group of examples counts; only that changes from one bootstrap resample to the next. A sum
over examples is then a sparse product with the counts. A ranking sorts the scores once: between two positives only the
*sum* of the negatives matters, so it is a sparse product too, followed by one running sum over the positives.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

Array = NDArray[np.float64]
Counts = NDArray[np.floating]
"""(G, B): how often each of G groups counts in each of B weightings, float32 or float64; and sums of such counts."""

_GROUPS_PER_BLOCK = 2048  # a block of counts of a few hundred weightings stays in the processor's cache


class AdditiveSums:
    """R sums, each over some of the examples, of values that are weighted by how often the example's group counts.

    ``value`` (T,) float, ``row`` (T,) the sum it belongs to in [0, R), ``group`` (T,) in [0, G); ``shape`` is (R, G).
    """

    def __init__(self, value: Array, row: NDArray[np.int64], group: NDArray[np.int64], shape: tuple[int, int]) -> None:
        terms = sparse.coo_array((value, (row, group)), shape=shape).tocsc()
        starts = range(0, shape[1], _GROUPS_PER_BLOCK)
        self._rows = shape[0]
        self._blocks = [(start, terms[:, start : start + _GROUPS_PER_BLOCK].tocsr()) for start in starts]

    def weighted(self, counts: Counts) -> Array:
        """Return the (R, B) float64 sums for (G, B) ``counts``."""
        total = np.zeros((self._rows, counts.shape[1]))
        for start, terms in self._blocks:
            total += terms @ counts[start : start + terms.shape[1]].astype(np.float64)
        return total


@dataclass(frozen=True, eq=False)
class Curve:
    """Weighted ROC steps of B weightings, from the highest score down; one step for each score that a positive has.

    ``hits``, ``hits_so_far``, ``alarms`` are (K, B): the positives at a step, those at or above it, the negatives strictly
    above it. ``tied`` is (K, B) negatives at the very score of the step, or None where there is none. ``positives`` and
    ``negatives`` are (B,) totals. Every measure is (B,), NaN where a resample lacks positives or negatives.
    """

    hits: Counts
    hits_so_far: Counts
    alarms: Counts
    tied: Counts | None
    positives: Counts
    negatives: Counts

    @cached_property
    def _alarms_after(self) -> Counts:
        return self.alarms if self.tied is None else self.alarms + self.tied

    @cached_property
    def _undefined(self) -> NDArray[np.bool_]:
        return (self.positives == 0) | (self.negatives == 0)

    def auroc(self) -> Array:
        """Return the probability that a positive outranks a negative, ties counting one half."""
        lost = _products(self.hits, self.alarms)
        if self.tied is not None:
            lost += _products(self.hits, self.tied) / 2
        return 1 - _divide(lost, self.positives.astype(np.float64) * self.negatives, self._undefined)

    def average_precision(self) -> Array:
        """Sum precision times the recall gained, without interpolation; NaN only without positives."""
        called = self.hits_so_far + self._alarms_after
        np.divide(self.hits_so_far, called, out=called, where=called > 0)
        return _divide(_products(self.hits, called), self.positives, self.positives == 0)

    def sensitivity_at_specificity(self, specificity: float) -> Array:
        """Return the highest sensitivity of a threshold whose specificity is at least this."""
        with np.errstate(invalid="ignore", divide="ignore"):
            step = _first(lambda rows: self._specificity(rows) < specificity, *self.hits.shape)
            hits = np.where(step > 0, _rows(self.hits_so_far, step - 1), 0.0)
        return _divide(hits, self.positives, self._undefined)

    def specificity_at_sensitivity(self, sensitivity: float) -> Array:
        """Return the highest specificity of a threshold whose sensitivity is at least this."""
        with np.errstate(invalid="ignore", divide="ignore"):
            step = _first(lambda rows: self._sensitivity(rows) >= sensitivity, *self.hits.shape)
            return np.where(self._undefined, np.nan, self._specificity(step).astype(np.float64))

    def partial_auroc(self, sensitivity: float = 0.8) -> Array:
        """Return the area under the ROC curve above this sensitivity, in [0, 1 - sensitivity]; ISIC 2024's pAUC at 0.8."""
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

    def _specificity(self, step: NDArray[np.int64]) -> Counts:
        return (self.negatives - _rows(self._alarms_after, step)) / self.negatives

    def _sensitivity(self, step: NDArray[np.int64]) -> Counts:
        return _rows(self.hits_so_far, step) / self.positives


class Ranking:
    """N examples sorted by score, whose ROC curve is then computed under any weighting.

    ``scores`` (N,) float, ``positive`` (N,) bool, ``column`` (N,) the group of each example in [0, columns).
    """

    def __init__(self, scores: Counts, positive: NDArray[np.bool_], column: NDArray[np.int64], columns: int) -> None:
        order = np.argsort(-scores, kind="stable")
        ranked, hit, column = scores[order], positive[order], column[order]
        level = np.append(0, np.cumsum(ranked[1:] != ranked[:-1])) if len(ranked) else np.zeros(0, dtype=np.int64)
        is_step = np.zeros(level[-1] + 1 if len(level) else 0, dtype=bool)
        is_step[level[hit]] = True
        steps = int(is_step.sum())
        step = (np.cumsum(is_step) - is_step)[level]  # a level that is no step gets the next step
        tied = is_step[level] & ~hit
        self._hits = _sums(step[hit], column[hit], (steps, columns))
        self._gaps = _sums(step[~hit & ~tied], column[~hit & ~tied], (steps + 1, columns))
        self._tied = _sums(step[tied], column[tied], (steps, columns)) if tied.any() else None

    def curve(self, counts: Counts) -> Curve:
        """Weight every example by its group's row of ``counts`` (columns, B).

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


def _running_sum(rows: Counts) -> Counts:
    """Turn rows into their running sum, in place; for rows this wide a loop over rows is faster than ``np.cumsum``."""
    for above, row in pairwise(rows):
        np.add(above, row, out=row)
    return rows


def _products(left: Counts, right: Counts) -> Array:
    return np.einsum("kb,kb->b", left, right, dtype=np.float64)


def _rows(table: Counts, row: NDArray[np.int64]) -> Counts:
    return table[row.clip(0, len(table) - 1), np.arange(table.shape[1])] if len(table) else np.zeros(table.shape[1])


def _first(condition: Callable[[NDArray[np.int64]], NDArray[np.bool_]], length: int, width: int) -> NDArray[np.int64]:
    """Find by bisection, in every column, the first row to meet a condition that all later rows meet; else ``length``."""
    low, high = np.zeros(width, dtype=np.int64), np.full(width, length, dtype=np.int64)
    while (low < high).any():
        middle = (low + high) // 2
        holds, searching = condition(middle), low < high
        low, high = np.where(searching & ~holds, middle + 1, low), np.where(searching & holds, middle, high)
    return low


def _divide(numerator: Counts, denominator: Counts, undefined: NDArray[np.bool_]) -> Array:
    return np.divide(numerator, denominator, out=np.full(numerator.shape, np.nan), where=~undefined)
