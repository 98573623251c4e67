from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from lesion_hub.models import LesionClassifier
from tests.training.augmentation.examples import (
    photos_of,
)
from training.augmentation import eval_batch


def _config(**options):
    model = LesionClassifier.create("lesion_cnn_shallow", "binary", image_size=32)
    return model.input_config.model_copy(update=options), model


def _gray_levels(ours, expected, config):
    return (ours - expected).abs() * torch.tensor(config.std)[:, None, None] * 255


@pytest.mark.parametrize("shape", [(60, 80), (80, 60), (70, 70), (45, 100), (30, 41)])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"interpolation": "bicubic"},
        {"crop_pct": 0.875},
        {"crop_mode": "squash"},
        {"crop_mode": "border", "crop_pct": 0.9},
        {"input_size": (3, 32, 48)},
    ],
    ids=str,
)
def test_evaluation_of_uncached_images_is_the_models_transform(shape, options):
    config, model = _config(**options)
    model.input_config = config
    photos = photos_of(2, *shape)
    expected = torch.stack([model.transform(Image.fromarray(photo.numpy())) for photo in photos])
    difference = _gray_levels(eval_batch(photos, config), expected, config)
    assert difference.max() < 2.6 and difference.mean() < 0.3


@pytest.mark.parametrize(("cached_size", "tolerance"), [((42, 32), 1e-3), ((43, 32), 2), ((64, 48), 1)])
def test_evaluation_of_a_cache_differs_by_the_second_resize_alone(cached_size, tolerance):
    config, model = _config(interpolation="bicubic")
    model.input_config = config
    photos = [Image.fromarray(photo.numpy()) for photo in photos_of(3, 120, 160)]
    cached = torch.from_numpy(np.stack([np.asarray(photo.resize(cached_size, Image.Resampling.BICUBIC)) for photo in photos]))
    stretch = np.full(3, (160 / 120) * (cached_size[1] / cached_size[0]), np.float32)
    expected = torch.stack([model.transform(photo) for photo in photos])
    assert _gray_levels(eval_batch(cached, config, stretch=stretch), expected, config).mean() < tolerance


def test_evaluation_undoes_a_squash_image_by_image():
    config, model = _config()
    shapes = [(60, 80), (80, 80), (60, 80)]
    photos = [Image.fromarray(photos_of(1, *shape, seed=i)[0].numpy()) for i, shape in enumerate(shapes)]
    cached = torch.from_numpy(np.stack([np.asarray(photo.resize((64, 64), Image.Resampling.BICUBIC)) for photo in photos]))
    stretch = np.array([width / height for height, width in shapes], np.float32)
    expected = torch.stack([model.transform(photo) for photo in photos])
    ours = eval_batch(cached, config, stretch=stretch, dtype=torch.float64, channels_last=True)
    assert ours.dtype == torch.float64 and ours.is_contiguous(memory_format=torch.channels_last)
    assert _gray_levels(ours, expected, config).mean() < 2
    assert _gray_levels(eval_batch(cached, config)[0], expected[0], config).mean() > 4, "stretch matters"
