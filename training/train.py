"""Train one recipe: ``accelerate launch training/train.py --recipe ham10000_default --data data/ --out runs/ham``.

The same command resumes a run that was interrupted. On one device plain ``python training/train.py`` will do, and where the
package is installed ``python -m training.train``. See docs/train.md.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

if not __package__:
    # Started as a file: Python looks for modules beside it, where the package is not.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from lesion_hub.errors import ConfigError
from training.ensemble import train_ensemble
from training.launch import add_run_arguments, exit_status, launch_options
from training.publishing import check_publication, publish_run
from training.recipe import EnsembleRecipe
from training.recipe_files import dump_recipe, load_recipe
from training.run import train_recipe


def main(argv: Sequence[str] | None = None) -> int:
    """See `exit_status` for what is returned."""
    arguments = parser().parse_args(argv)
    return exit_status(lambda: run(arguments))


def run(arguments: argparse.Namespace) -> None:
    """Show, train or train and publish the recipe."""
    recipe = load_recipe(arguments.recipe, arguments.set)
    if arguments.print_recipe:
        print(dump_recipe(recipe), end="")
        return
    options = launch_options(arguments)
    publication = check_publication(arguments.push_to, arguments.version, arguments.notes)
    if isinstance(recipe, EnsembleRecipe):
        if publication is not None:
            raise ConfigError("--push-to publishes one model; publish the members, then make the ensemble of them")
        print(f"members: {train_ensemble(recipe, options)}")
        return
    train_recipe(recipe, options)
    if publication is not None:
        publish_run(options.out, publication)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="train.py", description=__doc__.splitlines()[0])
    add_run_arguments(made)
    made.add_argument("--print-recipe", action="store_true", help="show the resolved recipe and stop")
    made.add_argument("--push-to", metavar="NAME", help="publish the result to a Hub id (org/name) or a registry name")
    made.add_argument("--version", metavar="X.Y.Z", help="version to publish as")
    made.add_argument("--notes", help="what changed in this version")
    return made


if __name__ == "__main__":
    sys.exit(main())
