"""A section of metrics.json: measures with intervals, operating points, and results by group; the bins of each trait."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.special import softmax

from lesion_hub.config import OperatingPoint
from lesion_hub.evaluation import metrics
from lesion_hub.evaluation.assessment import assess, image_traits, points_that_fit, skin_tone_angle, trait_bins
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


def test_thresholds_do_not_travel_to_another_convention():
    isic8 = label_space("isic8")
    assert points_that_fit(POINTS, isic8, label_space("binary")) == POINTS
    assert points_that_fit(POINTS, isic8, label_space("binary_ak_benign")) == {}
    assert points_that_fit(POINTS, HAM7, HAM7) == POINTS


def facts(**columns: list) -> pd.DataFrame:
    count = len(next(iter(columns.values())))
    empty = {name: [None] * count for name in ("sex", "age", "site", "source", "skin_tone")}
    return pd.DataFrame({**empty, "width": [600] * count, "height": [450] * count, **columns})


def test_ages_fall_into_bands_whose_lower_end_is_theirs():
    found = trait_bins(facts(age=[29.0, 30.0, 44.9, 75.0, None]))["age"]
    assert {name: rows.tolist() for name, rows in found.items()} == {
        "under 30": [0],
        "30 to 44": [1, 2],
        "75 and over": [3],
        "unknown": [4],
    }


def test_a_trait_with_one_bin_is_left_out():
    assert set(trait_bins(facts(sex=["male", "male"], age=[20.0, 50.0]))) == {"age"}


def test_size_is_the_shorter_side():
    found = trait_bins(facts(width=[255, 256, 2000], height=[900, 256, 1024]))["size"]
    assert list(found) == ["under 256 px", "256 to 511 px", "1024 px and over"]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["male", "female", None]),
            st.one_of(st.none(), st.floats(0, 120)),
            st.one_of(st.none(), st.floats(-90, 90)),
        ),
        min_size=1,
        max_size=30,
    )
)
def test_bins_of_a_trait_share_out_all_images(rows):
    sex, age, tone = (list(column) for column in zip(*rows, strict=True))
    for found in trait_bins(facts(sex=sex, age=age, skin_tone=tone)).values():
        assert sorted(np.concatenate(list(found.values())).tolist()) == list(range(len(rows)))


def test_darker_skin_has_a_smaller_angle():
    tones = [(250, 225, 210), (225, 180, 155), (170, 120, 90), (95, 62, 45)]
    angles = [skin_tone_angle(Image.new("RGB", (60, 45), tone)) for tone in tones]
    assert angles == sorted(angles, reverse=True)
    assert angles[0] > 41 and angles[-1] < -30


def test_the_angle_is_that_of_the_rim_not_of_the_lesion():
    image = Image.new("RGB", (60, 45), (225, 180, 155))
    bare = skin_tone_angle(image)
    image.paste((60, 40, 30), (15, 12, 45, 33))
    assert skin_tone_angle(image) == pytest.approx(bare)


def test_a_dark_frame_has_no_skin_tone():
    assert skin_tone_angle(Image.new("RGB", (60, 45), (5, 5, 5))) is None


@pytest.mark.parametrize(
    ("colour", "lightness", "yellow"), [((255, 0, 0), 53.24, 67.20), ((255, 255, 0), 97.14, 94.48), ((0, 255, 0), 87.73, 83.18)]
)
def test_the_angle_follows_from_the_known_lab_values_of_pure_colours(colour, lightness, yellow):
    expected = np.degrees(np.arctan((lightness - 50) / yellow))
    assert skin_tone_angle(Image.new("RGB", (60, 45), colour)) == pytest.approx(expected, abs=0.02)


def test_traits_hold_the_upright_size():
    traits = image_traits(Image.new("RGB", (60, 45), (200, 150, 120)))
    assert (traits.width, traits.height) == (60, 45)
