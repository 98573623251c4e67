"""The commands about models, run as a user runs them."""

from __future__ import annotations

import os
import re
import resource
import subprocess
from pathlib import Path

import pytest

from lesion_hub.cli import app
from lesion_hub.hub.format import write_model
from lesion_hub.hub.registry import packaged_root
from lesion_hub.models import LesionClassifier
from tests.cli.runner import COMMAND, object_of, run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("run")
    write_model(path, LesionClassifier.create("lesion_cnn_shallow", "ham7", image_size=32), temperature=1.0)
    (path / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n# A model\n")
    (path / "metrics.json").write_text('{"test": {"accuracy": 0.5}}')
    (path / "split.json").write_text("{}")
    return path


@pytest.fixture(scope="module")
def registry(folder, tmp_path_factory):
    root = tmp_path_factory.mktemp("registry")
    for version, notes in (("1.0.0", "First release."), ("1.1.0", "Second release.")):
        run("publish", folder, "tiny", "--version", version, "--notes", notes, "--registry", root)
    return root


def test_help_is_quick():
    """In a fresh process; counted is the processor's time, since other tests run beside this one."""
    times = []
    for _ in range(4):  # the first one fills the disk's cache
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([COMMAND, "--help"], check=True, capture_output=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(times) < 1.0


def test_every_command_shows_an_example():
    for command in app.registered_commands:
        name = command.callback.__name__.replace("_", "-")
        assert re.search(r"Example: .*lesion-hub", run(name, "--help").stdout), name


def test_versions_info_and_pull_read_what_publish_wrote(registry, tmp_path):
    listed = object_of("versions", "tiny", "--registry", registry)
    assert listed == {"name": "tiny", "versions": ["v1.0.0", "v1.1.0"], "registry": str(registry)}
    facts = object_of("info", "tiny", "--registry", registry)
    assert facts["version"] == "v1.1.0"
    assert facts["licence"] == "cc-by-nc-4.0"
    assert facts["labels"][0] == "mel"
    assert facts["notes"] == {"v1.1.0": "Second release.", "v1.0.0": "First release."}
    assert object_of("info", "tiny", "--revision", "v1.0.0", "--registry", registry)["version"] == "v1.0.0"
    pulled = object_of("pull", "tiny", "--to", tmp_path / "copy", "--registry", registry)
    assert (Path(pulled["folder"]) / "model.safetensors").is_file()
    assert object_of("info", tmp_path / "copy")["weights_sha256"] == facts["weights_sha256"]


def test_publishing_the_same_again_says_so(registry, folder):
    arguments = ("publish", folder, "tiny", "--version", "1.0.0", "--notes", "First release.", "--registry", registry)
    assert run(*arguments).stdout.startswith("already published tiny v1.0.0: ")
    assert object_of(*arguments)["already"] is True


def test_info_says_which_registry_a_model_is_from_and_what_it_hides(registry, folder, tmp_path):
    run("publish", folder, "dermoscopy-lite0", "--version", "3.0.0", "--notes", "Mine.", "--registry", tmp_path)
    shown = run("info", "dermoscopy-lite0", LESION_HUB_REGISTRY=f"{tmp_path}{os.pathsep}packaged").stdout
    assert re.search(rf"registry +{tmp_path}\n", shown)
    assert shown.count(f"dermoscopy-lite0 of {packaged_root()}") == 1


def test_the_registry_root_may_come_from_the_environment(registry):
    assert object_of("versions", "tiny", LESION_HUB_REGISTRY=str(registry))["versions"] == ["v1.0.0", "v1.1.0"]


def test_models_lists_registry_and_zoo(registry):
    found = object_of("models", "--registry", registry)
    assert found["registry"]["tiny"] == ["v1.0.0", "v1.1.0"]
    assert found["registry_of"]["tiny"] == found["registry_root"] == str(registry)
    assert found["registry_of"]["dermoscopy-trio"] == str(packaged_root())
    assert {"lesion_alexnet", "resnet50"} <= {a["name"] for a in found["architectures"]}
    assert not found["families"]["crossvit"]["layer_maps"]
    assert {(a["trains"], a["layer_maps"]) for a in found["architectures"] if a["family"] == "crossvit"} == {(True, False)}
    text = run("models", "mobilenetv2", "--registry", registry).stdout
    assert "mobilenetv2_100" in text
    assert "all methods" in text
    assert "resnet50" not in text


@pytest.mark.parametrize("search", ["ti?y", "t*y", "in"])
def test_published_models_are_looked_for_as_architectures_are(registry, search):
    assert set(object_of("models", search, "--registry", registry)["registry"]) == {"tiny"}
    assert not object_of("models", "?tiny", "--registry", registry)["registry"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["info", "tinyy"], "did you mean 'tiny'"),
        (["info", "tiny", "--revision", "v9.0.0"], "no version 'v9.0.0'"),
        (["versions", "../up"], "neither a model folder"),
        (["publish", "FOLDER", "tiny", "--version", "1.0.0", "--notes", "again"], "already exists"),
        (["publish", "FOLDER", "tiny", "--version", "one", "--notes", "x"], "not of the form X.Y.Z"),
        (["publish", "FOLDER", "tiny", "--version", "2.0.0", "--notes", " "], "needs notes"),
        (["publish", "missing", "tiny", "--version", "2.0.0", "--notes", "x"], "missing"),
        (["info", "org/not-cached"], "offline"),
    ],
)
def test_a_mistake_is_one_line_and_a_failure(registry, folder, arguments, told):
    filled = [str(folder) if argument == "FOLDER" else argument for argument in arguments]
    done = run(*filled, "--registry", registry, ok=False)
    assert told in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert done.stdout == ""


def test_version_is_printed():
    assert run("--version").stdout.startswith("lesion-hub ")
