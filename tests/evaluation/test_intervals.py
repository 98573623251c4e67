"""Intervals resample groups, repeat with a seed, equal a plain bootstrap written out, and shrink and grow as they should."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import binomtest

from lesion_hub.errors import LesionHubError
from lesion_hub.evaluation import intervals, metrics
from lesion_hub.taxonomy import label_space

HAM7, BINARY = label_space("ham7"), label_space("binary")


def random_case(seed: int, examples: int, classes: int = 7) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    random = np.random.default_rng(seed)
    labels = random.integers(classes, size=examples)
    logits = np.round(random.normal(size=(examples, classes)), 1)
    logits[np.arange(examples), labels] += 1
    odds = np.exp(logits)
    return odds / odds.sum(axis=1, keepdims=True), labels


def test_every_bound_is_that_of_a_bootstrap_written_out() -> None:
    """Draw groups, stack their examples, compute each measure anew: the slow way, with the same draws."""
    probabilities, labels = random_case(0, 60)
    groups = np.random.default_rng(1).integers(25, size=60)
    fast = intervals.bootstrap(probabilities, labels, groups, HAM7, resamples=40, seed=3)
    number = intervals.group_numbers(groups, 60)
    values: dict[str, list[float]] = {name: [] for name in fast}
    for resample in range(40):
        size = number.max() + 1
        drawn = np.random.default_rng([3, resample]).integers(size, size=size, dtype=np.uint32)
        rows = np.concatenate([np.flatnonzero(number == group) for group in drawn])
        flat = metrics.flatten(metrics.compute(probabilities[rows], labels[rows], HAM7))
        for name, value in flat.items():
            if value is not None:
                values[name].append(value)
    for name, interval in fast.items():
        assert interval.defined == len(values[name]) / 40
        expected = np.percentile(values[name], [2.5, 97.5])
        assert (interval.low, interval.high) == pytest.approx(tuple(expected), abs=1e-6), name


def test_values_are_those_of_compute_and_lie_inside_their_bounds() -> None:
    probabilities, labels = random_case(2, 500)
    result = intervals.bootstrap(probabilities, labels, np.arange(500), HAM7, resamples=300)
    flat = metrics.flatten(metrics.compute(probabilities, labels, HAM7))
    assert {name: interval.value for name, interval in result.items()} == pytest.approx(flat, abs=1e-12)
    assert tuple(result) == metrics.names(HAM7)
    biased_upwards = {"ece", "classwise_ece"}
    for name, interval in result.items():
        assert interval.low <= interval.high
        if name not in biased_upwards:
            assert interval.low <= interval.value <= interval.high, name


def test_the_interval_of_accuracy_is_that_of_the_binomial() -> None:
    labels = np.zeros(2000, dtype=int)
    right = np.arange(2000) % 5 != 0
    probabilities = np.where(right[:, None], [0.9, 0.1], [0.1, 0.9])
    accuracy = intervals.bootstrap(probabilities, labels, np.arange(2000), BINARY, metrics=["accuracy"])["accuracy"]
    half = 1.96 * np.sqrt(0.8 * 0.2 / 2000)
    assert (accuracy.low, accuracy.high) == pytest.approx((0.8 - half, 0.8 + half), abs=0.002)


def test_copies_within_a_group_add_no_certainty() -> None:
    probabilities, labels = random_case(3, 200)
    once = intervals.bootstrap(probabilities, labels, np.arange(200), HAM7, metrics=["accuracy", "macro_auroc"])
    copies = [np.repeat(array, 5, axis=0) for array in (probabilities, labels, np.arange(200))]
    assert intervals.bootstrap(*copies, HAM7, metrics=["accuracy", "macro_auroc"]) == once
    as_if_independent = intervals.bootstrap(*copies[:2], np.arange(1000), HAM7, metrics=["accuracy"])["accuracy"]
    assert as_if_independent.high - as_if_independent.low < 0.6 * (once["accuracy"].high - once["accuracy"].low)


def test_a_seed_repeats_and_another_does_not() -> None:
    probabilities, labels = random_case(4, 150)
    groups = [f"lesion {i // 2}" for i in range(150)]
    first, again, other = (intervals.bootstrap(probabilities, labels, groups, HAM7, 200, seed) for seed in (0, 0, 1))
    assert first == again != other


def test_batches_and_threads_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    probabilities, labels = random_case(5, 80)
    whole = intervals.bootstrap(probabilities, labels, np.arange(80), HAM7, 101)
    monkeypatch.setattr(intervals, "_CELLS_PER_BATCH", 80 * 7)
    assert intervals.bootstrap(probabilities, labels, np.arange(80), HAM7, 101) == whole


@settings(max_examples=15, deadline=None)
@given(st.permutations(range(30)), st.integers(0, 100))
def test_the_order_of_examples_does_not_matter(order: list[int], seed: int) -> None:
    probabilities, labels = random_case(seed, 30, classes=2)
    groups = np.array([f"g{i % 11}" for i in range(30)])
    plain = intervals.bootstrap(probabilities, labels, groups, BINARY, 50)
    shuffled = intervals.bootstrap(probabilities[order], labels[order], groups[order], BINARY, 50)
    for name, interval in plain.items():
        other = shuffled[name]
        given = [bound for bound in (other.value, other.low, other.high) if bound is not None]
        expected = [bound for bound in (interval.value, interval.low, interval.high) if bound is not None]
        assert given == pytest.approx(expected, abs=1e-6), name


def test_only_the_wanted_measures_are_computed_and_an_unknown_one_is_named() -> None:
    probabilities, labels = random_case(6, 40)
    wanted = ["malignancy.pauc_80", "per_class.mel.auroc"]
    whole = intervals.bootstrap(probabilities, labels, np.arange(40), HAM7, 30)
    some = intervals.bootstrap(probabilities, labels, np.arange(40), HAM7, 30, metrics=wanted)
    assert some == {name: whole[name] for name in some} and sorted(some) == wanted
    with pytest.raises(LesionHubError, match=r"unknown measure 'balanced_acuracy'.*'balanced_accuracy'"):
        intervals.bootstrap(probabilities, labels, np.arange(40), HAM7, metrics=["balanced_acuracy"])


def test_a_rare_class_says_in_how_many_resamples_it_occurred() -> None:
    probabilities, _ = random_case(7, 50)
    labels = np.r_[0, np.ones(49, dtype=int)]
    result = intervals.bootstrap(probabilities, labels, np.arange(50), HAM7, 400)
    assert result["per_class.mel.sensitivity"].defined == pytest.approx(1 - (1 - 1 / 50) ** 50, abs=0.08)
    absent = result["per_class.df.auroc"]
    assert absent == intervals.Interval(None, None, None, defined=0.0)


def test_one_group_alone_has_values_without_bounds() -> None:
    probabilities, labels = random_case(8, 20)
    accuracy = intervals.bootstrap(probabilities, labels, ["a"] * 20, HAM7, 10)["accuracy"]
    assert accuracy.value is not None and accuracy.low is None and accuracy.high is None


def test_a_model_does_not_differ_from_itself() -> None:
    probabilities, labels = random_case(9, 100)
    result = intervals.difference(probabilities, probabilities, labels, np.arange(100), HAM7, 50)
    assert {(gap.value, gap.low, gap.high) for gap in result.values()} == {(0.0, 0.0, 0.0)}


def test_a_paired_difference_is_tighter_than_two_intervals_and_changes_sign_with_the_pair() -> None:
    probabilities, labels = random_case(10, 400)
    worse = 0.9 * probabilities + 0.1 * np.roll(probabilities, 1, axis=0)
    groups = np.arange(400)
    gap = intervals.difference(probabilities, worse, labels, groups, HAM7, 300)
    back = intervals.difference(worse, probabilities, labels, groups, HAM7, 300)
    alone = [intervals.bootstrap(p, labels, groups, HAM7, 300)["macro_auroc"] for p in (probabilities, worse)]
    assert gap["macro_auroc"].value == pytest.approx(alone[0].value - alone[1].value)
    assert gap["macro_auroc"].high - gap["macro_auroc"].low < alone[0].high - alone[0].low
    assert back["macro_auroc"].low == pytest.approx(-gap["macro_auroc"].high)


@pytest.mark.parametrize(("b", "c"), [(0, 0), (6, 1), (1, 6), (5, 5), (0, 9), (30, 14)])
def test_mcnemar_is_the_exact_binomial_test(b: int, c: int) -> None:
    first = np.r_[np.ones(b), np.zeros(c), np.ones(4)]
    second = np.r_[np.zeros(b), np.ones(c), np.ones(4)]
    result = intervals.mcnemar(first, second)
    assert (result.only_first, result.only_second) == (b, c)
    assert result.p_value == pytest.approx(binomtest(b, b + c).pvalue if b + c else 1.0)


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (["a"], "groups have shape"),
        (["a", None, "b"], "row 1 has no group"),
        (np.array(["a", "b", np.nan], dtype=object), "row 2 has no group"),
    ],
)
def test_groups_that_are_missing_are_one_line(groups: list[str], message: str) -> None:
    with pytest.raises(LesionHubError, match=message):
        intervals.bootstrap([[0.5, 0.5]] * 3, [0, 1, 0], groups, BINARY)


def test_impossible_requests_are_one_line() -> None:
    with pytest.raises(LesionHubError, match="0 resamples"):
        intervals.bootstrap([[0.5, 0.5]], [0], ["a"], BINARY, resamples=0)
    with pytest.raises(LesionHubError, match="same examples"):
        intervals.mcnemar([True], [True, False])
