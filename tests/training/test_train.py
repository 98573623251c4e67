"""The commands as people type them: what they print, what they return, and that killing them loses nothing."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from accelerate import Accelerator

from lesion_hub.training import launch, train
from lesion_hub.training.claims import alone_in
from lesion_hub.training.launch import LaunchOptions
from lesion_hub.training.recipe import Recipe
from lesion_hub.training.recipe_files import load_recipe
from lesion_hub.training.run import train_recipe

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
# Long enough to be caught in the middle, quick enough to be done twice.
LONG = (
    "model.image_size=32",
    "model.backbone=lesion_cnn_shallow",
    "model.drop_rate=0.3",
    "epochs=15",
    "batch_size=4",
    "accumulation=2",
    "data.split.near_duplicates=false",
    "checkpoints.every_steps=1",
)


def start(command: list[str], options: LaunchOptions) -> subprocess.Popen[str]:
    """The training command in a process group of its own."""
    places = ["--recipe", "demo", "--data", str(options.data), "--out", str(options.out), "--cache", str(options.cache)]
    return subprocess.Popen(
        [*command, *places, "--cpu", "--set", *LONG],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def signal_after(process: subprocess.Popen[str], step: int, options: LaunchOptions, signum: int) -> tuple[str, str]:
    """Send ``signum`` to the whole group once a checkpoint of ``step`` or later is there; what the process said."""
    wait_for_step(process, step, options)
    os.killpg(process.pid, signum)
    return process.communicate(timeout=60)


def wait_for_step(process: subprocess.Popen[str], step: int, options: LaunchOptions) -> None:
    deadline = time.monotonic() + 120
    while not any(int(path.stem[5:]) >= step for path in (options.out / "checkpoints").glob("step-*.safetensors")):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.02)


@pytest.mark.slow
def test_a_killed_run_ends_in_the_same_bytes(options: LaunchOptions, tmp_path: Path) -> None:
    command = [sys.executable, "training/train.py"]
    process = start(command, options)
    signal_after(process, 3, options, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL and not (options.out / "README.md").exists()
    process = start(command, options)
    _, said = signal_after(process, 9, options, signal.SIGTERM)
    assert process.returncode == 128 + signal.SIGTERM
    assert said.strip().splitlines()[-1].startswith("error: stopped ") and "Traceback" not in said
    recipe = load_recipe("demo", LONG)
    assert isinstance(recipe, Recipe)
    straight = options.model_copy(update={"out": tmp_path / "straight", "cpu": True})
    train_recipe(recipe, options.model_copy(update={"cpu": True}))
    train_recipe(recipe, straight)
    assert (options.out / "model.safetensors").read_bytes() == (straight.out / "model.safetensors").read_bytes()
    assert (options.out / "config.json").read_bytes() == (straight.out / "config.json").read_bytes()


def test_a_run_is_one_process_at_a_time(options: LaunchOptions) -> None:
    """A second one is refused in a line that names the first; what a killed one leaves is in nobody's way."""
    command = [sys.executable, "training/train.py"]
    first = start(command, options)
    wait_for_step(first, 1, options)
    second = start(command, options)
    _, said = second.communicate(timeout=60)
    assert first.poll() is None, "the first goes on"
    assert second.returncode == 1 and len(said.splitlines()) == 1
    owner = f"another process trains here ({socket.gethostname()}, process {first.pid}); wait for its end or stop it, or choose"
    assert owner in said
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()
    with alone_in(options.out, Accelerator(cpu=True)) as claim:
        assert claim.attempt == 2
    assert not (options.out / "claims").exists() and (options.out / "checkpoints").is_dir()


def test_print_recipe_shows_what_would_be_trained(capsys: pytest.CaptureFixture[str]) -> None:
    assert train.main(["--recipe", "ham10000_default", "--print-recipe", "--set", "optimiser.lr=1e-2", "seed=3"]) == 0
    shown = yaml.safe_load(capsys.readouterr().out)
    assert (shown["optimiser"]["lr"], shown["seed"], shown["schedule"]["name"]) == (0.01, 3, "cosine")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--recipe", "ham10000_resnet5"], "no recipe 'ham10000_resnet5'; did you mean 'ham10000_resnet50'?"),
        (["--recipe", "missing.yaml"], "missing.yaml: no such file"),
        (["--recipe", "demo", "--set", "optimiser.lrr=1"], "unknown key 'optimiser.lrr'; did you mean 'lr'?"),
        (["--recipe", "demo"], "--out is missing"),
        (["--recipe", "demo", "--out", "{tmp}/run", "--data", "{tmp}/none"], "none: no such folder"),
        (["--recipe", "demo", "--out", "{tmp}/run", "--push-to", "org/x"], "--push-to needs --version"),
        (["--recipe", "demo", "--out", "{tmp}/run", "--push-to", "a b", "--version", "1.0.0"], "neither a Hub id"),
        (["--recipe", "demo", "--out", "{tmp}/run", "--notes", "first"], "say where with --push-to"),
        (["--recipe", "demo", "--out", "{tmp}/run", "--track", "wandb"], "pip install wandb"),
    ],
)
def test_a_mistake_is_one_line(
    arguments: list[str], line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(launch.TRACKER_INSTALLED, "wandb", lambda: False)
    assert train.main([argument.format(tmp=tmp_path) for argument in arguments]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: ") and line in said and len(said.splitlines()) == 1


def test_training_starts_as_an_installed_module(tmp_path: Path) -> None:
    """Elsewhere than in a checkout; the other tests start it as a file."""
    command = [sys.executable, "-m", "lesion_hub.training.train", "--recipe", "demo", "--print-recipe"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "name: demo" in done.stdout, done.stderr
