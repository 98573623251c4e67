import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lesion_hub.data.artefacts import ARTEFACTS
from lesion_hub.data.corruptions import CORRUPTIONS, corrupt
from lesion_hub.data.synthetic import draw_lesion
from lesion_hub.errors import DataError

NAMES = sorted(CORRUPTIONS)
CAMERA = sorted(name for name, corruption in CORRUPTIONS.items() if corruption.kind == "camera")


@pytest.fixture(scope="module")
def lesion():
    return draw_lesion("nv", 5, (112, 84), artefacts=False).image


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=8, deadline=None)
@given(width=st.integers(1, 70), height=st.integers(1, 70), severity=st.integers(1, 5), seed=st.integers(0, 2**31))
def test_any_image_comes_back_in_its_own_form(name, width, height, severity, seed):
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    before = image.copy()
    corrupted = corrupt(image, name, severity, seed)
    assert (corrupted.shape, corrupted.dtype) == (image.shape, np.uint8)
    assert np.array_equal(image, before)


@pytest.mark.parametrize("name", NAMES)
def test_a_seed_repeats_itself(name, lesion):
    assert np.array_equal(corrupt(lesion, name, 4, 11), corrupt(lesion, name, 4, 11))


@pytest.mark.parametrize("name", ["motion_blur", "gaussian_noise", "colour_cast", *ARTEFACTS])
def test_what_is_random_differs_between_seeds(name, lesion):
    assert not np.array_equal(corrupt(lesion, name, 4, 1), corrupt(lesion, name, 4, 2))


@pytest.mark.parametrize("size", [48, 128])
@pytest.mark.parametrize("name", CAMERA)
def test_each_severity_is_farther_from_the_original(name, size):
    lesion = draw_lesion("nv", 5, size, artefacts=False).image
    distances = [np.abs(corrupt(lesion, name, severity, 3).astype(float) - lesion).mean() for severity in range(1, 6)]
    assert distances[0] > 0
    assert distances == sorted(distances)
    assert distances[4] > 1.5 * distances[0]


@pytest.mark.parametrize("name", ["gaussian_blur", "defocus_blur", "motion_blur", "downscale", "contrast"])
def test_blur_and_contrast_keep_the_mean_and_lower_the_spread(name, lesion):
    corrupted = corrupt(lesion, name, 4, 0)
    assert abs(corrupted.mean() - lesion.mean()) < 2
    assert corrupted.std() < lesion.std()


@pytest.mark.parametrize("name", ["defocus_blur", "motion_blur", "gaussian_blur"])
def test_a_blur_leaves_a_plain_image_as_it_is(name):
    plain = np.full((40, 60, 3), 137, np.uint8)
    assert np.array_equal(corrupt(plain, name, 5, 0), plain)


def test_a_severity_means_the_same_at_every_resolution():
    small, large = (draw_lesion("mel", 8, size, artefacts=False).image for size in (96, 288))
    spread = [corrupt(image, "gaussian_blur", 5, 0).std() / image.std() for image in (small, large)]
    assert spread[0] == pytest.approx(spread[1], rel=0.08)


def test_brightness_goes_the_way_its_name_says(lesion):
    assert corrupt(lesion, "brighten", 3, 0).mean() > lesion.mean() > corrupt(lesion, "darken", 3, 0).mean()


def test_a_colour_cast_shifts_the_channels_against_each_other(lesion):
    change = corrupt(lesion, "colour_cast", 5, 0).mean((0, 1)) / lesion.mean((0, 1))
    assert change.max() / change.min() > 1.2


def test_the_registry_holds_every_artefact_under_its_name():
    assert set(ARTEFACTS) == set(CORRUPTIONS) - set(CAMERA)
    assert all(name == corruption.name for name, corruption in CORRUPTIONS.items())


@pytest.mark.parametrize(
    ("image", "name", "severity", "seed", "words"),
    [
        (np.zeros((8, 8, 3), np.uint8), "gausian_blur", 3, 0, "did you mean 'gaussian_blur'"),
        (np.zeros((8, 8, 3), np.uint8), "jpeg", 9, 0, "1 to 5"),
        (np.zeros((8, 8), np.uint8), "jpeg", 3, 0, "height, width, 3"),
        (np.zeros((8, 8, 3), np.float32), "jpeg", 3, 0, "float32"),
        (np.zeros((8, 8, 3), np.uint8), "motion_blur", 3, -2, "negative"),
    ],
)
def test_bad_arguments_are_named_in_one_line(image, name, severity, seed, words):
    with pytest.raises(DataError, match=words) as caught:
        corrupt(image, name, severity, seed)
    assert "\n" not in str(caught.value)
