"""Config objects refuse what they do not know, in one line."""

from __future__ import annotations

import json

import pytest

from lesion_hub.config import EnsembleConfig, ModelConfig, OperatingPoint, dump_json, load_model_config, validated
from lesion_hub.errors import ConfigError, LesionHubError
from lesion_hub.taxonomy import label_space

SHA = "0" * 64


def model_data(**changes):
    space = label_space("binary")
    data = {
        "architecture": "resnet18",
        "num_classes": 2,
        "num_features": 512,
        "label_names": list(space.labels),
        "label_descriptions": dict(zip(space.labels, space.descriptions, strict=True)),
        "pretrained_cfg": {"architecture": "resnet18", "mean": [0.5] * 3, "std": [0.5] * 3, "num_classes": 2},
        "lesion_hub": {"label_space": "binary", "weights_sha256": SHA},
    }
    return data | changes


def ensemble_data(**changes):
    member = {"name": "a", "revision": "v1.0.0", "weights_sha256": SHA}
    data = {
        "label_space": "binary",
        "label_names": ["benign", "malignant"],
        "members": [member, {**member, "name": "org/b"}],
        "weights": [0.25, 0.75],
    }
    return data | changes


def test_a_model_config_round_trips():
    config = validated(ModelConfig, model_data(), "config.json")
    assert validated(ModelConfig, json.loads(dump_json(config)), "config.json") == config
    assert config.space == label_space("binary")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"labels": []}, "unknown key 'labels'; did you mean 'label_names'?"),
        (
            {"lesion_hub": {"label_space": "binary", "weights_sha256": SHA, "temprature": 1}},
            "'lesion_hub.temprature'; did you mean 'temperature'?",
        ),
        ({"label_names": ["benign"]}, "label_names has 1 entries but num_classes is 2"),
        ({"model_args": {"num_classes": 2}}, "num_classes belongs to the root alone"),
        ({"dtype": "float16"}, "dtype"),
        ({"lesion_hub": {"label_space": "binary", "weights_sha256": "xyz"}}, "lesion_hub.weights_sha256"),
    ],
)
def test_a_wrong_model_config_is_one_line_that_names_the_key(changes, told):
    with pytest.raises(ConfigError) as caught:
        validated(ModelConfig, model_data(**changes), "config.json")
    message = str(caught.value)
    assert message.startswith("config.json: ")
    assert told in message
    assert "\n" not in message


@pytest.mark.parametrize("text", ["", "{", "[1]", "\udcff", '{"a": NaN}'])
def test_a_broken_config_file_is_one_line(tmp_path, text):
    (tmp_path / "config.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ConfigError) as caught:
        load_model_config(tmp_path)
    assert "\n" not in str(caught.value)
    assert "config.json" in str(caught.value)


def test_a_config_whose_labels_are_not_its_spaces_is_refused(tmp_path):
    data = model_data(label_names=["malignant", "benign"])
    (tmp_path / "config.json").write_text(json.dumps(data))
    with pytest.raises(LesionHubError, match="order"):
        load_model_config(tmp_path)


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../b", "..", "a/b/c", "a\\b", "", ".hidden", "a..b"])
def test_a_member_that_leaves_the_registry_root_is_refused(name):
    member = {"name": name, "revision": "v1.0.0", "weights_sha256": SHA}
    with pytest.raises(ConfigError) as caught:
        validated(EnsembleConfig, ensemble_data(members=[member], weights=[1.0]), "ensemble.json")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("revision", ["main", "v1", "../v1.0.0", "v01.0.0", "abc123"])
def test_a_member_must_be_pinned(revision):
    member = {"name": "a", "revision": revision, "weights_sha256": SHA}
    with pytest.raises(ConfigError, match="pinned"):
        validated(EnsembleConfig, ensemble_data(members=[member], weights=[1.0]), "ensemble.json")


@pytest.mark.parametrize(("weights", "told"), [([0.5, 0.4], "sum to 0.9"), ([1.0], "1 weights for 2"), ([-1, 2], "weights.0")])
def test_ensemble_weights_are_checked(weights, told):
    with pytest.raises(ConfigError, match=told):
        validated(EnsembleConfig, ensemble_data(weights=weights), "ensemble.json")


def test_options_are_frozen_and_reject_nan():
    point = OperatingPoint(threshold=0.3, metric="sensitivity", target=0.9)
    with pytest.raises(ValueError, match="frozen"):
        point.threshold = 0.5
    with pytest.raises(ConfigError, match="threshold"):
        validated(OperatingPoint, {"threshold": float("nan"), "metric": "sensitivity", "target": 0.9}, "x")
