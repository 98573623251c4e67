"""Folders to publish, names that no other test uses, empty caches, and other processes."""

from __future__ import annotations

import itertools
import multiprocessing
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.hub.publishable import write_folder

_NUMBERS = itertools.count()


@pytest.fixture
def make_folder(tmp_path: Path) -> Callable[..., Path]:
    """``make_folder(seed=1)``: a new publishable folder."""

    def make(seed: int = 0, **options: Any) -> Path:
        return write_folder(tmp_path / f"run-{next(_NUMBERS)}", seed, **options)

    return make


@pytest.fixture
def repo_id() -> str:
    """A Hub id of our own namespace that no other test uses."""
    return f"user/model-{next(_NUMBERS)}"


@pytest.fixture
def fresh_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Path]:
    """``fresh_cache()``: from now on this process has an empty Hub cache, as another machine would."""

    def switch() -> Path:
        cache = tmp_path / f"cache-{next(_NUMBERS)}"
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
        return cache

    return switch


@pytest.fixture
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """huggingface_hub waits for seconds between its own retries; here it pauses briefly."""
    sleep = time.sleep
    monkeypatch.setattr("time.sleep", lambda seconds: sleep(min(seconds, 0.02)))


@pytest.fixture
def two_processes() -> Iterator[ProcessPoolExecutor]:
    """Two processes that have imported all they need: forked, which takes no time."""
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("fork")) as pool:
        yield pool
