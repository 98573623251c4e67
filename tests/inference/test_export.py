"""An exported file says what the model says, and a quantised one that loses a class is not kept."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.special import softmax

from lesion_hub.errors import ConfigError, DataError
from lesion_hub.inference import Predictor, export
from lesion_hub.inference.export import export_onnx, quantize_onnx
from lesion_hub.inference.members import Combination, Member
from lesion_hub.inference.preprocess import Framing
from lesion_hub.inference.rows import RowSource
from tests.inference.networks import classifier, ensemble, picture, predictor

pytestmark = pytest.mark.slow

pytest.importorskip("onnxscript")
onnxruntime = pytest.importorskip("onnxruntime")


def rows(count=12, labels=("mel", "nv", "bcc", "akiec", "bkl", "df", "vasc"), truth=lambda i: i % 7):
    blank = dict.fromkeys(("age", "sex", "site"))
    items = [{"image": picture(seed=i), "label": truth(i), "image_id": str(i), "group": str(i)} | blank for i in range(count)]
    return RowSource("test", count, items, labels)


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
    theirs = session.run(["logits"], {"images": model.members[0].prepare(images).contiguous().numpy()})[0]
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
    found = softmax(session.run(["logits"], {"images": pixels})[0][0])
    assert dict(zip(json.loads(facts["labels"]), found, strict=True)) == pytest.approx(
        model.predict(picture()).probabilities, abs=1e-5
    )


def test_members_of_different_sizes_are_one_file_too(tmp_path):
    assert export_onnx(ensemble(), tmp_path / "model.onnx").difference < 1e-3


def test_a_missing_library_names_the_extra(tmp_path, monkeypatch):
    def absent(name):
        raise ImportError(name=name)

    monkeypatch.setattr(export, "import_module", absent)
    with pytest.raises(ConfigError, match=r"lesion-hub\[onnx\]"):
        export_onnx(predictor(), tmp_path / "model.onnx")


def test_a_quantised_file_is_judged_class_by_class(tmp_path, exported):
    model, path, report = exported
    answers = [model.labels.index(model.predict(picture(seed=i)).label) for i in range(12)]
    small = quantize_onnx(model, path, tmp_path / "small.onnx", rows(truth=lambda i: answers[i]), recall_drop=1.0)
    assert small.bytes < report.bytes / 2
    assert all(before == 1.0 for before, _ in small.recall.values())
    assert (tmp_path / "small.onnx").is_file()


def test_a_quantised_file_that_loses_a_class_is_not_kept(tmp_path, exported, monkeypatch):
    model, path, _ = exported
    answers = [model.labels.index(model.predict(picture(seed=i)).label) for i in range(12)]
    true_run = export._run

    def run(file, images):
        found = true_run(file, images).copy()
        if file != path:
            found[:, answers[0]] -= 100
        return found

    monkeypatch.setattr(export, "_run", run)
    with pytest.raises(ConfigError, match=f"the recall of {model.labels[answers[0]]} falls from 1.000 to 0.000"):
        quantize_onnx(model, path, tmp_path / "small.onnx", rows(truth=lambda i: answers[i]))
    assert not list(tmp_path.iterdir())


def test_quantising_without_labels_is_one_line(tmp_path, exported):
    with pytest.raises(DataError, match="has a label"):
        quantize_onnx(exported[0], exported[1], tmp_path / "small.onnx", rows(count=0))
