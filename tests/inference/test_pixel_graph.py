"""A graph from pixels says and shows what ``predict`` does, whatever the picture's size and the network's head."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.special import softmax

from lesion_hub.errors import ConfigError
from lesion_hub.hub.onnx_file import open_session
from lesion_hub.inference import Predictor, pixel_graph, quantization
from lesion_hub.inference.engine import Engine
from lesion_hub.inference.export import export_onnx, export_pixel_graphs
from lesion_hub.inference.members import Member
from lesion_hub.inference.preprocess import Framing, Normalisation
from tests.inference.networks import classifier, ensemble, picture

pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

SIZES = ((48, 64), (33, 31), (200, 90), (32, 32), (20, 77))


def open_graph(data):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def answers(data, image):
    session = open_graph(data)
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {"image": np.asarray(image)}), strict=True))


@pytest.mark.parametrize(
    "framing",
    [
        Framing((32, 32), (32, 32), "center", "bicubic", (0, 0, 0)),
        Framing((28, 28), (32, 32), "center", "bilinear", (0, 0, 0)),
        Framing((24, 40), (27, 45), "center", "bicubic", (0, 0, 0)),
        Framing((32, 32), (36, 36), "squash", "bicubic", (0, 0, 0)),
        Framing((32, 33), (29, 32), "border", "bilinear", (124, 116, 104)),
    ],
    ids=["square", "cropped", "oblong", "squashed", "padded"],
)
def test_the_networks_input_is_timms_to_a_level(framing):
    import torch

    from lesion_hub.inference.preprocess_graph import preprocessing

    normalisation = Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    session = open_graph(preprocessing(framing, normalisation).SerializeToString())
    for height, width in SIZES:
        image = picture(height, width)
        ours = normalisation([framing.crop(image)], torch.device("cpu"), torch.float32).numpy()
        theirs, resized = session.run(["pixel_values", "resized"], {"image": np.asarray(image)})
        levels = np.abs(ours - theirs) * 255 * 0.225
        assert ours.shape == theirs.shape
        assert levels.max() < 1.1
        assert levels.mean() < 0.02, (height, width)
        if framing.place(resized.shape[:2]).resized == resized.shape[:2]:
            assert np.array_equal(session.run(["pixel_values"], {"image": resized})[0], theirs)


@pytest.mark.parametrize(
    "backbone",
    ["test_resnet", "lesion_cnn_shallow", "test_convnext", pytest.param("test_vit", marks=pytest.mark.slow)],
)
def test_probabilities_and_maps_are_those_of_predict(backbone):
    member = Member("one", classifier(backbone, size=None if backbone == "test_vit" else 64))
    data = pixel_graph.pixel_graph(member)
    model = Predictor([member], Predictor.of(member.classifier).combination)
    for height, width in SIZES[:3]:
        image = picture(height, width)
        found = answers(data, image)
        seen = model.predict(image, explain="gradcam")
        assert softmax(found["logits"][0]) == pytest.approx(list(seen.probabilities.values()), abs=0.005)
        side = member.framing.size[0]
        inside = picture(side, side)  # of this size the network sees the whole
        heat = model.predict(inside, explain="gradcam", target="mel").heat
        cells = np.maximum(answers(data, inside)["maps"][0], 0)
        large = np.asarray(Image.fromarray(cells / cells.max()).resize((side, side), Image.BILINEAR))
        assert np.corrcoef(large.ravel(), heat.ravel())[0, 1] > 0.95


def test_pooled_features_are_mean_maximum_and_deviation_of_the_last_map():
    import torch

    from lesion_hub.models.network_cut import cut

    member = Member("one", classifier("test_resnet", size=64))
    image = picture(64, 64)
    pooled = answers(pixel_graph.pixel_graph(member), image)["pooled"]
    with torch.no_grad():
        last = cut(member.classifier).stem(member.prepare([image]))[0].flatten(1)
    np.testing.assert_allclose(pooled, torch.stack([last.mean(1), last.amax(1), last.std(1, correction=0)]), atol=0.05)


def test_weights_are_halved_only_where_asked_or_where_nothing_is_lost():
    member = Member("one", classifier("test_resnet", size=32))
    exact, rounded = pixel_graph.pixel_graph(member), pixel_graph.pixel_graph(member, rounded=True)
    assert len(rounded) < 0.6 * len(exact)
    for parameter in member.classifier.parameters():
        parameter.data = parameter.data.half().float()
    assert len(pixel_graph.pixel_graph(member)) == len(pixel_graph.pixel_graph(member, rounded=True))


def test_a_network_without_maps_still_answers(monkeypatch, caplog):
    def refuse(*_):
        raise ConfigError("no map")

    monkeypatch.setattr(pixel_graph, "map_graph", refuse)
    found = answers(pixel_graph.pixel_graph(Member("one", classifier())), picture())
    assert sorted(found) == ["logits", "resized"]
    assert "one: its graph gives no heat maps: no map" in caplog.text


def test_a_graph_that_answers_otherwise_is_not_written(monkeypatch, tmp_path):
    monkeypatch.setattr(Member, "logits", lambda self, images: 100 * self.score(self.prepare(images)))
    with pytest.raises(ConfigError, match="changes a probability"):
        export_pixel_graphs(Predictor.of(classifier()), tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())


def test_an_ensemble_is_a_folder_that_says_how_its_members_combine(tmp_path):
    model, image = ensemble(), picture()
    reports = export_pixel_graphs(model, tmp_path / "pair")
    how = json.loads((tmp_path / "pair" / "combination.json").read_text())
    total = np.zeros(len(how["labels"]))
    for member, report in zip(how["members"], reports, strict=True):
        data = (tmp_path / "pair" / member["file"]).read_bytes()
        assert report.bytes == len(data)
        for probability, to in zip(softmax(answers(data, image)["logits"][0]), member["to_labels"], strict=True):
            total[to] += member["weight"] * probability
    assert total == pytest.approx(list(model.predict(image).probabilities.values()), abs=0.005)


def test_a_graph_is_made_once_and_again_where_it_is_damaged_or_of_other_weights(tmp_path, monkeypatch):
    monkeypatch.setenv("LESION_HUB_CACHE", str(tmp_path))
    member, made = Member("tiny", classifier()), []
    writing = pixel_graph.pixel_graph
    monkeypatch.setattr(pixel_graph, "pixel_graph", lambda *given, **how: made.append(1) or writing(*given, **how))
    first = pixel_graph.kept_pixel_graph(member)
    assert pixel_graph.kept_pixel_graph(member) == first and len(made) == 1
    (path,) = (tmp_path / "graphs").iterdir()
    path.write_bytes(first[:-1] + bytes([first[-1] ^ 1]))
    assert pixel_graph.kept_pixel_graph(member) == first and len(made) == 2
    with torch.no_grad():
        member.classifier.last_layer.weight[0, 0] += 1
    assert pixel_graph.kept_pixel_graph(member) != first and len(made) == 3


def test_a_member_that_runs_in_8_bits_is_written_so(tmp_path):
    model = classifier("resnet10t", size=32)
    images = [picture(32, 32, seed=seed) for seed in range(4)]
    plain = Member("small", model)
    export_onnx(Predictor.of(model), tmp_path / "float.onnx")
    prepared = quantization._prepared(tmp_path / "float.onnx", tmp_path)
    batch = list(plain.prepare(images).contiguous().numpy())
    quantization._quantize(prepared, tmp_path / "small.onnx", batch, quantization.LADDER[0], ())
    data = (tmp_path / "small.onnx").read_bytes()
    member = replace(plain, engine=Engine(open_session(data, tmp_path, 1), data))
    written = pixel_graph.pixel_graph(member)
    assert len(written) < 0.6 * len(pixel_graph.pixel_graph(plain, rounded=True))
    found = answers(written, images[0])
    assert set(found) == {"logits", "maps", "pooled", "resized"} and found["maps"].any()
    own = member.logits(images[:1])
    assert not torch.equal(own, plain.logits(images[:1]))
    np.testing.assert_allclose(softmax(found["logits"], axis=1), own.softmax(dim=1).numpy(), atol=0.005)
