"""What must hold before Gradio is imported: it is there, it sends nothing home, and it has a folder of its own."""

from __future__ import annotations

import atexit
import os
import shutil
import sys
import tempfile
from functools import cache
from importlib.util import find_spec

from lesion_hub.errors import ConfigError

_SILENCE = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "GRADIO_RUN_HISTORY": "False",
    "GRADIO_SHARE": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
}


def prepare() -> str:
    """Set the environment up; the private folder, which goes when the process does. Without Gradio one line with the fix."""
    if not _has_gradio():
        raise ConfigError('the page needs Gradio; pip install "lesion-hub[app]"')
    os.environ.update(_SILENCE)
    folder = _private_folder()
    os.environ["GRADIO_TEMP_DIR"] = folder
    return folder


def _has_gradio() -> bool:
    try:
        return find_spec("gradio") is not None
    except ValueError:  # what find_spec says of a module that was made unimportable
        return False


def leave_a_core() -> None:
    """Give model calls all cores but one, in a process that is the page's own; ``OMP_NUM_THREADS`` decides where it is set.

    With a thread on every core the call's threads wait at each layer for the one that the web server has just interrupted. The
    environment is where OpenMP looks when it is loaded: ``torch.set_num_threads`` would not reach the threads that predict.
    """
    if "torch" not in sys.modules:
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) - 1)))


@cache
def _private_folder() -> str:
    above = os.environ.get("GRADIO_TEMP_DIR")
    if above:
        os.makedirs(above, exist_ok=True)  # noqa: PTH103 - strings all the way, as Gradio has it
    folder = os.path.realpath(tempfile.mkdtemp(prefix="lesion-hub-", dir=above or None))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
