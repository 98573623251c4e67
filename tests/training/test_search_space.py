from __future__ import annotations

from pathlib import Path

import pytest

from lesion_hub.errors import ConfigError
from lesion_hub.training.recipe import Recipe
from lesion_hub.training.recipe_files import load_recipe
from lesion_hub.training.search_space import Range, Space, read_space


@pytest.fixture(scope="module")
def demo() -> Recipe:
    recipe = load_recipe("demo")
    assert isinstance(recipe, Recipe)
    return recipe


def test_a_file_and_the_command_line_make_one_space(demo: Recipe, tmp_path: Path) -> None:
    file = tmp_path / "space.yaml"
    file.write_text(
        "optimiser.lr: {low: 1e-4, high: 1e-1, log: true}\n"
        "augmentation.rotation: {low: 0, high: 180, step: 45}\n"
        "early_stopping: [null, {patience: 3}]\n"
        "batch_size: [8, 16]\n"
    )
    space = read_space(demo, file, ["batch_size={low: 4, high: 32, log: true}", "optimiser.name=adamw,sgd"])
    space.check("demo", ())
    assert list(space.axes) == ["optimiser.lr", "augmentation.rotation", "early_stopping", "batch_size", "optimiser.name"]
    batch, rotation = space.axes["batch_size"], space.axes["augmentation.rotation"]
    assert isinstance(batch, Range) and batch.whole and isinstance(rotation, Range)
    assert rotation.values() == [0, 45, 90, 135, 180]
    assert space.contained()["early_stopping"] is None and space.contained()["optimiser.name"] == "adamw"
    assert Space(demo, space.plain()).plain() == space.plain()


def test_a_range_of_fractions_may_be_written_with_whole_numbers(demo: Recipe) -> None:
    axis = Space(demo, {"loss.label_smoothing": {"low": 0, "high": 0.2}, "optimiser.lr": {"low": 1, "high": 2}}).axes
    assert not axis["optimiser.lr"].whole  # type: ignore[union-attr]


def test_without_a_space_rate_and_decay_vary_around_the_recipes(demo: Recipe) -> None:
    assert read_space(demo, None, ()).plain() == {
        "optimiser.lr": {"low": 0.0003, "high": 0.03, "log": True},
        "optimiser.weight_decay": {"low": 0.002, "high": 0.2, "log": True},
    }
    plain = load_recipe("melanoma10k_resnet34")
    assert isinstance(plain, Recipe)
    assert read_space(plain, None, ()).plain()["optimiser.weight_decay"][0] == 0.0


def test_values_that_the_axes_lack_are_left_to_the_recipe(demo: Recipe) -> None:
    space = Space(demo, {"batch_size": [8, 32], "ema.decay": [0.9, 0.99], "optimiser.lr": {"low": 0.1, "high": 1.0}})
    assert space.contained() == {"ema.decay": 0.9}


@pytest.mark.parametrize("name", ["adam", "sgd"])
def test_a_point_fits_recipes_of_either_optimiser(name: str) -> None:
    for recipe in ("isic2019_efficientnet_b5", "melanoma10k_resnet34"):
        base = load_recipe(recipe)
        assert isinstance(base, Recipe)
        space = Space(base, {"optimiser.name": ["adam", "sgd"], "optimiser.momentum": [0.5, 0.9], "batch_size": [16, 32]})
        space.check(recipe, ())
        changed = space.recipe_of({"optimiser.name": name, "optimiser.momentum": 0.5, "batch_size": 16}, recipe, ())
        assert changed.optimiser.name == name and changed.batch_size == 16
        assert changed.optimiser.given.get("momentum") == (0.5 if name == "sgd" else None)


def test_a_grid_has_every_combination(demo: Recipe) -> None:
    space = Space(demo, {"batch_size": [8, 16], "epochs": {"low": 1, "high": 3}})
    assert len(list(space.grid())) == 6
    with pytest.raises(ConfigError, match=r"give optimiser\.lr its values, or its range a step"):
        list(Space(demo, {"optimiser.lr": {"low": 0.1, "high": 1.0}}).grid())


@pytest.mark.parametrize(
    ("vary", "line"),
    [
        ("optimiser.lrr=1,2", "unknown key 'optimiser.lrr'; did you mean 'lr'?"),
        ("optimiser.name=adam,lion", "unknown 'lion'"),
        ("batch_size=16,0", "batch_size"),
        ("batch_size={low: 4.5, high: 8.5}", "batch_size"),
        ("optimiser.lr={low: 1e-2, high: 1e-3}", "low 0.01 is not below high 0.001"),
        ("optimiser.lr={low: 0, high: 1e-3, log: true}", "begins above 0"),
        ("epochs={low: 1, high: 10, step: 4}", "step 4 does not lead from 1 to 10"),
        ("epochs={low: 1, hihg: 10}", "unknown key 'hihg'; did you mean 'high'?"),
        ("epochs=1,1", "given twice"),
        ("epochs", "write KEY=a,b,c"),
        ("epochs=[1", "not YAML"),
    ],
)
def test_a_mistake_is_one_line_before_anything_starts(vary: str, line: str, demo: Recipe) -> None:
    with pytest.raises(ConfigError) as caught:
        read_space(demo, None, [vary]).check("demo", ())
    assert line in str(caught.value) and "\n" not in str(caught.value)
