"""Predictor: one input gives one result, a list a list, whatever the input is made of."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

import lesion_hub
from lesion_hub.config import OperatingPoint
from lesion_hub.errors import ConfigError, ImageError
from lesion_hub.hub.format import write_model
from lesion_hub.inference import Predictor
from lesion_hub.inference.combine import Combination
from lesion_hub.inference.members import Member
from lesion_hub.models import LesionClassifier


def classifier(space="ham7", seed=0) -> LesionClassifier:
    torch.manual_seed(seed)
    model = LesionClassifier.create("lesion_cnn_shallow", space, image_size=32).eval()
    torch.nn.init.normal_(model.last_layer.weight, std=1.0)
    return model


@pytest.fixture
def photo() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8))


def test_one_image_gives_one_result_and_a_list_a_list(photo):
    model = Predictor.of(classifier())
    one = model.predict(photo)
    assert one.probabilities.keys() == set(model.labels)
    assert sum(one.probabilities.values()) == pytest.approx(1, abs=1e-6)
    assert [p.label for p in model.predict([photo, photo])] == [one.label] * 2
    assert model.predict([]) == []
    assert len(model.predict((photo,))) == 1


def test_every_kind_of_input_gives_the_same_answer(photo, tmp_path):
    model = Predictor.of(classifier())
    photo.save(tmp_path / "photo.png")
    buffer = io.BytesIO()
    photo.save(buffer, "PNG")
    inputs = [photo, tmp_path / "photo.png", str(tmp_path / "photo.png"), buffer.getvalue(), np.asarray(photo)]
    answers = [p.probabilities for p in model.predict(inputs)]
    for answer in answers[1:]:
        assert answer == pytest.approx(answers[0], abs=1e-6)


def test_batching_does_not_change_the_answer(photo):
    model = Predictor.of(classifier())
    other = photo.rotate(90, expand=True)
    together = model.predict([photo, other])
    assert together[0].probabilities == pytest.approx(model.predict(photo).probabilities, abs=1e-6)
    assert together[1].probabilities == pytest.approx(model.predict(other).probabilities, abs=1e-6)


def test_malignancy_is_the_malignant_labels_mass_and_meets_the_operating_points(photo):
    points = {
        "low": OperatingPoint(threshold=0.0, metric="sensitivity", target=0.95),
        "high": OperatingPoint(threshold=1.0, metric="specificity", target=0.95),
    }
    prediction = Predictor.of(classifier(), operating_points=points).predict(photo)
    expected = sum(prediction.probabilities[label] for label in ("mel", "bcc", "akiec"))
    assert prediction.malignancy == pytest.approx(expected)
    assert prediction.decisions == {"low": True, "high": False}


def test_a_space_without_malignancy_says_none(photo):
    model = classifier(lesion_hub.taxonomy.space_from_names(["tinea", "vitiligo"]))
    prediction = Predictor.of(model).predict(photo)
    assert prediction.malignancy is None
    assert prediction.decisions == {}


def test_an_ensemble_keeps_its_members_views(photo):
    members = [Member("a", classifier(seed=1)), Member("b", classifier("isic8", seed=2))]
    ensemble = Predictor(members, Combination.of([m.space for m in members], [0.25, 0.75]))
    prediction = ensemble.predict(photo)
    assert ensemble.labels == lesion_hub.label_space("ham7").labels
    assert set(prediction.members) == {"a", "b"}
    a, b = prediction.members["a"], prediction.members["b"]
    assert prediction.probabilities["nv"] == pytest.approx(0.25 * a["nv"] + 0.75 * b["nv"])
    assert prediction.probabilities["akiec"] == pytest.approx(0.25 * a["akiec"] + 0.75 * (b["ak"] + b["scc"]))
    with pytest.raises(ConfigError, match="ensemble of 2"):
        _ = ensemble.classifier


def test_the_result_is_plain_data_when_asked(photo):
    import json

    data = json.loads(json.dumps(Predictor.of(classifier()).predict(photo).to_dict()))
    assert data["label"] in data["probabilities"]


def test_a_bad_image_is_one_line_that_names_it(tmp_path):
    (tmp_path / "bad.jpg").write_text("no image")
    with pytest.raises(ImageError, match=r"bad\.jpg") as caught:
        Predictor.of(classifier()).predict(tmp_path / "bad.jpg")
    assert "\n" not in str(caught.value)


def test_from_pretrained_reads_a_folder(photo, tmp_path):
    model = classifier()
    write_model(tmp_path, model, storage="float32")
    loaded = lesion_hub.from_pretrained(tmp_path)
    assert loaded.predict(photo).probabilities == pytest.approx(Predictor.of(model).predict(photo).probabilities)
    with pytest.raises(lesion_hub.LesionHubError, match="no versions"):
        lesion_hub.from_pretrained(tmp_path, revision="v1.0.0")
