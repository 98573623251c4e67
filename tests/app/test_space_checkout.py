"""A Space is the same whether it is published from a checkout or from a wheel, and it runs with nothing of this checkout."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from lesion_hub.hub.space import plan_space
from lesion_hub.hub.space_build import package_files

ROOT = Path(__file__).parents[2]
PACKED = ("lesion_hub", "training", "registry", "model_cards", "spaces", "setup.cfg", "pyproject.toml", "README.md", "LICENSE")
GUESTS = {"training", "_registry", "_model_cards", "_space", "_browser"}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This version of the package, which here stands in for the released one; built offline, from a copy."""
    place = tmp_path_factory.mktemp("wheel")
    copy = place / "checkout"
    copy.mkdir()
    for name in PACKED:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", ".*"))
        else:
            shutil.copy(ROOT / name, copy / name)
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "-w", place, copy]
    subprocess.run(build, check=True)
    return next(place.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds the package as it comes out of the wheel; its needs are those of this environment."""
    folder = tmp_path_factory.mktemp("installed")
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", folder, wheel]
    subprocess.run(install, check=True)
    return folder


def without_the_checkout(installed: Path) -> dict[str, str]:
    """PYTHONPATH for ``python -S``, which leaves aside the link by which an editable installation finds the checkout."""
    needs = [place for place in sys.path if place.endswith(("site-packages", "dist-packages"))]
    return {"PYTHONPATH": os.pathsep.join([str(installed), *needs])}


def test_the_space_carries_the_package_as_the_wheel_holds_it(wheel):
    with zipfile.ZipFile(wheel) as archive:
        held = {name: archive.read(name) for name in archive.namelist() if name.startswith("lesion_hub/")}
        licence = next(archive.read(name) for name in archive.namelist() if name.endswith("/LICENSE"))
    page = {name: data for name, data in held.items() if name.split("/")[1] not in GUESTS}
    assert {name.split("/")[1] for name in held} & GUESTS == GUESTS
    assert {name: Path(path).read_bytes() for name, path in package_files().items()} == page | {"lesion_hub/LICENSE": licence}


def test_an_installed_package_gives_the_same_space(installed, tmp_path):
    """Published from an installation, and from the checkout."""
    code = (
        "import json, sys; from lesion_hub.hub.space import plan_space; import lesion_hub;"
        "plan = plan_space('org/skin', ['dermoscopy-mobilenetv2'], hardware='cpu-basic');"
        "json.dump([lesion_hub.__file__, plan.sizes], sys.stdout)"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", code],
        cwd=tmp_path,
        env={**os.environ, **without_the_checkout(installed)},
        capture_output=True,
        text=True,
        check=True,
    )
    place, sizes = json.loads(done.stdout)
    assert place.startswith(str(installed))
    assert sizes == plan_space("org/skin", ["dermoscopy-mobilenetv2"], hardware="cpu-basic").sizes


@pytest.mark.browser
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="Linux alone says how much memory another process takes")
def test_a_published_space_is_built_started_asked_and_ended(tmp_path):
    """On top of the tests' own packages, once: CI rehearses it in a fresh environment, and offline, beside the tests."""
    command = [
        sys.executable,
        "spaces/rehearse.py",
        "--layer",
        sys.prefix,
        "--model",
        "dermoscopy-mobilenetv2",
        "--once",
        "--json",
    ]
    # Its client keeps what it fetches where Gradio keeps files, which other tests of this process look into.
    environment = {**os.environ, "GRADIO_TEMP_DIR": str(tmp_path)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=280)
    told = json.loads(done.stdout)
    assert told["failure"] is None, told["failure"]
    figures = {figure["what"]: figure["figure"] for figure in told["figures"]}
    assert figures["of packages"] < 10  # none, where Gradio is here in the version that Spaces run
    assert figures["first prediction with a heat map"] > 0
    assert figures["end after SIGTERM"] < 60
