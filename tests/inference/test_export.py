"""An exported file says what the model says."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.special import softmax

from lesion_hub.errors import ConfigError
from lesion_hub.hub import graph
from lesion_hub.inference import Predictor, export
from lesion_hub.inference.export import export_onnx
from lesion_hub.inference.members import Combination, Member
from lesion_hub.inference.preprocess import Framing
from tests.inference.networks import classifier, ensemble, picture, predictor

pytestmark = pytest.mark.slow

pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    model = Predictor.of(classifier("resnet10t", size=32))
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    return model, path, export_onnx(model, path)


def test_the_file_gives_the_models_logits_for_any_number_of_images(exported):
    model, path, report = exported
    assert report.difference < 1e-3
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    images = [picture(seed=i) for i in range(5)]
    ours = model.members[0].logits(images).numpy()
    theirs = session.run(["logits"], {"pixel_values": model.members[0].prepare(images).contiguous().numpy()})[0]
    np.testing.assert_allclose(ours, theirs, atol=1e-3)


def test_the_file_carries_labels_and_preprocessing(exported):
    model, path, _ = exported
    facts = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).get_modelmeta().custom_metadata_map
    assert json.loads(facts["labels"]) == list(model.labels)
    assert json.loads(facts["mean"]) == list(model.classifier.input_config.mean)


def test_a_file_that_differs_is_not_kept(tmp_path, exported, monkeypatch):
    monkeypatch.setattr(export, "_difference", lambda member, path: float("nan"))
    with pytest.raises(ConfigError, match="not kept"):
        export_onnx(exported[0], tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_an_ensemble_is_one_file_with_the_predictors_answers(tmp_path):
    members = [Member("a", classifier(size=32)), Member("b", classifier(space="isic8", seed=1, size=32, mean=(0.5, 0.4, 0.3)))]
    combination = Combination.of([member.space for member in members], [0.4, 0.6], temperature=0.7)
    model = Predictor(members, combination, name="pair")
    assert export_onnx(model, tmp_path / "model.onnx").difference < 1e-3
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    facts = session.get_modelmeta().custom_metadata_map
    crop = Framing.of(members[0].classifier.input_config).crop(picture())
    mean, std = (np.array(json.loads(facts[key]), np.float32) for key in ("mean", "std"))
    pixels = ((crop.astype(np.float32) / 255 - mean) / std).transpose(2, 0, 1)[None]
    found = softmax(session.run(["logits"], {"pixel_values": pixels})[0][0])
    assert dict(zip(json.loads(facts["labels"]), found, strict=True)) == pytest.approx(
        model.predict(picture()).probabilities, abs=1e-5
    )


def test_members_of_different_sizes_are_one_file_too(tmp_path):
    assert export_onnx(ensemble(), tmp_path / "model.onnx").difference < 1e-3


def test_a_missing_library_names_the_extra(tmp_path, monkeypatch):
    def absent(name):
        raise ImportError(name=name)

    monkeypatch.setattr(graph, "import_module", absent)
    with pytest.raises(ConfigError, match=r"lesion-hub\[onnx\]"):
        export_onnx(predictor(), tmp_path / "model.onnx")
