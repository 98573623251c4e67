from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lesion_hub.config import validated
from lesion_hub.errors import ConfigError
from lesion_hub.training.augmentation import AugmentationOptions
from lesion_hub.training.augmentation.draws import uniforms
from tests.training.augmentation.examples import STILL, draws_of


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rotate": 10}, "unknown key 'rotate'"),
        ({"artefacts": {"hairs": 0.1}}, "did you mean 'hair'"),
        ({"scale": (0.9, 0.5)}, "give the smaller one first"),
        ({"scale": (0.5, 1.5)}, "at most 1"),
        ({"artefact_severity": (1, 9)}, "from 1 to 5"),
        ({"hflip": 1.5}, "hflip"),
    ],
)
def test_mistakes_in_the_options_are_one_line(options, message):
    with pytest.raises(ConfigError, match=message):
        validated(AugmentationOptions, options, "augmentation")


def test_uniforms_are_splitmix64_of_their_counters():
    """Written out in Python's own integers: what a seed means must never change."""

    def mixed(x):
        x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        x = (x ^ (x >> 27)) * 0x94D049BB133111EB % 2**64
        return x ^ (x >> 31)

    golden = 0x9E3779B97F4A7C15
    key = mixed((mixed((5 + golden) % 2**64) + 2) % 2**64)
    sample = mixed((key + 11 * golden) % 2**64)
    expected = (mixed((sample + 3 * golden) % 2**64) >> 11) / 2**53
    assert uniforms(5, 2, np.array([10]), 4)[0, 2] == expected


def test_uniforms_are_uniform_and_unrelated():
    u = uniforms(0, 0, np.arange(20_000), 8)
    assert np.abs(u.mean(axis=0) - 0.5).max() < 0.01
    assert np.abs(u.var(axis=0) - 1 / 12).max() < 0.002
    assert np.abs(np.corrcoef(u.T) - np.eye(8)).max() < 0.03
    assert abs(np.corrcoef(u[:-1, 0], u[1:, 0])[0, 1]) < 0.03
    assert ((u >= 0) & (u < 1)).all()


@given(st.lists(st.integers(0, 2**40), min_size=1, max_size=20), st.integers(0, 99), st.integers(0, 99))
def test_a_number_depends_on_its_own_counters_alone(positions, seed, epoch):
    together = uniforms(seed, epoch, np.array(positions), 6)
    apart = np.concatenate([uniforms(seed, epoch, np.array([position]), 6) for position in positions])
    np.testing.assert_array_equal(together, apart)


def test_seeds_epochs_and_positions_give_other_numbers():
    values = [uniforms(s, e, np.array([p]), 1)[0, 0] for s in range(6) for e in range(6) for p in range(6)]
    assert len(set(values)) == 6**3


def test_one_option_leaves_the_draws_of_the_others_alone():
    plain, full = draws_of(AugmentationOptions()), draws_of(AugmentationOptions(blur=0.5, erase=0.5, artefacts={"ink": 0.5}))
    np.testing.assert_array_equal(plain.theta, full.theta)
    np.testing.assert_array_equal(plain.colour, full.colour)


def _corners(theta):
    return np.einsum("nij,kj->nki", theta, [[-1, -1, 1], [1, -1, 1], [-1, 1, 1], [1, 1, 1]])


def _shape(theta, source, stretch=1.0):
    """Width and height of crops in shown pixels."""
    pixels = theta[:, :, :2] * np.array([source[1] * stretch, source[0]])[:, None]
    return np.linalg.norm(pixels, axis=1).T


@settings(max_examples=40, deadline=None)
@given(
    source=st.tuples(st.integers(20, 60), st.integers(20, 60)),
    size=st.tuples(st.integers(8, 30), st.integers(8, 30)),
    scale=st.tuples(st.floats(0.05, 0.5), st.floats(0.5, 1.0)),
    ratio=st.tuples(st.floats(0.3, 1.0), st.floats(1.0, 3.0)),
    stretch=st.floats(0.5, 2.0),
)
def test_crops_lie_inside_the_image_and_within_their_limits(source, size, scale, ratio, stretch):
    options = STILL.model_copy(update={"scale": scale, "ratio": ratio, "shift": 1.0, "hflip": 0.5, "vflip": 0.5})
    theta = draws_of(options, 50, source, size, np.full(50, stretch)).theta.astype(float)
    assert np.abs(_corners(theta)).max() <= 1 + 1e-5
    width, height = _shape(theta, source, stretch)
    stretching = width / height * size[0] / size[1]
    assert stretching.min() >= ratio[0] * (1 - 1e-5) and stretching.max() <= ratio[1] * (1 + 1e-5)
    assert (width * height / (source[0] * source[1] * stretch)).max() <= scale[1] * (1 + 1e-5)


def test_the_area_of_crops_is_uniform_where_it_fits():
    options = STILL.model_copy(update={"scale": (0.2, 0.7), "ratio": (3 / 4, 4 / 3)})
    width, height = _shape(draws_of(options, 5000).theta.astype(float), (30, 40))
    shares = width * height / 1200
    assert np.histogram(shares, 10, (0.2, 0.7))[0] == pytest.approx(500, rel=0.15)


def test_a_crop_without_options_is_the_largest_undistorted_one_in_the_middle():
    theta = draws_of(STILL, 1).theta[0]
    np.testing.assert_allclose(theta, [[0.75, 0, 0], [0, 1, 0]], atol=1e-6)


@pytest.mark.parametrize("shift", [0.0, 0.5, 1.0])
def test_crops_go_as_far_off_centre_as_permitted(shift):
    options = STILL.model_copy(update={"scale": (0.25, 0.25), "shift": shift})
    off_centre = np.abs(draws_of(options, 2000).theta[:, :, 2])
    room = 1 - np.sqrt(0.25 * 1200) / np.array([40, 30])
    assert off_centre.max(axis=0) == pytest.approx(shift * room, rel=0.02, abs=1e-6)


def test_flips_come_as_often_as_they_should():
    theta = draws_of(STILL.model_copy(update={"hflip": 0.3, "vflip": 0.8}), 4000).theta
    assert (theta[:, 0, 0] < 0).mean() == pytest.approx(0.3, abs=0.03)
    assert (theta[:, 1, 1] < 0).mean() == pytest.approx(0.8, abs=0.03)


@given(stretch=st.floats(0.6, 1.8))
def test_rotation_turns_what_is_shown_rigidly(stretch):
    options = STILL.model_copy(update={"rotation": 90.0, "scale": (0.3, 0.3)})
    theta = draws_of(options, 100, (32, 40), (24, 24), np.full(100, stretch)).theta.astype(float)
    shown = theta[:, :, :2] * np.array([40 * stretch, 32])[:, None]
    gram = shown.transpose(0, 2, 1) @ shown
    np.testing.assert_allclose(gram[:, 0, 1], 0, atol=1e-2)
    np.testing.assert_allclose(gram[:, 0, 0], gram[:, 1, 1], rtol=1e-4)
    angle = np.rad2deg(np.arctan2(shown[:, 1, 0], shown[:, 0, 0]))
    assert angle.min() < -70 and angle.max() > 70 and np.abs(angle).max() <= 90.001


def test_a_turned_crop_stays_inside_where_it_can():
    options = STILL.model_copy(update={"rotation": 180.0, "scale": (0.2, 0.3), "shift": 1.0})
    assert np.abs(_corners(draws_of(options, 500).theta.astype(float))).max() <= 1 + 1e-5


def test_factors_fill_their_ranges():
    colour = draws_of(STILL.model_copy(update={"brightness": 0.2, "contrast": 1.5, "hue": 0.1}), 3000).colour
    np.testing.assert_allclose(colour.min(axis=0), [0.8, 0, 1, -0.1], atol=0.01)
    np.testing.assert_allclose(colour.max(axis=0), [1.2, 2.5, 1, 0.1], atol=0.01)


def test_erased_boxes_have_the_drawn_area_inside_the_image():
    boxes = draws_of(STILL.model_copy(update={"erase": 0.25, "erase_area": (0.1, 0.3)}), 4000).erase.astype(float)
    drawn = boxes[boxes[:, 2] > 0]
    assert len(drawn) / 4000 == pytest.approx(0.25, abs=0.03)
    area = (drawn[:, 2] - drawn[:, 0]) * (drawn[:, 3] - drawn[:, 1])
    assert area.min() >= 0.0999 and area.max() <= 0.3001 and drawn.min() >= 0 and drawn.max() <= 1.00001


def test_artefacts_come_as_often_as_asked_and_from_the_whole_bank():
    layers = draws_of(AugmentationOptions(artefacts={"hair": 0.3, "ink": 0.0}, artefact_layers=4), 4000).layers
    assert (layers["hair"] >= 0).mean() == pytest.approx(0.3, abs=0.03)
    assert set(layers["hair"].tolist()) == {-1, 0, 1, 2, 3}
    assert (layers["ink"] == -1).all()
