"""``lesion-hub …``: every command parses its options, makes one call into the library and prints what comes back."""

from __future__ import annotations

import logging
import os
import sys
from typing import Annotated

import typer

from lesion_hub.cli import app as serving
from lesion_hub.cli import data, evaluate, models, predict, space
from lesion_hub.errors import LesionHubError
from lesion_hub.version import __version__

app = typer.Typer(
    name="lesion-hub",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    help="Skin-lesion classifiers on the Hugging Face Hub: calibrated, versioned, explained. Not a medical device.",
)
app.add_typer(data.app, name="data")
models.add_to(app)
predict.add_to(app)
evaluate.add_to(app)
serving.add_to(app)
space.add_to(app)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"lesion-hub {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and leave.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log what is done.")] = False,
) -> None:
    logging.basicConfig(level=logging.INFO if verbose else logging.WARNING, format="%(levelname)s %(name)s: %(message)s")


def main() -> None:
    """Run the command line; a user's mistake is one line on standard error and exit status 1."""
    try:
        app()
    except LesionHubError as error:
        typer.secho(f"error: {error}", fg="red", err=True)
        sys.exit(1)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)


if __name__ == "__main__":
    main()
