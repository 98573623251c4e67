from __future__ import annotations

import json
import shlex
from contextlib import suppress
from pathlib import Path

import pytest
from torch.nn import BatchNorm2d

from lesion_hub.errors import ConfigError
from lesion_hub.training import find_lr, train
from lesion_hub.training.find_lr import RampOptions, phase_searched, read_ramp
from lesion_hub.training.launch import LaunchOptions
from lesion_hub.training.recipe_files import load_run_recipe
from lesion_hub.training.schedules import Exponential

QUICK = ("model.image_size=32", "epochs=1", "data.split.near_duplicates=false")


@pytest.mark.slow
def test_the_rate_lies_where_the_loss_falls_and_its_line_runs_as_printed(
    options: LaunchOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], brief: None
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["--recipe", "demo", "--data", str(options.data), "--cache", str(options.cache), "--cpu", "--steps", "40"]
    assert find_lr.main([*command, "--json", "--set", *QUICK]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["key"] == "optimiser.lr" and 1e-6 < found["lr"] < found["lowest_loss_at"] < 0.1
    assert len(found["rates"]) == len(found["losses"]) <= 40 and found["losses"][-1] > 2 * found["losses"][0]
    assert [path.name for path in tmp_path.iterdir()] == [find_lr.PICTURE_NAME], "a picture, and nothing else"
    assert (tmp_path / find_lr.PICTURE_NAME).read_bytes().startswith(b"\x89PNG")
    words = shlex.split(found["command"])
    assert words[:2] == ["lesion-hub", "train"] and train.main(words[2:]) == 0
    recipe = json.loads((tmp_path / "runs" / "demo" / "metrics.json").read_text())["training"]["recipe"]
    assert recipe["optimiser"]["lr"] == found["lr"]


def test_the_key_is_that_of_the_phase_which_takes_the_rate() -> None:
    phases = "phases=[{train: head, epochs: 1, lr: 0.01}, {train: all, lr: 0.001}]"
    key, phase = phase_searched(load_run_recipe("demo", [phases], ""))
    assert key == "phases.0.lr" and phase.train == "head"


def test_frozen_batch_norms_keep_their_statistics_as_in_a_run(options: LaunchOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    built = []
    build = find_lr.build_classifier
    monkeypatch.setattr(find_lr, "build_classifier", lambda *given: built.append(build(*given)) or built[0])
    recipe = load_run_recipe("demo", [*QUICK, "model.backbone=resnet10t", "phases=[{train: head}]"], "")
    ramp = RampOptions(low=1e-4, high=1e-2, steps=10)
    with suppress(ConfigError):  # so few steps need show no fall
        find_lr.run_ramp(recipe, recipe.phases[0], ramp, options.data, options.cache, True)
    counts = [layer.num_batches_tracked.item() for layer in built[0].network.modules() if isinstance(layer, BatchNorm2d)]
    assert counts and not any(counts)


@pytest.mark.parametrize(
    ("losses", "line"),
    [
        ([2.0] * 60, "does not fall"),
        ([2.0 + 0.1 * step for step in range(60)], "does not fall"),
        ([2.0] * 3, "no number after 3"),
    ],
)
def test_losses_without_a_fall_are_refused(losses: list[float], line: str) -> None:
    with pytest.raises(ConfigError, match=line):
        read_ramp(Exponential(1e-6, 60, final=1e6), losses)


@pytest.mark.parametrize(
    ("more", "line"),
    [
        (["--low", "1", "--high", "0.1"], "--low must be below --high"),
        (["--steps", "3"], "--steps at least 10"),
        (["--low", "-1"], "low"),
        (["--recipe", "probe"], "is a probe, which is solved for in no epochs: find-lr is for recipes that train"),
    ],
)
def test_a_mistake_is_one_line(more: list[str], line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert find_lr.main(["--recipe", "demo", *more]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: ") and line in said and said.count("\n") == 1
