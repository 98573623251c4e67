"""Train one recipe: ``accelerate launch training/train.py --recipe ham10000_default --data data/ --out runs/ham``.

The same command resumes a run that was interrupted. On one device plain ``python training/train.py`` will do, and where the
package is installed ``python -m lesion_hub.training.train`` or ``lesion-hub train``. See docs/train.md.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from contextlib import nullcontext, redirect_stdout
from pathlib import Path
from typing import Any

from lesion_hub.config import load_model_config
from lesion_hub.errors import ConfigError
from lesion_hub.files import json_text, read_json
from lesion_hub.hub.layout import METRICS_NAME
from lesion_hub.hub.measures import TRAINING_HEADLINES
from lesion_hub.training.finish import check_publication, publish_run
from lesion_hub.training.launch import exit_status, launch_options, run_parser
from lesion_hub.training.recipe import EnsembleRecipe, Recipe
from lesion_hub.training.recipe_files import dump_recipe, load_recipe
from lesion_hub.training.run import MEMBERS_NAME, train_ensemble, train_recipe


def main(argv: Sequence[str] | None = None, prog: str = "train.py") -> int:
    """Run the command and return its exit status (see `exit_status`)."""
    arguments = parser(prog).parse_args(argv)
    return exit_status(lambda: show_or_train(arguments))


def show_or_train(arguments: argparse.Namespace) -> None:
    """Show, train, or train and publish the recipe."""
    recipe = load_recipe(arguments.recipe, arguments.set)
    if arguments.print_recipe:
        print(dump_recipe(recipe), end="")
        return
    options = launch_options(arguments)
    publication = check_publication(arguments.push_to, arguments.version, arguments.notes)
    if isinstance(recipe, EnsembleRecipe) and publication is not None:
        raise ConfigError("--push-to publishes one model; publish the members, then make the ensemble of them")
    if isinstance(recipe, Recipe) and options.workers > 1:
        raise ConfigError("--workers shares out the members of an ensemble; one run takes several devices by accelerate launch")
    # Under --json all that is said on the way goes to standard error.
    with redirect_stdout(sys.stderr) if arguments.json else nullcontext():
        if isinstance(recipe, EnsembleRecipe):
            print(f"members: {train_ensemble(recipe, options)}")
        else:
            train_recipe(recipe, options)
            if publication is not None:
                publish_run(options.out, publication)
    if arguments.json and os.environ.get("RANK", "0") == "0":
        print(json_text(described(recipe, options.out)), end="")


def described(recipe: Recipe | EnsembleRecipe, out: Path) -> dict[str, Any]:
    """Describe what was trained: the choices made on validation and the headline measures of each part, or the members."""
    if isinstance(recipe, EnsembleRecipe):
        return {"folder": str(out), **read_json(out / MEMBERS_NAME)}
    metrics, config = read_json(out / METRICS_NAME), load_model_config(out)
    best = metrics["training"]["best"]
    chosen = {key: best[key] for key in ("epoch", "strength") if key in best}
    parts = {
        part: {name: metrics[part].get(name) for name in TRAINING_HEADLINES}
        for part in ("validation", "test")
        if part in metrics
    }
    points = {name: point.threshold for name, point in config.lesion_hub.operating_points.items()}
    facts = {"folder": str(out), **chosen, "temperature": config.lesion_hub.temperature}
    return {**facts, "operating_points": points, **parts}


def parser(prog: str = "train.py") -> argparse.ArgumentParser:
    """Make the command's parser."""
    made = run_parser(
        prog, "Train a recipe, or go on where its run was interrupted.", "--recipe demo --data demo/samples --out runs/demo"
    )
    made.add_argument("--print-recipe", action="store_true", help="show the resolved recipe and stop")
    made.add_argument("--json", action="store_true", help="print the result as one JSON object")
    made.add_argument("--push-to", metavar="NAME", help="publish the result to a Hub id (org/name) or a registry name")
    made.add_argument("--version", metavar="X.Y.Z", help="version to publish as")
    made.add_argument("--notes", help="what changed in this version")
    return made


if __name__ == "__main__":
    sys.exit(main())
