"""Every image falls into one bin of each trait; a number on the edge belongs to the upper bin; unknown stays unknown."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lesion_hub.evaluation.traits import bins, image_traits, skin_tone_angle


def facts(**columns: list) -> pd.DataFrame:
    count = len(next(iter(columns.values())))
    empty = {name: [None] * count for name in ("sex", "age", "site", "source", "skin_tone")}
    return pd.DataFrame({**empty, "width": [600] * count, "height": [450] * count, **columns})


def test_ages_fall_into_bands_whose_lower_end_is_theirs():
    found = bins(facts(age=[29.0, 30.0, 44.9, 75.0, None]))["age"]
    assert {name: rows.tolist() for name, rows in found.items()} == {
        "under 30": [0],
        "30 to 44": [1, 2],
        "75 and over": [3],
        "unknown": [4],
    }


def test_a_trait_with_one_bin_is_left_out():
    assert set(bins(facts(sex=["male", "male"], age=[20.0, 50.0]))) == {"age"}


def test_size_is_the_shorter_side():
    found = bins(facts(width=[255, 256, 2000], height=[900, 256, 1024]))["size"]
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
    for found in bins(facts(sex=sex, age=age, skin_tone=tone)).values():
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
