"""``lesion-hub …``: every command parses its options, makes one call into the library and prints what comes back."""

from __future__ import annotations

import logging
import os
import sys
from importlib import import_module
from typing import Annotated

import typer

from lesion_hub import __version__
from lesion_hub.cli import data, evaluate, gate, models, predict, recalibrate, serve, train
from lesion_hub.cli.output import say
from lesion_hub.errors import LesionHubError
from lesion_hub.extras import extras_explained

app = typer.Typer(
    name="lesion-hub",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="Skin-lesion classifiers on the Hugging Face Hub: calibrated, versioned, explained. Not a medical device.",
)
# A command is a function and a row here, under the heading that --help shows it with; its verb is the function's name.
COMMANDS = {
    "Use a model": (predict.predict, predict.score, predict.export, serve.serve),
    "Models and versions": (
        models.models,
        models.info,
        models.versions,
        models.publish,
        models.pull,
        serve.publish_space,
    ),
    "Train a model": (train.train, train.cross_validate, train.search, train.find_lr),
    "Measuring": (evaluate.evaluate, evaluate.compare, evaluate.calibrate, recalibrate.recalibrate, evaluate.card),
}

for _heading, _functions in COMMANDS.items():
    for _function in _functions:
        passed_on = train.PASS_ON if _function.__module__ == train.__name__ else None
        app.command(rich_help_panel=_heading, context_settings=passed_on)(_function)
app.add_typer(data.app, name="data")
app.add_typer(predict.ensemble, name="ensemble", rich_help_panel="Use a model")
app.add_typer(predict.attribution, name="attribution", rich_help_panel="Use a model")
app.add_typer(gate.gate, name="gate", rich_help_panel="Measuring")


def _show_version(wanted: bool) -> None:
    if wanted:
        say(f"lesion-hub {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and leave.")
    ] = False,
    import_: Annotated[
        list[str] | None,
        typer.Option("--import", help="Python module to import first, which registers networks of your own; repeatable."),
    ] = None,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log what is done.")] = False,
) -> None:
    for module in import_ or ():
        try:
            import_module(module)
        except ImportError as error:
            raise LesionHubError(f"--import {module}: {error}; is its folder in PYTHONPATH?") from None
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, format="%(levelname)s %(name)s: %(message)s")


def main() -> None:
    """Run the command line; a user's mistake is one line on standard error and exit status 1."""
    try:
        with extras_explained():
            app()
    except LesionHubError as error:
        say(f"error: {error}", colour="red", err=True)
        sys.exit(1)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


if __name__ == "__main__":
    main()
