from __future__ import annotations

import json

import pytest

from lesion_hub.training import grid_search
from lesion_hub.training.grid_search import GRID_SEARCH_NAME, HEAT_MAPS_NAME, Grid, Point
from lesion_hub.training.launch import LaunchOptions
from lesion_hub.training.recipe import Recipe
from lesion_hub.training.recipe_files import load_recipe

pytestmark = pytest.mark.slow

QUICK = (
    "model.image_size=32",
    "model.backbone=lesion_cnn_shallow",
    "epochs=1",
    "schedule={name: constant}",
    "data.split={validation: 0.2, test: 0.2, near_duplicates: false}",
)


def arguments(options: LaunchOptions) -> list[str]:
    places = ["--data", str(options.data), "--out", str(options.out), "--cache", str(options.cache)]
    axes = ["--lr", "1e-3", "1e-1", "--batch-size", "16", "--optimiser", "adam", "sgd"]
    return ["--recipe", "demo", *axes, *places, "--set", *QUICK]


def test_points_are_ranked_by_validation_and_the_test_part_is_left_alone(
    options: LaunchOptions, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], brief: None
) -> None:
    assert grid_search.main(arguments(options)) == 0
    records = json.loads((options.out / GRID_SEARCH_NAME).read_text())
    scores = [record["balanced_accuracy"] for record in records]
    assert len(records) == 4 and scores == sorted(scores, reverse=True)
    assert {(record["optimiser"], record["lr"]) for record in records} == {
        ("adam", 1e-3),
        ("adam", 0.1),
        ("sgd", 1e-3),
        ("sgd", 0.1),
    }
    assert (options.out / HEAT_MAPS_NAME).read_bytes().startswith(b"\x89PNG")
    assert not list(options.out.rglob("predictions_test.parquet"))
    assert f"--set {' '.join(QUICK)} optimiser.name={records[0]['optimiser']}" in capsys.readouterr().out
    # Again: nothing is trained a second time.
    monkeypatch.setattr("lesion_hub.training.run.Loop.run", lambda self: pytest.fail("trained again"))
    assert grid_search.main(arguments(options)) == 0


def test_the_default_grid_is_that_of_the_paper() -> None:
    grid = Grid()
    assert (grid.lr, grid.batch_size, set(grid.optimiser)) == ((1e-3, 1e-2, 1e-1), (16, 32, 64), {"adam", "sgd"})
    assert len({point.name for point in grid.points()}) == 18


@pytest.mark.parametrize("optimiser", ["adam", "sgd"])
def test_a_point_fits_a_recipe_of_either_optimiser(optimiser: str) -> None:
    for recipe in ("isic2019_efficientnet_b5", "melanoma10k_resnet34"):
        changed = load_recipe(recipe, Point(optimiser, 0.01, 16).overrides)
        assert isinstance(changed, Recipe) and changed.optimiser.name == optimiser and changed.batch_size == 16


def test_a_wrong_point_shows_before_any_is_trained(options: LaunchOptions, capsys: pytest.CaptureFixture[str]) -> None:
    assert grid_search.main([*arguments(options), "--optimiser", "adam", "lion"]) == 1
    assert "unknown 'lion'" in capsys.readouterr().err
    assert not (options.out / "points").exists()
