"""What is wrong with a release is found before anything is written."""

from __future__ import annotations

import hashlib
import json

import pytest

from lesion_hub.hub import release, store
from lesion_hub.hub.layout import MODELING_NAME, WEIGHTS_NAME, modeling_source
from lesion_hub.hub.release import prepare_release
from tests.hub.publishable import refused


@pytest.mark.parametrize("temperature", [None, 1.7])
def test_only_calibrated_models_are_published(make_folder, tmp_path, temperature):
    folder, root = make_folder(), tmp_path / "registry"
    config = json.loads((folder / "config.json").read_text())
    config["lesion_hub"]["temperature"] = temperature
    (folder / "config.json").write_text(json.dumps(config))
    if temperature is None:
        with refused("is not calibrated", f"lesion-hub calibrate {folder}"):
            store.publish(folder, "m", version="1.0.0", notes="First.", registry=root)
        assert not (root / "m").exists()
    else:
        assert store.publish(folder, "m", version="1.0.0", notes="First.", registry=root).version == "v1.0.0"


@pytest.mark.parametrize("front", ["license: [unclosed", "license: 'x\n  : :", "- a\n- b"])
def test_front_matter_that_is_not_yaml_is_one_line(make_folder, front):
    folder = make_folder()
    (folder / "README.md").write_text(f"---\n{front}\n---\n\ntext\n")
    with refused("README.md"):
        prepare_release(folder, "1.0.0", "n")


def test_metrics_that_are_not_json_are_refused(make_folder):
    folder = make_folder()
    (folder / "metrics.json").write_text(json.dumps({"a": 1})[:-1])
    with refused("metrics.json"):
        prepare_release(folder, "1.0.0", "n")


def published_code(folder, root):
    store.publish(folder, "m", version="1.0.0", notes="First.", registry=root)
    return (root / "m" / "v1.0.0" / MODELING_NAME).read_text()


def test_a_run_of_an_earlier_version_is_published_with_this_versions_network_code(make_folder, tmp_path, monkeypatch):
    folder, later = make_folder(), modeling_source() + "\n# a comment that came later\n"
    monkeypatch.setattr(release, "modeling_source", lambda *file: later)
    assert published_code(folder, tmp_path / "registry") == later


def test_network_code_that_somebody_altered_is_never_published(make_folder, tmp_path):
    folder = make_folder()
    (folder / MODELING_NAME).write_text("import os")
    assert published_code(folder, tmp_path / "registry") == modeling_source()
    assert (folder / MODELING_NAME).read_text() == "import os", "the run folder stays as it is"


@pytest.mark.parametrize("other", ["test_resnet", "lesion_cnn_deep"])
def test_weights_that_do_not_fit_this_versions_network_are_refused(make_folder, tmp_path, other):
    folder, blob = make_folder(), (make_folder(backbone=other) / WEIGHTS_NAME).read_bytes()
    config = json.loads((folder / "config.json").read_text())
    config["lesion_hub"]["weights_sha256"] = hashlib.sha256(blob).hexdigest()
    (folder / WEIGHTS_NAME).write_bytes(blob)
    (folder / "config.json").write_text(json.dumps(config))
    with refused(WEIGHTS_NAME, "does not fit lesion_cnn_shallow"):
        store.publish(folder, "m", version="1.0.0", notes="First.", registry=tmp_path / "registry")
    assert not (tmp_path / "registry").exists()
