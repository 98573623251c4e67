from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from tests.training.augmentation.examples import (
    draws_of,
    photos_of,
    resample_slowly,
)
from training.augmentation import AugmentationOptions
from training.augmentation.geometry import halvings, resample


def test_resampling_is_the_per_image_definition():
    photos = photos_of(12)
    theta = draws_of(AugmentationOptions(scale=(0.3, 0.9)), 12, size=(26, 22)).theta
    assert not halvings(theta, (30, 40), (26, 22)).any()
    fast = resample(photos, theta, (26, 22)).numpy()
    slow = np.stack([resample_slowly(image, map_, (26, 22)) for image, map_ in zip(photos.numpy(), theta, strict=True)])
    assert np.abs(fast - slow).max() < 0.01


def test_flips_and_quarter_turns_are_exact():
    photo = photos_of(1, 32, 32)
    maps = {
        "as it is": ([[1, 0, 0], [0, 1, 0]], lambda x: x),
        "mirrored": ([[-1, 0, 0], [0, 1, 0]], lambda x: x[:, ::-1]),
        "upside down": ([[1, 0, 0], [0, -1, 0]], lambda x: x[::-1]),
        "turned": ([[0, -1, 0], [1, 0, 0]], lambda x: np.rot90(x, 1)),
        "upper left quarter": ([[0.5, 0, -0.5], [0, 0.5, -0.5]], None),
    }
    for name, (theta, expected) in maps.items():
        side = 32 if expected else 16
        out = resample(photo, np.array([theta], np.float32), (side, side))[0].permute(1, 2, 0).numpy()
        wanted = expected(photo[0].numpy()) if expected else photo[0, :16, :16].numpy()
        np.testing.assert_allclose(out, wanted, atol=1e-3, err_msg=name)


@pytest.mark.parametrize("factor", [2, 4])
@pytest.mark.parametrize("odd", [0, 1])
def test_reduction_is_antialiased(factor, odd):
    source = (24 * factor + odd, 32 * factor + odd)
    photo = photos_of(1, *source)
    whole = np.array([[[1, 0, 0], [0, 1, 0]]], np.float32)
    ours = resample(photo, whole, (24, 32))[0]
    pillow = Image.fromarray(photo[0].numpy()).resize((32, 24), Image.Resampling.BILINEAR)
    assert (ours.permute(1, 2, 0) - torch.from_numpy(np.asarray(pillow).copy())).abs().max() < 7
    lines = torch.zeros(1, *source, 3, dtype=torch.uint8)
    lines[:, :, ::2] = 255
    assert resample(lines, whole, (24, 32))[..., 2:-2].std() < 15, "fine lines come out gray, not broken up"


def test_each_sample_is_halved_as_its_own_scale_asks():
    photos = photos_of(3, 96, 96)
    theta = np.stack([np.diag([s, s, 1])[:2] for s in (1.0, 0.5, 0.25)]).astype(np.float32)
    assert halvings(theta, (96, 96), (24, 24)).tolist() == [2, 1, 0]
    together = resample(photos, theta, (24, 24))
    for i in range(3):
        assert torch.equal(resample(photos[i : i + 1], theta[i : i + 1], (24, 24))[0], together[i])
