"""Commands that train: train, cross-validate, search. Their options are those of the scripts in ``training/``."""

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
    """Search learning rate, batch size and optimiser of a recipe by validation.

    Example: `lesion-hub search --recipe melanoma10k_resnet34 --data data/ --out runs/grid --lr 1e-3 1e-2`
    """
    from lesion_hub.training.grid_search import main

    raise typer.Exit(main(context.args, prog="lesion-hub search"))
