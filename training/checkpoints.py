"""Checkpoints: one safetensors file each, whole or absent, that hold tensors and JSON and can run no code.

A file's tensors are those of the state, its header the rest of it as JSON. The newest few are kept, beside the best.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from lesion_hub.errors import StoreError
from lesion_hub.files import remove_leftovers, write_bytes

logger = logging.getLogger(__name__)

State = dict[str, Any]

_STEP_FILE = re.compile(r"step-(\d{9})\.safetensors")
_BEST_FILE = "best.safetensors"
_TENSOR, _PAIRS = "tensor:", "pairs:"


class CheckpointFolder:
    """The checkpoints of one run; ``keep`` newest ones stay.

    >>> import tempfile
    >>> import torch
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     checkpoints = CheckpointFolder(Path(folder))
    ...     checkpoints.save({"weight": torch.ones(2), "epoch": 3}, step=10)
    ...     checkpoints.newest()["epoch"]
    3
    """

    def __init__(self, folder: Path, keep: int = 2) -> None:
        self.folder = folder
        self.keep = keep

    def save(self, state: State, step: int) -> None:
        """Save ``state`` as that of optimiser step ``step``, and then delete older ones."""
        _write(self.folder / f"step-{step:09d}.safetensors", state)
        for path in self._steps()[: -self.keep]:
            path.unlink()

    def save_best(self, state: State) -> None:
        """Save ``state`` as that of the best epoch so far."""
        _write(self.folder / _BEST_FILE, state)

    def newest(self) -> State | None:
        """Read the newest state that can be read, or None; a damaged file is reported and passed over."""
        remove_leftovers(self.folder)
        for path in reversed(self._steps()):
            try:
                return _read(path)
            except StoreError as error:
                logger.warning("%s; going back to the checkpoint before it", error)
        return None

    def read(self, step: int) -> State | None:
        """Read the state of ``step``, or None where there is none that can be read; a damaged file is reported."""
        path = self.folder / f"step-{step:09d}.safetensors"
        try:
            return _read(path) if path.is_file() else None
        except StoreError as error:
            logger.warning("%s; it is made again", error)
            return None

    def best(self) -> State:
        """Read the state of the best epoch."""
        return _read(self.folder / _BEST_FILE)

    def _steps(self) -> list[Path]:
        return sorted(path for path in self.folder.glob("step-*.safetensors") if _STEP_FILE.fullmatch(path.name))


def _write(path: Path, state: State) -> None:
    tensors: dict[str, Tensor] = {}
    header = {"state": json.dumps(_pack(state, "", tensors)), "format": "pt"}
    write_bytes(path, save(tensors, metadata=header))


def _read(path: Path) -> State:
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - no mapping, it has keys() alone
            packed = json.loads((file.metadata() or {})["state"])
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise StoreError(f"{path}: not a readable checkpoint ({error})") from None
    return _unpack(packed, tensors)


def _pack(value: Any, name: str, tensors: dict[str, Tensor]) -> Any:
    """Copy the tensors in ``value`` into ``tensors`` and return it with their names instead; what JSON cannot hold raises."""
    if isinstance(value, Tensor):
        # A copy of its own: safetensors refuses tensors that share memory.
        tensors[name] = value.detach().to("cpu", copy=True).contiguous()
        return f"{_TENSOR}{name}"
    if isinstance(value, Mapping):
        packed = [[key, _pack(item, f"{name}/{key}", tensors)] for key, item in value.items()]
        if all(isinstance(key, str) for key, _ in packed):
            return dict(packed)
        return {_PAIRS: packed}
    if isinstance(value, list | tuple):
        return [_pack(item, f"{name}/{i}", tensors) for i, item in enumerate(value)]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"{name}: a {type(value).__name__} has no place in a checkpoint")


def _unpack(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, str) and value.startswith(_TENSOR):
        return tensors[value.removeprefix(_TENSOR)]
    if isinstance(value, dict):
        items = value[_PAIRS] if set(value) == {_PAIRS} else value.items()
        return {key: _unpack(item, tensors) for key, item in items}
    if isinstance(value, list):
        return [_unpack(item, tensors) for item in value]
    return value
