"""Commands that train: train, cross-validate, search, find-lr. Their options are those of the scripts in ``training/``."""

from __future__ import annotations

import typer

# The scripts' own parsers take every argument, --help and several values after one --set included. What trains is imported
# when a command runs, and only here: nothing else in the library knows of it.
PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}


def train(context: typer.Context) -> None:
    """Train a recipe, or go on where its run was interrupted.

    Example: `lesion-hub train --recipe demo --data demo/samples --out runs/demo --set epochs=2 batch_size=8`
    """
    from lesion_hub.training.train import main

    raise typer.Exit(main(context.args, prog="lesion-hub train"))


def cross_validate(context: typer.Context) -> None:
    """Train and test every fold of a recipe's data.

    Example: `lesion-hub cross-validate --recipe melanoma10k_resnet34 --folds 3 --data data/ --out runs/cv`
    """
    from lesion_hub.training.cross_validate import main

    raise typer.Exit(main(context.args, prog="lesion-hub cross-validate"))


def search(context: typer.Context) -> None:
    """Search a recipe's keys by validation, with any number of workers.

    Example: `lesion-hub search --recipe melanoma10k_resnet34 --data data/ --out runs/search --vary optimiser.lr=1e-3,1e-2`
    """
    from lesion_hub.training.search import main

    raise typer.Exit(main(context.args, prog="lesion-hub search"))


def find_lr(context: typer.Context) -> None:
    """Find a learning rate for a recipe: raise it step by step and see where the loss falls.

    Example: `lesion-hub find-lr --recipe melanoma10k_resnet34 --data data/`
    """
    from lesion_hub.training.find_lr import main

    raise typer.Exit(main(context.args, prog="lesion-hub find-lr"))
