"""The directive ``command-reference``: every command of ``lesion-hub`` with what it takes, as the program has it."""

from __future__ import annotations

import inspect
import os
import re
from collections.abc import Iterator
from contextlib import redirect_stdout, suppress
from io import StringIO
from typing import Any
from unittest.mock import patch

import typer
from docutils import nodes
from docutils.statemachine import StringList
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

PROGRAM = "lesion-hub"


def commands(command: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Yield every command below ``command`` that does something, with its whole name, in the order that the help shows."""
    if not hasattr(command, "commands"):
        yield name, command
    for word, below in getattr(command, "commands", {}).items():
        yield from commands(below, f"{name} {word}")


def reference(command: Any) -> str:
    """All commands as Markdown, a section each: what it does, how it is called, what it takes."""
    return "\n\n".join(section(name, found) for name, found in commands(command, PROGRAM))


def section(name: str, command: Any) -> str:
    context = typer.Context(command, info_name=name)
    text = inspect.cleandoc(command.help or "").replace("\f", "")
    if not command.params:  # passed on whole to a script's own parser
        return f"## {name}\n\n{text}\n\n```text\n{printed_help(name, command)}```"
    usage = " ".join([name, *command.collect_usage_pieces(context)]).replace("{", "").replace("}", "")
    records = [parameter.get_help_record(context) for parameter in command.get_params(context)]
    taken = [f"`{spelling}`\n: {as_it_is(told) or '…'}" for spelling, told in filter(None, records) if spelling != "--help"]
    return "\n\n".join([f"## {name}", text, f"```text\n{usage}\n```", *taken])


def printed_help(name: str, command: Any) -> str:
    output = StringIO()
    with patch.dict(os.environ, COLUMNS="100"), redirect_stdout(output), suppress(SystemExit):
        command.main(["--help"], prog_name=name, standalone_mode=False)
    return output.getvalue()


def as_it_is(text: str) -> str:
    """The text on one line, with what Markdown would take for a mark escaped."""
    return " ".join(re.sub(r"([\\`*_|<\[$])", r"\\\1", text).split())


class CommandReference(SphinxDirective):
    """All commands, a section each."""

    def run(self) -> list[nodes.Node]:
        from lesion_hub.cli import app

        text = reference(typer.main.get_command(app))
        container = nodes.Element()
        lines = StringList(text.splitlines(), source=f"{PROGRAM} --help")
        self.state.nested_parse(lines, self.content_offset, container, match_titles=True)
        return list(container.children)


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_directive("command-reference", CommandReference)
    return {"parallel_read_safe": True}
