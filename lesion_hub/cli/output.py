"""How commands print: JSON for programs, tables for people."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import Any

import typer


def print_json(data: Any) -> None:
    """Print one JSON object, NaN refused."""
    typer.echo(json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False, default=str))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[Any]], title: str | None = None) -> None:
    """Print a plain table that survives pipes and narrow terminals."""
    from rich.console import Console
    from rich.table import Table

    table = Table(*columns, title=title, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*("" if cell is None else str(cell) for cell in row))
    Console().print(table)


def print_facts(facts: dict[str, Any], *, as_json: bool = False) -> None:
    """Print name and value, a line each, empty values left out; or all of them as one JSON object."""
    if as_json:
        print_json(facts)
        return
    from rich.console import Console

    shown = {name: value for name, value in facts.items() if value not in (None, "", [], {})}
    width = max(map(len, shown), default=0)
    for name, value in shown.items():
        if isinstance(value, dict):
            value = [f"{key} {entry}" for key, entry in value.items()]
        text = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else value
        Console(highlight=False, soft_wrap=True).print(f"{name:<{width}}  {text}", markup=False)
