"""95 % intervals by resampling groups, paired differences between two models, and McNemar's test.

Images of one lesion or patient are not independent, so whole groups are drawn with replacement, as many as there are. The
draw is not stratified by class: how many of each class a test set holds is part of what chance decides. Resample ``b`` of a
seed depends on nothing but the seed, ``b`` and the set of groups, so two models see the same resamples.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import bdtr

from lesion_hub.errors import DataError
from lesion_hub.evaluation.metrics import Measures
from lesion_hub.evaluation.predictions import check_predictions
from lesion_hub.evaluation.weighting import AdditiveSums, Array, Counts
from lesion_hub.taxonomy import LabelSpace, label_space

Statistic = Callable[[Counts], Mapping[str, Array]]

RESAMPLES = 2000
LEAST_GROUPS = 30
"""Lesions or patients below which a group of images is too small to tell."""
LEVEL = 0.95
_CELLS_PER_BATCH = 12_800_000  # counts of groups x resamples that each thread holds at a time: 51 MB
_STRIP = 16  # resamples written side by side, a cache line of float32
_MOST_THREADS = 4


@dataclass(frozen=True)
class Interval:
    """A value and its percentile interval. All three None where undefined; the bounds also where there is only one group.

    ``defined`` is the share of resamples in which the measure had a value, which is 1 unless a class is very rare.
    """

    value: float | None
    low: float | None
    high: float | None
    defined: float = 1.0

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON-able values."""
        return asdict(self)


class McNemar(NamedTuple):
    """Examples that only one of two models gets right, and the exact two-sided p-value of their balance."""

    only_first: int
    only_second: int
    p_value: float


def bootstrap(
    probabilities: ArrayLike,
    labels: ArrayLike,
    groups: Sequence[Any] | NDArray[Any],
    space: LabelSpace | str,
    resamples: int = RESAMPLES,
    seed: int = 0,
    metrics: Collection[str] | None = None,
) -> dict[str, Interval]:
    """Return 95 % intervals of the measures of ``metrics.compute``, by dotted name; ``metrics`` limits them to some names.

    ``probabilities`` (N, C), ``labels`` (N,) integers, ``groups`` (N,) lesion or patient of each example.

    >>> chances = [[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.3, 0.7]]
    >>> bootstrap(chances, [0, 0, 1, 1], ["a", "b", "c", "d"], "binary", metrics=["accuracy"])["accuracy"]
    Interval(value=0.75, low=0.25, high=1.0, defined=1.0)
    """
    space = label_space(space) if isinstance(space, str) else space
    predictions = check_predictions(probabilities, labels, space)
    group = group_numbers(groups, len(predictions))
    return bootstrap_statistic(Measures(predictions, group, metrics).evaluate, group, resamples, seed)


def difference(
    first: ArrayLike,
    second: ArrayLike,
    labels: ArrayLike,
    groups: Sequence[Any] | NDArray[Any],
    space: LabelSpace | str,
    resamples: int = RESAMPLES,
    seed: int = 0,
    metrics: Collection[str] | None = None,
) -> dict[str, Interval]:
    """Return paired intervals of (measure of ``first``) - (measure of ``second``), two (N, C) predictions of the same examples.

    >>> better, worse = [[0.9, 0.1], [0.2, 0.8]] * 8, [[0.9, 0.1], [0.6, 0.4]] * 8
    >>> difference(better, worse, [0, 1] * 8, range(16), "binary", metrics=["accuracy"])["accuracy"].value
    0.5
    """
    space = label_space(space) if isinstance(space, str) else space
    pair = [check_predictions(given, labels, space) for given in (first, second)]
    group = group_numbers(groups, len(pair[0]))
    one, two = (Measures(predictions, group, metrics) for predictions in pair)

    def gap(counts: Counts) -> dict[str, Array]:
        subtrahend = two.evaluate(counts)
        return {name: value - subtrahend[name] for name, value in one.evaluate(counts).items()}

    return bootstrap_statistic(gap, group, resamples, seed)


def bootstrap_means(
    values: Mapping[Any, tuple[ArrayLike, ArrayLike]],
    groups: Sequence[Any] | NDArray[Any],
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[Any, Interval]:
    """Return 95 % intervals of means over some of N examples each: by name (N,) values, and (N,) bool, which of them count.

    ``groups`` (N,) are the lesion or patient of each example.

    >>> bootstrap_means({"right": ([1, 0, 1, 1], [True] * 4)}, ["a", "b", "c", "d"])["right"]
    Interval(value=0.75, low=0.25, high=1.0, defined=1.0)
    """
    names = list(values)
    if not names:
        return {}
    rows = [np.asarray(mask, dtype=bool) for _, mask in values.values()]
    group = group_numbers(groups, len(rows[0]))
    examples = [np.flatnonzero(mask) for mask in rows]
    taken = np.concatenate(examples).astype(np.int64)
    row = np.repeat(np.arange(len(names)), [len(found) for found in examples])
    value = np.concatenate(
        [np.asarray(given, dtype=np.float64)[found] for (given, _), found in zip(values.values(), examples, strict=True)]
    )
    shape = (len(names), int(group.max()) + 1)
    sums = AdditiveSums(value, row, group[taken], shape)
    sizes = AdditiveSums(np.ones(len(taken)), row, group[taken], shape)

    def means(counts: Counts) -> dict[str, Array]:
        total, size = sums.weighted(counts), sizes.weighted(counts)
        mean = np.divide(total, size, out=np.full(total.shape, np.nan), where=size > 0)
        return {str(place): one for place, one in enumerate(mean)}

    found = bootstrap_statistic(means, group, resamples, seed)
    return {name: found[str(place)] for place, name in enumerate(names)}


def measure_bins(
    values: Mapping[str, tuple[ArrayLike, ArrayLike]],
    bins: Mapping[str, Mapping[str, NDArray[np.int64]]],
    groups: Sequence[Any] | NDArray[Any],
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, dict[str, dict[str, Any]]]:
    """Measure the means of ``bootstrap_means`` in bins of the examples, by trait and name of the bin; all as plain values.

    ``bins`` holds the rows of each. Beside the means stands how many ``images`` and ``groups`` a bin has, and whether these are
    too ``few`` to tell.
    """
    names, wanted = np.asarray(groups), {}
    for trait, found in bins.items():
        for name, rows in found.items():
            there = np.zeros(len(names), dtype=bool)
            there[rows] = True
            for what, (given, mask) in values.items():
                wanted[(trait, name, what)] = (given, there & np.asarray(mask, dtype=bool))
    means = bootstrap_means(wanted, groups, resamples, seed)
    return {
        trait: {
            name: {
                "images": len(rows),
                "groups": len(set(names[rows].tolist())),
                "few": len(set(names[rows].tolist())) < LEAST_GROUPS,
                **{what: means[(trait, name, what)].to_dict() for what in values},
            }
            for name, rows in found.items()
        }
        for trait, found in bins.items()
    }


def mcnemar(first_correct: ArrayLike, second_correct: ArrayLike) -> McNemar:
    """Run the exact McNemar test on two (N,) bool arrays: is either model right more often where they disagree?

    It takes examples as independent; with many images per lesion, trust ``difference`` instead.

    >>> mcnemar([True] * 6 + [False], [False] * 6 + [True])
    McNemar(only_first=6, only_second=1, p_value=0.125)
    """
    one, two = (np.asarray(given, dtype=bool) for given in (first_correct, second_correct))
    if one.ndim != 1 or one.shape != two.shape:
        raise DataError(f"cannot pair {one.shape} with {two.shape} outcomes; score both models on the same examples")
    only_first, only_second = int((one & ~two).sum()), int((two & ~one).sum())
    disagree = only_first + only_second
    # Not scipy.stats.binomtest: it rounds differently, and comparison.json keeps every digit.
    p_value = min(1.0, 2 * float(bdtr(min(only_first, only_second), disagree, 0.5)))
    return McNemar(only_first, only_second, p_value)


def group_numbers(groups: Sequence[Any] | NDArray[Any], rows: int) -> NDArray[np.int64]:
    """Number the (N,) groups of the examples 0..G-1, whatever they are called."""
    names = np.asarray(groups)
    if names.ndim != 1 or len(names) != rows:
        raise DataError(f"groups have shape {names.shape} for {rows} predictions; give one lesion or patient per row")
    if names.dtype == object:
        missing = np.array([name is None or name != name for name in names])
        if missing.any():
            raise DataError(f"row {int(missing.argmax())} has no group; give its lesion or patient, or its own image id")
        names = names.astype(str)
    return np.unique(names, return_inverse=True)[1].astype(np.int64)


def bootstrap_statistic(statistic: Statistic, group: NDArray[np.int64], resamples: int, seed: int) -> dict[str, Interval]:
    """Return intervals of any statistic of group counts: a function of (G, B) floats that returns (B,) arrays by name."""
    if resamples < 1:
        raise DataError(f"{resamples} resamples give no interval; ask for 1000 or more")
    columns = int(group.max()) + 1
    point = statistic(np.ones((columns, 1)))
    size = max(1, _CELLS_PER_BATCH // columns)
    batches = [range(start, min(start + size, resamples)) for start in range(0, resamples, size)]
    # Whole numbers are exact in float32 up to 2 ** 24, and a resample of unequal groups may hold more than all examples.
    dtype = np.float32 if 2 * len(group) < 2**24 else np.float64

    def evaluate_share(share: Sequence[range]) -> list[Mapping[str, Array]]:
        # The batches of a thread are drawn into one array: fresh memory would cost more than the draw itself.
        counts = np.empty((columns, max(map(len, share))), dtype=dtype)
        return [statistic(_draw(counts[:, : len(batch)], batch, seed)) for batch in share]

    threads = min(_MOST_THREADS, os.cpu_count() or 1, len(batches))
    with ThreadPoolExecutor(threads) as pool:
        shares = pool.map(evaluate_share, [batches[thread::threads] for thread in range(threads)])
        parts = [part for share in shares for part in share]
    return {
        name: _interval(float(value[0]), np.concatenate([part[name] for part in parts]), columns)
        for name, value in point.items()
    }


def _draw(counts: Counts, batch: range, seed: int) -> Counts:
    """Fill (G, B) ``counts`` with how often each group is drawn in each resample of the batch."""
    columns = len(counts)
    for start in range(0, len(batch), _STRIP):
        strip = []
        for resample in batch[start : start + _STRIP]:
            drawn = np.random.default_rng([seed, resample]).integers(columns, size=columns, dtype=np.uint32)
            strip.append(np.bincount(drawn.astype(np.intp), minlength=columns))
        counts[:, start : start + _STRIP] = np.stack(strip, axis=1)
    return counts


def _interval(value: float, resampled: Array, columns: int) -> Interval:
    known = resampled[~np.isnan(resampled)]
    share = len(known) / len(resampled)
    if np.isnan(value):
        return Interval(None, None, None, defined=share)
    if columns == 1 or not len(known):
        return Interval(value, None, None, defined=share)
    low, high = np.percentile(known, [50 * (1 - LEVEL), 50 * (1 + LEVEL)])
    return Interval(value, float(low), float(high), defined=share)
