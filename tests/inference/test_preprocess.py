"""Our preprocessing is timm's, pixel for pixel, and its geometry is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from lesion_hub.inference.members import Member
from lesion_hub.inference.preprocess import Framing, Normalisation
from tests.inference.networks import classifier, picture


def model(**options):
    return classifier(size=options.pop("size", 32), **options)


@settings(max_examples=60)
@given(
    st.sampled_from(["center", "squash", "border"]),
    st.sampled_from(["bilinear", "bicubic"]),
    st.sampled_from([1.0, 0.95, 0.875]),
    st.integers(5, 150),
    st.integers(5, 150),
    st.sampled_from([32, (24, 40)]),
)
@example("border", "bilinear", 0.875, 28, 33, 32)  # one pixel short of the input: padded below, not above
def test_every_transform_equals_timms(mode, interpolation, crop_pct, height, width, size):
    network = model(size=size, crop_mode=mode, interpolation=interpolation, crop_pct=crop_pct)
    image = picture(height, width)
    ours = Member("m", network).prepare([image])[0]
    theirs = network.transform(image)
    assert ours.shape == theirs.shape
    torch.testing.assert_close(ours, theirs, atol=2e-6, rtol=0)


def test_the_logits_are_those_of_timms_transform():
    network = classifier("mobilenetv2_050", size=64, crop_pct=0.875)
    image = picture(90, 120)
    expected = network(network.transform(image)[None]).detach()
    torch.testing.assert_close(Member("m", network).ready().logits([image]), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("mode", ["center", "squash", "border"])
def test_the_placement_says_where_the_input_lies(mode):
    """Every mode finds a white spot of the image where its placement says that it is."""
    network = model(crop_mode=mode, crop_pct=0.875, size=64)
    framing = Framing.of(network.input_config)
    pixels = np.zeros((90, 120, 3), np.uint8)
    pixels[40:50, 65:75] = 255
    from PIL import Image

    place = framing.place((90, 120))
    crop = framing.crop(Image.fromarray(pixels)).astype(float)[..., 0]
    if mode == "border":
        crop = np.where(crop > 200, crop, 0)
    rows, columns = np.indices(crop.shape)
    found = (rows * crop).sum() / crop.sum() + 0.5, (columns * crop).sum() / crop.sum() + 0.5
    expected = 45 * place.resized[0] / 90 - place.corner[0], 70 * place.resized[1] / 120 - place.corner[1]
    assert found == pytest.approx(expected, abs=0.3)


def test_a_batch_is_laid_out_channels_last_and_in_the_wanted_dtype():
    normalise = Normalisation((0.5, 0.4, 0.3), (0.2, 0.3, 0.4))
    crops = [np.full((4, 5, 3), 255, np.uint8), np.zeros((4, 5, 3), np.uint8)]
    batch = normalise(crops, torch.device("cpu"), torch.float32)
    assert batch.shape == (2, 3, 4, 5)
    assert batch.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(batch[:, :, 0, 0], torch.tensor([[2.5, 2.0, 1.75], [-2.5, -4 / 3, -0.75]]))
    assert normalise(crops, torch.device("cpu"), torch.float16).dtype == torch.float16
