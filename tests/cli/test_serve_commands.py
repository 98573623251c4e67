"""``lesion-hub serve`` from a shell."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from lesion_hub.cli import serve
from lesion_hub.errors import ConfigError
from tests.cli.runner import run

pytestmark = pytest.mark.slow


def test_a_missing_model_is_one_line():
    done = run("serve", "--model", "no-such-model", ok=False)
    assert done.stderr.startswith("error: cannot serve no-such-model: ")
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_wrong_limit_is_one_line():
    done = run("serve", "--max-files", "0", ok=False)
    assert done.stderr.startswith("error: serve: max_files")


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"static": True, "max_mb": 3.0}, "--static serves files"),
        ({"static": True, "model": ["a", "b"]}, "2 models: a static page answers with one"),
        ({"runtime": Path("x")}, "--runtime is for the page that computes in the browser; add --static"),
    ],
)
def test_what_the_static_page_does_not_take_is_one_line(options, line):
    with pytest.raises(ConfigError, match=f"^{re.escape(line)}"):
        serve.serve(**options)


def test_without_gradio_one_line_names_the_fix():
    code = (
        "import sys; sys.modules['gradio'] = None\n"
        "from lesion_hub.errors import LesionHubError\n"
        "try:\n    from lesion_hub.app import launch\nexcept LesionHubError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "gradio is not installed; pip install 'lesion-hub[app]'"


def test_help_does_not_import_gradio():
    code = "import lesion_hub.cli, lesion_hub.app, sys; sys.exit(bool({'gradio', 'torch'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
