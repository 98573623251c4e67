"""One registry of tiny models and one served page for the tests of the app."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lesion_hub.app import Running, launch
from lesion_hub.app.options import AppOptions
from lesion_hub.app.service import Service
from tests.app.models import options_over, write_registry


@pytest.fixture(scope="session")
def app_registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_registry(tmp_path_factory.mktemp("app-registry"), tmp_path_factory.mktemp("app-runs"))


@pytest.fixture(scope="session")
def app_options(app_registry: Path) -> AppOptions:
    return options_over(app_registry, max_bytes=500_000, max_pixels=1_000_000, max_files=30)


@pytest.fixture(scope="session")
def service(app_options: AppOptions) -> Service:
    return Service(app_options)


@pytest.fixture(scope="session")
def served_page(app_options: AppOptions) -> Iterator[Running]:
    """The page, served on loopback."""
    running = launch(app_options, block=False)
    yield running
    running.stop()


@pytest.fixture
def nothing_waits(served_page: Running) -> None:
    """Drop what the visitors of other tests did not fetch, which the page keeps for a while."""
    files = served_page.page.files
    for token in list(files._held):
        files._drop(token)
