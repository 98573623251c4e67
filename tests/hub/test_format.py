"""A model folder: written whole and read strictly."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import pickle

import pytest
import torch
from safetensors import safe_open

from lesion_hub.config import CONFIG_NAME, OperatingPoint
from lesion_hub.errors import ConfigError, FileWriteError, LesionHubError, StoreError
from lesion_hub.hub.format import fold_temperature, read_model, write_model
from lesion_hub.hub.layout import MODELING_NAME, WEIGHTS_NAME, modeling_source
from lesion_hub.models import LesionClassifier


def small(space="binary", **options) -> LesionClassifier:
    torch.manual_seed(0)
    return LesionClassifier.create("lesion_cnn_deep", space, image_size=32, **options).eval()


def stock() -> LesionClassifier:
    torch.manual_seed(0)
    return LesionClassifier.create("test_resnet", "binary", image_size=32).eval()


def edit(folder, **changes):
    path = folder / CONFIG_NAME
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize("storage", ["float32", "float16"])
def test_a_model_reads_back_as_it_was(tmp_path, storage):
    model = small("ham7")
    points = {"sensitivity_90": OperatingPoint(threshold=0.2, metric="sensitivity", target=0.9)}
    write_model(tmp_path, model, storage=storage, temperature=1.5, operating_points=points)
    again, config = read_model(tmp_path)
    images = torch.rand(3, 3, 32, 32)
    tolerance = {"float32": 0.0, "float16": 5e-3}[storage]
    assert (again(images) - model(images)).abs().max() <= tolerance
    assert not again.training
    assert again.labels == model.labels
    assert config.lesion_hub.operating_points == points
    assert config.lesion_hub.temperature == 1.5


def test_writing_twice_gives_the_same_bytes(tmp_path):
    write_model(tmp_path / "a", small())
    write_model(tmp_path / "b", small())
    for name in (CONFIG_NAME, WEIGHTS_NAME, MODELING_NAME):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_half_precision_spares_statistics_and_biases(tmp_path):
    write_model(tmp_path, small(), storage="float16")
    with safe_open(tmp_path / WEIGHTS_NAME, "pt") as file:
        kinds = {key: file.get_tensor(key).dtype for key in file.keys()}  # noqa: SIM118 - not a dict
    assert kinds["features.0.weight"] == torch.float16
    assert kinds["features.1.running_var"] == torch.float32
    assert kinds["classifier.bias"] == torch.float32


def test_weights_that_overflow_half_precision_are_refused(tmp_path):
    model = small()
    with torch.no_grad():
        model.last_layer.weight.fill_(1e6)
    with pytest.raises(ConfigError, match=r"classifier\.weight: not finite as torch\.float16"):
        write_model(tmp_path, model, storage="float16")
    write_model(tmp_path, model, storage="float32")


def test_weights_that_two_modules_share_are_stored_for_both(tmp_path):
    torch.manual_seed(0)
    model = LesionClassifier.create("coat_tiny", "ham7", image_size=64).eval()
    assert model.network.parallel_blocks[0].mlp2.fc1.bias is model.network.parallel_blocks[0].mlp3.fc1.bias
    write_model(tmp_path, model, storage="float32")
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(read_model(tmp_path)[0](images), model(images), rtol=0, atol=0)


def test_a_bound_may_be_infinite_and_no_value_not_a_number(tmp_path):
    model = LesionClassifier.create("lesion_cnn_deep", "binary", image_size=32)
    statistics = model.network.features[1].running_var
    statistics[0] = torch.inf
    write_model(tmp_path, model)
    statistics[0] = torch.nan
    with pytest.raises(ConfigError, match="not finite"):
        write_model(tmp_path, model)


def test_a_folded_temperature_divides_the_logits(tmp_path):
    model = small()
    images = torch.rand(4, 3, 32, 32)
    before = model(images)
    fold_temperature(model, 2.5)
    torch.testing.assert_close(model(images), before / 2.5)
    for wrong in (0.0, -1.0, float("inf"), float("nan")):
        with pytest.raises(ConfigError, match="temperature"):
            fold_temperature(model, wrong)


def test_stock_architectures_carry_no_code_and_custom_ones_do(tmp_path):
    assert write_model(tmp_path / "stock", stock()).auto_map is None
    assert not (tmp_path / "stock" / MODELING_NAME).exists()
    write_model(tmp_path / "custom", small())
    assert (tmp_path / "custom" / MODELING_NAME).read_text() == modeling_source()
    compile(modeling_source(), MODELING_NAME, "exec")


def test_a_head_never_hides_under_a_stock_name(tmp_path):
    headed = LesionClassifier.create("test_resnet", "binary", image_size=32, head=[8, "relu", "out"])
    assert write_model(tmp_path, headed).architecture == "lesion_net"


def test_damaged_weights_are_refused_by_their_hash(tmp_path):
    write_model(tmp_path, small())
    blob = bytearray((tmp_path / WEIGHTS_NAME).read_bytes())
    blob[-1] ^= 1
    (tmp_path / WEIGHTS_NAME).write_bytes(blob)
    with pytest.raises(StoreError, match="sha256") as caught:
        read_model(tmp_path)
    assert "\n" not in str(caught.value)


class Bomb:
    def __reduce__(self):
        return (os.mkdir, ("exploded",))


def test_a_pickle_named_safetensors_is_refused_even_if_the_config_vouches_for_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_model(tmp_path, small())
    blob = pickle.dumps(Bomb())
    (tmp_path / WEIGHTS_NAME).write_bytes(blob)
    section = json.loads((tmp_path / CONFIG_NAME).read_text())["lesion_hub"]
    edit(tmp_path, lesion_hub=section | {"weights_sha256": hashlib.sha256(blob).hexdigest()})
    with pytest.raises(StoreError, match="not a safetensors file"):
        read_model(tmp_path)
    assert not (tmp_path / "exploded").exists()


def test_code_in_the_folder_is_never_run_by_us(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_model(tmp_path, small())
    (tmp_path / MODELING_NAME).write_text("import os; os.mkdir('exploded')")
    read_model(tmp_path)
    assert not (tmp_path / "exploded").exists()


def test_weights_of_another_shape_are_one_line(tmp_path):
    write_model(tmp_path / "two", small("binary"))
    write_model(tmp_path / "seven", small("ham7"))
    blob = (tmp_path / "two" / WEIGHTS_NAME).read_bytes()
    (tmp_path / "seven" / WEIGHTS_NAME).write_bytes(blob)
    section = json.loads((tmp_path / "seven" / CONFIG_NAME).read_text())["lesion_hub"]
    edit(tmp_path / "seven", lesion_hub=section | {"weights_sha256": hashlib.sha256(blob).hexdigest()})
    with pytest.raises(StoreError, match="does not fit lesion_cnn_deep") as caught:
        read_model(tmp_path / "seven")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"archtecture": "x"}, "did you mean 'architecture'"),
        ({"label_names": ["benign"]}, "label_names has 1 entries but num_classes is 2"),
        ({"architecture": "no_such_net"}, "unknown architecture 'no_such_net'"),
        ({"model_args": {"nonsense": 1}}, "model_args may not set 'nonsense'"),
    ],
)
def test_a_config_that_is_wrong_is_one_line(tmp_path, changes, told):
    write_model(tmp_path, small())
    edit(tmp_path, **changes)
    with pytest.raises(LesionHubError) as caught:
        read_model(tmp_path)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_full_disk_leaves_the_old_model_readable(tmp_path, monkeypatch):
    model = small()
    write_model(tmp_path, model)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(handle):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FileWriteError, match="No space left"):
        write_model(tmp_path, small("ham7"))
    monkeypatch.undo()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    read_model(tmp_path)


def test_an_error_is_one_line_whatever_a_file_holds(tmp_path):
    write_model(tmp_path, small())
    header = json.dumps({"weight": {"dtype": {"a\nb": {}}, "shape": [1], "data_offsets": [0, 4]}}).encode()
    (tmp_path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))
    config = json.loads((tmp_path / "config.json").read_text())
    config["lesion_hub"]["weights_sha256"] = hashlib.sha256((tmp_path / "model.safetensors").read_bytes()).hexdigest()
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(StoreError, match="not a safetensors file") as caught:
        read_model(tmp_path)
    assert len(str(caught.value).splitlines()) == 1
