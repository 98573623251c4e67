"""A section of metrics.json: measures with intervals, calibration, operating points, and results by group."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from scipy.special import softmax

from lesion_hub.config import OperatingPoint
from lesion_hub.evaluation import metrics
from lesion_hub.evaluation.assessment import assess, calibration_effect, points_that_fit
from lesion_hub.evaluation.calibration import expected_calibration_error
from lesion_hub.taxonomy import label_space, space_from_names

HAM7 = label_space("ham7")
RNG = np.random.default_rng(0)
LABELS = np.arange(140) % 7
LOGITS = RNG.normal(size=(140, 7)) + 2 * np.eye(7)[LABELS]
PROBABILITIES = softmax(LOGITS, axis=1)
GROUPS = [f"lesion{i // 2}" for i in range(140)]
FACTS = pd.DataFrame(
    {
        "sex": ["female"] * 100 + ["male"] * 40,
        "age": [50.0] * 140,
        "site": [None] * 140,
        "source": ["one"] * 140,
        "width": [600] * 140,
        "height": [450] * 140,
        "skin_tone": [None] * 140,
    }
)
POINTS = {"sensitivity_90": OperatingPoint(threshold=0.3, metric="sensitivity", target=0.9)}


@pytest.fixture(scope="module")
def section():
    return assess(PROBABILITIES, LABELS, GROUPS, HAM7, points=POINTS, facts=FACTS, resamples=100)


def test_it_holds_all_measures_and_an_interval_for_each(section):
    plain = metrics.compute(PROBABILITIES, LABELS, HAM7)
    assert {name: section[name] for name in plain} == plain
    for name, value in metrics.flatten(plain).items():
        assert section["intervals"][name]["value"] == pytest.approx(value)
    assert section["groups_count"] == 70


def test_it_is_json_without_nan(section):
    assert json.loads(json.dumps(section, allow_nan=False)) == section


def test_points_are_judged_with_what_they_were_chosen_for(section):
    point = section["operating_points"]["sensitivity_90"]
    assert (point["threshold"], point["metric"], point["target"], point["chosen_on"]) == (0.3, "sensitivity", 0.9, "validation")
    malignant = np.isin(LABELS, (0, 2, 3))
    called = PROBABILITIES[:, [0, 2, 3]].sum(axis=1) >= 0.3
    assert point["sensitivity"]["value"] == pytest.approx(called[malignant].mean())
    assert set(point["at_prevalence"]) == {"0.01", "0.05", "0.1", "0.2"}


@pytest.mark.parametrize(("sex", "rows"), [("female", slice(0, 100)), ("male", slice(100, 140))])
def test_each_bin_holds_the_measures_of_its_images(section, sex, rows):
    found = section["by_group"]["sex"][sex]
    own = metrics.compute(PROBABILITIES[rows], LABELS[rows], HAM7)
    assert found["images"] == own["examples"]
    assert found["intervals"]["balanced_accuracy"]["value"] == pytest.approx(own["balanced_accuracy"])
    assert found["intervals"]["malignancy.auroc"]["value"] == pytest.approx(own["malignancy"]["auroc"])


def test_small_bins_carry_a_warning(section):
    assert section["by_group"]["sex"]["female"]["warning"] is None
    assert section["by_group"]["sex"]["male"]["warning"] == "20 lesions or patients, too few to tell"


def test_a_bin_with_few_malignant_images_carries_a_warning():
    labels = np.where(np.arange(140) < 5, 0, 1)
    section = assess(PROBABILITIES, labels, range(140), HAM7, facts=FACTS, resamples=20)
    assert section["by_group"]["sex"]["female"]["warning"] == "5 malignant images, too few to tell"


def test_labels_that_say_nothing_of_malignancy_have_no_points():
    space = space_from_names(["tinea", "vitiligo"])
    facts = FACTS.iloc[80:120]
    section = assess(np.full((40, 2), 0.5), np.arange(40) % 2, range(40), space, points=POINTS, facts=facts, resamples=20)
    assert (section["operating_points"], section["malignancy"]) == ({}, None)
    assert set(section["by_group"]["sex"]["male"]["intervals"]) == {"balanced_accuracy", "accuracy"}


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_taking_the_temperature_out_again_is_exact(temperature):
    tempered = softmax(LOGITS / temperature, axis=1)
    found = calibration_effect(tempered, LABELS, GROUPS, HAM7, temperature, resamples=20)
    assert found["ece_before"]["value"] == pytest.approx(expected_calibration_error(PROBABILITIES, LABELS))
    assert found["ece_after"]["value"] == pytest.approx(expected_calibration_error(tempered, LABELS))
    assert found["temperature"] == temperature


def test_thresholds_do_not_travel_to_another_convention():
    isic8 = label_space("isic8")
    assert points_that_fit(POINTS, isic8, label_space("binary")) == POINTS
    assert points_that_fit(POINTS, isic8, label_space("binary_ak_benign")) == {}
    assert points_that_fit(POINTS, HAM7, HAM7) == POINTS
