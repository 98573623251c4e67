"""Prediction through ONNX Runtime on the CPU: which engine a model gets, where its graph comes from, and running it.

A published graph lies beside the weights (`hub.onnx_file`); of a folder without one it is made once and kept in the cache
folder. What runs in it is the network up to the cut at which heat maps begin, and the few layers behind that: one pass gives
the logits and what Captum's gradients start from.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from lesion_hub.config import ENGINE_VARIABLE, ModelConfig
from lesion_hub.errors import ConfigError
from lesion_hub.files import sha256_of_json
from lesion_hub.hub.layout import WEIGHTS_NAME
from lesion_hub.hub.onnx_file import (
    FEATURES,
    INPUT,
    LOGITS,
    has_graph,
    open_session,
    read_graph,
    require_onnxruntime,
)
from lesion_hub.inference.kept_graphs import kept_graph
from lesion_hub.models import LesionClassifier
from lesion_hub.taxonomy import nearest

logger = logging.getLogger(__name__)

EngineName = Literal["auto", "torch", "onnx", "onnx-int8"]
ENGINES: tuple[EngineName, ...] = get_args(EngineName)
_GRAPH_VERSION = 1  # raised when graphs are made in another way: cached ones are then made anew


@dataclass(frozen=True)
class Engine:
    """A network's graph, open in ONNX Runtime. Threads may share it.

    ``eight_bits`` is the 8-bit file that it runs, its weights inside; None where it computes in float.
    """

    session: Any
    eight_bits: bytes | None = field(default=None, repr=False)

    @property
    def gives_features(self) -> bool:
        """Whether it gives the stem's output, from which layer-wise maps are drawn."""
        return any(output.name == FEATURES for output in self.session.get_outputs())

    def logits(self, batch: Tensor) -> Tensor:
        """Run (N, 3, H, W) float32 normalised images: (N, C) float32 logits."""
        return self._run([LOGITS], batch)[0]

    def logits_and_features(self, batch: Tensor) -> tuple[Tensor, Tensor]:
        """Run (N, 3, H, W) float32 normalised images: (N, C) float32 logits, and the stem's output."""
        logits, features = self._run([LOGITS, FEATURES], batch)
        return logits, features

    def _run(self, names: list[str], batch: Tensor) -> list[Tensor]:
        return [torch.from_numpy(found) for found in self.session.run(names, {INPUT: batch.contiguous().numpy()})]


@dataclass(frozen=True)
class Origin:
    """Where a classifier was read from: its folder and config; of a bundle's member its place, and the sha256 of the whole."""

    folder: Path
    config: ModelConfig
    place: int | None = None
    bundle_sha256: str | None = None

    @property
    def prefix(self) -> str:
        """What stands before the keys of its tensors."""
        return "" if self.place is None else f"members.{self.place}."


def engine_for(wanted: EngineName, classifier: LesionClassifier, origin: Origin, device: torch.device) -> Engine | None:
    """Open the engine of a classifier that shall be on ``device``; None is torch.

    ``auto`` falls back to torch with one line in the log that says why; the others raise that line. ``onnx-int8`` is the 8-bit
    file that a version was published with, which is only ever asked for by name.
    """
    if wanted == "torch":
        return None
    try:
        if device.type != "cpu":
            raise ConfigError(f"the fused engine runs on the CPU, and the device is {device}")
        require_onnxruntime()
        eight_bits = _published_in_8_bits(origin) if wanted == "onnx-int8" else None
        data = eight_bits or _graph(classifier, origin)
        return Engine(open_session(data, origin.folder, torch.get_num_threads()), eight_bits)
    except ConfigError as error:
        if wanted != "auto":
            raise
        logger.info("%s: predicting with torch: %s", origin.folder, error)
        return None


def checked_engine(name: str) -> EngineName:
    """Check the name of an engine, and replace ``auto`` by what the environment says it stands for."""
    chosen = os.environ.get(ENGINE_VARIABLE, "auto") if name == "auto" else name
    for known in ENGINES:
        if known == chosen:
            return known
    raise ConfigError(f"unknown engine {chosen!r}; {nearest(chosen, ENGINES)}")


def _published_in_8_bits(origin: Origin) -> bytes:
    if origin.place is not None:
        raise ConfigError(
            f"{origin.folder}: its members' weights travel with it, in float alone; name members that are published"
        )
    if not has_graph(origin.config, "int8"):
        raise ConfigError(f"{origin.folder}: was published without an 8-bit file that passed its gate; use engine='onnx'")
    return read_graph(origin.folder, origin.config, "int8")


def _graph(classifier: LesionClassifier, origin: Origin) -> bytes:
    """Read the published graph, else the one that is kept, else make it."""
    folder, config = origin.folder, origin.config
    if origin.place is None and has_graph(config):
        return read_graph(folder, config)
    digest = origin.bundle_sha256 or config.lesion_hub.weights_sha256
    made_of = [_GRAPH_VERSION, origin.place, classifier.architecture, classifier.model_args, classifier.input_config.input_size]

    def make() -> bytes:
        from lesion_hub.hub.graph import write_graph  # needed rarely, and imports the exporter

        logger.info("%s: was published without a graph, which is made now, once", folder)
        return write_graph(classifier, folder / WEIGHTS_NAME, origin.prefix)

    return kept_graph(f"{digest}-{sha256_of_json(made_of)[:12]}", make)


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """Run the block's torch operations in this thread alone.

    A network's tail is small, and torch's other threads go on spinning for a while when they have had a part in it: on the
    cores that ONNX Runtime needs for the next network.

    The number belongs to the thread that sets it, but a new thread starts with what was set last: so what was there before the
    first of several blocks that run at a time is what each of them puts back.
    """
    with _torch_threads.lock:
        if not _torch_threads.blocks:
            _torch_threads.before = torch.get_num_threads()
        _torch_threads.blocks += 1
        torch.set_num_threads(1)
    try:
        yield
    finally:
        with _torch_threads.lock:
            _torch_threads.blocks -= 1
            torch.set_num_threads(_torch_threads.before)


class _TorchThreads:
    """How many blocks run in one thread now, and how many threads torch had before the first of them."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.blocks, self.before = 0, 1


_torch_threads = _TorchThreads()
