"""Commands in processes of their own that need not import for seconds: forked from one that has imported all they use.

For the many tests that run a command to see what it does. What an import or a variable read by one does is tested in fresh
processes, as README's blocks are.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from multiprocessing import forkserver
from pathlib import Path
from unittest import mock

SECONDS = 900
OFFLINE = {"COLUMNS": "200", "HF_HUB_OFFLINE": "1"}
_READ_BY_IMPORTS = ("HF_", "TRANSFORMERS_", "OMP_", "PYTHON", "LD_")

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(
    ["lesion_hub.cli", "lesion_hub.training.train", "lesion_hub.evaluation.recalibration", "lesion_hub.inference.bulk"]
)


def run_lesion_hub(arguments: Sequence[str], environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run ``lesion-hub`` offline in the tests' environment and that of ``environment``."""
    wanted = {**os.environ, **OFFLINE, **environment}
    if any(
        name.startswith(_READ_BY_IMPORTS) and wanted[name] != OFFLINE.get(name, os.environ.get(name)) for name in environment
    ):
        command = [str(Path(sys.executable).with_name("lesion-hub")), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, env=wanted, timeout=SECONDS)
    with mock.patch.dict(os.environ, OFFLINE):
        forkserver.ensure_running()
    with tempfile.TemporaryDirectory() as folder:
        out, err = Path(folder, "out"), Path(folder, "err")
        process = _context.Process(target=_run, args=(arguments, wanted, Path.cwd(), out, err))
        process.start()
        process.join(SECONDS)
        if process.exitcode is None:
            process.kill()
            process.join()
        printed = (path.read_text(encoding="utf-8") for path in (out, err))
        return subprocess.CompletedProcess(list(arguments), process.exitcode or 0, *printed)


def _run(arguments: Sequence[str], environment: Mapping[str, str], folder: Path, out: Path, err: Path) -> None:
    for stream, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT), stream)
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.argv = ["lesion-hub", *arguments]

    from lesion_hub.cli import main

    main()
