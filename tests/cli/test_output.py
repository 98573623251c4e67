"""What commands print says what it says, and steers no terminal."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

import lesion_hub.cli
from lesion_hub.cli import app, output
from lesion_hub.hub import store
from tests.hub.publishable import write_folder

ANY = st.text(st.characters())  # lone surrogates too


@given(ANY)
def test_nothing_that_steers_a_terminal_is_left(text):
    assert not [c for c in output.harmless(text) if c != "\n" and unicodedata.category(c).startswith("C")]


@given(st.text(st.characters(exclude_categories=("C",))))
def test_plain_text_is_left_as_it_is(text):
    assert output.harmless(text) == text


@given(st.dictionaries(ANY, ANY))
def test_json_reads_back_as_it_was(data):
    assert json.loads(output.harmless(json.dumps(data, ensure_ascii=False))) == data


def test_a_table_shows_words_in_brackets_and_escape_sequences_as_they_are(capsys):
    output.print_table(("[red]label", "n"), [("[bold]mel[/bold]\x1b[31m", 1)], "title \x9b2J")
    shown = capsys.readouterr().out
    assert "[red]label" in shown and "[bold]mel[/bold]\\u001b[31m" in shown and "title \\u009b2J" in shown
    assert "\x1b" not in shown


def test_commands_print_through_output_alone():
    for module in Path(lesion_hub.cli.__file__).parent.glob("*.py"):
        if module.name != "output.py":
            source = module.read_text(encoding="utf-8")
            assert not [way for way in ("echo(", "print(", "Console(") if f".{way}" in source or f" {way}" in source], module


@pytest.mark.parametrize("as_json", [[], ["--json"]])
def test_notes_of_a_publisher_do_not_reach_the_terminal_raw(tmp_path, as_json):
    store.publish(write_folder(tmp_path / "run", 0), "m", version="1.0.0", notes="A \x1b]0;title\x07", registry=tmp_path / "r")
    shown = CliRunner().invoke(app, ["info", "m", "--registry", str(tmp_path / "r"), *as_json]).stdout
    assert "\\u001b]0;title\\u0007" in shown and "\x1b" not in shown


def test_a_mistake_is_told_without_what_steers_a_terminal(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["lesion-hub", "info", "org/x@main\x1b[2J"])
    with pytest.raises(SystemExit):
        lesion_hub.cli.main()
    assert "\x1b[2J" not in capsys.readouterr().err
