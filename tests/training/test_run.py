from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from lesion_hub.errors import ConfigError
from lesion_hub.hub.format import read_model
from lesion_hub.training import run
from lesion_hub.training.launch import LaunchOptions
from lesion_hub.training.recipe import EnsembleRecipe
from lesion_hub.training.recipe_files import load_recipe
from lesion_hub.training.run import MEMBERS_NAME, load_members, train_ensemble

QUICK = (
    "model.pretrained=false",
    "model.backbone=lesion_cnn_shallow",
    "model.image_size=32",
    "data.draw.per_class=6",
    "data.split={validation: 0.2, test: 0.2, near_duplicates: false}",
    "epochs=1",
)


def clinical(*overrides: str) -> EnsembleRecipe:
    recipe = load_recipe("clinical6_ensemble", [*QUICK, *overrides])
    assert isinstance(recipe, EnsembleRecipe)
    return recipe


@pytest.mark.slow
def test_members_train_on_one_split_and_one_draw(
    options: LaunchOptions, sample_set: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, brief: None
) -> None:
    place = options.model_copy(update={"data": sample_set("clinical6")})
    members = train_ensemble(clinical(), place)
    described = json.loads(members.read_text())["members"]
    assert [member["weight"] for member in described] == [0.3, 0.3, 0.4]
    folders = [place.out / member["folder"] for member in described]
    hashes = {read_model(folder)[1].lesion_hub.training.split_hash for folder in folders}  # type: ignore[union-attr]
    assert len(hashes) == 1 and len({(folder / "draw.json").read_bytes() for folder in folders}) == 1
    monkeypatch.setattr(run, "train_recipe", lambda recipe, where: None)
    assert train_ensemble(clinical(), place) == members == place.out / MEMBERS_NAME


def test_members_that_see_other_data_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "mixed.yaml"
    path.write_text("kind: ensemble\nmembers: [ham10000_lite0, isic2019_custom_cnn]\nweights: [0.5, 0.5]\n")
    recipe = load_recipe(path)
    assert isinstance(recipe, EnsembleRecipe)
    with pytest.raises(ConfigError, match="isic2019_custom_cnn has another data section than ham10000_lite0"):
        load_members(recipe)


@pytest.mark.parametrize(
    ("members", "line"), [("[demo, demo]", "two members are called 'demo'"), ("[demo, ham10000_trio]", "is an ensemble itself")]
)
def test_members_are_single_and_different(members: str, line: str, tmp_path: Path) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(f"kind: ensemble\nmembers: {members}\nweights: [0.5, 0.5]\n")
    recipe = load_recipe(path)
    assert isinstance(recipe, EnsembleRecipe)
    with pytest.raises(ConfigError, match=line):
        load_members(recipe)
