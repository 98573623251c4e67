"""Temperature scaling finds the optimum where there is one, stays bounded where there is none, and never changes a decision."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from sklearn.metrics import log_loss

from lesion_hub.errors import LesionHubError
from lesion_hub.evaluation import calibration


def calibrated_logits(seed: int, examples: int = 2000, classes: int = 5) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Logits whose softmax is the true distribution of the labels, so that the right temperature is 1."""
    random = np.random.default_rng(seed)
    logits = random.normal(scale=2.0, size=(examples, classes))
    chances = softmax(logits, axis=1).cumsum(axis=1)
    return logits, (random.random((examples, 1)) > chances[:, :-1]).sum(axis=1)


@pytest.mark.parametrize("scale", [0.3, 1.0, 2.5, 8.0])
def test_the_temperature_undoes_the_scale_of_the_logits(scale: float) -> None:
    logits, labels = calibrated_logits(0)
    assert calibration.fit_temperature(logits * scale, labels) == pytest.approx(scale, rel=0.06)


@pytest.mark.parametrize("scale", [0.2, 1.0, 5.0])
def test_the_temperature_is_the_minimum_of_the_likelihood(scale: float) -> None:
    logits, labels = calibrated_logits(1)
    rows = np.arange(len(labels))

    def nll(log_temperature: float) -> float:
        return float(-log_softmax(logits * scale / np.exp(log_temperature), axis=1)[rows, labels].mean())

    expected = minimize_scalar(nll, bounds=(-3, 3), method="bounded", options={"xatol": 1e-9}).x
    assert np.log(calibration.fit_temperature(logits * scale, labels)) == pytest.approx(expected, abs=1e-4)


def test_the_result_reports_what_was_gained() -> None:
    logits, labels = calibrated_logits(2)
    result = calibration.calibrate(logits * 4, labels)
    after = softmax(logits * 4 / result.temperature, axis=1)
    assert result.nll_before == pytest.approx(log_loss(labels, softmax(logits * 4, axis=1)), rel=1e-6)
    assert result.nll_after == pytest.approx(log_loss(labels, after)) and result.nll_after < result.nll_before
    assert result.ece_after == pytest.approx(calibration.expected_calibration_error(after, labels))
    assert result.ece_after < result.ece_before / 3
    assert result.note is None and result.examples == len(labels)
    json.dumps(result.to_dict(), allow_nan=False)


def test_separable_data_stop_at_the_lower_bound_with_a_note() -> None:
    result = calibration.calibrate([[1.0, 0.0], [0.0, 1.0]], [0, 1])
    assert result.temperature == calibration.TEMPERATURE_BOUNDS[0] and "lower bound" in str(result.note)


def test_a_model_that_is_always_wrong_stops_at_the_upper_bound_with_a_note() -> None:
    result = calibration.calibrate([[5.0, 0.0], [0.0, 5.0]], [1, 0])
    assert result.temperature == calibration.TEMPERATURE_BOUNDS[1] and "upper bound" in str(result.note)
    assert result.nll_after < result.nll_before


def test_constant_logits_keep_temperature_one() -> None:
    result = calibration.calibrate(np.zeros((4, 3)), [0, 1, 2, 0])
    assert result.temperature == 1.0 and result.note


def test_log_probabilities_and_logits_give_the_same_temperature() -> None:
    logits, labels = calibrated_logits(3)
    from_log = calibration.fit_temperature(log_softmax(logits * 3, axis=1), labels)
    assert from_log == pytest.approx(calibration.fit_temperature(logits * 3, labels), rel=1e-8)


def test_the_logarithm_of_zero_does_not_break_the_fit() -> None:
    with np.errstate(divide="ignore"):
        scores = np.log(np.array([[1.0, 0.0], [1.0, 0.0], [0.3, 0.7], [0.4, 0.6]]))
    result = calibration.calibrate(scores, [0, 1, 1, 0])
    assert np.isfinite(result.nll_before) and result.temperature > 1


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10_000),
    st.integers(1, 30),
    st.floats(0.01, 100.0),
)
def test_no_decision_changes_and_the_likelihood_never_falls(seed: int, examples: int, scale: float) -> None:
    random = np.random.default_rng(seed)
    logits, labels = random.normal(size=(examples, 4)) * scale, random.integers(4, size=examples)
    result = calibration.calibrate(logits, labels)
    low, high = calibration.TEMPERATURE_BOUNDS
    assert low <= result.temperature <= high
    assert result.nll_after <= result.nll_before
    assert ((logits / result.temperature).argmax(axis=1) == logits.argmax(axis=1)).all()


def test_tempering_a_mean_probability_is_a_softmax_of_its_scaled_logarithm() -> None:
    logits, _ = calibrated_logits(4, examples=20)
    tempered = calibration.apply_temperature(softmax(logits, axis=1), 1.7)
    assert tempered == pytest.approx(softmax(logits / 1.7, axis=1), abs=1e-12)
    assert calibration.apply_temperature([[1.0, 0.0]], 1.0) == pytest.approx(np.array([[1.0, 0.0]]), abs=1e-12)


def test_bins_are_closed_below_and_one_belongs_to_the_last() -> None:
    edges = np.linspace(0, 1, 16)
    assert calibration.bin_of(edges).tolist() == [*range(15), 14]
    assert calibration.bin_of(np.nextafter(edges[1:-1], 0)).tolist() == list(range(14))


def test_a_reliability_diagram_holds_every_example_once() -> None:
    diagram = calibration.reliability_bins([[0.9, 0.1], [0.92, 0.08], [0.45, 0.55]], [0, 1, 1])
    assert diagram.counts.sum() == 3 and len(diagram.edges) == 16
    assert diagram.confidence[13] == pytest.approx(0.91) and diagram.accuracy[13] == pytest.approx(0.5)
    assert diagram.accuracy[8] == 1.0 and np.isnan(diagram.accuracy[0])


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        ([[np.nan, 0.0]], [0], "row 0 holds NaN"),
        ([[np.inf, 0.0]], [0], "row 0 holds NaN or infinity"),
        ([[1.0, 0.0]], [2], "label 2 in row 0"),
        ([1.0, 0.0], [0], "give \\(N, C\\)"),
        (np.zeros((0, 2)), [], "hold no row"),
    ],
)
def test_what_cannot_be_fitted_is_one_line(logits: object, labels: list[int], message: str) -> None:
    with pytest.raises(LesionHubError, match=message):
        calibration.fit_temperature(logits, labels)
