"""What is wrong with a release is found before anything is written."""

from __future__ import annotations

import json

import pytest

from lesion_hub.hub import store
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
