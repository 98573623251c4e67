"""Thresholds reach their target on the data they are chosen on, are the most useful such threshold, and survive rounding."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lesion_hub.config import OperatingPoint
from lesion_hub.errors import LesionHubError
from lesion_hub.evaluation import operating_points
from lesion_hub.evaluation.predictions import check_predictions
from lesion_hub.taxonomy import label_space

scores_and_truth = st.lists(st.tuples(st.integers(0, 20), st.booleans()), min_size=2, max_size=60).filter(
    lambda rows: 0 < sum(truth for _, truth in rows) < len(rows)
)


def rates(scores: np.ndarray, truth: np.ndarray, threshold: float) -> dict[str, float]:
    called = scores >= threshold
    return {"sensitivity": float(called[truth].mean()), "specificity": float((~called[~truth]).mean())}


@settings(max_examples=200, deadline=None)
@given(scores_and_truth)
def test_a_threshold_reaches_its_target_and_no_other_does_better(rows: list[tuple[int, bool]]) -> None:
    scores, truth = np.array([s / 20 for s, _ in rows]), np.array([t for _, t in rows])
    candidates = [rates(scores, truth, t) for t in np.r_[scores, np.nextafter(scores, 2)] if t <= 1]
    for metric, target in operating_points.TARGETS:
        other = "specificity" if metric == "sensitivity" else "sensitivity"
        enough = [rate[other] for rate in candidates if rate[metric] >= target]
        point = operating_points.choose(scores, truth).get(operating_points.point_name(metric, target))
        if point is None:
            assert metric == "specificity" and not enough
            continue
        achieved = rates(scores, truth, point.threshold)
        assert achieved[metric] >= target
        assert achieved[other] == max(enough)


def test_names_and_provenance_are_stored() -> None:
    chosen = operating_points.choose([0.1, 0.9], [False, True], chosen_on="fold 1")
    assert list(chosen) == ["sensitivity_90", "sensitivity_95", "specificity_95"]
    assert chosen["specificity_95"] == OperatingPoint(threshold=0.5, metric="specificity", target=0.95, chosen_on="fold 1")


def test_a_target_is_met_exactly_and_not_overshot() -> None:
    """10 malignant, one of which scores below all benign: 90 % is exactly the other nine."""
    scores = np.r_[0.05, np.linspace(0.6, 0.9, 9), np.linspace(0.1, 0.5, 10)]
    chosen = operating_points.choose(scores, np.arange(20) < 10)
    assert chosen["sensitivity_90"].threshold == pytest.approx(0.55)
    assert chosen["sensitivity_95"].threshold <= 0.05


def test_a_threshold_keeps_its_decisions_in_float32() -> None:
    random = np.random.default_rng(0)
    scores, truth = random.random(500), random.random(500) < 0.3
    for point in operating_points.choose(scores, truth).values():
        assert ((scores.astype(np.float32) >= point.threshold) == (scores >= point.threshold)).all()


@pytest.mark.parametrize(("truth", "reason"), [([True, True], "no benign"), ([False, False], "no malignant")])
def test_one_class_alone_gives_no_points_and_says_why(truth: list[bool], reason: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert operating_points.choose([0.2, 0.8], truth) == {}
    assert reason in caplog.text and reason in str(operating_points.why_none(truth))
    assert operating_points.why_none([]) == "the data hold no malignant example"


def test_benign_lesions_at_one_leave_no_threshold_for_specificity(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        chosen = operating_points.choose([1.0, 1.0], [True, False])
    assert "specificity_95" not in chosen and chosen["sensitivity_90"].threshold <= 1.0
    assert "benign lesions score 1.0" in caplog.text


def test_points_are_judged_on_other_data_with_intervals() -> None:
    scores = [0.9, 0.8, 0.4, 0.7, 0.2, 0.1, 0.3, 0.05]
    truth = [True, True, True, False, False, False, False, False]
    points = {"at_half": OperatingPoint(threshold=0.5, metric="sensitivity", target=0.9)}
    judged = operating_points.judge_points(points, scores, truth, list("aabcdefg"), prevalences=(0.5,), resamples=200)
    result = judged["at_half"]
    assert result["counts"] == {"true_positive": 2, "false_positive": 1, "true_negative": 4, "false_negative": 1}
    assert result["sensitivity"]["value"] == pytest.approx(2 / 3) and result["specificity"]["value"] == pytest.approx(0.8)
    assert result["ppv"]["value"] == pytest.approx(2 / 3) and result["npv"]["value"] == pytest.approx(0.8)
    assert result["sensitivity"]["low"] <= 2 / 3 <= result["sensitivity"]["high"]
    at_half = result["at_prevalence"]["0.5"]
    assert at_half["ppv"] == pytest.approx((2 / 3) / (2 / 3 + 0.2)) and at_half["npv"] == pytest.approx(0.8 / (0.8 + 1 / 3))


def test_one_class_alone_is_judged_as_far_as_it_can_be() -> None:
    points = {"at_half": OperatingPoint(threshold=0.5, metric="sensitivity", target=0.9)}
    result = operating_points.judge_points(points, [0.2, 0.7], [False, False], ["a", "b"], resamples=20)["at_half"]
    assert result["sensitivity"]["value"] is None and result["specificity"]["value"] == 0.5
    assert result["npv"]["value"] == 1.0 and result["ppv"]["value"] == 0.0
    assert result["at_prevalence"] == {}
    assert result["undefined"] == {"sensitivity": "the data hold no malignant example"}


def test_a_point_that_calls_nobody_has_no_ppv_and_says_so() -> None:
    points = {"never": OperatingPoint(threshold=1.0, metric="specificity", target=0.95)}
    result = operating_points.judge_points(points, [0.2, 0.7], [False, True], ["a", "b"], resamples=20)["never"]
    assert result["ppv"]["value"] is None and result["undefined"] == {"ppv": "no lesion is called suspicious"}


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 50), st.integers(0, 50), st.integers(1, 50), st.integers(0, 50))
def test_predictive_values_at_the_samples_own_prevalence_are_the_samples(tp: int, fn: int, tn: int, fp: int) -> None:
    malignant, benign = tp + fn, tn + fp
    values = operating_points.predictive_values(tp / malignant, tn / benign, malignant / (malignant + benign))
    assert values.ppv == pytest.approx(tp / (tp + fp)) and values.npv == pytest.approx(tn / (tn + fn))


def test_predictive_values_without_a_call_are_none() -> None:
    assert operating_points.predictive_values(0.0, 1.0, 0.1).ppv is None
    assert operating_points.predictive_values(1.0, 0.0, 0.1).npv is None
    with pytest.raises(LesionHubError, match="prevalence 2 is outside"):
        operating_points.predictive_values(0.9, 0.9, 2)


@pytest.mark.parametrize(
    ("scores", "truth", "message"),
    [
        ([0.5, np.nan], [True, False], "in row 1 is outside 0..1"),
        ([0.5, 3.0], [True, False], "not logits"),
        ([0.5], [True, False], "give one of each"),
        ([0.5, 0.4], [-1, 1], "true or false"),
    ],
)
def test_what_cannot_be_thresholded_is_one_line(scores: list[float], truth: list[int], message: str) -> None:
    with pytest.raises(LesionHubError, match=message):
        operating_points.choose(scores, truth)


def test_malignancy_of_predictions_feeds_the_choice() -> None:
    space = label_space("isic9")
    labels = np.arange(90) % 9
    question = check_predictions(np.eye(9)[labels], labels, space).malignancy()
    assert question is not None and len(question.truth) == 80
    assert operating_points.choose(question.scores, question.truth)["sensitivity_95"].threshold == 0.5


def test_rows_that_round_to_more_than_one_are_still_thresholded() -> None:
    """float32 softmax: the malignant labels of a certain row add up to 1.0000001."""
    space = label_space("isic2017")
    certain = np.array([[1.0000001, 0.0, 0.0], [0.0, 1.0, 0.0]])
    question = check_predictions(certain, [0, 1], space).malignancy()
    assert question is not None and question.scores.tolist() == [1.0, 0.0]
    assert operating_points.choose([1.0000001, 0.2], [True, False])["specificity_95"].threshold == pytest.approx(0.6)
