from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms.v2 import functional as reference

from lesion_hub.data.artefacts import artefact_layer
from lesion_hub.errors import ConfigError
from lesion_hub.models import LesionClassifier
from lesion_hub.training.augmentation import AugmentationOptions, augmentation_picture, eval_batch
from tests.training.augmentation.examples import (
    EVERYTHING,
    MEAN,
    STD,
    STILL,
    augmenter_of,
    draws_of,
    photos_of,
    resample_slowly,
)


def test_a_sample_is_the_same_in_every_batch():
    photos, places = photos_of(6, 60, 80), np.array([3, 14, 15, 92, 65, 35])
    augmenter = augmenter_of(EVERYTHING)
    whole = augmenter(photos, places, epoch=2)
    parts = [augmenter(photos[rows], places[rows], epoch=2) for rows in ([4, 0], [1], [5, 3, 2])]
    torch.testing.assert_close(torch.cat(parts), whole[[4, 0, 1, 5, 3, 2]], atol=1e-5, rtol=0)
    assert torch.equal(augmenter_of(EVERYTHING)(photos, places, epoch=2), whole)


def test_an_image_drawn_twice_is_changed_in_two_ways():
    photo = photos_of(1).expand(2, -1, -1, -1)
    augmenter = augmenter_of(AugmentationOptions())
    first = augmenter(photo, np.array([0, 1]), epoch=0)
    assert not torch.allclose(first[0], first[1], atol=0.1)
    assert not torch.allclose(first, augmenter(photo, np.array([0, 1]), epoch=1), atol=0.1)
    assert not torch.allclose(first, augmenter_of(AugmentationOptions(), seed=1)(photo, np.array([0, 1]), 0), atol=0.1)


def test_the_whole_is_its_parts_one_image_at_a_time():
    """The slow twin: each sample alone through the per-image definitions."""
    photos, size = photos_of(8), (24, 20)
    options = EVERYTHING.model_copy(update={"scale": (0.2, 0.7)})
    fast = augmenter_of(options, size)(photos, np.arange(8), epoch=0)
    draws = draws_of(options, 8, size=size)
    for i, photo in enumerate(photos.numpy()):
        pixels = resample_slowly(photo, draws.theta[i], size)
        for kind in EVERYTHING.artefacts:
            if draws.layers[kind][i] >= 0:
                number = int(draws.layers[kind][i])
                rgb, alpha = artefact_layer(kind, size[::-1], 1 + number % 3, number)
                pixels = pixels * (1 - alpha) + rgb.transpose(2, 0, 1) * alpha
        pixels = torch.from_numpy(pixels).float()
        if draws.sigma[i]:
            pixels = reference.gaussian_blur(pixels, [13, 13], [float(draws.sigma[i])] * 2)
        expected = reference.normalize(_jitter_slowly(pixels / 255, draws.colour[i]), MEAN, STD)
        top, left, bottom, right = np.rint(draws.erase[i] * (*size, *size)).astype(int)
        expected[:, top:bottom, left:right] = 0
        # Opacities of the bank are rounded to 1/255.
        torch.testing.assert_close(fast[i], expected, atol=0.02, rtol=0)


def _jitter_slowly(image, factors):
    brightness, contrast, saturation, hue = (float(factor) for factor in factors)
    luma = torch.tensor([0.299, 0.587, 0.114])[:, None, None]
    image = image * brightness
    image = image * contrast + (1 - contrast) * (image * luma).sum(0).mean()
    image = image * saturation + (1 - saturation) * (image * luma).sum(0)
    gray, turn = image.mean(0), 2 * np.pi * hue
    chroma = image - gray
    quarter_turned = torch.stack([chroma[2] - chroma[1], chroma[0] - chroma[2], chroma[1] - chroma[0]]) / 3**0.5
    return (gray + np.cos(turn) * chroma + np.sin(turn) * quarter_turned).clamp(0, 1)


def test_without_options_it_is_crop_and_normalisation():
    photos = photos_of(2, 24, 32)
    out = augmenter_of(STILL, 24)(photos, np.arange(2), 0)
    expected = reference.normalize(photos[:, :, 4:28].permute(0, 3, 1, 2) / 255, MEAN, STD)
    torch.testing.assert_close(out, expected, atol=1e-3, rtol=0)


def test_type_and_layout_are_as_asked_and_change_no_value():
    photos = photos_of()
    plain = augmenter_of(EVERYTHING)(photos, np.arange(4), 0)
    assert plain.dtype == torch.float32 and plain.is_contiguous() and not plain.requires_grad
    packed = augmenter_of(EVERYTHING, channels_last=True, dtype=torch.bfloat16)(photos, np.arange(4), 0)
    assert packed.dtype == torch.bfloat16 and packed.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(packed.float(), plain, atol=0.02, rtol=0.01)


def test_autocast_does_not_coarsen_it():
    augmenter = augmenter_of(EVERYTHING)
    plain = augmenter(photos_of(), np.arange(4), 0)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(augmenter(photos_of(), np.arange(4), 0), plain)


def test_given_images_are_not_changed():
    photos = photos_of(4, 24, 24)
    before = photos.clone()
    augmenter_of(EVERYTHING)(photos, np.arange(4), 0)
    assert torch.equal(photos, before)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("tf32", [False, True])
def test_a_gpu_gives_the_pixels_of_the_cpu(tf32):
    photos, augmenter = photos_of(16, 120, 160), augmenter_of(EVERYTHING)
    expected = augmenter(photos, np.arange(16), 0)
    allowed = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = tf32
    try:
        ours = augmenter_of(EVERYTHING)(photos.cuda(), np.arange(16), 0).cpu()
    finally:
        torch.backends.cuda.matmul.allow_tf32 = allowed
    torch.testing.assert_close(ours, expected, atol=2e-2 if tf32 else 1e-3, rtol=0)


def test_stretch_undoes_a_squashed_cache():
    disc = np.hypot(*np.mgrid[-1:1:60j, -1:1:80j] * np.array([1, 4 / 3])[:, None, None]) < 0.6
    photo = np.repeat(disc[..., None] * np.uint8(255), 3, axis=2)
    squashed = np.asarray(Image.fromarray(photo).resize((60, 60), Image.Resampling.BOX))
    augmenter = augmenter_of(STILL, 60)
    shown = augmenter(torch.from_numpy(squashed.copy())[None], np.arange(1), 0, np.array([4 / 3]))[0, 0] > 0
    assert shown.any(0).sum() == pytest.approx(shown.any(1).sum(), abs=2)
    bare = augmenter(torch.from_numpy(squashed.copy())[None], np.arange(1), 0)[0, 0] > 0
    assert bare.any(1).sum() - bare.any(0).sum() > 5


OWN = "tests.training.own_components"


def test_operations_of_ones_own_come_last_and_in_order():
    photos, places = photos_of(), np.arange(4)
    plain = augmenter_of(EVERYTHING)(photos, places, 1)
    extra = EVERYTHING.model_copy(update={"extra": (f"{OWN}:noise", f"{OWN}:negative")})
    noise = -augmenter_of(extra)(photos, places, 1) - plain
    assert 0.09 < noise.std() < 0.11


def test_what_an_operation_of_ones_own_draws_depends_on_its_place_alone():
    photos = photos_of()
    options = STILL.model_copy(update={"extra": (f"{OWN}:noise",)})
    first = augmenter_of(options, seed=3)(photos, np.arange(8, 12), 1)
    torch.manual_seed(5)
    assert torch.equal(augmenter_of(options, seed=3)(photos, np.arange(8, 12), 1), first)
    for seed, start, epoch in ((4, 8, 1), (3, 12, 1), (3, 8, 2)):
        assert not torch.equal(augmenter_of(options, seed=seed)(photos, np.arange(start, start + 4), epoch), first)


def test_an_operation_of_ones_own_that_changes_the_shape_is_one_line():
    options = STILL.model_copy(update={"extra": (f"{OWN}:halved",)})
    with pytest.raises(ConfigError, match=r"own_components:halved gave \(4, 3, 24, 12\) for images of shape \(4, 3, 24, 24\)"):
        augmenter_of(options)(photos_of(), np.arange(4), 0)


# ------------------------------------------------------------------------------------------------ evaluation


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


# ------------------------------------------------------------------------------------------------ the picture


def test_the_picture_shows_originals_and_what_training_sees():
    photos = photos_of(2, 24, 24)
    augmenter = augmenter_of(AugmentationOptions(), 24)
    sheet = np.asarray(augmentation_picture(photos.numpy(), augmenter, copies=2))
    assert sheet.shape == (4 + 2 * 28, 3 * 28 + 8, 3)
    np.testing.assert_array_equal(sheet[4:28, 4:28], photos[0].numpy())
    second = augmenter(photos, np.arange(2), epoch=1)[1].permute(1, 2, 0).numpy() * STD + MEAN
    assert np.abs(sheet[32:56, 64:88] - second * 255).max() <= 0.51
