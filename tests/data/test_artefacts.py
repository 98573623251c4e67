import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lesion_hub.data.artefacts import ARTEFACTS, add_artefact, artefact_layer, blend
from lesion_hub.errors import DataError

NAMES = sorted(ARTEFACTS)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=12, deadline=None)
@given(
    width=st.integers(32, 160),
    height=st.integers(32, 160),
    severity=st.integers(1, 5),
    seed=st.integers(0, 2**31),
)
def test_a_layer_has_the_size_the_types_and_the_range_that_blending_needs(name, width, height, severity, seed):
    rgb, alpha = artefact_layer(name, (width, height), severity, seed)
    assert (rgb.shape, rgb.dtype) == ((height, width, 3), np.uint8)
    assert (alpha.shape, alpha.dtype) == ((height, width), np.float32)
    assert np.isfinite(alpha).all()
    assert 0 <= alpha.min() <= alpha.max() <= 1


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_layer_and_another_seed_another(name):
    first, again, other = (artefact_layer(name, 96, 4, seed) for seed in (7, 7, 8))
    assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
    assert not np.array_equal(first[1], other[1])


@pytest.mark.parametrize("name", NAMES)
def test_severity_covers_more_of_the_image(name):
    covered = [np.mean([artefact_layer(name, 128, severity, seed)[1].mean() for seed in range(12)]) for severity in (1, 3, 5)]
    assert 0 < covered[0] < covered[1] < covered[2]


@pytest.mark.parametrize("name", NAMES)
def test_every_layer_leaves_most_of_the_skin_to_be_seen(name):
    alphas = [artefact_layer(name, 128, 5, seed)[1] for seed in range(6)]
    assert np.mean(alphas) < 0.6


def test_blending_is_the_formula_that_a_gpu_batch_uses():
    image = np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)
    rgb, alpha = artefact_layer("ink", (56, 40), 5, 1)
    expected = image * (1 - alpha[..., None].astype(np.float64)) + rgb * alpha[..., None].astype(np.float64)
    assert np.abs(blend(image, (rgb, alpha)) - expected).max() <= 0.51
    assert np.array_equal(add_artefact(image, "ink", 5, 1), blend(image, (rgb, alpha)))


def test_dark_corners_darken_the_corners_and_spare_the_middle():
    image = np.full((90, 120, 3), 210, np.uint8)
    dark = add_artefact(image, "dark_corners", 5, 3)
    assert dark[0, 0].max() < 40
    assert np.array_equal(dark[45, 60], image[45, 60])


def test_an_artefact_does_not_change_its_input():
    image = np.full((48, 48, 3), 200, np.uint8)
    add_artefact(image, "hair", 5, 0)
    assert (image == 200).all()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("hairs", 64, 3, 0), "did you mean 'hair'"),
        (("hair", 64, 6, 0), "1 to 5"),
        (("hair", 64, 0, 0), "1 to 5"),
        (("hair", 64, 3, -1), "negative"),
        (("hair", (64, 0), 3, 0), "64x0"),
    ],
)
def test_bad_arguments_are_named_in_one_line(arguments, words):
    with pytest.raises(DataError, match=words) as caught:
        artefact_layer(*arguments)
    assert "\n" not in str(caught.value)
