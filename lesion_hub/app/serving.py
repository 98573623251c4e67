"""Build the page and serve it, in an environment where Gradio sends no telemetry and has a temporary folder of its own."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import sys
import tempfile
import threading
from dataclasses import dataclass, field
from functools import cache
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING

from lesion_hub.app.options import AppOptions
from lesion_hub.errors import ConfigError, one_line
from lesion_hub.extras import require_extra

if TYPE_CHECKING:
    from lesion_hub.app.page import Page

DEFAULT_HOST = "127.0.0.1"
_CPU_SHARE = Path("/sys/fs/cgroup/cpu.max")
_NO_TELEMETRY = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "GRADIO_ANALYTICS_MAX_EVENTS": "1",  # it would keep who made the last 10,000 calls
    "GRADIO_ANALYTICS_CACHE_FREQUENCY": str(10**12),  # calls between two summaries, each a table of pandas that nobody is shown
    "GRADIO_RUN_HISTORY": "False",
    "GRADIO_SHARE": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "ORT_DISABLE_TELEMETRY": "1",  # of ONNX Runtime
}


@dataclass(frozen=True)
class Running:
    """A served page."""

    url: str
    page: Page = field(repr=False)

    def wait(self) -> None:
        """Wait until the process is interrupted."""
        try:
            self.page.block_thread()
        finally:
            self.stop()

    def stop(self) -> None:
        """Close the server, and drop what it holds in memory."""
        self.page.close(verbose=False)


def launch(
    options: AppOptions | None = None, *, host: str | None = None, port: int | None = None, block: bool = True
) -> Running:
    """Serve the page; with ``block`` until the process is interrupted.

    Args:
        options: what to serve and its limits.
        host: address to listen on; None is ``GRADIO_SERVER_NAME``, which a Space sets, else this machine alone.
        port: None is ``GRADIO_SERVER_PORT``, else the first free one from 7860.
        block: whether to return only when the server ends.
    """
    if block:
        stop_when_terminated()
        leave_a_core()
    page = build(options)
    name = host or os.environ.get("GRADIO_SERVER_NAME") or DEFAULT_HOST
    try:
        page.launch(server_name=name, server_port=port, prevent_thread_lock=True)
    except OSError as error:
        raise cannot_listen(name, port, error) from None
    running = Running(page.local_url or "", page)
    if block:
        running.wait()
    return running


def cannot_listen(host: str, port: int | None, error: OSError) -> ConfigError:
    """Word that nothing can be served on a port, or on any of those that are tried."""
    return ConfigError(f"cannot listen on {host}:{port or 'any port'} ({one_line(error)}); choose another --port")


def build(options: AppOptions | None = None) -> Page:
    """Build the page over the models of ``options``, loaded, not yet served.

    build(AppOptions(models=("dermoscopy-trio",))).launch()
    """
    options = options or AppOptions()
    folder = prepare_environment()
    from lesion_hub.app.page import Page
    from lesion_hub.app.service import Service
    from lesion_hub.app.uploads import FileStore

    files = FileStore(f"{folder}/memory", capacity=options.memory_bytes, keep_seconds=options.keep_seconds)
    return Page(Service(options), files)


@cache
def prepare_environment() -> str:
    """Set what Gradio reads when it is imported; return its temporary folder, which is deleted when the process ends.

    Where Gradio is not installed, the error is one line with the fix.
    """
    require_extra("app")
    above = os.environ.get("GRADIO_TEMP_DIR") or None
    if above:
        Path(above).mkdir(parents=True, exist_ok=True)
    folder = os.path.realpath(tempfile.mkdtemp(prefix="lesion-hub-", dir=above))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    os.environ.update(_NO_TELEMETRY, GRADIO_TEMP_DIR=folder)
    return folder


def stop_when_terminated() -> None:
    """Let SIGTERM end a process that only serves the page as Ctrl-C does: its temporary folder is deleted."""
    if threading.current_thread() is threading.main_thread():  # no other may set what a signal does
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))


def leave_a_core() -> None:
    """Give model calls all cores but one, in a process that only serves the page; ``OMP_NUM_THREADS`` decides where it is set.

    With a thread on every core the call's threads wait at each layer for the one that the web server has just interrupted. The
    environment is where OpenMP looks when it is loaded: ``torch.set_num_threads`` would not reach the threads that predict.
    """
    if "torch" not in sys.modules:
        os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores() - 1)))


def cores() -> int:
    """Count the cores that this process has: a container's share, as a Space's, may be far fewer than the machine's."""
    counts = [os.cpu_count() or 1]
    if hasattr(os, "sched_getaffinity"):
        counts.append(len(os.sched_getaffinity(0)))
    if (named := os.environ.get("CPU_CORES", "")).isdecimal():  # set by Spaces
        counts.append(int(named))
    if _CPU_SHARE.is_file():
        quota, _, period = _CPU_SHARE.read_text(encoding="ascii").partition(" ")
        if quota.isdecimal():  # else "max"
            counts.append(ceil(int(quota) / int(period)))
    return max(1, min(counts))
