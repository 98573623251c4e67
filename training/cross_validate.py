"""Cross-validate: ``python training/cross_validate.py --recipe melanoma10k_resnet34 --folds 3 --data data/ --out runs/cv``.

Every fold is a run of its own under ``OUT``, so an interrupted cross-validation goes on where it stopped. Folds keep
lesions, patients and near-duplicate images together; each is the test part once, and a share of the rest (split.validation)
chooses the epoch and calibrates.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

if not __package__:
    # Started as a file: Python looks for modules beside it, where the package is not.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from lesion_hub.data.splits import SplitOptions, split_images
from lesion_hub.errors import ConfigError
from lesion_hub.evaluation.assessment import assess
from lesion_hub.evaluation.scoring import Scored, read_scored
from lesion_hub.hub.layout import METRICS_NAME
from lesion_hub.taxonomy import LabelSpace
from training.division import divide
from training.launch import LaunchOptions, add_run_arguments, exit_status, launch_options, make_accelerator
from training.partition import Sets, duplicates_of, read_sets
from training.recipe import Recipe, Split
from training.recipe_files import load_recipe
from training.reporting import HEADLINES
from training.run import train_recipe
from training.run_folder import RunFolder

RESULT_NAME = "cross_validation.json"


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="cross_validate.py", description=__doc__.splitlines()[0])
    add_run_arguments(parser)
    parser.add_argument("--folds", type=int, default=5, help="how many (default: 5)")
    arguments = parser.parse_args(argv)
    return exit_status(lambda: run(arguments))


def run(arguments: argparse.Namespace) -> None:
    recipe = load_recipe(arguments.recipe, arguments.set)
    if not isinstance(recipe, Recipe):
        raise ConfigError(f"{recipe.name} is an ensemble; cross-validate its members")
    result = cross_validate(recipe, launch_options(arguments), arguments.folds)
    Console().print(as_table(result, recipe.name))


def cross_validate(recipe: Recipe, options: LaunchOptions, folds: int) -> dict[str, Any]:
    """Train and test every fold; the folds' headline measures, their mean and sd, and those of the pooled predictions."""
    folder = RunFolder(options.out)
    accelerator = make_accelerator(recipe, options)
    with accelerator.main_process_first():
        folder.claim(recipe, restart=options.restart and accelerator.is_main_process)
    sets = read_sets(recipe.data.model_copy(update={"validation": (), "test": (), "split": Split()}), options.data)
    runs = []
    for fold in range(folds):
        name = f"fold-{fold}-of-{folds}"
        with accelerator.main_process_first():
            manifest = fold_manifest(sets, recipe, options, fold, folds)
        split = Split(kind="manifest", manifest=str(manifest.resolve()))
        data = recipe.data.model_copy(update={"validation": (), "test": (), "split": split})
        one = recipe.model_copy(update={"name": f"{recipe.name}-{name}", "data": data})
        runs.append(train_recipe(one, options.model_copy(update={"out": options.out / name})).path)
    with accelerator.main_process_first():
        result = summarised(runs, sets.space, options.out)
        if accelerator.is_main_process:
            folder.write_json(RESULT_NAME, result)
    return result


def fold_manifest(sets: Sets, recipe: Recipe, options: LaunchOptions, fold: int, folds: int) -> Path:
    """The saved split whose test part is one fold; made once."""
    file = options.out / f"fold-{fold}-of-{folds}.json"
    if not file.is_file():
        split = recipe.data.split
        duplicates = duplicates_of(sets, split, options)
        dealt = split_images(
            sets.images,
            SplitOptions(folds=folds, seed=split.seed, allow_absent=split.allow_absent),
            duplicates=duplicates,
        )
        held_out = {image_id: "test" for image_id, part in dealt.part_of.items() if part == f"fold{fold}"}
        within = Split(validation=split.validation or Split().validation, seed=split.seed, allow_absent=split.allow_absent)
        divide(sets.images, held_out, within, duplicates).save(file)
    return file


def summarised(runs: Sequence[Path], space: LabelSpace, out: Path) -> dict[str, Any]:
    """Per fold, mean and sd, and the pooled predictions, which are also saved."""
    tests = [json.loads((run / METRICS_NAME).read_text(encoding="utf-8"))["test"] for run in runs]
    folds = [{name: test.get(name) for name in HEADLINES} for test in tests]
    scored = [read_scored(run / "predictions_test.parquet", space) for run in runs]
    pooled = Scored(
        np.concatenate([one.probabilities for one in scored]),
        np.concatenate([one.labels for one in scored]),
        space,
        pd.concat([one.facts.assign(fold=fold) for fold, one in enumerate(scored)], ignore_index=True),
    )
    pooled.save(out / "predictions.parquet")
    return {
        "folds": folds,
        "mean": {name: _over(folds, name, mean) for name in HEADLINES},
        "sd": {name: _over(folds, name, stdev) for name in HEADLINES},
        "pooled": assess(pooled.probabilities, pooled.labels, pooled.groups, space),
    }


def _over(folds: Sequence[dict[str, Any]], name: str, statistic: Any) -> float | None:
    values = [fold[name] for fold in folds if fold[name] is not None]
    return float(statistic(values)) if len(values) > 1 else None


def as_table(result: dict[str, Any], title: str) -> Table:
    """Mean and sd over the folds beside the pooled value with its interval."""
    table = Table("measure", title=f"{title}, {len(result['folds'])} folds", header_style="bold")
    table.add_column("mean ± sd", justify="right")
    table.add_column("pooled (95 % interval)", justify="right")
    for name in HEADLINES:
        average, spread, bound = result["mean"][name], result["sd"][name], result["pooled"]["intervals"][name]
        left = "-" if average is None or spread is None else f"{average:.3f} ± {spread:.3f}"
        undefined = bound["value"] is None or bound["low"] is None
        right = "-" if undefined else f"{bound['value']:.3f} ({bound['low']:.3f}-{bound['high']:.3f})"
        table.add_row(name.replace("_", " "), left, right)
    return table


if __name__ == "__main__":
    sys.exit(main())
