"""Which files of a folder a repo holds, and what keeps a folder from being one."""

from __future__ import annotations

import json

import pytest
import torch

from lesion_hub.config import CONFIG_NAME
from lesion_hub.errors import ConfigError, StoreError
from lesion_hub.hub.format import write_model
from lesion_hub.hub.layout import publishable_files
from lesion_hub.models import LesionClassifier


def small() -> LesionClassifier:
    torch.manual_seed(0)
    return LesionClassifier.create("lesion_cnn_deep", "binary", image_size=32).eval()


def test_only_the_files_of_the_format_are_published(tmp_path):
    write_model(tmp_path, small())
    for name, text in {
        "README.md": "card",
        "metrics.json": "{}",
        "split.json": "{}",
        "log.jsonl": "",
        "CHANGELOG.md": "",
    }.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "plots").mkdir()
    (tmp_path / "plots" / "roc.png").write_bytes(b"png")
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "model.safetensors").write_bytes(b"")
    assert set(publishable_files(tmp_path)) == {
        *("config.json", "model.safetensors", "modeling_lesion.py", "README.md", "metrics.json", "split.json", "plots/roc.png")
    }


@pytest.mark.parametrize("missing", ["README.md", "metrics.json", "split.json", "modeling_lesion.py", "model.safetensors"])
def test_an_incomplete_folder_is_not_publishable(tmp_path, missing):
    write_model(tmp_path, small())
    for name in ("README.md", "metrics.json", "split.json"):
        (tmp_path / name).write_text("{}")
    (tmp_path / missing).unlink()
    with pytest.raises(StoreError, match=missing):
        publishable_files(tmp_path)


def test_broken_metrics_are_not_publishable(tmp_path):
    write_model(tmp_path, small())
    for name in ("README.md", "metrics.json", "split.json"):
        (tmp_path / name).write_text("{}")
    (tmp_path / "metrics.json").write_text("{")
    with pytest.raises(ConfigError, match=r"metrics\.json: not readable as JSON"):
        publishable_files(tmp_path)


@pytest.mark.parametrize("name", ["somebody/repo--modeling.Anything", "modeling_lesion.Other"])
def test_a_config_that_sends_transformers_to_other_code_is_not_publishable(tmp_path, name):
    write_model(tmp_path, small())
    config = json.loads((tmp_path / CONFIG_NAME).read_text())
    (tmp_path / CONFIG_NAME).write_text(json.dumps({**config, "auto_map": {"AutoModelForImageClassification": name}}))
    with pytest.raises(StoreError, match=r"config\.json: auto_map"):
        publishable_files(tmp_path)
