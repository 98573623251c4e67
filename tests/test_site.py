"""The documentation site lists what there is: public names, guides, commands; and a release's files are judged."""

from __future__ import annotations

import re
import sys
from importlib import import_module
from pathlib import Path

import pytest
import typer

from lesion_hub.cli import app
from tests.scripts import load_script

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("", ".app", ".data", ".evaluation", ".inference", ".models")


@pytest.mark.parametrize("package", PACKAGES)
def test_every_public_name_is_on_a_page_of_the_reference(package: str) -> None:
    text = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "docs" / "reference").glob("*.rst"))
    modules = re.findall(r"^\.\. automodule:: ([\w.]+)$", text, re.M)
    single = {name.rpartition(".")[2] for name in re.findall(r"^\.\. auto(?:class|function):: ([\w.]+)$", text, re.M)}
    public = import_module(f"lesion_hub{package}")
    homes = {
        name: getattr(getattr(public, name), "__module__", "") for name in public.__all__ if callable(getattr(public, name))
    }
    inside = {name for name, home in homes.items() if any(f"{home}.".startswith(f"{module}.") for module in modules)}
    assert homes
    assert sorted(set(homes) - inside - single) == []


def test_every_guide_is_in_the_sidebar(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sphinx", reason="Sphinx is missing: make docs installs it")
    monkeypatch.setattr(sys, "path", list(sys.path))
    listed = {page for pages in load_script("docs/conf.py").NAVIGATION.values() for page in pages}
    guides = {
        path.relative_to(ROOT).with_suffix("").as_posix()
        for path in (ROOT / "docs").rglob("*")
        if path.suffix in (".md", ".rst")
    }
    assert guides - listed == set()
    assert [page for page in listed if not any((ROOT / f"{page}{end}").is_file() for end in (".md", ".rst"))] == []


def test_the_reference_of_commands_has_them_all_with_their_options(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sphinx", reason="Sphinx is missing: make docs installs it")
    script = load_script("docs/extensions/command_reference.py")
    found = dict(script.commands(typer.main.get_command(app), "lesion-hub"))
    assert {"lesion-hub predict", "lesion-hub data audit", "lesion-hub gate check"} <= set(found)
    text = script.section("lesion-hub predict", found["lesion-hub predict"])
    for parameter in found["lesion-hub predict"].params:
        assert all(spelling in text for spelling in parameter.opts)
    assert r"most\_probable" in text
    assert "--find-batch-size" in script.section("lesion-hub train", found["lesion-hub train"])


def test_the_files_of_a_release_are_judged() -> None:
    script = load_script("release/check_dist.py")
    model = "lesion_hub/_registry/a/v1.1.0/model.safetensors"
    wheel = dict.fromkeys((*script.IN_WHEEL, model, "lesion_hub-1.0.0.dist-info/licenses/LICENSE"), "")
    assert script.problems_of(wheel, set(script.IN_SDIST)) == []
    without = {name: "" for name in wheel if name not in (model, "lesion_hub/py.typed")}
    assert script.problems_of({**without, "training/x.py": ""}, {*script.IN_SDIST, "spaces/node_modules/a.js"}) == [
        "the wheel lacks lesion_hub/py.typed",
        "the wheel lacks the shipped models",
        "should not be there: spaces/node_modules/a.js",
        "the wheel installs training beside lesion_hub",
    ]
