"""Pictures of a page: small, faithful, and without anything but pixels."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from lesion_hub.app import pictures
from lesion_hub.app.uploads import Upload
from lesion_hub.inference.results import draw_overlay, heat_layer
from tests.app.models import metadata_in, photograph
from tests.inference.networks import picture


def heat_of(height: int, width: int) -> np.ndarray:
    rows, columns = np.linspace(0, 1, height), np.linspace(0, 1, width)
    return np.outer(rows, columns).astype(np.float32)


@pytest.mark.parametrize("size", [(40, 30), (900, 700), (3000, 20), (1, 1)])
def test_sides_are_kept_under_the_limit(size):
    image = Image.open(BytesIO(pictures.jpeg(Image.new("RGB", size), 256)))
    assert max(image.size) <= 256
    assert min(image.size) >= 1


def test_a_layer_over_its_picture_is_the_overlay():
    image, heat = picture(120, 160), heat_of(120, 160)
    layer = np.asarray(heat_layer(heat), dtype=np.float32)
    share = 0.5 * layer[..., 3:] / 255
    laid = np.asarray(image, dtype=np.float32) * (1 - share) + layer[..., :3] * share
    np.testing.assert_allclose(laid, np.asarray(draw_overlay(image, heat, 0.5), dtype=np.float32), atol=1.5)


def test_a_small_layer_is_where_the_heat_is():
    heat = np.zeros((900, 1200), np.float32)
    heat[600:, 900:] = 1
    layer = np.asarray(Image.open(BytesIO(pictures.heat_webp(heat))).convert("RGBA").resize((1200, 900)))
    assert layer[700:, 1000:, 3].min() > 200
    assert layer[:500, :800, 3].max() < 50


def test_an_overlay_is_small_and_carries_nothing(service):
    prediction = service.predict(Upload("phone.jpg", photograph(size=(1000, 800))), method="gradcam").prediction
    content = pictures.overlay_jpeg(prediction, 200, member="two")
    assert Image.open(BytesIO(content)).size == (200, 160)
    assert metadata_in(content) == []


def test_the_examples_are_those_of_the_packaged_space_or_of_a_folder(tmp_path):
    shipped = pictures.examples()
    assert [one.title for one in shipped][:2] == ["drawn as actinic keratosis", "drawn as basal cell carcinoma"]
    assert len(shipped) == 6
    (tmp_path / "my_mole.jpg").write_bytes(photograph(size=(1000, 800)))
    (tmp_path / "notes.txt").write_text("no picture")
    (own,) = pictures.examples(tmp_path)
    assert own.title == "my mole"
    assert max(Image.open(BytesIO(own.content)).size) == 448
    assert metadata_in(own.content) == []
