"""Two processes on one CPU, over gloo: the same run as one process with twice the batch, killed and resumed or not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from accelerate.commands.config.config_args import load_config_from_file

from lesion_hub.hub.layout import METRICS_NAME
from lesion_hub.training import run
from lesion_hub.training.feed import streamed_order
from lesion_hub.training.launch import LaunchOptions
from lesion_hub.training.recipe import Recipe
from lesion_hub.training.recipe_files import load_recipe
from lesion_hub.training.run import train_recipe
from tests.training.conftest import STREAMED

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
# No dropout and no batch norm; 71 images leave odd parts behind.
PLAIN = (
    "model.image_size=32",
    "model.backbone=lesion_cnn_shallow",
    "model.drop_rate=0.0",
    "augmentation=null",
    "data.split.validation=0.3",
    "epochs=6",
    "data.split.near_duplicates=false",
    "checkpoints.every_steps=1",
)


def launch(options: LaunchOptions, *overrides: str) -> subprocess.Popen[str]:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    places = ["--recipe", "demo", "--data", str(options.data), "--out", str(options.out), "--cache", str(options.cache)]
    return subprocess.Popen(
        [*torchrun, "training/train.py", *places, "--cpu", "--set", *PLAIN, *overrides],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str], options: LaunchOptions) -> None:
    """Two gloo processes sometimes abort at exit after all is written: the folder tells, not the status."""
    said, _ = process.communicate(timeout=240)
    assert (options.out / "README.md").is_file(), said


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory: pytest.TempPathFactory, sample_set, cache: Path) -> LaunchOptions:
    options = LaunchOptions(data=sample_set("ham7"), out=tmp_path_factory.mktemp("two") / "run", cache=cache)
    finish(launch(options, "batch_size=4"), options)
    return options


def records(options: LaunchOptions) -> list[dict[str, float]]:
    return [json.loads(line) for line in (options.out / "log.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_two_processes_train_as_one_with_twice_the_batch(two_processes: LaunchOptions, options: LaunchOptions) -> None:
    recipe = load_recipe("demo", [*PLAIN, "batch_size=8"])
    assert isinstance(recipe, Recipe)
    train_recipe(recipe, options.model_copy(update={"cpu": True}))
    for one, two in zip(records(options), records(two_processes), strict=True):
        for name in ("train_loss", "validation_loss"):
            assert one[name] == pytest.approx(two[name], abs=1e-4)
        for name in ("train_accuracy", "accuracy", "balanced_accuracy", "lr"):
            assert one[name] == two[name]
    first, second = (json.loads((run.out / METRICS_NAME).read_text())["validation"] for run in (options, two_processes))
    assert first["examples"] % 2 == 1
    assert first["confusion_matrix"] == second["confusion_matrix"]


@pytest.mark.slow
def test_two_killed_processes_end_in_the_same_bytes(two_processes: LaunchOptions, options: LaunchOptions) -> None:
    process = launch(options, "batch_size=4")
    deadline = time.monotonic() + 120
    while not any(int(path.stem[5:]) >= 7 for path in (options.out / "checkpoints").glob("step-*.safetensors")):
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    _end_orphans(options)
    process.communicate()
    assert not (options.out / "README.md").exists()
    finish(launch(options, "batch_size=4"), options)
    assert (options.out / "model.safetensors").read_bytes() == (two_processes.out / "model.safetensors").read_bytes()


@pytest.mark.slow
def test_two_processes_stream_what_one_order_says(
    options: LaunchOptions, shards: Path, tmp_path: Path, brief: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each its own stretch of the shards; one process that shows the same order, twice the batch, learns the same."""
    two, one = (options.model_copy(update={"data": shards, "out": tmp_path / name, "cpu": True}) for name in ("two", "one"))
    finish(launch(two, "batch_size=4", "epochs=2", *STREAMED), two)
    recipe = load_recipe("demo", [*PLAIN, "batch_size=8", "epochs=2", *STREAMED])
    assert isinstance(recipe, Recipe)
    monkeypatch.setattr(run, "streamed_order", lambda *given, world: streamed_order(*given, world=2))
    train_recipe(recipe, one)
    for first, second in zip(records(one), records(two), strict=True):
        for name in ("train_loss", "validation_loss"):
            assert first[name] == pytest.approx(second[name], abs=1e-4)
        assert first["train_accuracy"] == second["train_accuracy"]


@pytest.mark.parametrize(("name", "processes", "machines"), [("one_gpu", 1, 1), ("eight_gpus", 8, 1), ("two_nodes", 16, 2)])
def test_the_documented_accelerate_configs_are_valid(name: str, processes: int, machines: int) -> None:
    config = load_config_from_file(str(ROOT / "training" / "accelerate_configs" / f"{name}.yaml"))
    assert (config.num_processes, config.num_machines) == (processes, machines)


def _end_orphans(options: LaunchOptions) -> None:
    """Workers that torchrun started in groups of their own outlive its SIGKILL; they are told by their --out."""
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if str(options.out).encode() in (entry / "cmdline").read_bytes() and int(entry.name) != os.getpid():
                os.kill(int(entry.name), signal.SIGKILL)
        except (OSError, ValueError):
            continue
