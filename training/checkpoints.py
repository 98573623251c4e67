"""Checkpoints: one safetensors file each, whole or absent, that hold tensors and JSON and can run no code.

A file's tensors are those of the state, its header the rest of it as JSON and a checksum over both, so that a flipped bit
is noticed instead of trained on. The newest few are kept, beside the best.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
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
    packed = json.dumps(_pack(state, "", tensors))
    header = {"state": packed, "sha256": _checksum(packed, tensors), "format": "pt"}
    write_bytes(path, save(tensors, metadata=header))


def _read(path: Path) -> State:
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - no mapping, it has keys() alone
            header = file.metadata() or {}
            packed = json.loads(header["state"])
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise StoreError(f"{path}: not a readable checkpoint ({error})") from None
    # Checkpoints of version 1 have exactly these two keys; any others, and the flipped bit may be in the checksum's own name.
    if header.keys() != {"state", "format"} and header.get("sha256") != _checksum(header["state"], tensors):
        raise StoreError(f"{path}: damaged since it was written (its checksum is another)")
    return _unpack(packed, tensors)


def _checksum(packed: str, tensors: Mapping[str, Tensor]) -> str:
    """Return the sha256 over the packed state and each tensor's name, type, shape and bytes, as hex digits."""
    digest = hashlib.sha256(packed.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


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
