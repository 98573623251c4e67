from __future__ import annotations

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as reference

from tests.training.augmentation.examples import (
    MEAN,
    STD,
    photos_of,
)
from training.augmentation.colour import blur, recolour


def _recoloured(photos, **factors):
    """Our jitter without normalisation, 0 to 1, of float (N, 3, h, w) in 0 to 1."""
    row = {"brightness": 1.0, "contrast": 1.0, "saturation": 1.0, "hue": 0.0, **factors}
    return recolour(photos * 255, np.tile(np.array(list(row.values()), np.float32), (len(photos), 1)), (0, 0, 0), (1, 1, 1))


@pytest.fixture
def muted():
    """Photographs without extreme colours, so that no step of the reference clips."""
    return photos_of(3).permute(0, 3, 1, 2) / 255 * 0.4 + 0.3


@pytest.mark.parametrize("factor", [0.7, 1.0, 1.3])
@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation"])
def test_jitter_is_torchvisions(name, factor, muted):
    expected = getattr(reference, f"adjust_{name}")(muted, factor)
    torch.testing.assert_close(_recoloured(muted, **{name: factor}), expected, atol=2e-3, rtol=0)


@pytest.mark.parametrize("turn", [-0.1, 0.03, 1 / 3])
def test_hue_turns_the_colour_circle_as_torchvisions_does(turn, muted):
    def hue(images):
        red, green, blue = images.unbind(1)
        return torch.atan2(3**0.5 * (green - blue), 2 * red - green - blue) / (2 * torch.pi)

    ours, expected = _recoloured(muted, hue=turn), reference.adjust_hue(muted, turn)
    colourful = muted.amax(1) - muted.amin(1) > 0.1
    for turned, tolerance in ((ours, 1e-3), (expected, 0.02)):
        off = (hue(turned) - hue(muted) - turn + 0.5).remainder(1) - 0.5
        assert off[colourful].abs().max() < tolerance


def test_hue_keeps_gray_and_the_mean_and_comes_round(muted):
    gray = muted[:, :1].expand(-1, 3, -1, -1)
    torch.testing.assert_close(_recoloured(gray, hue=0.3), gray, atol=1e-5, rtol=0)
    torch.testing.assert_close(_recoloured(muted, hue=0.08).mean(1), muted.mean(1), atol=1e-5, rtol=0)
    torch.testing.assert_close(_recoloured(muted, hue=1.0), muted, atol=1e-5, rtol=0)


def test_all_jitter_at_once_is_one_step_after_the_other(muted):
    steps = muted
    for factor in ({"brightness": 1.1}, {"contrast": 0.8}, {"saturation": 1.2}, {"hue": 0.02}):
        steps = _recoloured(steps, **factor)
    ours = _recoloured(muted, brightness=1.1, contrast=0.8, saturation=1.2, hue=0.02)
    torch.testing.assert_close(ours, steps, atol=1e-5, rtol=0)


def test_jitter_and_normalisation_are_one(muted):
    factors = np.array([[1.4, 1.2, 1.3, 0.1]] * 3, np.float32)
    plain = recolour(muted * 255, factors, (0, 0, 0), (1, 1, 1))
    assert plain.min() >= 0 and plain.max() <= 1, "colours out of range are clipped"
    torch.testing.assert_close(
        recolour(muted * 255, factors, MEAN, STD), reference.normalize(plain, MEAN, STD), atol=1e-5, rtol=0
    )
    torch.testing.assert_close(recolour(muted * 255, None, MEAN, STD), reference.normalize(muted, MEAN, STD))


def test_blur_is_torchvisions_and_touches_nothing_else():
    photos = photos_of(3).permute(0, 3, 1, 2).float()
    sigma = np.array([0.0, 0.7, 1.9], np.float32)
    blurred = blur(photos.clone(), sigma, longest=2.0)
    assert torch.equal(blurred[0], photos[0])
    for i in (1, 2):
        expected = reference.gaussian_blur(photos[i], [13, 13], [float(sigma[i])] * 2)
        torch.testing.assert_close(blurred[i], expected, atol=1e-2, rtol=0)
