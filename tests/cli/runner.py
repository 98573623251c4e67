"""Run the command as a user does."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.preloaded import run_lesion_hub

COMMAND = Path(sys.executable).with_name("lesion-hub")


def run(*arguments: object, ok: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
    done = run_lesion_hub([*map(str, arguments)], environment)
    assert (done.returncode == 0) == ok, done.stderr + done.stdout
    assert "Traceback" not in done.stderr
    return done


def object_of(*arguments: object, ok: bool = True, **environment: str) -> dict[str, Any]:
    """What the command prints with ``--json``: one object and nothing else."""
    return json.loads(run(*arguments, "--json", ok=ok, **environment).stdout)
