"""Pictures without a lesion are drawn at any size, the same again from one seed, and a varied lesion stays a picture of it."""

import numpy as np
import pytest

from lesion_hub.data.outliers import OUTLIERS, draw_outliers, vary
from lesion_hub.data.synthetic import draw_lesion


@pytest.fixture(scope="module")
def lesion():
    return draw_lesion("nv", 5, (64, 48), artefacts=False).image


@pytest.mark.parametrize("size", [(8, 8), (33, 70), (64, 48)])
def test_every_kind_is_a_picture_of_the_lesion_s_size(lesion, size):
    drawn = list(draw_outliers([np.resize(lesion, (*size, 3))], len(OUTLIERS), seed=3))
    assert [name for name, _ in drawn] == list(OUTLIERS)
    assert {(picture.shape, picture.dtype.name) for _, picture in drawn} == {((*size, 3), "uint8")}


def test_a_number_is_the_same_picture_whatever_is_drawn_before_it(lesion):
    whole = list(draw_outliers([lesion], 14, seed=1))
    again = list(draw_outliers([lesion], 6, seed=1, first=8))
    assert [name for name, _ in again] == [name for name, _ in whole[8:]]
    assert all(np.array_equal(one, other) for (_, one), (_, other) in zip(again, whole[8:], strict=True))
    assert not np.array_equal(whole[0][1], whole[12][1])  # the same kind, drawn anew


def test_a_lesion_that_is_varied_keeps_its_form_and_differs(lesion):
    varied = [vary(lesion, seed) for seed in range(6)]
    assert {(picture.shape, picture.dtype.name) for picture in varied} == {(lesion.shape, "uint8")}
    assert np.array_equal(vary(lesion, 4), varied[4])
    assert sum(not np.array_equal(picture, lesion) for picture in varied) >= 4
