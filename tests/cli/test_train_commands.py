"""The commands that train: they take the scripts' own arguments, and pass on what those print and return."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from lesion_hub.cli import app
from lesion_hub.data.synthetic import SampleSpec, write_sample_set
from tests.cli.runner import run

pytestmark = pytest.mark.slow

QUICK = ("model.image_size=32", "model.backbone=lesion_cnn_shallow", "epochs=1", "data.split.near_duplicates=false")


def invoke(*arguments: object) -> Result:
    """Run the command in this process, for a new one takes seconds to import all that trains."""
    return CliRunner().invoke(app, [*map(str, arguments)])


@pytest.mark.parametrize(
    ("command", "option"), [("train", "--push-to"), ("cross-validate", "--folds"), ("search", "--vary"), ("find-lr", "--steps")]
)
def test_help_is_that_of_the_script(command: str, option: str) -> None:
    done = invoke(command, "--help")
    assert done.exit_code == 0
    assert done.stdout.startswith(f"usage: lesion-hub {command}") and option in done.stdout and "--set" in done.stdout


def test_several_values_after_one_set_and_repeated_ones_are_understood() -> None:
    done = invoke("train", "--recipe", "demo", "--print-recipe", "--set", "epochs=3", "seed=4", "--set", "batch_size=8")
    assert done.exit_code == 0
    shown = yaml.safe_load(done.stdout)
    assert (shown["epochs"], shown["seed"], shown["batch_size"]) == (3, 4, 8)


def test_a_recipe_trains_to_a_model_folder(tmp_path: Path) -> None:
    write_sample_set(tmp_path / "samples", SampleSpec(space="ham7", count=71, size=48, balanced=True, artefacts=False))
    places = ["--data", tmp_path / "samples", "--out", tmp_path / "run", "--cache", tmp_path / "cache", "--cpu"]
    done = run("train", "--recipe", "demo", *places, "--set", *QUICK, OMP_NUM_THREADS="1")
    assert "model folder" in done.stdout
    assert json.loads((tmp_path / "run" / "config.json").read_text())["architecture"] == "lesion_cnn_shallow"


@pytest.mark.parametrize("command", ["train", "cross-validate", "search"])
def test_a_users_mistake_is_one_line(command: str, tmp_path: Path) -> None:
    done = invoke(command, "--recipe", "ham10000_resnet5", "--out", tmp_path)
    assert done.exit_code == 1
    assert done.stderr.startswith("error: no recipe 'ham10000_resnet5'; did you mean") and done.stderr.count("\n") == 1


@pytest.mark.parametrize("command", ["train", "cross-validate", "search", "find-lr"])
def test_a_wrong_command_line_has_the_parsers_status(command: str) -> None:
    assert invoke(command, "--rescipe", "demo").exit_code == 2
