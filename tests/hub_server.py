"""A loopback Hub as a process that tests start, spoil, kill and inspect."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
WAIT_SECONDS = 30.0


def free_port() -> int:
    """Find a port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class HubServer:
    """``python -m tests.hubd`` on a fixed port, over a folder that outlives the process."""

    def __init__(self, data: Path, port: int) -> None:
        self.data = data
        self.port = port
        self.endpoint = f"http://127.0.0.1:{port}"
        self._process: subprocess.Popen[bytes] | None = None
        self._direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def start(self) -> None:
        """Start it unless it runs, with no faults and an empty log."""
        if self.runs():
            self.spoil()
            self.clear_log()
            return
        command = [sys.executable, "-m", "tests.hubd", "--data", str(self.data), "--port", str(self.port)]
        self._process = subprocess.Popen(command, cwd=ROOT, env={**os.environ, "GIT_CONFIG_NOSYSTEM": "1"})
        deadline = time.monotonic() + WAIT_SECONDS
        while not self._answers():
            if time.monotonic() > deadline or not self.runs():
                raise RuntimeError("the loopback Hub did not start")
            time.sleep(0.02)

    def kill(self) -> None:
        """SIGKILL, as a power cut would."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def runs(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def wait_until_dead(self) -> None:
        assert self._process is not None
        self._process.wait(WAIT_SECONDS)

    def spoil(self, *rules: dict[str, Any]) -> None:
        """Replace the fault rules; none means that all is well again."""
        self._control("PUT", "faults", list(rules))

    def log(self) -> list[dict[str, Any]]:
        """The requests seen since ``clear_log``: {"request": "GET /path", "status": 200}."""
        return self._control("GET", "log")

    def clear_log(self) -> None:
        self._control("DELETE", "log")

    def git(self, repo_id: str, *args: str, kind: str = "model") -> str:
        """Output of git in the bare repository behind ``repo_id``."""
        repo = self.data / "repos" / f"{kind}s" / f"{repo_id}.git"
        return subprocess.run(["git", "--git-dir", repo, *args], check=True, capture_output=True, text=True).stdout

    def titles(self, repo_id: str) -> list[str]:
        """Titles of the commits on main, newest first, without the one that creates the repo."""
        return self.git(repo_id, "log", "--format=%s", "main").splitlines()[:-1]

    def tags(self, repo_id: str) -> list[str]:
        return self.git(repo_id, "tag").split()

    def files(self, repo_id: str, revision: str = "main") -> set[str]:
        return set(self.git(repo_id, "ls-tree", "-r", "--name-only", revision).splitlines()) - {".gitattributes"}

    def _answers(self) -> bool:
        try:
            self.log()
        except OSError:
            return False
        return True

    def _control(self, method: str, what: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.endpoint}/_hubd/{what}", data=data, method=method)
        with self._direct.open(request, timeout=10) as answer:
            return json.load(answer)
