"""Reading a published ONNX file: it must be the config's, and point at no file but the weights that it lies beside.

Needs onnxruntime alone, and neither torch nor the package onnx: predicting should not import what only exporting needs.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Any

from lesion_hub.config import ModelConfig, Precision
from lesion_hub.errors import ConfigError, StoreError, one_line
from lesion_hub.hub.layout import GRAPH_NAMES, WEIGHTS_NAME, read_hashed

INPUT, LOGITS, FEATURES = "pixel_values", "logits", "features"
"""What a graph takes and gives: normalised images, calibrated logits, and the stem's output, from which maps are drawn."""

_LARGEST_GRAPH = 1 << 31  # bytes, which is also protobuf's own limit

# The parts of onnx.proto in which a tensor may stand: of each message, the fields that lead on.
_PARTS: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "training": {1: "graph", 2: "graph"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "entry"},
}
_KEY, _VALUE = 1, 2  # of an entry, the pairs that say where a tensor's values are


def has_graph(config: ModelConfig, precision: Precision = "float32") -> bool:
    """Tell whether a model was published with the ONNX file of a precision."""
    return precision in (config.lesion_hub.graphs or ())


def read_graph(folder: Path, config: ModelConfig, precision: Precision = "float32") -> bytes:
    """Read the ONNX file of a precision that the config names; one that is another, or points elsewhere, is refused."""
    path, expected = folder / GRAPH_NAMES[precision], (config.lesion_hub.graphs or {}).get(precision)
    if expected is None:
        raise StoreError(f"{folder}: was published without {GRAPH_NAMES[precision]}; publish a version that has it")
    data = read_hashed(path, expected, _LARGEST_GRAPH)
    require_own_weights(data, str(path))
    return data


def require_own_weights(data: bytes, where: str) -> None:
    """Raise one line where an ONNX file takes values from any file but ``model.safetensors``."""
    try:
        named = set(files_named_in(data))
    except (IndexError, ValueError) as error:
        raise StoreError(f"{where}: not an ONNX file ({error}); fetch or publish it again") from None
    others = sorted(named - {WEIGHTS_NAME})
    if others:
        raise StoreError(f"{where}: takes values from {one_line(others[0])[:100]!r}, not from {WEIGHTS_NAME} alone; not loaded")


def files_named_in(data: bytes) -> Iterator[str]:
    """Give the location of every tensor of an ONNX file whose values are outside of it."""
    waiting: list[tuple[str, memoryview]] = [("model", memoryview(data))]
    while waiting:
        kind, message = waiting.pop()
        if kind == "entry":
            pair = {number: bytes(value) for number, value in _fields(message) if isinstance(value, memoryview)}
            if pair.get(_KEY) == b"location":
                yield pair.get(_VALUE, b"").decode("utf-8", "replace")
            continue
        leading = _PARTS[kind]
        waiting += [(leading[n], part) for n, part in _fields(message) if n in leading and isinstance(part, memoryview)]


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Walk the fields of a protobuf message: their numbers and values, of which messages and strings are bytes."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            value, at = _varint(message, at)
            yield number, value
            continue
        if wire == 2:
            length, at = _varint(message, at)
        else:
            length = {1: 8, 5: 4}.get(wire, -1)
        if length < 0 or at + length > len(message):
            raise ValueError("its fields do not fit together")
        yield number, message[at : at + length]
        at += length


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 70:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
    raise ValueError("a number is too long")


def open_session(data: bytes, weights_folder: Path, threads: int) -> Any:
    """Make an ONNX Runtime session of a checked graph whose weights are in ``weights_folder``, on the CPU.

    Its threads do not spin when they have nothing to do: they would take the cores from the network's tail in torch, which
    runs between two calls, and that would make both several times slower.
    """
    try:
        with _real_weights(weights_folder) as place:
            weights = {"session.model_external_initializers_file_folder_path": str(place)}
            return cpu_session(data, threads, {"session.intra_op.allow_spinning": "0", **weights})
    except Exception as error:  # noqa: BLE001 - ONNX Runtime's errors share no class of their own
        raise StoreError(f"{weights_folder}: its graph does not open ({one_line(error)[:200]}); publish it again") from None


def cpu_session(graph: bytes | Path, threads: int = 0, entries: Mapping[str, str] = MappingProxyType({})) -> Any:
    """Open a graph in ONNX Runtime on the CPU, with so many threads (0: its own choice) and further session entries."""
    runtime = require_onnxruntime()
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 4  # what goes wrong is raised
    for key, value in entries.items():
        options.add_session_config_entry(key, value)
    return runtime.InferenceSession(os.fspath(graph), options, providers=["CPUExecutionProvider"])


@contextmanager
def _real_weights(folder: Path) -> Iterator[Path]:
    """Yield a folder in which the weights are a file: in the Hub's cache they are a link, which ONNX Runtime refuses."""
    weights = folder / WEIGHTS_NAME
    if not weights.is_symlink():
        yield folder.resolve()
        return
    with TemporaryDirectory() as scratch:
        place = Path(scratch).resolve()
        shutil.copyfile(weights.resolve(), place / WEIGHTS_NAME)
        yield place


def require_onnxruntime() -> Any:
    """Import onnxruntime; where it is not installed, one line says how to get it.

    Its builds (1.32, on Linux too) report to Microsoft how they are used, which is turned off here unless
    ``ORT_DISABLE_TELEMETRY`` says otherwise.
    """
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read when it is imported
    try:
        return import_module("onnxruntime")
    except ImportError as error:
        raise ConfigError(
            f"onnxruntime cannot be imported ({one_line(error)[:100]}); pip install onnxruntime, or use engine='torch'"
        ) from None
