"""The fused engine gives the network's own answers, and where it cannot be had one line says why."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from lesion_hub.config import ENGINE_VARIABLE
from lesion_hub.errors import ConfigError, StoreError
from lesion_hub.hub import onnx_file, store
from lesion_hub.hub.layout import CONFIG_NAME, WEIGHTS_NAME
from lesion_hub.inference import from_pretrained
from lesion_hub.inference.engine import one_torch_thread
from lesion_hub.inference.ensemble import create_ensemble
from tests.hub.publishable import TRAINING, write_papers
from tests.inference.networks import classifier, picture

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from lesion_hub.hub.format import write_model  # noqa: E402

GRAPH = "model.onnx"


def write_folder(folder, backbone="lesion_cnn_shallow", **options):
    write_model(folder, classifier(backbone, **options), training=TRAINING, temperature=1.0)
    write_papers(folder, 0, "cc-by-nc-4.0")
    return folder


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A version in a registry, with its graph."""
    place = tmp_path_factory.mktemp("engine")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(ENGINE_VARIABLE)
        store.publish(write_folder(place / "run"), "small", version="1.0.0", notes="First", registry=place / "registry")
    return place / "registry" / "small" / "v1.0.0"


def copied(published, tmp_path):
    return store.pull("small", to=tmp_path / "copy", registry=published.parents[1]).folder


def images(count=3):
    return [picture(seed=i) for i in range(count)]


def rows(predictions):
    return np.array([list(prediction.probabilities.values()) for prediction in predictions])


def test_prediction_and_maps_are_those_of_torch(published):
    fused, reference = (from_pretrained(published, engine=engine) for engine in ("onnx", "torch"))
    assert fused.members[0].running and not reference.members[0].running
    plain = rows(fused.predict(images(2), tta=2))
    for method in ("gradcam", "hirescam", "occlusion"):
        explained, expected = (model.predict(images(2), explain=method, tta=2) for model in (fused, reference))
        assert (rows(explained) == plain).all(), method
        np.testing.assert_allclose(rows(expected), plain, atol=1e-4)
        for one, other in zip(explained, expected, strict=True):
            np.testing.assert_allclose(one.heat, other.heat, atol=1e-3, err_msg=method)


def test_threads_share_it(published):
    model = from_pretrained(published, engine="onnx")
    alone = [model.predict(image, explain="gradcam") for image in images(8)]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda image: model.predict(image, explain="gradcam"), images(8) * 3))
    for one, other in zip(alone * 3, together, strict=True):
        assert one.probabilities == other.probabilities
        np.testing.assert_array_equal(one.heat, other.heat)


def test_torch_has_its_threads_back_after_blocks_that_overlap():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        first, second = one_torch_thread(), one_torch_thread()
        first.__enter__()
        second.__enter__()  # as another thread would, while the first one is inside
        assert torch.get_num_threads() == 1
        first.__exit__(None, None, None)
        second.__exit__(None, None, None)
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_an_ensemble_that_carries_its_weights_runs_in_the_engine(tmp_path, monkeypatch):
    monkeypatch.setenv("LESION_HUB_CACHE", str(tmp_path / "cache"))
    for name, backbone in (("a", "lesion_cnn_shallow"), ("b", "lesion_cnn_deep")):
        store.publish(
            write_folder(tmp_path / name, backbone), name, version="1.0.0", notes="First", registry=tmp_path / "registry"
        )
    create_ensemble(tmp_path / "both", ["a", "b"], bundle=True, weights=[0.3, 0.7], registry=tmp_path / "registry")
    fused, plain = (from_pretrained(tmp_path / "both", engine=engine) for engine in ("onnx", "torch"))
    assert all(member.running for member in fused.members)
    np.testing.assert_allclose(rows(fused.predict(images())), rows(plain.predict(images())), atol=1e-5)


def test_patient_metadata_are_heard(tmp_path):
    folder = write_folder(tmp_path / "run", head=["out"], metadata=True)
    fused, plain = (from_pretrained(folder, engine=engine) for engine in ("onnx", "torch"))
    answers = {}
    for known in (None, {"age": 80, "sex": "male"}):
        found = [model.predict(picture(), metadata=known, explain=how) for model in (fused, plain) for how in (None, "gradcam")]
        answers[known is None] = rows(found)
        np.testing.assert_allclose(answers[known is None], rows(found[:1]).repeat(4, axis=0), atol=1e-4)
    assert np.abs(answers[True] - answers[False]).max() > 1e-3


def test_a_folder_without_a_graph_gets_one_once(tmp_path, monkeypatch):
    monkeypatch.setenv("LESION_HUB_CACHE", str(tmp_path / "cache"))
    folder = write_folder(tmp_path / "run")
    assert from_pretrained(folder, engine="onnx").members[0].running
    (kept,) = (tmp_path / "cache" / "graphs").iterdir()
    with monkeypatch.context() as patch:
        patch.setattr("lesion_hub.hub.graph.write_graph", None)  # a second export would raise TypeError
        assert from_pretrained(folder, engine="onnx").members[0].running
    kept.write_bytes(b"\x3a\xff")  # what is damaged is made anew
    assert from_pretrained(folder, engine="onnx").members[0].running
    assert len(kept.read_bytes()) > 1000


def test_a_changed_network_is_scored_by_torch(published):
    model = from_pretrained(published, engine="onnx")
    assert model.to(dtype=torch.float64).members[0].running is None


@pytest.mark.parametrize("hidden", ["onnxruntime", "onnx"])
def test_without_the_library_it_is_torch_and_one_line(tmp_path, monkeypatch, caplog, hidden):
    monkeypatch.delenv(ENGINE_VARIABLE)
    monkeypatch.setenv("LESION_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(sys.modules, hidden, None)
    folder = write_folder(tmp_path / "run")
    with caplog.at_level(logging.INFO, "lesion_hub"):
        model = from_pretrained(folder)
    assert model.members[0].running is None and model.predict(picture()).label in model.labels
    (line,) = [record.getMessage() for record in caplog.records if "torch" in record.getMessage()]
    assert hidden in line
    with pytest.raises(ConfigError, match=f"{hidden} .*pip install"):
        from_pretrained(folder, engine="onnx")


def test_an_unknown_engine_is_one_line(published, monkeypatch):
    with pytest.raises(ConfigError, match="unknown engine 'onyx'; did you mean 'onnx'"):
        from_pretrained(published, engine="onyx")
    monkeypatch.setenv(ENGINE_VARIABLE, "tensorrt")
    with pytest.raises(ConfigError, match="unknown engine 'tensorrt'"):
        from_pretrained(published)


def test_a_graph_that_is_not_the_config_s_is_refused(published, tmp_path):
    folder = copied(published, tmp_path)
    graph = folder / GRAPH
    graph.write_bytes(graph.read_bytes() + b"\0")
    with pytest.raises(StoreError, match=r"model\.onnx: sha256 is not the config's"):
        from_pretrained(folder, engine="onnx")
    assert from_pretrained(folder, engine="torch").labels
    graph.unlink()
    with pytest.raises(StoreError, match=r"model\.onnx: is missing"):
        from_pretrained(folder, engine="onnx")


@pytest.mark.parametrize("location", ["/etc/passwd", "../model.safetensors", "*/_ORT_MEM_ADDR_/*", "README.md"])
@pytest.mark.parametrize("where", ["initializer", "attribute", "inside an If"])
def test_a_graph_that_points_elsewhere_is_refused(published, tmp_path, location, where):
    folder = copied(published, tmp_path)
    graph = onnx.load(folder / GRAPH, load_external_data=False)
    tensor = onnx.TensorProto(name="stray", data_type=1, dims=[1], data_location=onnx.TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value=location)
    if where == "initializer":
        graph.graph.initializer.append(tensor)
    else:
        node = onnx.helper.make_node("Constant", [], ["stray"], value=tensor)
        if where == "inside an If":
            branch = onnx.helper.make_graph([node], "branch", [], [onnx.helper.make_tensor_value_info("stray", 1, [1])])
            node = onnx.helper.make_node("If", ["logits"], ["either"], then_branch=branch, else_branch=branch)
        graph.graph.node.append(node)
    content = graph.SerializeToString()
    (folder / GRAPH).write_bytes(content)
    config = json.loads((folder / CONFIG_NAME).read_text())
    config["lesion_hub"]["graphs"]["float32"] = hashlib.sha256(content).hexdigest()
    (folder / CONFIG_NAME).write_text(json.dumps(config))
    with pytest.raises(StoreError, match=r"not from model\.safetensors alone"):
        from_pretrained(folder, engine="onnx")


def test_the_published_file_runs_in_plain_onnxruntime(published):
    import onnxruntime

    session = onnxruntime.InferenceSession(str(published / GRAPH), providers=["CPUExecutionProvider"])
    member = from_pretrained(published, engine="torch").members[0]
    batch = member.prepare(images(5))
    (logits,) = session.run(["logits"], {"pixel_values": batch.contiguous().numpy()})
    np.testing.assert_allclose(logits, member.score(batch).numpy(), atol=1e-4)
    assert (published / GRAPH).stat().st_size < 0.6 * (published / WEIGHTS_NAME).stat().st_size


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backbone", "size", "options"),
    [
        ("tf_efficientnet_lite0", 64, {}),
        ("efficientnet_b0", 96, {}),
        ("mobilenetv2_100", 64, {}),
        ("resnet50", 64, {}),
        ("densenet121", 64, {}),
        ("inception_v3", 96, {}),
        ("lesion_alexnet", 224, {}),
        ("lesion_cnn_deep", 64, {"head": ["drop 0.3", 64, "relu", "out"]}),
        ("vit_tiny_patch16_224", 64, {}),
    ],
)
def test_every_kind_of_network_of_the_recipes_agrees_with_torch(tmp_path, backbone, size, options):
    folder = tmp_path / "run"
    write_model(folder, classifier(backbone, size=size, **options))
    fused, reference = (from_pretrained(folder, engine=engine) for engine in ("onnx", "torch"))
    for how in (None, "gradcam"):
        found, expected = (model.predict(images(3), explain=how) for model in (fused, reference))
        np.testing.assert_allclose(rows(found), rows(expected), atol=1e-4)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one.heat, other.heat, atol=1e-3)


@pytest.mark.slow
def test_the_shipped_models_agree_with_torch():
    fused, reference = (from_pretrained("dermoscopy-trio", engine=engine) for engine in ("onnx", "torch"))
    found, expected = (model.predict(images(4), explain="gradcam") for model in (fused, reference))
    np.testing.assert_allclose(rows(found), rows(expected), atol=1e-4)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one.heat, other.heat, atol=1e-3)


def test_publishing_again_changes_nothing(published, tmp_path, monkeypatch):
    monkeypatch.delenv(ENGINE_VARIABLE)
    registry, run = published.parents[1], published.parents[2] / "run"
    assert store.publish(run, "small", version="1.0.0", notes="First", registry=registry).already
    assert not (run / GRAPH).exists()
    again = store.publish(published, "small", version="1.1.0", notes="The same", registry=tmp_path)
    assert (tmp_path / "small" / again.version / GRAPH).read_bytes() == (published / GRAPH).read_bytes()


@pytest.mark.parametrize(("before", "after"), [(None, "1"), ("0", "0")])
def test_the_library_reports_to_nobody_unless_it_is_told_to(monkeypatch, before, after):
    monkeypatch.delenv("ORT_DISABLE_TELEMETRY", raising=False)
    if before is not None:
        monkeypatch.setenv("ORT_DISABLE_TELEMETRY", before)
    monkeypatch.setattr(onnx_file, "import_module", lambda name: os.environ["ORT_DISABLE_TELEMETRY"])  # as the import finds it
    assert onnx_file.require_onnxruntime() == after


def test_weights_that_are_a_link_into_the_hubs_cache_are_read(tmp_path):
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "1"
    blobs.mkdir()
    snapshot.mkdir(parents=True)
    (blobs / "a").write_bytes(b"weights")
    (snapshot / WEIGHTS_NAME).symlink_to(blobs / "a")
    with onnx_file._real_weights(snapshot) as place:
        assert not (place / WEIGHTS_NAME).is_symlink()
        assert (place / WEIGHTS_NAME).read_bytes() == b"weights"
