"""A quantised file that loses a class is not kept."""

from __future__ import annotations

import pytest

from lesion_hub.errors import ConfigError, DataError
from lesion_hub.inference import Predictor, quantization
from lesion_hub.inference.export import export_onnx
from lesion_hub.inference.quantization import quantize_onnx
from lesion_hub.inference.rows import RowSource
from tests.inference.networks import classifier, picture

pytestmark = pytest.mark.slow

pytest.importorskip("onnxscript")
pytest.importorskip("onnxruntime")


def rows(count=12, labels=("mel", "nv", "bcc", "akiec", "bkl", "df", "vasc"), truth=lambda i: i % 7):
    blank = dict.fromkeys(("age", "sex", "site"))
    items = [{"image": picture(seed=i), "label": truth(i), "image_id": str(i), "group": str(i)} | blank for i in range(count)]
    return RowSource("test", count, items, labels)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    model = Predictor.of(classifier("resnet10t", size=32))
    path = tmp_path_factory.mktemp("onnx") / "model.onnx"
    return model, path, export_onnx(model, path)


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
    true_run = quantization.run_onnx

    def run(file, images):
        found = true_run(file, images).copy()
        if file != path:
            found[:, answers[0]] -= 100
        return found

    monkeypatch.setattr(quantization, "run_onnx", run)
    with pytest.raises(ConfigError, match=f"the recall of {model.labels[answers[0]]} falls from 1.000 to 0.000"):
        quantize_onnx(model, path, tmp_path / "small.onnx", rows(truth=lambda i: answers[i]))
    assert not list(tmp_path.iterdir())


def test_quantising_without_labels_is_one_line(tmp_path, exported):
    with pytest.raises(DataError, match="has a label"):
        quantize_onnx(exported[0], exported[1], tmp_path / "small.onnx", rows(count=0))
