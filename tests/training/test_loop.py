from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lesion_hub.errors import ConfigError, StoreError
from lesion_hub.hub.format import read_model
from lesion_hub.hub.layout import publishable_files
from lesion_hub.hub.store import list_versions
from training import checkpoints, loop, run
from training.launch import LaunchOptions
from training.loop import Loop
from training.losses import SoftTargetLoss
from training.publishing import check_publication, publish_run
from training.recipe import Recipe
from training.recipe_files import dump_recipe, load_recipe
from training.reporting import Report
from training.run import train_recipe
from training.watch import RunInterrupted, TrainingDiverged


class PowerCut(Exception):
    """Stands for a process that ends without a word."""


@pytest.fixture(autouse=True)
def no_finish(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests are about the weights: what is made of them afterwards takes longer than the training."""
    monkeypatch.setattr(run, "finish", lambda *_: None)
    monkeypatch.setattr(Report, "summary", lambda *_: None)


def same_weights(one: Path, other: Path) -> bool:
    """Whether two runs would publish the same weights, to the bit."""
    first, second = (load_file(folder / "checkpoints" / "best.safetensors") for folder in (one, other))
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def last_state(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(max((folder / "checkpoints").glob("step-*.safetensors")))


def cut_power_after(monkeypatch: pytest.MonkeyPatch, batches: int) -> None:
    """Let the run die in its ``batches``-th micro-batch from now."""
    done = 0
    backward = Loop.backward

    def dying(self: Loop, batch: object) -> None:
        nonlocal done
        done += 1
        if done == batches:
            raise PowerCut
        backward(self, batch)

    monkeypatch.setattr(Loop, "backward", dying)


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory: pytest.TempPathFactory, sample_set: Callable[[str], Path], cache: Path) -> LaunchOptions:
    """A run of the tiny recipe that nothing interrupted."""
    from tests.training.conftest import TINY

    made = LaunchOptions(data=sample_set("ham7"), out=tmp_path_factory.mktemp("whole") / "run", cache=cache)
    recipe = load_recipe("demo", TINY)
    assert isinstance(recipe, Recipe)
    train_recipe(recipe, made)
    return made


# Mid-accumulation in the head phase, at an epoch's border, twice in the second phase.
@pytest.mark.parametrize("deaths", [[2], [5, 6], [7, 4]])
def test_a_run_that_died_goes_on_as_if_it_had_not(
    tiny: Recipe, options: LaunchOptions, whole_run: LaunchOptions, monkeypatch: pytest.MonkeyPatch, deaths: list[int]
) -> None:
    for batches in deaths:
        with monkeypatch.context() as patched:
            cut_power_after(patched, batches)
            with pytest.raises(PowerCut):
                train_recipe(tiny, options)
    train_recipe(tiny, options)
    assert same_weights(options.out, whole_run.out)
    resumed, straight = last_state(options.out), last_state(whole_run.out)
    assert resumed.keys() == straight.keys()
    assert all(torch.equal(resumed[name], straight[name]) for name in straight)


def test_dropout_depends_on_the_place_in_the_run_alone(
    tiny: Recipe, options: LaunchOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without seeding by place the resumed run would differ: the test above would be blind if dropout were off."""
    seeds = []
    seed = loop._seed_generators
    monkeypatch.setattr(loop, "_seed_generators", lambda *place: (seeds.append(place), seed(*place)))
    train_recipe(tiny.model_copy(update={"epochs": 1}), options)
    assert len(seeds) == len(set(seeds)) > 2


def test_the_run_folder_is_a_publishable_model(whole_run: LaunchOptions) -> None:
    files = publishable_files(whole_run.out)
    assert {"plots/training_curves.png", "plots/confusion_validation.png"} <= set(files)
    assert (whole_run.out / "augmented_samples.png").is_file()
    assert not any("augmented" in name for name in files), "pictures of people's lesions stay at home"
    classifier, config = read_model(whole_run.out)
    assert classifier.labels == config.space.labels
    assert config.lesion_hub.training is not None and config.lesion_hub.training.split_hash is not None
    for name in ("recipe.yaml", "log.jsonl", "manifest.json", "predictions_test.parquet", "classification_report_test.txt"):
        assert (whole_run.out / name).is_file(), name


def test_a_finished_run_is_not_trained_again(tiny: Recipe, whole_run: LaunchOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Loop, "run", lambda self: pytest.fail("trained again"))
    train_recipe(tiny, whole_run)


def test_another_recipe_in_the_same_folder_is_refused(tiny: Recipe, whole_run: LaunchOptions) -> None:
    with pytest.raises(ConfigError, match=r"another recipe \(seed 0 there, 7 now\)"):
        train_recipe(tiny.model_copy(update={"seed": 7}), whole_run)


def test_a_loss_that_is_no_number_names_the_batch(
    tiny: Recipe, options: LaunchOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A loss computed from the third batch on is NaN."""
    forward, calls = SoftTargetLoss.forward, []

    def poisoned(self: SoftTargetLoss, *arguments: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return forward(self, *arguments) * (float("nan") if len(calls) == 3 else 1.0)

    monkeypatch.setattr(SoftTargetLoss, "forward", poisoned)
    with pytest.raises(TrainingDiverged, match=r"loss is nan at epoch 1, step 2 \(images ISIC_\d+, ISIC_\d+.* more\); .* clip"):
        train_recipe(tiny, options)


def test_weights_that_diverged_are_not_saved(tiny: Recipe, options: LaunchOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    step = Loop.update

    def poisoned(self: Loop) -> None:
        step(self)
        if self.steps_done == 2:
            next(self.network.parameters()).data.fill_(float("nan"))

    monkeypatch.setattr(Loop, "update", poisoned)
    with pytest.raises(TrainingDiverged, match="weights are no longer finite at epoch 1, step 2"):
        train_recipe(tiny, options)
    weights = last_state(options.out)
    assert all(torch.isfinite(value).all() for name, value in weights.items() if value.is_floating_point())


def test_a_full_disk_ends_the_run_and_keeps_the_last_checkpoint(
    tiny: Recipe, options: LaunchOptions, whole_run: LaunchOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = checkpoints.write_bytes

    def full(path: Path, data: bytes) -> None:
        if "000000004" in path.name:
            (path.parent / f".{path.name}.tmp-torn").write_bytes(data[:100])
            raise StoreError(f"{path}: cannot be written (No space left on device); free some space")
        write(path, data)

    with monkeypatch.context() as patched:
        patched.setattr(checkpoints, "write_bytes", full)
        with pytest.raises(StoreError, match="No space left"):
            train_recipe(tiny, options)
    kept = sorted(path.name for path in (options.out / "checkpoints").glob("step-*"))
    assert kept == ["step-000000002.safetensors", "step-000000003.safetensors"]
    train_recipe(tiny, options)
    assert same_weights(options.out, whole_run.out)


def test_running_out_of_memory_says_what_to_try(tiny: Recipe, options: LaunchOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    def hungry(*_: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr(Loop, "count", hungry)
    with pytest.raises(Exception, match=r"batch_size 8; try --set batch_size=4 accumulation=4 .* --find-batch-size"):
        train_recipe(tiny, options)


def test_early_stopping_ends_the_run(tiny: Recipe, options: LaunchOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    same = {"validation_loss": 1.0, "accuracy": 0.5, "balanced_accuracy": 0.5}
    monkeypatch.setattr(loop, "quick_metrics", lambda *_: same)
    content = tiny.model_dump(mode="json") | {"early_stopping": {"patience": 2}, "epochs": 9}
    train_recipe(Recipe.model_validate(content), options)
    assert len((options.out / "log.jsonl").read_text().splitlines()) == 3


def test_a_stop_signal_saves_first(
    tiny: Recipe, options: LaunchOptions, whole_run: LaunchOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Loop.update

    def stopped(self: Loop) -> None:
        step(self)
        if self.steps_done == 5:
            self.stop.signum = 15

    with monkeypatch.context() as patched:
        patched.setattr(Loop, "update", stopped)
        with pytest.raises(RunInterrupted, match="saved, run again to resume") as stop:
            train_recipe(tiny.model_copy(update={"checkpoints": tiny.checkpoints}), options)
    assert stop.value.signum == 15
    train_recipe(tiny, options)
    assert same_weights(options.out, whole_run.out)


def test_recipe_in_the_folder_is_the_resolved_one(tiny: Recipe, whole_run: LaunchOptions) -> None:
    assert (whole_run.out / "recipe.yaml").read_text() == dump_recipe(tiny)


def test_a_run_is_published_as_it_is(whole_run: LaunchOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LESION_HUB_REGISTRY", str(tmp_path))
    publication = check_publication("tiny", "1.0.0", "The first one.")
    assert publication is not None
    publish_run(whole_run.out, publication)
    assert list_versions("tiny") == ["v1.0.0"]
    assert not list((tmp_path / "tiny").rglob("checkpoints"))
