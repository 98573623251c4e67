"""How commands print: JSON for programs, tables for people; and never what would steer the terminal."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Iterable, Sequence
from typing import Any

import typer


def harmless(text: object) -> str:
    """Return text with what would steer a terminal written as JSON writes it; lines stay lines.

    Labels, names and notes come from whoever published a model or made a data set. Escape sequences, other control
    characters, and marks that turn the direction of writing around are shown, not obeyed.

    >>> print(harmless("mel\x1b[2Janoma"))
    mel\\u001b[2Janoma
    """
    return "".join(c if c == "\n" or unicodedata.category(c)[0] != "C" else json.dumps(c)[1:-1] for c in str(text))


def say(text: object = "", *, err: bool = False, colour: str | None = None) -> None:
    """Print text on standard output, or on standard error; commands print through this alone."""
    typer.secho(harmless(text), fg=colour, err=err)


def print_json(data: Any) -> None:
    """Print one JSON object, NaN refused."""
    say(json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False, default=str))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], title: str | None = None) -> None:
    """Print a plain table that survives pipes and narrow terminals."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    heading = None if title is None else Text(harmless(title))
    table = Table(title=heading, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(Text(harmless(column)))
    for row in rows:
        table.add_row(*(Text("" if cell is None else harmless(cell)) for cell in row))
    Console().print(table)


def print_facts(facts: dict[str, Any], *, as_json: bool = False) -> None:
    """Print name and value, a line each, empty values left out; or all of them as one JSON object."""
    if as_json:
        print_json(facts)
        return
    shown = {name: value for name, value in facts.items() if value not in (None, "", [], {})}
    width = max(map(len, shown), default=0)
    for name, value in shown.items():
        if isinstance(value, dict):
            value = [f"{key} {entry}" for key, entry in value.items()]
        text = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else value
        say(f"{name:<{width}}  {text}")
