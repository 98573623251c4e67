"""Flags rise for the pictures they are named after, and not for a good one."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter

from lesion_hub.data.quality import FLAGS, judge_quality
from lesion_hub.data.synthetic import draw_lesion


@pytest.fixture(scope="module")
def lesion() -> Image.Image:
    return Image.fromarray(np.asarray(draw_lesion("nv", seed=3, size=(320, 240), artefacts=False).image))


def test_a_good_picture_raises_no_flag(lesion):
    assert judge_quality(lesion).flags == ()


@pytest.mark.parametrize(
    ("flag", "spoil"),
    [
        ("tiny", lambda image: image.resize((80, 60))),
        ("blurred", lambda image: image.filter(ImageFilter.GaussianBlur(8))),
        ("dark", lambda image: ImageEnhance.Brightness(image).enhance(0.15)),
        ("bright", lambda image: Image.blend(image, Image.new("RGB", image.size, "white"), 0.9)),
        ("low_contrast", lambda image: Image.new("RGB", image.size, (180, 130, 110))),
        ("not_skin_like", lambda image: Image.merge("RGB", image.split()[::-1])),
        ("not_skin_like", lambda image: image.convert("L").convert("RGB")),
    ],
)
def test_each_flag_rises_for_its_fault(lesion, flag, spoil):
    assert flag in FLAGS
    assert flag in judge_quality(spoil(lesion)).flags


def test_noise_is_not_skin_like():
    noise = np.random.default_rng(0).integers(0, 256, (240, 320, 3), dtype=np.uint8)
    assert "not_skin_like" in judge_quality(Image.fromarray(noise)).flags


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (3, 2), (5000, 4)])
def test_any_size_can_be_judged(size):
    assert "tiny" in judge_quality(Image.new("RGB", size)).flags
