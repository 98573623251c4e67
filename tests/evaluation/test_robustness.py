"""Robustness is measured on the same images, clean and disturbed, and its numbers are what they are called."""

from __future__ import annotations

import io
import json
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import lesion_hub
from lesion_hub.config import OperatingPoint
from lesion_hub.errors import ConfigError
from lesion_hub.evaluation.intervals import bootstrap_means
from lesion_hub.evaluation.plots import robustness_plot
from lesion_hub.evaluation.predictions import Predictions
from lesion_hub.evaluation.robustness import Stressed, evenly_drawn, result_rows, stress, summarise_robustness
from lesion_hub.evaluation.scoring import score_dataset
from lesion_hub.inference import Predictor
from lesion_hub.taxonomy import label_space
from tests.inference.networks import classifier

BINARY = label_space("binary")
POINT = {"sensitivity_90": OperatingPoint(threshold=0.5, metric="sensitivity", target=0.9)}


def predictions(*malignant: float) -> Predictions:
    scores = np.array(malignant)
    return Predictions(np.stack([1 - scores, scores], axis=1), np.array([0, 0, 1, 1]), BINARY)


@pytest.fixture
def summary():
    worse = {("hair", 1): predictions(0.1, 0.2, 0.8, 0.9), ("hair", 5): predictions(0.1, 0.7, 0.4, 0.9)}
    return summarise_robustness(Stressed(predictions(0.1, 0.2, 0.8, 0.9), list("abcd"), worse), POINT)


def test_nothing_changes_where_nothing_is_disturbed(summary):
    same = summary["conditions"]["hair"]["by_severity"]["1"]
    assert (
        same["flip_rate"]["value"] == same["malignancy_shift_size"]["value"] == same["sensitivity_90_flip_rate"]["value"] == 0
    )
    assert same["balanced_accuracy"]["value"] == summary["clean"]["balanced_accuracy"]["value"] == 1


def test_flips_and_shifts_are_counted(summary):
    worse = summary["conditions"]["hair"]["by_severity"]["5"]
    assert worse["flip_rate"]["value"] == 0.5
    assert worse["malignancy_shift"]["value"] == pytest.approx((0.5 - 0.4) / 4)
    assert worse["malignancy_shift_size"]["value"] == pytest.approx((0.5 + 0.4) / 4)
    assert worse["sensitivity_90_flip_rate"]["value"] == 0.5
    assert worse["balanced_accuracy"]["value"] == 0.5


def test_it_is_json_a_table_and_a_picture(summary):
    assert json.loads(json.dumps(summary, allow_nan=False)) == summary
    assert [(name, severity) for name, severity, _ in result_rows(summary)] == [("hair", "1"), ("hair", "5")]
    Image.open(io.BytesIO(robustness_plot(summary))).verify()


def test_every_condition_is_scored_on_the_same_images(make_model, data):
    predictor = lesion_hub.from_pretrained(make_model())
    options = {"conditions": ("darken", "hair"), "severities": (5,), "most": 6}
    found = stress(predictor, data.dataset, data.space, data.space, **options)
    again = stress(predictor, data.dataset, data.space, data.space, **options)
    assert set(found.worse) == {("darken", 5), ("hair", 5)}
    assert len(found.clean) == len(found.groups) == 6
    for case, worse in found.worse.items():
        assert np.array_equal(worse.labels, found.clean.labels)
        assert not np.allclose(worse.probabilities, found.clean.probabilities)
        assert np.array_equal(worse.probabilities, again.worse[case].probabilities)


def test_a_model_that_knows_the_patient_is_told_of_them(data):
    predictor, few = Predictor.of(classifier("resnet10t", metadata=True)), data.dataset.select(range(6))
    found = stress(predictor, few, data.space, data.space, conditions=("hair",), severities=(1,))
    scored = score_dataset(predictor, few, data.space)
    assert not scored.facts[["age", "sex", "site"]].isna().all(axis=None)
    np.testing.assert_allclose(found.clean.probabilities, scored.probabilities, atol=1e-6)


def test_an_unknown_condition_is_one_line(data):
    with pytest.raises(ConfigError, match="did you mean 'hair'"):
        stress(SimpleNamespace(space=data.space), data.dataset, data.space, data.space, conditions=("hare",))


@given(st.lists(st.integers(-1, 3), min_size=1, max_size=60).filter(lambda labels: max(labels) >= 0), st.integers(1, 20))
def test_an_even_draw_keeps_the_shares_of_the_labels(labels, most):
    values = np.array(labels)
    rows = evenly_drawn(values, most)
    known = values[values >= 0]
    assert len(rows) == len(set(rows.tolist())) == min(most, len(known))
    for label in set(known.tolist()):
        expected = len(rows) * (known == label).sum() / len(known)
        assert abs((values[rows] == label).sum() - expected) < 2


def test_a_mean_over_lesions_of_one_image_each_has_the_usual_interval():
    values = np.random.default_rng(0).normal(3, 1, 400)
    found = bootstrap_means({"x": (values, np.ones(400))}, np.arange(400))["x"]
    half = 1.96 * values.std() / 20
    assert found.value == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - half, abs=0.02)
    assert found.high == pytest.approx(values.mean() + half, abs=0.02)
