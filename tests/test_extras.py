"""Prediction needs no extra, and what needs one that is not installed says so in one line."""

from __future__ import annotations

import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from lesion_hub.extras import EXTRA_OF

ROOT = Path(__file__).resolve().parents[1]
PICTURE = ROOT / "spaces" / "lesion-ensemble" / "examples" / "drawn_as_melanoma.jpg"
WITHOUT_EXTRAS = """
import sys
for library in sys.argv.pop(1).split(","):
    sys.modules[library] = None  # cannot be imported, and find_spec does not find it
from lesion_hub.cli import main
main()
"""


def lesion_hub_without_extras(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", WITHOUT_EXTRAS, ",".join(EXTRA_OF), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)


@pytest.mark.slow
def test_predictions_and_heat_maps_need_no_extra(tmp_path: Path) -> None:
    done = lesion_hub_without_extras("predict", PICTURE, "--model", "dermoscopy-lite0", "--overlay", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "bkl" in done.stdout
    assert [file.name for file in tmp_path.iterdir()] == [f"{PICTURE.stem}_heat.png"]


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("data", "show", "."), "datasets is not installed; pip install 'lesion-hub[data]'"),
        (
            ("evaluate", "--model", "dermoscopy-lite0", "--data", ".", "--out", "."),
            "pandas is not installed; pip install 'lesion-hub[data]'",
        ),
        (("train", "--recipe", "demo", "--data", "."), "datasets is not installed; pip install 'lesion-hub[data]'"),
        (("serve",), "gradio is not installed; pip install 'lesion-hub[app]'"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_a_missing_extra_is_one_line(arguments: tuple[str, ...], line: str) -> None:
    done = lesion_hub_without_extras(*arguments)
    assert (done.returncode, done.stderr) == (1, f"error: {line}\n")


@pytest.mark.skipif(not (ROOT / "setup.cfg").exists(), reason="not a checkout")
def test_every_extra_brings_what_is_said_of_it() -> None:
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    names = {"sklearn": "scikit-learn", "markdown_it": "markdown-it-py"}
    for library, extra in EXTRA_OF.items():
        lines = setup["options.extras_require"][extra].split()
        brought = {Requirement(line).name.replace("-", "_") for line in lines}
        assert names.get(library, library).replace("-", "_") in brought, library
