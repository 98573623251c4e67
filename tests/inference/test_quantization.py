"""A quantised file is kept if it answers as the float file does, class by class, and faster."""

from __future__ import annotations

import json

import numpy as np
import pytest

from lesion_hub.errors import ConfigError, DataError
from lesion_hub.files import sha256_of
from lesion_hub.inference import Predictor, quantization
from lesion_hub.inference.export import export_onnx
from lesion_hub.inference.quantization import LADDER, ClassCount, GateFigures, compare_answers, quantize_onnx
from lesion_hub.inference.rows import RowSource
from tests.inference.networks import classifier, picture

pytest.importorskip("onnx")
onnx = pytest.importorskip("onnx")
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


def figures(agreement=1.0, **classes):
    return GateFigures(200, agreement, 0.1, {name: ClassCount(*counts) for name, counts in classes.items()})


def test_the_gate_counts_images_and_lets_a_class_gain():
    assert figures(mel=(100, 80, 79), nv=(100, 80, 90)).refusal() is None
    assert "mel loses 2 of its 100 images (sensitivity 0.800 to 0.780)" in figures(mel=(100, 80, 78)).refusal()
    assert "none of so few" not in figures(mel=(100, 80, 78)).refusal()
    assert "df loses 1 of its 12 images" in figures(mel=(100, 80, 79), df=(12, 9, 8)).refusal()
    assert "none of so few" in figures(df=(12, 9, 8)).refusal()
    assert figures(agreement=0.98, mel=(100, 80, 80)).refusal() is None
    assert "97.9% of 200 answers agree" in figures(agreement=0.979, mel=(100, 80, 80)).refusal()


def test_answers_that_are_no_numbers_do_not_pass():
    answers = np.eye(3)
    assert compare_answers(answers, answers, np.arange(3), "abc").refusal() is None
    assert compare_answers(answers, answers * np.nan, np.arange(3), "abc").refusal() is not None


def own_answers(model):
    answers = [model.labels.index(model.predict(picture(seed=i)).label) for i in range(12)]
    return rows(truth=lambda i: answers[i])


ALL_PASS = {"sensitivity_loss": 1.0, "agreement": 0.0, "least_speedup": 0.0}


@pytest.mark.slow
def test_the_first_configuration_that_passes_is_kept(tmp_path, exported, monkeypatch):
    model, path, report = exported
    gates = iter([figures(0.5, mel=(9, 9, 9)), figures(mel=(9, 9, 9))])
    monkeypatch.setattr(quantization, "compare_answers", lambda *given: next(gates))
    small = quantize_onnx(model, path, tmp_path / "small.onnx", own_answers(model), least_speedup=0.0, ladder=LADDER[::4])
    assert small.bytes < report.bytes / 2
    assert [trial.refused is None for trial in small.tried] == [False, True]
    assert len(small.kept.float_layers) == round(0.25 * len(quantization.rank_layers(path, small_batch(model))))
    assert set(small.kept.speedup) >= {"1 thread, batch 1", "1 thread, batch 32"}
    assert small.sha256 == sha256_of(tmp_path / "small.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "small.onnx"), providers=["CPUExecutionProvider"])
    assert json.loads(session.get_modelmeta().custom_metadata_map["labels"]) == list(model.labels)


def small_batch(model):
    return list(model.members[0].prepare([picture(seed=i) for i in range(2)]).contiguous().numpy())


def test_layers_are_ranked_by_what_rounding_them_does(tmp_path):
    square = np.random.default_rng(0).normal(size=(4, 4)).astype(np.float32)
    weights = {"exact": np.eye(4, dtype=np.float32), "rounded": square}
    nodes = [
        onnx.helper.make_node("MatMul", [given, name], [made], name=name)
        for name, given, made in (("exact", "x", "y"), ("rounded", "y", "logits"))
    ]
    ends = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["n", 4]) for name in ("x", "logits")]
    stored = [onnx.numpy_helper.from_array(values, name) for name, values in weights.items()]
    graph = onnx.helper.make_graph(nodes, "two layers", ends[:1], ends[1:], stored)
    opset = [onnx.helper.make_opsetid("", 17)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=8), str(tmp_path / "two.onnx"))
    assert quantization.rank_layers(tmp_path / "two.onnx", list(square)) == ["rounded", "exact"]


@pytest.mark.slow
def test_a_damaged_quantisation_is_refused(tmp_path, exported, monkeypatch):
    model, path, _ = exported
    true_quantize = quantization._quantize

    def damaged(prepared, target, *given):
        true_quantize(prepared, target, *given)
        graph = onnx.load(str(target))
        for weights in graph.graph.initializer:
            if weights.name.endswith("_scale") and len(weights.dims):  # one per channel
                weights.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weights)[::-1].copy(), weights.name))
        onnx.save(graph, str(target))

    monkeypatch.setattr(quantization, "_quantize", damaged)
    with pytest.raises(ConfigError, match=r"none of 1 configurations passes: .* loses .* use the float file") as caught:
        quantize_onnx(model, path, tmp_path / "small.onnx", own_answers(model), ladder=LADDER[:1])
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_file_that_is_not_faster_is_refused(tmp_path, exported, monkeypatch):
    monkeypatch.setattr(quantization, "compare_speed", lambda *given: {"1 thread, batch 1": 0.8, "1 thread, batch 32": 1.1})
    limits = {**ALL_PASS, "least_speedup": 1.0}
    with pytest.raises(ConfigError, match=r"runs 0\.94 times as fast"):
        quantize_onnx(exported[0], exported[1], tmp_path / "small.onnx", own_answers(exported[0]), ladder=LADDER[:1], **limits)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_quantising_without_labels_is_one_line(tmp_path, exported):
    with pytest.raises(DataError, match="has a label"):
        quantize_onnx(exported[0], exported[1], tmp_path / "small.onnx", rows(count=0))
