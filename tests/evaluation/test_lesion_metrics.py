"""Our module behind ``evaluate``: loaded from its folder without a network, and the same numbers as the library's own."""

from __future__ import annotations

import socket
from pathlib import Path

import evaluate
import huggingface_hub
import numpy as np
import pytest

from lesion_hub.errors import LesionHubError
from lesion_hub.evaluation import metrics, module_path


@pytest.fixture
def predictions() -> np.ndarray:
    return np.random.default_rng(0).dirichlet(np.ones(7), size=40).astype(np.float32)


@pytest.fixture
def references() -> np.ndarray:
    return np.arange(40) % 7


def test_it_computes_what_the_library_computes(predictions: np.ndarray, references: np.ndarray, tmp_path: Path) -> None:
    module = evaluate.load(module_path(), cache_dir=str(tmp_path))
    result = module.compute(predictions=predictions, references=references, label_space="ham7")
    assert result == metrics.compute(predictions, references, "ham7")


def test_batches_add_up(predictions: np.ndarray, references: np.ndarray, tmp_path: Path) -> None:
    module = evaluate.load(module_path(), cache_dir=str(tmp_path))
    for start in range(0, 40, 15):
        batch = slice(start, start + 15)
        module.add_batch(predictions=predictions[batch], references=references[batch])
    assert module.compute(label_space="ham7") == metrics.compute(predictions, references, "ham7")


def test_it_combines_with_another_module(predictions: np.ndarray, references: np.ndarray, tmp_path: Path) -> None:
    modules = [evaluate.load(module_path(), cache_dir=str(tmp_path / name)) for name in "ab"]
    combined = evaluate.combine({"first": modules[0], "second": modules[1]}, force_prefix=True)
    result = combined.compute(predictions=predictions, references=references, label_space="ham7")
    expected = metrics.compute(predictions, references, "ham7")
    assert result["first_balanced_accuracy"] == result["second_balanced_accuracy"] == expected["balanced_accuracy"]
    by_path = evaluate.combine([module_path()])
    assert by_path.compute(predictions=predictions, references=references, label_space="ham7") == expected


def test_a_mistake_is_the_librarys_own_line(predictions: np.ndarray, references: np.ndarray, tmp_path: Path) -> None:
    module = evaluate.load(module_path(), cache_dir=str(tmp_path))
    with pytest.raises(LesionHubError, match="did you mean 'ham7'"):
        module.compute(predictions=predictions, references=references, label_space="ham8")


@pytest.mark.parametrize("offline", [False, True])
def test_no_network_is_asked(
    predictions: np.ndarray, references: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offline: bool
) -> None:
    def refuse(*args: object) -> None:
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", offline)
    module = evaluate.load(module_path(), cache_dir=str(tmp_path))
    assert module.compute(predictions=predictions, references=references, label_space="ham7")["examples"] == 40
