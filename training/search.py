"""Search a recipe's keys by validation: ``lesion-hub search --recipe melanoma10k_resnet34 --data data/ --out runs/search``.

The recipe as it is comes first, then what Optuna draws from the space, or every point of a grid. Trials are ranked by
validation balanced accuracy, and the test part is left alone: train the winner afterwards, with the line that is printed.
The same command again, here or on another machine that shares the folder, goes on or joins in.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext, redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from lesion_hub.config import validated
from lesion_hub.errors import ConfigError
from lesion_hub.extras import MissingExtra
from lesion_hub.training.claims import Claims
from lesion_hub.training.data import read_sources
from lesion_hub.training.device import OutOfMemory, out_of_memory_explained, try_step
from lesion_hub.training.launch import LaunchOptions, exit_status, launch_options, make_accelerator, run_parser
from lesion_hub.training.recipe import Recipe
from lesion_hub.training.recipe_files import load_trained_recipe
from lesion_hub.training.run import claim_folder
from lesion_hub.training.search_report import CSV_NAME, PICTURE_NAME, draw_search, ranking_table, write_csv
from lesion_hub.training.search_space import Space, read_space
from lesion_hub.training.start import build_classifier, start_of

if TYPE_CHECKING:
    from lesion_hub.training.study import SearchOptions

SEARCH_NAME = "search.json"
TRIALS = 20


def main(argv: Sequence[str] | None = None, prog: str = "search.py") -> int:
    """Run the command and return its exit status (see `exit_status`)."""
    parser = run_parser(
        prog,
        "Search a recipe's keys by validation, go on where this was interrupted, or join those who are at it.",
        "--recipe melanoma10k_resnet34 --data data --out runs/search --vary optimiser.lr=1e-3,1e-2 --vary batch_size=16,32",
    )
    parser.add_argument("--space", type=Path, metavar="FILE", help="YAML: a key, and a list or {low: , high: , log: , step: }")
    parser.add_argument(
        "--vary", nargs="+", action="extend", default=[], metavar="KEY=a,b,c", help="a key and its values, beside --space"
    )
    parser.add_argument("--trials", type=int, help=f"how many at most (default: {TRIALS}, of a grid all points)")
    parser.add_argument("--sampler", choices=("tpe", "random", "grid"), default="tpe", help="who draws (default: tpe)")
    parser.add_argument(
        "--prune", choices=("median", "asha", "none"), default="median", help="who ends trials early (default: median)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object on standard output and nothing else")
    arguments = parser.parse_args(argv)
    return exit_status(lambda: search_and_print(arguments))


def search_and_print(arguments: argparse.Namespace) -> None:
    """Search; print the trials by rank and the line that trains the winner."""
    if find_spec("optuna") is None:
        raise MissingExtra("optuna")
    options = launch_options(arguments)
    with redirect_stdout(sys.stderr) if arguments.json else nullcontext():
        result = search(*read_search(arguments), options)
    if result is None:
        return
    if arguments.json:
        print(json.dumps(result, indent=2, ensure_ascii=False, allow_nan=False))
        return
    console = Console()
    console.print(ranking_table(result["trials"]))
    for line in (f"table and picture: {options.out}/{CSV_NAME}, {PICTURE_NAME}", "now train the winner:", result["command"]):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def read_search(arguments: argparse.Namespace) -> tuple[SearchOptions, Space]:
    """Read recipe and space from the command line, and check every value of the space against the recipe."""
    from lesion_hub.training.study import SearchOptions, points_first

    base = load_trained_recipe(arguments.recipe, arguments.set, "search its members", "search")
    space = read_space(base, arguments.space, arguments.vary)
    space.check(arguments.recipe, arguments.set)
    points = len(points_first(space, arguments.sampler))
    trials = arguments.trials
    if arguments.sampler == "grid":
        trials = points if trials is None else min(trials, points)
    given = {
        "recipe": arguments.recipe,
        "overrides": arguments.set,
        "space": space.plain(),
        "trials": TRIALS if trials is None else trials,
        "sampler": arguments.sampler,
        "prune": arguments.prune,
    }
    return validated(SearchOptions, given, "search"), space


def search(plan: SearchOptions, space: Space, options: LaunchOptions) -> dict[str, Any] | None:
    """Run the trials; write and return their ranking, with the command that trains the best. None but in the first process."""
    from lesion_hub.training.study import JOURNAL_NAME, MEASURE, SETTINGS_NAME, Study, keep_settings, run_trials

    accelerator = make_accelerator(space.base, options)
    if options.restart and accelerator.is_main_process:
        Claims(options.out).refuse_restart()
        for name in (JOURNAL_NAME, SETTINGS_NAME):
            (options.out / name).unlink(missing_ok=True)
    folder = claim_folder(space.base, options, accelerator, runs="trials/*")
    if accelerator.is_main_process:
        keep_settings(plan, options.out)
        announce(plan, space, options)
    run_trials(plan, options)
    if not accelerator.is_main_process:
        return None
    study = Study(plan, options, accelerator)
    records = study.records()
    best = records[0]
    if best["state"] != "finished":
        raise ConfigError(f"{options.out}: no trial finished ({best['why'] or best['state']}); change the recipe or the space")
    point = {} if best["trial"] == 0 else best["values"]
    result = {
        **plan.model_dump(mode="json"),
        "measure": f"validation {MEASURE}",
        "trials": records,
        "best": best,
        "importances": study.importances(),
        "command": shlex.join(train_command(plan, space.overrides(point), options)),
    }
    folder.write_json(SEARCH_NAME, result)
    write_csv(records, options.out / CSV_NAME)
    draw_search(records, result["importances"], space, options.out / PICTURE_NAME)
    return result


def announce(plan: SearchOptions, space: Space, options: LaunchOptions) -> None:
    """Print what will be tried, and about how long it takes at most."""
    lines = [f"{key}: {space.describe(key)} (the recipe's own: {json.dumps(space.own(key))})" for key in space.axes]
    each = space.base.epochs
    lines.append(
        f"{plan.trials} trials of at most {each} epochs, {plan.trials * each} in all; sampler {plan.sampler}, "
        f"pruning {plan.prune}, workers here {options.workers}"
    )
    lines.append(estimate(space.base, options, plan.trials))
    for line in lines:
        Console().print(line, highlight=False, markup=False, soft_wrap=True)


def estimate(recipe: Recipe, options: LaunchOptions, trials: int) -> str:
    """Estimate the time of all trials from one training step of the recipe as it is."""
    read_data = read_sources(recipe.data, options.data)
    split = recipe.data.split
    images = len(read_data.dataset) * (1 - split.validation - split.test if split.kind == "grouped" else 1)
    if recipe.data.draw is not None:
        images = recipe.data.draw.per_class * len(read_data.space)
    accelerator = make_accelerator(recipe, options)
    classifier = build_classifier(recipe, read_data.space, start_of(recipe.model))
    try:
        with out_of_memory_explained(recipe):
            for _ in range(2):  # the first one warms up
                began = time.monotonic()
                try_step(recipe.batch_size, classifier, accelerator)
                seconds = time.monotonic() - began
    except OutOfMemory:
        return "no estimate of the time: a step of the recipe as it is does not fit into memory"
    minutes = seconds * images / recipe.batch_size * recipe.epochs * trials / 60
    return (
        f"about {minutes:.{0 if minutes >= 10 else 1}f} min of computing without pruning, shared by all workers "
        f"({seconds:.2g} s for a step of {recipe.batch_size} images); the first trial decodes the images besides"
    )


def train_command(plan: SearchOptions, changes: Sequence[str], options: LaunchOptions) -> list[str]:
    """Return the command that trains a point of the search, its test part measured, into ``OUT/winner``."""
    words = ["lesion-hub", "train", "--recipe", plan.recipe, "--data", str(options.data), "--out", str(options.out / "winner")]
    if options.cache is not None:
        words += ["--cache", str(options.cache)]
    words += [flag for flag, on in (("--cpu", options.cpu), ("--find-batch-size", options.find_batch_size)) if on]
    sets = [*plan.overrides, *changes]
    return [*words, "--set", *sets] if sets else words


if __name__ == "__main__":
    sys.exit(main())
