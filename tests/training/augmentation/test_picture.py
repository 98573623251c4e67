from __future__ import annotations

import numpy as np

from tests.training.augmentation.examples import (
    MEAN,
    STD,
    augmenter_of,
    photos_of,
)
from training.augmentation import AugmentationOptions, augmentation_picture


def test_the_picture_shows_originals_and_what_training_sees():
    photos = photos_of(2, 24, 24)
    augmenter = augmenter_of(AugmentationOptions(), 24)
    sheet = np.asarray(augmentation_picture(photos.numpy(), augmenter, copies=2))
    assert sheet.shape == (4 + 2 * 28, 3 * 28 + 8, 3)
    np.testing.assert_array_equal(sheet[4:28, 4:28], photos[0].numpy())
    second = augmenter(photos, np.arange(2), epoch=1)[1].permute(1, 2, 0).numpy() * STD + MEAN
    assert np.abs(sheet[32:56, 64:88] - second * 255).max() <= 0.51
