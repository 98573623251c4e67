"""Repos in the format of 1.0 load and answer: config.json without graphs, gate or rules, and no file that came later."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from lesion_hub import DEFAULT_MODEL, from_pretrained
from lesion_hub.files import read_json, write_json
from lesion_hub.hub.registry import Registries, packaged_root

TAG = "v1.0.0"
SECTION = ("format_version", "label_space", "temperature", "operating_points", "training", "weights_sha256")
ENSEMBLE = (*SECTION[:-1], "label_names", "members", "weights", "combine")
FILES = ("config.json", "ensemble.json", "model.safetensors", "README.md", "CHANGELOG.md", "metrics.json", "split.json")
PICTURE = Path(__file__).parents[1] / "spaces" / "lesion-ensemble" / "examples" / "drawn_as_melanoma.jpg"


def write_first_format(folder: Path, copy: Path) -> None:
    """Copy what 1.0 wrote of a version, weights as a link; what is newer stays behind."""
    copy.mkdir(parents=True)
    for path in folder.iterdir():
        if path.suffix == ".safetensors" and path.name in FILES:
            (copy / path.name).symlink_to(path)
        elif path.name in FILES:
            shutil.copyfile(path, copy / path.name)
    if (copy / "config.json").exists():
        config = read_json(copy / "config.json")
        config["lesion_hub"] = {key: config["lesion_hub"][key] for key in SECTION}
        write_json(copy / "config.json", config)
    else:
        config = {key: value for key, value in read_json(copy / "ensemble.json").items() if key in ENSEMBLE}
        config["members"] = [{**member, "revision": TAG} for member in config["members"]]
        write_json(copy / "ensemble.json", config)


@pytest.fixture
def first_registry(tmp_path: Path) -> Path:
    shipped = Registries(packaged_root())
    for name in shipped.names():
        write_first_format(shipped.fetch(name, shipped.versions(name)[0])[0], tmp_path / name / TAG)
    return tmp_path


def test_an_ensemble_of_1_0_answers_as_it_did(first_registry: Path) -> None:
    old = from_pretrained(f"{DEFAULT_MODEL}@{TAG}", registry=first_registry, engine="torch")
    now = from_pretrained(DEFAULT_MODEL, registry=packaged_root(), engine="torch")
    seen, expected = old.predict(PICTURE), now.predict(PICTURE)
    assert seen.probabilities == pytest.approx(expected.probabilities, abs=1e-6)
    assert set(seen.decisions) == set(expected.decisions) and seen.decisions
    assert seen.scope is None
    assert old.revision == TAG
