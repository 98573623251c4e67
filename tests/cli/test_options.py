"""What several commands take is the same in all of them: its name, its words, and what it means."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from lesion_hub.cli import app
from lesion_hub.cli.options import ReadingOptions
from lesion_hub.data.synthetic import SampleSpec, write_sample_set
from lesion_hub.errors import LesionHubError
from lesion_hub.hub import store
from tests.hub.publishable import write_folder
from tests.inference.networks import picture

READING = ("--source", "--space", "--column", "--label", "--images", "--allow-missing")
NAMING_DATA = ("--data", "--fit", "--quantize")
THE_SAME_EVERYWHERE = ("--device", "--registry", "--revision", "--json", "--threads", *READING)


def commands(group: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Every command and its name, those of groups too."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*words, name))
        else:
            yield " ".join((*words, name)), command


def options_of(command: Any) -> dict[str, Any]:
    return {option: parameter for parameter in command.params for option in parameter.opts}


COMMANDS = dict(commands(typer.main.get_command(app)))
DATA_COMMANDS = [
    name
    for name, command in COMMANDS.items()
    if any(option in NAMING_DATA for option in options_of(command))
    or any(parameter.param_type_name == "argument" and parameter.metavar == "PATH" for parameter in command.params)
]


def test_the_commands_that_take_a_data_set_are_found():
    assert {"evaluate", "compare", "calibrate", "score", "export", "ensemble create", "attribution check"} <= set(DATA_COMMANDS)
    assert {f"data {name}" for name in ("show", "audit", "split", "cache")} <= set(DATA_COMMANDS)


@pytest.mark.parametrize("name", DATA_COMMANDS)
def test_how_a_data_set_is_read_is_said_alike(name):
    assert [option for option in options_of(COMMANDS[name]) if option in READING] == list(READING)


@pytest.mark.parametrize("option", THE_SAME_EVERYWHERE)
def test_an_option_has_the_same_words_and_values_everywhere(option):
    found = [options_of(command)[option] for command in COMMANDS.values() if option in options_of(command)]
    assert len(found) > 1
    assert len({(one.help, one.multiple, one.is_flag) for one in found}) == 1


def test_the_options_become_those_of_the_reader():
    given = ReadingOptions(source="table", column=["image_id=isic_id"], label=["Melanom=mel", "a=b=c"])
    assert given.keywords() == {
        "source": "table",
        "columns": {"image_id": "isic_id"},
        "labels": {"Melanom": "mel", "a": "b=c"},
    }
    assert ReadingOptions().keywords() == {}


# ------------------------------------------------------------------------------------------------ name@version


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A registry with model a, its run folder, a picture and a data set."""
    root = tmp_path_factory.mktemp("place")
    store.publish(write_folder(root / "run", 0), "a", version="1.0.0", notes="First.", registry=root / "registry")
    picture(40, 60).save(root / "mole.jpg")
    write_sample_set(root / "set", SampleSpec(count=14, size=40, balanced=True))
    return root


# Every command that takes a model, with NAME in its place; a picture, a data set, a folder and an output in capitals.
WITH_A_VERSION = {
    "predict": "PICTURE --model NAME",
    "score": "SET --model NAME --out OUT",
    "export": "NAME --out OUT",
    "serve": "--model NAME",
    "info": "NAME",
    "pull": "NAME --to OUT",
    "publish-space": "org/space --model NAME --dry-run",
    "evaluate": "--model NAME --data SET --out OUT --split all",
    "compare": "RUN NAME --data SET --split all",
    "ensemble create": "NAME --out OUT",
    "recalibrate": "NAME --data SET --out OUT",
    "attribution check": "NAME --data SET",
    "gate check": "NAME --data SET",
}
WITHOUT = {
    "models": "NAME",
    "versions": "NAME",
    "publish": "RUN NAME --version 1.0.0 --notes First.",
    "calibrate": "NAME",
    "card": "NAME",
    "gate fit": "NAME --data SET",
}
OF_NO_MODEL = {"train", "cross-validate", "search", "find-lr", "attribution methods"}


def refusal(place, tmp_path, command, line, name):
    """The one line that a command ends with."""
    given = {"NAME": name, "PICTURE": place / "mole.jpg", "SET": place / "set", "RUN": place / "run", "OUT": tmp_path / "out"}
    words = [*command.split(), *(str(given.get(word, word)) for word in line.split()), "--registry", str(place / "registry")]
    if "--registry" not in options_of(COMMANDS[command]):
        words = words[:-2]
    result = CliRunner().invoke(app, words)
    assert isinstance(result.exception, LesionHubError), result.output
    assert "\n" not in str(result.exception) and "\x1b" not in str(result.exception)
    return str(result.exception)


def test_every_command_is_tried_with_a_version():
    tried = {*WITH_A_VERSION, *WITHOUT, *OF_NO_MODEL, *(name for name in COMMANDS if name.startswith("data "))}
    assert set(COMMANDS) - tried == set()


@pytest.mark.parametrize("command", WITH_A_VERSION)
def test_a_version_goes_with_the_name(place, tmp_path, command):
    line = WITH_A_VERSION[command]
    assert "a has no version 'v9.9.9'" in refusal(place, tmp_path, command, line, "a@9.9.9")
    assert "holds what no version" in refusal(place, tmp_path, command, line, "a@v1.0.0\x1b[2J")
    if "--revision" in options_of(COMMANDS[command]):
        assert "give one of them" in refusal(place, tmp_path, command, f"{line} --revision v2.0.0", "a@v1.0.0")


@pytest.mark.parametrize("command", WITHOUT)
def test_where_a_version_makes_no_sense_the_right_form_is_named(place, tmp_path, command):
    told = refusal(place, tmp_path, command, WITHOUT[command], "a@1.0.0")
    assert "no version is meant here" in told and "'a@1.0.0'" in told


def test_a_published_version_is_no_folder_to_publish(place, tmp_path):
    told = refusal(place, tmp_path, "publish", "NAME b --version 1.0.0 --notes First.", "a@1.0.0")
    assert "lesion-hub pull a@v1.0.0 --to FOLDER" in told


def test_info_and_pull_take_both_spellings(place, tmp_path):
    for spelling, folder in (("a@v1.0.0", "one"), ("a@1.0.0", "two")):
        assert store.info(spelling, registry=place / "registry").version == "v1.0.0"
        assert store.pull(spelling, to=tmp_path / folder, registry=place / "registry").name == "a"
