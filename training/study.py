"""The trials of a search: drawn by Optuna, trained one by one by any number of workers, pruned while they train.

The study is a journal file in ``OUT``, and every trial a run below ``OUT/trials``. A worker draws a trial while no other does
(`Claims.alone`), and so there are never more than were asked for; a trial whose worker died is taken over with its values
and its checkpoints.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import numpy as np
import optuna
from accelerate import Accelerator
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, Trial, TrialState

from lesion_hub.config import Count, Options
from lesion_hub.errors import ConfigError
from lesion_hub.files import read_json, write_text
from lesion_hub.hub.layout import METRICS_NAME
from lesion_hub.training.claims import Claim, Claims, from_first, work_through
from lesion_hub.training.device import OutOfMemory
from lesion_hub.training.launch import LaunchOptions, make_accelerator
from lesion_hub.training.recipe import Recipe
from lesion_hub.training.recipe_files import dump_yaml, first_difference, load_run_recipe, read_yaml
from lesion_hub.training.run import train_recipe
from lesion_hub.training.search_space import Choices, Point, Range, Space
from lesion_hub.training.stopping import TrainingDiverged
from lesion_hub.training.workers import local_workers

MEASURE = "balanced_accuracy"  # of validation
OTHER_MEASURES = ("accuracy", "macro_auroc")
JOURNAL_NAME = "journal.log"
SETTINGS_NAME = "search.yaml"
DEATHS_ALLOWED = 3

STATES = {
    TrialState.COMPLETE: "finished",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "unfinished",
}

optuna.logging.set_verbosity(optuna.logging.WARNING)


class SearchOptions(Options):
    """What a search is of: the recipe with its overrides, the space, how many trials, who draws and who ends them."""

    recipe: str
    overrides: tuple[str, ...] = ()
    space: dict[str, Any]
    trials: Count
    sampler: Literal["tpe", "random", "grid"] = "tpe"
    prune: Literal["median", "asha", "none"] = "median"

    def base(self) -> Recipe:
        """Read the recipe that the search is around."""
        return load_run_recipe(self.recipe, self.overrides, "search its members")


def run_trials(search: SearchOptions, options: LaunchOptions) -> None:
    """Train trials until there are as many as asked for, shared out among all workers that do the same."""
    accelerator = make_accelerator(search.base(), options)
    study = Study(search, options, accelerator)
    with local_workers(run_trials, options, search):
        work_through(study.take, study.done, study.train, accelerator)


def keep_settings(search: SearchOptions, out: Path) -> None:
    """Save what the trials in ``out`` are of; refuse those of another search. Only their number may change."""
    settings = json.loads(search.model_dump_json(include={"sampler", "prune", "space"}))
    file = out / SETTINGS_NAME
    if file.is_file() and (difference := first_difference(read_yaml(file), settings)) is not None:
        raise ConfigError(f"{out}: holds another search ({difference}); choose another --out, or --restart")
    write_text(file, dump_yaml(settings))


def points_first(space: Space, sampler: str) -> list[Point]:
    """Return the points that come before any is drawn: the recipe's own, and in a grid all others."""
    own = space.contained()
    return [own, *(point for point in space.grid() if point != own)] if sampler == "grid" else [own]


class Study:
    """The trials below ``options.out``, as one worker sees them; of its processes the first alone opens the journal."""

    def __init__(self, search: SearchOptions, options: LaunchOptions, accelerator: Accelerator) -> None:
        self.search = search
        self.options = options
        self.accelerator = accelerator
        self.base = search.base()
        self.space = Space(self.base, search.space)
        self.points = points_first(self.space, search.sampler)
        self.claims = Claims(options.out)
        self.trials: dict[str, Trial] = {}
        if accelerator.is_main_process:
            journal = str(options.out / JOURNAL_NAME)
            with self.claims.alone("study"):
                self.study = optuna.create_study(
                    storage=optuna.storages.JournalStorage(JournalFileBackend(journal, JournalFileOpenLock(journal))),
                    pruner=make_pruner(search.prune, self.base.epochs),
                    study_name="search",
                    direction="maximize",
                    load_if_exists=True,
                )

    # -------------------------------------------------------------------------------------------- claiming

    def take(self) -> Claim | None:
        """Claim a trial that its worker left unfinished, else a new one; None where there is neither."""
        with self.claims.alone("study"):
            known = self.study.get_trials(deepcopy=False)
            for trial in known:
                if trial.state == TrialState.RUNNING and (claim := self.claims.take(f"trial-{trial.number}")) is not None:
                    self.trials[claim.name] = Trial(self.study, trial._trial_id)
                    self.draw(self.trials[claim.name])
                    return claim
            number = sum(trial.state != TrialState.WAITING for trial in known)
            if number >= self.search.trials:
                return None
            if number < len(self.points) and number == len(known):
                self.study.enqueue_trial({key: self.plain(key, value) for key, value in self.points[number].items()})
            # One generator for each trial: what is drawn depends on the seed, its number and the trials before it alone.
            self.study.sampler = make_sampler(self.search.sampler, self.base.seed + number)
            trial = self.study.ask()
            claim = self.claims.take(f"trial-{trial.number}")
            if claim is not None:
                self.trials[claim.name] = trial
                self.draw(trial)
            return claim

    def done(self) -> bool:
        """Tell whether as many trials as asked for have come to an end."""
        ended = [trial.state.is_finished() for trial in self.study.get_trials(deepcopy=False)]
        return all(ended) and len(ended) >= self.search.trials

    def draw(self, trial: Trial) -> None:
        """Draw the values of a trial, all of them or those that it still lacks."""
        keys = self.space.contained() if trial.number == 0 else self.space.axes
        for key in keys:
            axis = self.space.axes[key]
            if isinstance(axis, Choices):
                trial.suggest_categorical(key, [json.dumps(value) for value in axis.listed])
            elif axis.whole:
                trial.suggest_int(key, int(axis.low), int(axis.high), log=axis.log, step=int(axis.step or 1))
            else:
                trial.suggest_float(key, axis.low, axis.high, log=axis.log, step=axis.step)

    def plain(self, key: str, value: Any) -> Any:
        """Return a value as the journal holds it: one of a list as JSON, for it may be of any kind."""
        return value if isinstance(self.space.axes[key], Range) else json.dumps(value)

    def point(self, trial: FrozenTrial | Trial) -> Point:
        """Return the values of a trial; none for the first, which is the recipe as it is."""
        if trial.number == 0:
            return {}
        axes = self.space.axes
        return {key: json.loads(v) if isinstance(axes[key], Choices) else v for key, v in trial.params.items()}

    # -------------------------------------------------------------------------------------------- training

    def train(self, claim: Claim) -> None:
        """Train a trial and record how it ended."""
        trial = self.trials.get(claim.name)
        point = from_first(self.point(trial) if trial is not None else {}, self.accelerator)
        folder = self.options.out / "trials" / claim.name.removeprefix("trial-")
        self.accelerator.print(
            f"{claim.name.replace('-', ' ')}: {' '.join(self.space.overrides(point)) or 'the recipe as it is'}"
        )
        if claim.attempt > DEATHS_ALLOWED:
            self.end(trial, TrialState.FAIL, f"its worker died {claim.attempt - 1} times")
            return
        place = self.options.model_copy(update={"out": folder, "measure_test": False, "restart": False})

        def after_epoch(history: list[dict[str, Any]]) -> None:
            hopeless = trial is not None and self.hopeless(trial, history)
            if from_first(hopeless, self.accelerator):
                raise optuna.TrialPruned

        try:
            recipe = self.space.recipe_of(point, self.search.recipe, self.search.overrides)
        except ConfigError as error:  # single values were checked, their combination may be none
            self.end(trial, TrialState.FAIL, str(error))
            return
        try:
            train_recipe(recipe, place, after_epoch, claim)
        except optuna.TrialPruned:
            self.end(trial, TrialState.PRUNED, "")
        except TrainingDiverged:
            # As the worst of those that were ended early, so that the sampler keeps away from it.
            self.end(trial, TrialState.PRUNED, "diverged")
        except OutOfMemory:
            self.end(trial, TrialState.FAIL, "out of memory")
        else:
            self.end(trial, TrialState.COMPLETE, "")

    def hopeless(self, trial: Trial, history: list[dict[str, Any]]) -> bool:
        """Report the epochs that the journal lacks; tell whether the pruner ends the trial before its last one."""
        reported = self.study.get_trials(deepcopy=False)[trial.number].intermediate_values
        for record in history:
            if record["epoch"] not in reported:
                trial.report(record[MEASURE], record["epoch"])
        return history[-1]["epoch"] < self.base.epochs and bool(trial.should_prune())

    def end(self, trial: Trial | None, state: TrialState, why: str) -> None:
        """Record the end of a trial, in the first process: with its validation measure, or why it has none."""
        if trial is None:
            return
        if why:
            trial.set_user_attr("why", why)
        value = None
        if state == TrialState.COMPLETE:
            value = read_json(self.folder(trial) / METRICS_NAME)["validation"][MEASURE]
        elif state == TrialState.PRUNED:
            self.accelerator.print(f"trial {trial.number}: {why or 'ended early'}")
        self.study.tell(trial, value, state, skip_if_finished=True)

    def folder(self, trial: Trial | FrozenTrial) -> Path:
        return self.options.out / "trials" / str(trial.number)

    # -------------------------------------------------------------------------------------------- results

    def records(self) -> list[dict[str, Any]]:
        """Describe every trial, the best first: finished ones, then those ended early by their best epoch, then failed ones."""
        found = []
        for trial in self.study.get_trials(deepcopy=False):
            epochs = trial.intermediate_values
            measured = trial.value if trial.state == TrialState.COMPLETE else max(epochs.values(), default=None)
            others = read_json(self.folder(trial) / METRICS_NAME, missing_ok=True).get("validation", {})
            found.append(
                {
                    "trial": trial.number,
                    "state": STATES.get(trial.state, "unfinished"),
                    "why": trial.user_attrs.get("why"),
                    MEASURE: measured,
                    **{name: others.get(name) for name in OTHER_MEASURES},
                    "epochs": len(epochs),
                    "values": {**{key: self.space.own(key) for key in self.space.axes}, **self.point(trial)},
                    "run": f"trials/{trial.number}",
                }
            )
        order = list(STATES.values())
        return sorted(found, key=lambda r: (order.index(r["state"]), -1.0 if r[MEASURE] is None else -r[MEASURE], r["trial"]))

    def importances(self) -> dict[str, float]:
        """Return each key's share of the differences between finished trials (fANOVA), or nothing where they are too few."""
        finished = [t for t in self.study.get_trials(deepcopy=False) if t.state == TrialState.COMPLETE]
        complete = [t for t in finished if set(t.params) == set(self.space.axes)]
        if len(complete) < 3 or np.ptp([trial.value for trial in complete]) == 0:
            return {}
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=self.base.seed)
        found = optuna.importance.get_param_importances(self.study, evaluator=evaluator, params=list(self.space.axes))
        return {key: float(share) for key, share in found.items()}


def make_sampler(name: str, seed: int) -> optuna.samplers.BaseSampler:
    """Make the sampler: the tree-structured Parzen estimator (``tpe``), or uniform draws; a grid has all its points already."""
    return optuna.samplers.TPESampler(seed=seed) if name == "tpe" else optuna.samplers.RandomSampler(seed=seed)


def make_pruner(name: str, epochs: int) -> optuna.pruners.BasePruner:
    """Make the pruner: against the median of the trials so far after a quarter of the epochs, or by successive halving."""
    if name == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=5, n_warmup_steps=epochs // 4)
    if name == "asha":
        return optuna.pruners.SuccessiveHalvingPruner(min_resource=max(1, epochs // 9), reduction_factor=3)
    return optuna.pruners.NopPruner()
