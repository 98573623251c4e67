"""Commands about data sets."""

from __future__ import annotations

import typer

app = typer.Typer(no_args_is_help=True, help="Read, audit, split, cache and generate data sets.")
