"""A Space checked out on another machine runs with what its requirements.txt names, and with nothing of this checkout."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from gradio_client import Client, handle_file
from huggingface_hub import snapshot_download
from packaging.requirements import Requirement
from packaging.utils import parse_wheel_filename

import lesion_hub
from lesion_hub.hub import store
from lesion_hub.hub.space import publish_space
from tests.app.server import PageServer
from tests.hub.publishable import write_folder

ROOT = Path(__file__).parents[2]
PACKED = ("lesion_hub", "training", "registry", "model_cards", "spaces", "setup.cfg", "pyproject.toml", "README.md", "LICENSE")
MODEL = "user/for-the-space"

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


@pytest.fixture(scope="module")
def checkout(hub_process, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Space as the Hub gives it to whoever asks."""
    hub_process.start()
    folder = write_folder(tmp_path_factory.mktemp("model") / "run", 3)
    store.publish(folder, MODEL, version="1.0.0", notes="First.", token="hf_test")
    publish_space("user/a-space", [MODEL], token="hf_test")
    return Path(snapshot_download("user/a-space", repo_type="space", local_dir=tmp_path_factory.mktemp("space") / "checkout"))


@pytest.fixture(scope="module")
def page(checkout: Path, installed: Path, hub_process, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageServer]:
    """``python app.py`` in the checkout, on a machine that has never seen the model."""
    place = tmp_path_factory.mktemp("machine")
    server = PageServer(
        [sys.executable, "-S", "app.py"],
        log=place / "page.log",
        cwd=checkout,
        HF_HOME=str(place / "hf"),
        HF_HUB_OFFLINE="0",
        HF_ENDPOINT=hub_process.endpoint,
        **without_the_checkout(installed),
    )
    yield server
    server.stop()


def without_the_checkout(installed: Path) -> dict[str, str]:
    """PYTHONPATH for ``python -S``, which leaves aside the link by which an editable installation finds the checkout."""
    needs = [place for place in sys.path if place.endswith(("site-packages", "dist-packages"))]
    return {"PYTHONPATH": os.pathsep.join([str(installed), *needs])}


def test_the_wheel_is_what_the_requirements_ask_for(wheel, checkout):
    wanted = Requirement((checkout / "requirements.txt").read_text().strip())
    name, version, *_ = parse_wheel_filename(wheel.name)
    assert (wanted.name, wanted.extras) == (name, {"app"})
    assert version in wanted.specifier


def test_the_installed_package_holds_the_space_and_the_page(installed, checkout):
    packed = installed / "lesion_hub" / "_space"
    assert {path.name for path in packed.iterdir()} >= {"app.py", "README.md", "requirements.txt", "models.json", "examples"}
    assert {path.name for path in (packed / "examples").iterdir()} == {path.name for path in (checkout / "examples").iterdir()}
    assert (installed / "lesion_hub" / "app" / "page.js").is_file()


def test_the_package_comes_from_the_wheel(checkout, installed):
    code = "import lesion_hub.app.serving as page, lesion_hub.training as training; print(page.__file__, training.__file__)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=checkout,
        env={"PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert all(place.startswith(str(installed)) for place in done.stdout.split())


def test_the_page_answers_with_the_pinned_model(page, checkout):
    client = Client(page.url, verbose=False)
    example = next((checkout / "examples").iterdir())
    answer = client.predict(handle_file(example), api_name="/predict")
    assert (answer["model"], answer["version"]) == (MODEL, "v1.0.0")
    expected = lesion_hub.from_pretrained(MODEL, revision="v1.0.0", token="hf_test").predict(example)
    assert answer["probabilities"] == pytest.approx(expected.probabilities, abs=1e-5)
    client.close()
