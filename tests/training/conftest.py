"""Synthetic sample sets, drawn once for all of training's tests, and a recipe small enough to train in a second."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from PIL import Image

from lesion_hub.data import read
from lesion_hub.data.synthetic import SampleSpec, write_sample_set
from lesion_hub.data.write_shards import write_shards
from lesion_hub.hub.store import publish
from lesion_hub.taxonomy import label_space
from lesion_hub.training import finish
from lesion_hub.training.data import Part
from lesion_hub.training.launch import LaunchOptions
from lesion_hub.training.recipe import Recipe
from lesion_hub.training.recipe_files import load_recipe
from lesion_hub.training.run import train_recipe

torch.set_num_threads(1)

# Small, quick, and with dropout, augmentation, mixing, an average and a phase: all that a resumed run must carry on.
TINY = (
    "model.image_size=32",
    "model.backbone=lesion_cnn_shallow",
    "model.drop_rate=0.3",
    "epochs=3",
    "batch_size=8",
    "accumulation=2",
    "mixing.mixup=0.3",
    "data.split.near_duplicates=false",
    "phases=[{train: head, epochs: 1, lr: 0.01}, {train: all}]",
    "checkpoints.every_steps=1",
)


# The same on a stream, whose buffer is smaller than a shard.
STREAMED = ("data.streaming=true", "data.shuffle_buffer=7", "sampler.kind=natural")


@pytest.fixture(scope="session")
def sample_set(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The root of a balanced synthetic set of a label space; each is drawn once."""
    drawn: dict[str, Path] = {}

    def get(space: str) -> Path:
        if space not in drawn:
            drawn[space] = tmp_path_factory.mktemp(f"samples-{space}")
            write_sample_set(drawn[space], SampleSpec(space=space, count=71, size=48, balanced=True, artefacts=False))
        return drawn[space]

    return get


@pytest.fixture(scope="session")
def shards(sample_set: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ham7 samples as tar shards of nine images."""
    folder = tmp_path_factory.mktemp("shards") / "ham7"
    write_shards(read(sample_set("ham7")), folder, format="webdataset", shard_size=9)
    return folder


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache") / "images"


@pytest.fixture
def options(sample_set: Callable[[str], Path], cache: Path, tmp_path: Path) -> LaunchOptions:
    """Where a run of the ham7 samples goes."""
    return LaunchOptions(data=sample_set("ham7"), out=tmp_path / "run", cache=cache)


@pytest.fixture
def tiny() -> Recipe:
    recipe = load_recipe("demo", TINY)
    assert isinstance(recipe, Recipe)
    return recipe


@pytest.fixture
def cpu_accelerator() -> Iterator[Accelerator]:
    """An accelerator on the CPU; accelerate keeps one state for the whole process, which may be that of another test."""
    AcceleratorState._reset_state(reset_partial_state=True)
    yield Accelerator(cpu=True)
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """Finish runs without plots and with few resamples: for tests that look at what comes before or after."""
    monkeypatch.setattr(finish, "draw_figures", lambda *_: ())
    for name in ("assess", "calibration_effect"):
        monkeypatch.setattr(finish, name, partial(getattr(finish, name), resamples=20))


@pytest.fixture
def part() -> Part:
    """Thirteen noise images of three labels, in memory."""
    count = 13
    names = tuple(f"image{i}" for i in range(count))
    return Part("train", [_noise(i) for i in range(count)], np.arange(count) % 3, names, names, label_space("isic2017"))


def _noise(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 255, (24, 32, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


# One epoch of a network that trains in a second.
QUICK = ("model.image_size=32", "model.backbone=lesion_cnn_shallow", "epochs=1", "data.split.near_duplicates=false")


def quick(*overrides: str) -> Recipe:
    recipe = load_recipe("demo", [*QUICK, *overrides])
    assert isinstance(recipe, Recipe)
    return recipe


@pytest.fixture
def published(options: LaunchOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, brief: None) -> Path:
    """A run on the sample set, published into the registry that is in force as ``base``."""
    registry = tmp_path / "registry"
    monkeypatch.setenv("LESION_HUB_REGISTRY", str(registry))
    run = options.out.parent / "base-run"
    train_recipe(quick("data.train=[{name: base lesions, license: cc-by-nc-4.0}]"), options.model_copy(update={"out": run}))
    publish(run, "base", version="1.0.0", notes="First.")
    return registry / "base" / "v1.0.0"
