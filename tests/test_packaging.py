"""What is installed is what is in the checkout."""

from __future__ import annotations

import configparser
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def config() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


def test_every_package_is_listed(config):
    listed = set(config["options"]["packages"].split())
    found = {
        ".".join((*home, *path.parent.relative_to(ROOT / top).parts))
        for top, home in (("lesion_hub", ("lesion_hub",)), ("training", ("lesion_hub", "training")))
        for path in (ROOT / top).rglob("*.py")
    }
    assert found <= listed, f"add to packages in setup.cfg: {sorted(found - listed)}"


def test_there_is_one_version(config):
    import lesion_hub

    assert config["metadata"]["version"] == "attr: lesion_hub.__version__"
    assert f"version: {lesion_hub.__version__}\n" in (ROOT / "CITATION.cff").read_text()


@pytest.mark.slow
def test_the_wheel_holds_recipes_registry_and_templates(tmp_path):
    """Built from a copy, so that the checkout stays clean; setuptools is in the environment, hence no network."""
    copy = tmp_path / "checkout"
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if tracked.returncode:
        pytest.skip("not a git checkout")
    for name in tracked.stdout.splitlines():
        if (ROOT / name).is_file() and not name.startswith("tests/"):
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes((ROOT / name).read_bytes())
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        str(tmp_path),
        str(copy),
    ]
    subprocess.run(command, check=True)
    names = set(zipfile.ZipFile(next(tmp_path.glob("*.whl"))).namelist())
    assert {name.split("/")[0].split("-")[0] for name in names} == {"lesion_hub"}, "the wheel installs one top-level package"
    expected = {f"lesion_hub/{path.relative_to(ROOT)}" for path in (ROOT / "training" / "recipes").glob("*.yaml")}
    registry = [path for path in (ROOT / "registry").rglob("*.*") if path.is_file() and not path.name.startswith(".")]
    expected |= {f"lesion_hub/_{path.relative_to(ROOT)}" for path in registry}
    expected |= {str(path.relative_to(ROOT)) for path in (ROOT / "lesion_hub").rglob("*.jinja")}
    expected |= {"lesion_hub/py.typed", "lesion_hub/models/networks.py", "lesion_hub/training/train.py"}
    assert expected <= names
    assert [name for name in names if "_model_cards" in name] == ["lesion_hub/_model_cards/card.md.jinja"]
    assert not [name for name in names if name.endswith((".sh", "manifest.json"))]
