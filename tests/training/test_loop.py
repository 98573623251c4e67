from __future__ import annotations

import json
import os
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file

from lesion_hub.errors import ConfigError, DataError, LesionHubError, StoreError
from lesion_hub.files import read_json
from lesion_hub.hub.format import read_model
from lesion_hub.hub.layout import publishable_files
from lesion_hub.hub.store import list_versions
from lesion_hub.inference import from_pretrained
from lesion_hub.training import checkpoints, data, launch, loop, run, train
from lesion_hub.training.device import OutOfMemory
from lesion_hub.training.finish import check_publication, covered, publish_run
from lesion_hub.training.launch import LaunchOptions
from lesion_hub.training.loop import Loop
from lesion_hub.training.losses import SoftTargetLoss
from lesion_hub.training.recipe import Recipe
from lesion_hub.training.recipe_files import dump_recipe, load_recipe
from lesion_hub.training.reporting import Report
from lesion_hub.training.run import train_recipe
from lesion_hub.training.stopping import RunInterrupted, TrainingDiverged
from tests.training.conftest import STREAMED, TINY

pytestmark = pytest.mark.slow


class PowerCut(Exception):
    """Stands for a process that ends without a word."""


REAL_FINISH, REAL_SUMMARY = run.finish, Report.summary


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
    made = LaunchOptions(data=sample_set("ham7"), out=tmp_path_factory.mktemp("whole") / "run", cache=cache)
    recipe = load_recipe("demo", TINY)
    assert isinstance(recipe, Recipe)
    # This run is finished, whichever test is the first to ask for it and has switched that off.
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(run, "finish", REAL_FINISH)
        patched.setattr(Report, "summary", REAL_SUMMARY)
        train_recipe(recipe, made)
    return made


def test_a_run_ends_with_an_input_gate_unless_its_recipe_turns_that_off(
    whole_run: LaunchOptions, tiny: Recipe, options: LaunchOptions, monkeypatch: pytest.MonkeyPatch, brief: None
) -> None:
    gate = from_pretrained(whole_run.out).gates[0]
    section = read_json(whole_run.out / "metrics.json")["gate"]
    assert (gate.refuse_below, gate.accept_from) == (section["refuse_below"], section["accept_from"])
    assert (
        section["images"] + section["held_out"]["images"] <= 71 and "## Input gate" in (whole_run.out / "README.md").read_text()
    )
    monkeypatch.setattr(run, "finish", REAL_FINISH)
    train_recipe(tiny.model_copy(update={"gate": False, "epochs": 2}), options)
    assert from_pretrained(options.out).gates == () and "gate" not in read_json(options.out / "metrics.json")


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


def test_a_streamed_run_that_died_goes_on_as_if_it_had_not(
    options: LaunchOptions, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the middle of an epoch, at the very next image: no shuffle buffer is filled anew."""
    recipe = load_recipe("demo", [*TINY, *STREAMED])
    assert isinstance(recipe, Recipe)
    whole, died = (options.model_copy(update={"data": shards, "out": tmp_path / name}) for name in ("whole", "died"))
    train_recipe(recipe, whole)
    for death in (2, 4):
        with monkeypatch.context() as patched:
            cut_power_after(patched, death)
            with pytest.raises(PowerCut):
                train_recipe(recipe, died)
    train_recipe(recipe, died)
    assert same_weights(died.out, whole.out)


def test_a_stream_that_breaks_ends_the_run_in_one_line(
    options: LaunchOptions, shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = Path(shutil.copytree(shards, tmp_path / "copy"))
    # As on the Hub, where a shard is not looked at before it is read.
    monkeypatch.setattr(data, "shard_state", lambda url: None)
    places = ["--recipe", "demo", "--data", str(copy), "--out", str(options.out), "--cpu", "--set", *TINY, *STREAMED]
    with monkeypatch.context() as patched:
        cut_power_after(patched, 4)
        with pytest.raises(PowerCut):
            train.main(places)
    monkeypatch.setattr(data, "_load_index", partial(_truncating, data._load_index, copy / "train-00003-of-00008.tar"))
    capsys.readouterr()
    assert train.main(places) == 1
    said = capsys.readouterr().err.splitlines()
    assert said[-1].startswith(f"error: {copy}/train-00003-of-00008.tar: reading it failed") and "Traceback" not in str(said)


def _truncating(load: Callable[[Path], object], shard: Path, file: Path) -> object:
    shard.write_bytes(shard.read_bytes()[:2000])
    return load(file)


@pytest.fixture
def dropped(monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """Which of its inputs each dropout in training kept, in the order of the calls."""
    kept: list[torch.Tensor] = []
    dropout = torch.nn.functional.dropout

    def noting(values: torch.Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> torch.Tensor:
        if training and p:
            kept.append(dropout(torch.ones_like(values), p) != 0)
            return values * kept[-1] / (1 - p)
        return dropout(values, p, training, inplace)

    monkeypatch.setattr(torch.nn.functional, "dropout", noting)
    return kept


def test_a_run_with_components_of_ones_own_resumes_too(
    tiny: Recipe, options: LaunchOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = "tests.training.own_components"
    content = tiny.model_dump(mode="json") | {"epochs": 2}
    content["loss"] |= {"name": f"{own}:PolyLoss", "options": {"epsilon": 2.0}}
    content["augmentation"]["extra"] = [f"{own}:noise"]
    recipe = Recipe.model_validate(content)
    straight = options.model_copy(update={"out": options.out.parent / "straight"})
    train_recipe(recipe, straight)
    with monkeypatch.context() as patched:
        cut_power_after(patched, 4)
        with pytest.raises(PowerCut):
            train_recipe(recipe, options)
    train_recipe(recipe, options)
    assert same_weights(options.out, straight.out)


def test_dropout_depends_on_the_place_in_the_run_alone(
    tiny: Recipe, options: LaunchOptions, dropped: list[torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every micro-batch drops other units; a run whose generators were used in between, or resumed, drops the same ones."""
    recipe = tiny.model_copy(update={"epochs": 1, "phases": tiny.phases[1:]})
    train_recipe(recipe, options)
    whole = list(dropped)
    assert len(whole) > 4 and 0.6 < torch.cat(whole).float().mean() < 0.8
    assert not any(torch.equal(one, other) for one, other in pairwise(whole))
    dropped.clear()
    backward = Loop.backward

    def disturbed(self: Loop, batch: object) -> None:
        torch.rand(7)
        backward(self, batch)

    monkeypatch.setattr(Loop, "backward", disturbed)
    again = options.model_copy(update={"out": options.out.parent / "again"})
    with monkeypatch.context() as patched:
        cut_power_after(patched, 4)
        with pytest.raises(PowerCut):
            train_recipe(recipe, again)
    # The third micro-batch began a step that was not saved.
    del dropped[len(dropped) * 2 // 3 :]
    train_recipe(recipe, again)
    assert len(dropped) == len(whole) and all(torch.equal(one, other) for one, other in zip(dropped, whole, strict=True))


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
    with pytest.raises(OutOfMemory, match=r"batch_size 8; try --set batch_size=4 accumulation=4 .* --find-batch-size"):
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


# ------------------------------------------------------------------------------------------------ more epochs


def longer(recipe: Recipe, epochs: int, **changes: object) -> Recipe:
    return Recipe.model_validate(recipe.model_dump(mode="json") | {"epochs": epochs, **changes})


def test_more_epochs_go_on_with_a_finished_run(
    tiny: Recipe, options: LaunchOptions, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The rates are those of the longer run, stated in one line and in the log; resuming within the rest is exact."""
    straight = options.model_copy(update={"out": options.out.parent / "straight"})
    for place in (options, straight):
        train_recipe(longer(tiny, 2), place)
    capsys.readouterr()
    train_recipe(longer(tiny, 4), straight)
    line = "going on after epoch 2: epochs 3 to 4 take the learning rates that a run of 4 has there (one_cycle)"
    assert line in capsys.readouterr().out.splitlines()
    with monkeypatch.context() as patched:
        cut_power_after(patched, 8)
        with pytest.raises(PowerCut):
            train_recipe(longer(tiny, 4), options)
    train_recipe(longer(tiny, 4), options)
    assert same_weights(options.out, straight.out)
    resumed, whole = last_state(options.out), last_state(straight.out)
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)
    log = [json.loads(line) for line in (options.out / "log.jsonl").read_text().splitlines()]
    assert [(record["epoch"], record["of"]) for record in log] == [(1, 2), (2, 2), (3, 4), (4, 4)]
    assert covered(longer(tiny, 4), log) == {
        "epochs": 4,
        "schedules": [{"first": 1, "last": 2, "of": 2}, {"first": 3, "last": 4, "of": 4}],
    }
    as_planned = options.model_copy(update={"out": options.out.parent / "planned"})
    train_recipe(longer(tiny, 4), as_planned)
    rates = [json.loads(line)["lr"] for line in (as_planned.out / "log.jsonl").read_text().splitlines()]
    assert [record["lr"] for record in log][2:] == rates[2:]


def test_fewer_epochs_than_are_done_and_other_changes_are_refused(
    tiny: Recipe, whole_run: LaunchOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigError, match="3 epochs are done and epochs is 2; give at least as many"):
        train_recipe(longer(tiny, 2), whole_run)
    with pytest.raises(ConfigError, match=r"seed 0 there, 7 now\); only epochs may change"):
        train_recipe(longer(tiny, 9, seed=7), whole_run)
    assert (whole_run.out / "README.md").is_file() and (whole_run.out / "recipe.yaml").read_text() == dump_recipe(tiny)


def test_a_run_that_cannot_go_on_keeps_its_model(tiny: Recipe, whole_run: LaunchOptions, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        train_recipe(longer(tiny, 9), whole_run.model_copy(update={"data": tmp_path / "gone"}))
    assert (whole_run.out / "README.md").is_file() and (whole_run.out / "recipe.yaml").read_text() == dump_recipe(tiny)


# ------------------------------------------------------------------------------------------------ starts that failed


def test_a_start_that_failed_leaves_its_folder_to_another_recipe(
    tiny: Recipe, options: LaunchOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = longer(tiny, 1, model=tiny.model.model_dump() | {"pretrained": "missing.safetensors"})
    with pytest.raises(LesionHubError, match=r"missing\.safetensors"):
        train_recipe(missing, options)
    assert not options.out.exists()
    with monkeypatch.context() as patched:
        cut_power_after(patched, 1)
        with pytest.raises(PowerCut):
            train_recipe(longer(tiny, 1, seed=5), options)
    assert not options.out.exists()
    options.out.mkdir()
    (options.out / "notes.txt").write_text("mine")
    with pytest.raises(LesionHubError, match=r"missing\.safetensors"):
        train_recipe(missing, options)
    assert [path.name for path in options.out.iterdir()] == ["notes.txt"]
    train_recipe(longer(tiny, 1), options)
    with pytest.raises(ConfigError, match="another recipe"):
        train_recipe(longer(tiny, 1, seed=5), options)
    assert (options.out / "recipe.yaml").is_file(), "a refused start takes nothing away"


# ------------------------------------------------------------------------------------------------ trackers


def logged(folder: Path) -> list[dict[str, float]]:
    records = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in record.items() if key not in ("phase", "of")} for record in records]


def test_tensorboard_holds_what_the_log_holds(tiny: Recipe, options: LaunchOptions) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator", reason="needs tensorboard")
    train_recipe(tiny, options.model_copy(update={"track": "tensorboard"}))
    read = events.EventAccumulator(str(options.out / "lesion-hub")).Reload()
    log = logged(options.out)
    assert set(read.Tags()["scalars"]) == set(log[0])
    for name in log[0]:
        found = [(event.step, event.value) for event in read.Scalars(name)]
        assert found == [(step, pytest.approx(record[name], rel=1e-6)) for step, record in enumerate(log, start=1)]


def records_of(log: bytes) -> Iterator[bytes]:
    """The records of a file in wandb's format: after 7 bytes, LevelDB's log of blocks of 32 KiB."""
    place, record = 7, b""
    while place + 7 <= len(log):
        left = 32768 - place % 32768
        if left < 7:
            place += left
            continue
        length, kind = struct.unpack_from("<HB", log, place + 4)
        record += log[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # whole, or the last piece
            yield record
            record = b""


def test_wandb_offline_holds_what_the_log_holds(tiny: Recipe, options: LaunchOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    wandb = pytest.importorskip("wandb", reason="needs wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    train_recipe(longer(tiny, 1), options.model_copy(update={"track": "wandb"}))
    from wandb.proto import wandb_internal_pb2

    (file,) = options.out.glob("wandb/offline-run-*/*.wandb")
    items: dict[str, float] = {}
    for content in records_of(file.read_bytes()):
        record = wandb_internal_pb2.Record()
        record.ParseFromString(content)
        items |= {item.key or item.nested_key[0]: json.loads(item.value_json) for item in record.history.item}
    assert wandb.run is None, "the run is closed"
    assert {key: items[key] for key in logged(options.out)[0]} == logged(options.out)[0]


def test_trackio_holds_what_the_log_holds(tiny: Recipe, options: LaunchOptions, tmp_path: Path) -> None:
    """In a process of its own: trackio reads where its runs are kept when it is imported."""
    pytest.importorskip("trackio", reason="needs trackio")
    code = (
        "import json, sys\n"
        "from lesion_hub.training.train import main\n"
        "assert main(sys.argv[1:]) == 0\n"
        "import trackio\n"
        "run = trackio.Api().runs('lesion-hub')[0]\n"
        "from trackio.sqlite_storage import SQLiteStorage\n"
        "print('LOGS', json.dumps(SQLiteStorage.get_logs('lesion-hub', run.name)))\n"
    )
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(dump_recipe(longer(tiny, 1)))
    places = ["--data", str(options.data), "--out", str(options.out), "--cache", str(options.cache), "--cpu"]
    done = subprocess.run(
        [sys.executable, "-c", code, "--recipe", str(recipe), *places, "--track", "trackio"],
        env={**os.environ, "TRACKIO_DIR": str(tmp_path / "trackio"), "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("LOGS ")]
    (held,) = json.loads(line.removeprefix("LOGS "))
    assert {key: held[key] for key in logged(options.out)[0]} == logged(options.out)[0]


def test_a_tracker_that_cannot_start_is_one_line(tiny: Recipe, options: LaunchOptions, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise RuntimeError("no key\nlog in first")

    monkeypatch.setitem(launch.TRACKER_INSTALLED, "wandb", lambda: True)
    monkeypatch.setattr(Accelerator, "init_trackers", broken)
    with pytest.raises(ConfigError, match=r"--track wandb: cannot start \(no key log in first\); set it up, or drop --track"):
        train_recipe(tiny, options.model_copy(update={"track": "wandb"}))
    assert not options.out.exists()
