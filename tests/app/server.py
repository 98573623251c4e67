"""The page as a process that tests start, watch and end."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import httpx

from tests.cli.runner import COMMAND
from tests.hub_server import free_port

START_SECONDS = 120.0
ROOT = Path(__file__).parents[2]


class PageServer:
    """``command`` serving the page on a free port of this machine."""

    def __init__(self, command: Sequence[str], *, log: Path, cwd: Path = ROOT, **environment: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = log
        settings = {"GRADIO_SERVER_PORT": str(self.port), "GRADIO_SERVER_NAME": "127.0.0.1", "HF_HUB_OFFLINE": "1"}
        with open(log, "wb") as stream:
            self.process = subprocess.Popen(
                command, cwd=cwd, env={**os.environ, **settings, **environment}, stdout=stream, stderr=subprocess.STDOUT
            )
        self._wait()

    @classmethod
    def of_model(cls, name: str, registry: Path, *, log: Path, options: Sequence[str] = (), **environment: str) -> PageServer:
        """``lesion-hub serve`` over a model of a registry."""
        command = [str(COMMAND), "serve", "--model", name, "--registry", str(registry), *options]
        return cls(command, log=log, **environment)

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def resident_bytes(self) -> int:
        """Physical memory of the process."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def peak_bytes(self) -> int:
        """The most physical memory that the process has had since `forget_peak`."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return 1024 * int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")))

    def forget_peak(self) -> None:
        Path(f"/proc/{self.process.pid}/clear_refs").write_text("5")

    def _wait(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            if time.monotonic() > deadline or self.process.poll() is not None:
                self.stop()
                raise RuntimeError(f"the page did not start:\n{self.log.read_text(errors='replace')[-2000:]}")
            time.sleep(0.1)

    def _answers(self) -> bool:
        try:
            return httpx.get(f"{self.url}/config", timeout=5, trust_env=False).status_code == 200
        except httpx.HTTPError:
            return False
