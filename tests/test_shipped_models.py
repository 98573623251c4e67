"""What comes with the package is what its records say: weights, cards, split, and the README's table."""

from __future__ import annotations

import json
import runpy
import subprocess
from pathlib import Path

import pytest

from lesion_hub import DEFAULT_MODEL
from lesion_hub.config import load_model_config
from lesion_hub.data.splits import load_manifest
from lesion_hub.hub.card_check import check_card
from lesion_hub.hub.layout import is_ensemble, load_config, verify_weights
from lesion_hub.hub.registry import Registries, packaged_root
from lesion_hub.inference import from_pretrained

ROOT = Path(__file__).resolve().parents[1]
RECORDS = ROOT / "model_cards" / "dermoscopy-trio"
REGISTRY = Registries(packaged_root())
FOLDERS = [REGISTRY.fetch(name, tag)[0] for name in REGISTRY.names() for tag in REGISTRY.versions(name)]
MODELS = [folder for folder in FOLDERS if not is_ensemble(folder)]


def title(folder: Path) -> str:
    return f"{folder.parent.name}-{folder.name}"


def test_the_default_model_and_its_members_are_there() -> None:
    ensemble = from_pretrained(DEFAULT_MODEL, registry=packaged_root())
    assert {member.name for member in ensemble.members} <= set(REGISTRY.names())


def test_they_are_small_enough_to_clone() -> None:
    assert sum(path.stat().st_size for path in packaged_root().rglob("*") if path.is_file()) <= 40e6


@pytest.mark.parametrize("folder", MODELS, ids=title)
def test_weights_are_the_ones_the_config_was_written_for(folder: Path) -> None:
    verify_weights(folder, load_model_config(folder))


@pytest.mark.parametrize("folder", FOLDERS, ids=title)
def test_cards_show_their_own_numbers_and_keep_the_licence(folder: Path) -> None:
    check_card(folder)
    assert "license: cc-by-nc-4.0" in (folder / "README.md").read_text(encoding="utf-8")
    assert "Tschandl" in (folder / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("folder", FOLDERS, ids=title)
def test_their_test_part_was_held_out(folder: Path) -> None:
    measured = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["test"]
    assert measured["data"]["split"] == "test"
    overlap = measured["overlap"]
    assert overlap["checked"] and (overlap["images"], overlap["groups"]) == (0, 0)


def test_the_split_on_record_is_the_one_they_were_trained_with() -> None:
    manifest = load_manifest(RECORDS / "manifest.json")  # refuses a lesion that two parts share, and a wrong hash
    hashes = {load_config(folder).lesion_hub.training.split_hash for folder in MODELS}
    assert hashes == {manifest.hash}


def test_the_tables_of_the_pages_are_made_of_their_metrics_and_records() -> None:
    made = runpy.run_path(str(RECORDS / "results.py"))
    for page in made["SECTIONS"]:
        assert made["with_sections"](page) == page.read_text(encoding="utf-8"), "run results.py --write"


@pytest.mark.parametrize("script", ["make.sh", "ablation.sh"])
def test_a_script_without_arguments_says_what_it_takes(script: str) -> None:
    done = subprocess.run(["bash", RECORDS / script], capture_output=True, text=True)
    assert done.returncode == 2
    assert f"{script} DATA OUT REGISTRY [WEIGHTS]" in done.stdout
    assert done.stdout.splitlines()[-1].startswith(("RECORDS", "The arguments")), "shows more than its header"
