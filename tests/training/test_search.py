from __future__ import annotations

import csv
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from accelerate import Accelerator
from optuna.trial import TrialState

from lesion_hub.training import search, train
from lesion_hub.training.claims import Claim
from lesion_hub.training.launch import LaunchOptions
from lesion_hub.training.search_report import CSV_NAME, PICTURE_NAME
from lesion_hub.training.study import JOURNAL_NAME, SearchOptions, Study
from tests.training.test_claims import dead_process, made_by

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
QUICK = (
    "model.image_size=32",
    "model.backbone=lesion_cnn_shallow",
    "epochs=1",
    "schedule={name: constant}",
    "data.split={validation: 0.2, test: 0.2, near_duplicates: false}",
)


def arguments(options: LaunchOptions, *more: str) -> list[str]:
    places = ["--data", str(options.data), "--out", str(options.out), "--cache", str(options.cache), "--cpu"]
    return ["--recipe", "demo", *places, *more, "--set", *QUICK]


def test_a_grid_is_ranked_by_validation_and_the_winners_line_runs_as_printed(
    options: LaunchOptions, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], brief: None
) -> None:
    grid = ("--sampler", "grid", "--vary", "optimiser.lr=1e-3,1e30", "optimiser.name=adam,sgd", "--json")
    assert search.main(arguments(options, *grid)) == 0
    captured = capsys.readouterr()
    assert "5 trials of at most 1 epochs, 5 in all" in captured.err and "min of computing" in captured.err
    result = json.loads(captured.out)
    trials = {record["trial"]: record for record in result["trials"]}
    # The recipe's own optimiser and rate are none of the grid's, and come first all the same.
    assert trials[0]["values"] == {"optimiser.lr": 0.003, "optimiser.name": "adamw"}
    points = {(r["values"]["optimiser.name"], r["values"]["optimiser.lr"]) for r in result["trials"]}
    assert points == {("adamw", 0.003), *((name, lr) for name in ("adam", "sgd") for lr in (1e-3, 1e30))}
    assert {r["why"] for r in result["trials"] if r["values"]["optimiser.lr"] == 1e30} == {"diverged"}
    finished = [record["balanced_accuracy"] for record in result["trials"] if record["state"] == "finished"]
    assert len(finished) == 3 and finished == sorted(finished, reverse=True) and result["best"] == result["trials"][0]
    assert (options.out / PICTURE_NAME).read_bytes().startswith(b"\x89PNG")
    table = list(csv.DictReader((options.out / CSV_NAME).open()))
    assert [int(row["trial"]) for row in table] == [record["trial"] for record in result["trials"]]
    assert not list(options.out.rglob("predictions_test.parquet"))
    # Again: nothing is trained a second time; another space is refused.
    with monkeypatch.context() as patch:
        patch.setattr("lesion_hub.training.run.Loop.run", lambda self: pytest.fail("trained again"))
        assert search.main(arguments(options, *grid)) == 0
        assert json.loads(capsys.readouterr().out) == result
    assert search.main(arguments(options, "--vary", "batch_size=4,8")) == 1
    assert "holds another search (space.optimiser.lr [0.001, 1e+30] there" in capsys.readouterr().err

    words = shlex.split(result["command"])
    assert words[:2] == ["lesion-hub", "train"] and train.main(words[2:]) == 0
    recipe = json.loads((options.out / "winner" / "metrics.json").read_text())["training"]["recipe"]
    assert recipe["optimiser"]["name"] == result["best"]["values"]["optimiser.name"]


def start(options: LaunchOptions) -> subprocess.Popen[str]:
    more = ("--trials", "3", "--vary", "optimiser.lr={low: 1e-4, high: 1e-2, log: true}", "--prune", "none")
    command = [sys.executable, "training/search.py", *arguments(options, *more), "epochs=6", "checkpoints.every_steps=1"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@pytest.mark.timeout(600)
def test_two_workers_share_the_trials_and_what_a_killed_one_began_is_finished(options: LaunchOptions) -> None:
    killed = start(options)
    deadline = time.monotonic() + 200
    while not list((options.out / "trials" / "0" / "checkpoints").glob("step-*.safetensors")):
        assert killed.poll() is None and time.monotonic() < deadline, killed.communicate()
        time.sleep(0.05)
    other = start(options)
    # Killed in the middle of its trial, once the other has one of its own.
    while not (options.out / "trials" / "1").is_dir() and killed.poll() is None:
        assert other.poll() is None and time.monotonic() < deadline, other.communicate()
        time.sleep(0.05)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    said, _ = other.communicate(timeout=250)
    assert other.returncode == 0, said
    result = json.loads((options.out / "search.json").read_text())
    assert sorted(record["trial"] for record in result["trials"]) == [0, 1, 2]
    assert {(record["state"], record["epochs"]) for record in result["trials"]} == {("finished", 6)}
    assert sorted(path.name for path in (options.out / "trials").iterdir()) == ["0", "1", "2"]
    assert len(list((options.out / "claims").iterdir())) == 1, "the killed worker's claim alone is left"


# ------------------------------------------------------------------------------------------------ drawing, without training


@pytest.fixture
def plan() -> SearchOptions:
    space = {"optimiser.lr": {"low": 1e-4, "high": 1e-1, "log": True}, "optimiser.name": ["adamw", "sgd"]}
    return SearchOptions(recipe="demo", overrides=QUICK, space=space, trials=8)


def open_study(plan: SearchOptions, options: LaunchOptions, accelerator: Accelerator) -> Study:
    return Study(plan, options, accelerator)


def finish(study: Study, claim: Claim, value: float) -> dict[str, Any]:
    """End a claimed trial with ``value``, and return its values."""
    trial = study.trials[claim.name]
    trial.report(value, 1)
    study.study.tell(trial, value)
    assert claim.file is not None
    claim.file.unlink()
    return study.point(trial)


def test_there_are_never_more_trials_than_asked_for(
    plan: SearchOptions, options: LaunchOptions, cpu_accelerator: Accelerator
) -> None:
    one, two = (open_study(plan, options, cpu_accelerator) for _ in range(2))
    taken = [worker.take() for _ in range(5) for worker in (one, two)]
    names = [claim.name for claim in taken if claim is not None]
    assert names == [f"trial-{number}" for number in range(8)] and taken[8:] == [None, None]
    assert not one.done()
    points = [finish(one if i % 2 == 0 else two, claim, 0.5) for i, claim in enumerate(taken) if claim is not None]
    assert one.done() and points[0] == {} and one.study.trials[0].params["optimiser.lr"] == 0.003
    assert len({json.dumps(point) for point in points}) == 8, "no worker draws what another has drawn"


def test_the_same_seed_draws_the_same_trials(
    plan: SearchOptions, options: LaunchOptions, cpu_accelerator: Accelerator, tmp_path: Path
) -> None:
    drawn = []
    for name in ("first", "second"):
        place = options.model_copy(update={"out": tmp_path / name})
        points = []
        for number in range(4):
            study = open_study(plan, place, cpu_accelerator)  # anew for each, as after an interruption
            claim = study.take()
            assert claim is not None
            points.append(finish(study, claim, 0.1 * number))
        drawn.append(points)
    assert drawn[0] == drawn[1]


def test_a_dead_workers_trial_goes_on_with_its_values_until_it_has_killed_too_many(
    plan: SearchOptions, options: LaunchOptions, cpu_accelerator: Accelerator
) -> None:
    study = open_study(plan, options, cpu_accelerator)
    study.take()
    claim, seen = study.take(), set()
    for attempt in range(1, 4):
        assert claim is not None and (claim.name, claim.attempt) == ("trial-1", attempt)
        seen.add(json.dumps(study.point(study.trials["trial-1"])))
        made_by(claim, pid=dead_process())
        other = open_study(plan, options, cpu_accelerator)
        claim = other.take()
    assert len(seen) == 1
    assert claim is not None
    other.train(claim)
    assert other.study.trials[1].state == TrialState.FAIL
    assert {r["trial"]: r["why"] for r in other.records()} == {0: None, 1: "its worker died 3 times"}


def test_a_trial_below_the_median_ends_early(plan: SearchOptions, options: LaunchOptions, cpu_accelerator: Accelerator) -> None:
    longer = plan.model_copy(update={"overrides": (*QUICK, "epochs=8")})
    study = open_study(longer, options, cpu_accelerator)
    for _ in range(6):
        claim = study.take()
        assert claim is not None
        for epoch in (2, 3):
            study.trials[claim.name].report(0.8, epoch)
        finish(study, claim, 0.8)
    claim = study.take()
    assert claim is not None
    trial = study.trials[claim.name]
    epochs = [{"epoch": epoch, "balanced_accuracy": 0.3} for epoch in (1, 2, 3, 8)]
    assert not study.hopeless(trial, epochs[:1]), "the first quarter is too early to tell"
    assert study.hopeless(trial, epochs[:2])
    assert not study.hopeless(trial, epochs), "after its last epoch a trial has nothing left to save"
    assert study.study.trials[6].intermediate_values == {1: 0.3, 2: 0.3, 3: 0.3, 8: 0.3}
    study.end(trial, TrialState.PRUNED, "")
    assert study.records()[-1] | {"state": "pruned", "epochs": 4, "balanced_accuracy": 0.3} == study.records()[6]


# ------------------------------------------------------------------------------------------------ mistakes


@pytest.mark.parametrize(
    ("more", "line"),
    [
        (("--vary", "optimiser.name=adam,lion"), "unknown 'lion'"),
        (("--space", "nothing.yaml"), "nothing.yaml: cannot be read"),
        (("--trials", "0"), "trials"),
        (("--workers", "0"), "workers"),
        (("--sampler", "grid"), "a grid takes lists"),
    ],
)
def test_a_mistake_is_one_line_before_any_trial(
    more: tuple[str, ...], line: str, options: LaunchOptions, capsys: pytest.CaptureFixture[str]
) -> None:
    assert search.main(arguments(options, *more)) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: ") and line in said and said.count("\n") == 1
    assert not (options.out / JOURNAL_NAME).exists()


def test_a_probe_has_no_epochs_to_search(options: LaunchOptions, capsys: pytest.CaptureFixture[str]) -> None:
    vary = ["--vary", "loss.label_smoothing=0,0.1"]
    assert search.main(["--recipe", "probe", "--data", str(options.data), "--out", str(options.out), *vary]) == 1
    assert "probe is a probe, which is solved for in no epochs: search is for recipes that train" in capsys.readouterr().err


def test_without_optuna_the_line_says_what_to_install(
    options: LaunchOptions, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(search, "find_spec", lambda name: None)
    assert search.main(arguments(options)) == 1
    assert "pip install 'lesion-hub[search]'" in capsys.readouterr().err
