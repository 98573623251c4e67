"""What holds for every test: no network but a Hub on loopback, no home folder but a temporary one, few threads.

Most of these variables are read when a library is imported, so they are set here, before any test module is.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.hub_server import HubServer, free_port

HUB_PORT = free_port()
HF_HOME = Path(tempfile.mkdtemp(prefix="lesion-hub-tests-"))

for variable in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
    os.environ.pop(variable, None)
os.environ.pop("LESION_HUB_REGISTRY", None)
os.environ.update(
    HF_HOME=str(HF_HOME),
    HF_ENDPOINT=f"http://127.0.0.1:{HUB_PORT}",
    HF_HUB_DISABLE_TELEMETRY="1",
    HF_HUB_DISABLE_XET="1",
    HF_HUB_DISABLE_PROGRESS_BARS="1",
    NO_PROXY="127.0.0.1,localhost",
    LESION_HUB_RETRY_PAUSE="0.05",
    LESION_HUB_ENGINE="torch",  # no test waits for an export that it is not about
    LESION_HUB_CACHE=str(HF_HOME / "lesion-hub"),
    OMP_NUM_THREADS="1",
    TOKENIZERS_PARALLELISM="false",
)

settings.register_profile("busy-machine", deadline=None)
settings.load_profile("busy-machine")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest, the whole scripts in examples/: begun last, one worker would work long after the others."""
    items.sort(key=lambda item: "test_examples" not in item.nodeid)


def pytest_unconfigure() -> None:
    shutil.rmtree(HF_HOME, ignore_errors=True)


@pytest.fixture(scope="session")
def hub_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HubServer]:
    """The process behind ``hub``: one for the whole session."""
    server = HubServer(tmp_path_factory.mktemp("hubd"), HUB_PORT)
    server.start()
    yield server
    server.kill()


@pytest.fixture
def hub(hub_process: HubServer, monkeypatch: pytest.MonkeyPatch) -> HubServer:
    """A Hub that answers, without faults, to which we are logged in as "user"."""
    hub_process.start()
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    return hub_process
