from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import save

from lesion_hub.errors import FileWriteError
from lesion_hub.training.checkpoints import CheckpointFolder, _pack, _unpack

STATE: dict[str, Any] = {
    "weights": {"a.b": torch.arange(6.0).reshape(2, 3)},
    "optimiser": {"state": {0: {"step": 3}}},
    "history": [],
}

leaves = st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.floats(allow_nan=False) | st.text(max_size=4)
trees = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3) | st.integers(0, 9), inner, max_size=3),
    max_leaves=8,
)


@given(trees)
def test_plain_values_come_back_as_they_were(tree: Any) -> None:
    assert _unpack(json.loads(json.dumps(_pack(tree, "", {}))), {}) == tree


def test_a_state_comes_back_with_its_tensors_and_its_keys(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path)
    folder.save(STATE, step=1)
    state = folder.newest()
    assert state is not None
    assert torch.equal(state["weights"]["a.b"], STATE["weights"]["a.b"])
    assert state["optimiser"] == {"state": {0: {"step": 3}}}


def test_the_optimiser_comes_back_exactly(tmp_path: Path) -> None:
    layer = torch.nn.Linear(3, 2)
    optimiser = torch.optim.AdamW(layer.parameters(), lr=0.1)
    layer(torch.ones(1, 3)).sum().backward()
    optimiser.step()
    folder = CheckpointFolder(tmp_path)
    folder.save({"optimiser": optimiser.state_dict()}, step=1)
    other = torch.optim.AdamW(torch.nn.Linear(3, 2).parameters(), lr=0.5)
    other.load_state_dict(folder.newest()["optimiser"])  # type: ignore[index]
    for before, after in zip(optimiser.state.values(), other.state.values(), strict=True):
        assert all(torch.equal(before[key], after[key]) for key in before)


def test_the_newest_few_stay(tmp_path: Path) -> None:
    folder = CheckpointFolder(tmp_path, keep=2)
    for step in (5, 10, 100):
        folder.save({"step": step}, step)
    folder.save_best({"step": 5})
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "best.safetensors",
        "step-000000010.safetensors",
        "step-000000100.safetensors",
    ]
    assert folder.newest() == {"step": 100} and folder.best() == {"step": 5}


def test_a_damaged_checkpoint_is_passed_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = CheckpointFolder(tmp_path)
    for step in (1, 2):
        folder.save({"step": step}, step)
    (tmp_path / "step-000000002.safetensors").write_bytes(b"torn")
    (tmp_path / ".step-000000003.safetensors.tmp-x").write_bytes(b"half")
    assert folder.newest() == {"step": 1}
    assert "going back to the checkpoint before it" in caplog.text
    assert not list(tmp_path.glob(".*"))


def test_a_full_disk_leaves_the_last_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = CheckpointFolder(tmp_path, keep=1)
    folder.save({"step": 1}, 1)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FileWriteError, match="No space left on device"):
        folder.save({"step": 2}, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["step-000000001.safetensors"]


def test_nothing_in_a_checkpoint_can_run_code(tmp_path: Path) -> None:
    CheckpointFolder(tmp_path).save(STATE, 1)
    with safe_open(tmp_path / "step-000000001.safetensors", framework="pt") as file:
        assert set(json.loads(file.metadata()["state"])) == set(STATE)
    with pytest.raises(TypeError, match="has no place in a checkpoint"):
        CheckpointFolder(tmp_path).save({"function": print}, 2)


@pytest.fixture(scope="module")
def two_checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("checkpoints")
    for step in (1, 2):
        CheckpointFolder(folder).save({"step": step, **STATE}, step)
    return folder


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_a_flipped_bit_never_becomes_a_state(two_checkpoints: Path, data: st.DataObject) -> None:
    newest = two_checkpoints / "step-000000002.safetensors"
    written = newest.read_bytes()
    position = data.draw(st.integers(0, 8 * len(written) - 1))
    flipped = bytearray(written)
    flipped[position // 8] ^= 1 << position % 8
    try:
        newest.write_bytes(flipped)
        state = CheckpointFolder(two_checkpoints).newest()
    finally:
        newest.write_bytes(written)
    assert state is not None and torch.equal(state["weights"]["a.b"], STATE["weights"]["a.b"])
    assert (state["optimiser"], state["history"]) == (STATE["optimiser"], [])


def test_checkpoints_of_version_1_are_read(tmp_path: Path) -> None:
    header = {"state": json.dumps({"step": 7, "weight": "tensor:/weight"}), "format": "pt"}
    (tmp_path / "step-000000007.safetensors").write_bytes(save({"/weight": torch.ones(2)}, metadata=header))
    state = CheckpointFolder(tmp_path).newest()
    assert state is not None and state["step"] == 7 and torch.equal(state["weight"], torch.ones(2))
