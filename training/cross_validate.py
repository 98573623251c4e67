"""Cross-validate: ``python training/cross_validate.py --recipe melanoma10k_resnet34 --folds 3 --data data/ --out runs/cv``.

Every fold is a run of its own under ``OUT``, so an interrupted cross-validation goes on where it stopped. Folds keep
lesions, patients and near-duplicate images together; each is the test part once, and a share of the rest (split.validation)
chooses the epoch and calibrates.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from lesion_hub.data.splits import SplitOptions, split_images
from lesion_hub.evaluation.assessment import assess
from lesion_hub.evaluation.scoring import Scored, read_scored
from lesion_hub.files import read_json
from lesion_hub.hub.layout import METRICS_NAME
from lesion_hub.hub.measures import TRAINING_HEADLINES
from lesion_hub.taxonomy import LabelSpace
from lesion_hub.training.data import SourceData, duplicates_of, read_sources, split_for_recipe, stated
from lesion_hub.training.launch import LaunchOptions, exit_status, launch_options, make_accelerator, run_parser
from lesion_hub.training.recipe import PartitionOptions, Recipe
from lesion_hub.training.recipe_files import load_run_recipe
from lesion_hub.training.run import claim_folder, train_several

CROSS_VALIDATION_NAME = "cross_validation.json"


def main(argv: Sequence[str] | None = None, prog: str = "cross_validate.py") -> int:
    """Run the command and return its exit status (see `exit_status`)."""
    parser = run_parser(
        prog,
        "Train and test every fold of a recipe's data, or go on where this was interrupted.",
        "--recipe melanoma10k_resnet34 --folds 3 --data data --out runs/cv",
    )
    parser.add_argument("--folds", type=int, default=5, help="how many (default: 5)")
    arguments = parser.parse_args(argv)
    return exit_status(lambda: cross_validate_and_print(arguments))


def cross_validate_and_print(arguments: argparse.Namespace) -> None:
    """Cross-validate the recipe and print the table of its measures."""
    recipe = load_run_recipe(arguments.recipe, arguments.set, "cross-validate its members")
    result = cross_validate(recipe, launch_options(arguments), arguments.folds)
    Console().print(measures_table(result, recipe.name))


def cross_validate(recipe: Recipe, options: LaunchOptions, folds: int) -> dict[str, Any]:
    """Train and test every fold; return the headline measures of each, their mean and sd, and those of pooled predictions."""
    accelerator = make_accelerator(recipe, options)
    folder = claim_folder(recipe, options, accelerator, runs="fold-*")
    whole = recipe.data.model_copy(update={"validation": (), "test": (), "split": PartitionOptions()})
    read_data = read_sources(whole, options.data)
    recipes = {}
    for fold in range(folds):
        name = f"fold-{fold}-of-{folds}"
        with accelerator.main_process_first():
            manifest = fold_manifest(read_data, recipe, options, fold, folds)
        split = PartitionOptions(kind="manifest", manifest=str(manifest.resolve()))
        data = recipe.data.model_copy(update={"validation": (), "test": (), "split": split})
        recipes[name] = recipe.model_copy(update={"name": f"{recipe.name}-{name}", "data": data})
    runs = {name: options.out / name for name in recipes}
    train_several(recipes, runs, options)
    with accelerator.main_process_first():
        result = summarise(list(runs.values()), read_data.space, options.out)
        if accelerator.is_main_process:
            folder.write_json(CROSS_VALIDATION_NAME, result)
    return result


def fold_manifest(read_data: SourceData, recipe: Recipe, options: LaunchOptions, fold: int, folds: int) -> Path:
    """Save the split whose test part is one fold, unless it is there, and return its file."""
    file = options.out / f"fold-{fold}-of-{folds}.json"
    if not file.is_file():
        split = recipe.data.split
        duplicates = duplicates_of(read_data, split, options)
        dealt = split_images(
            read_data.images,
            SplitOptions(folds=folds, seed=split.seed, allow_absent=split.allow_absent),
            duplicates=duplicates,
        )
        held_out = {image_id: "test" for image_id, part in dealt.part_of.items() if part == f"fold{fold}"}
        within = PartitionOptions(
            validation=split.validation or PartitionOptions().validation, seed=split.seed, allow_absent=split.allow_absent
        )
        stated(split_for_recipe(read_data.images, held_out, within, duplicates), read_data).save(file)
    return file


def summarise(runs: Sequence[Path], space: LabelSpace, out: Path) -> dict[str, Any]:
    """Collect each fold's measures, their mean and sd, and measure the pooled predictions, which are also saved."""
    tests = [read_json(run / METRICS_NAME)["test"] for run in runs]
    folds = [{name: test.get(name) for name in TRAINING_HEADLINES} for test in tests]
    scored = [read_scored(run / "predictions_test.parquet", space) for run in runs]
    pooled = Scored(
        np.concatenate([one.probabilities for one in scored]),
        np.concatenate([one.labels for one in scored]),
        space,
        pd.concat([one.facts.assign(fold=fold) for fold, one in enumerate(scored)], ignore_index=True),
    )
    pooled.save(out / "predictions.parquet")
    given = {name: [fold[name] for fold in folds if fold[name] is not None] for name in TRAINING_HEADLINES}
    return {
        "folds": folds,
        "mean": {name: float(mean(values)) if len(values) > 1 else None for name, values in given.items()},
        "sd": {name: float(stdev(values)) if len(values) > 1 else None for name, values in given.items()},
        "pooled": assess(pooled.probabilities, pooled.labels, pooled.groups, space),
    }


def measures_table(result: dict[str, Any], title: str) -> Table:
    """Make the table of the measures: mean and sd over the folds, and the pooled value with its interval."""
    table = Table("measure", title=f"{title}, {len(result['folds'])} folds", header_style="bold")
    table.add_column("mean ± sd", justify="right")
    table.add_column("pooled (95 % interval)", justify="right")
    for name in TRAINING_HEADLINES:
        average, spread, bound = result["mean"][name], result["sd"][name], result["pooled"]["intervals"][name]
        left = "-" if average is None or spread is None else f"{average:.3f} ± {spread:.3f}"
        undefined = bound["value"] is None or bound["low"] is None
        right = "-" if undefined else f"{bound['value']:.3f} ({bound['low']:.3f}-{bound['high']:.3f})"
        table.add_row(name.replace("_", " "), left, right)
    return table


if __name__ == "__main__":
    sys.exit(main())
