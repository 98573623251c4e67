"""A network as an ONNX graph without weights: its tensors are those of the safetensors file that it lies beside.

``model.onnx`` maps ``pixel_values`` (N, 3, H, W) float32, normalised, to calibrated ``logits`` (N, C) and, where a network
can be cut (`models.network_cut`), to the stem's output, ``features``, from which a heat map is drawn. How
one is checked and opened is in `hub.onnx_file`.

The graph lies beside the weights and not in a folder of its own, because ONNX Runtime and ONNX's checker refuse a graph that
points out of its folder.
"""

from __future__ import annotations

import io
import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from lesion_hub.errors import ConfigError, StoreError, one_line
from lesion_hub.hub.layout import WEIGHTS_NAME
from lesion_hub.hub.onnx_file import FEATURES, INPUT, LOGITS, open_session
from lesion_hub.models import LesionClassifier
from lesion_hub.models.network_cut import cut

OPSET = 18
"""Old enough for the runtimes of the last years; timm's networks need nothing newer."""

LARGEST_DIFFERENCE = 1e-4
"""How far a probability of the graph may be from the network's."""

_MODULE = "network."
_NUMBERS = {"F16": 10, "F32": 1, "I64": 7, "BOOL": 9}  # safetensors' name of a type, and ONNX's number for it
_FLOAT32 = _NUMBERS["F32"]
_PARITY_BATCHES = (1, 3)


# ------------------------------------------------------------------------------------------------ writing


class _Outputs(nn.Module):
    """A classifier's network, cut if it can be: (N, 3, H, W) to (N, C) logits and the stem's output."""

    def __init__(self, classifier: LesionClassifier) -> None:
        super().__init__()
        self.network = classifier.network
        self._classifier = (classifier,)  # in a tuple, so that its tensors have one name

    def forward(self, images: Tensor) -> Any:
        try:
            parts = cut(self._classifier[0])
            state = parts.stem(images)
        except ConfigError:
            state = images
        if state is images:  # no cut, or one without a stem
            return self.network(images)
        return parts(state), state


def write_graph(classifier: LesionClassifier, weights: Path, prefix: str = "") -> bytes:
    """Make the graph of a classifier whose tensors are in the safetensors file ``weights``, under ``prefix`` and their keys.

    Needs the package onnx. One line where the network cannot be exported, or the graph's answers are not its own.
    """
    onnx = require_onnx()
    if classifier.dtype != torch.float32 or classifier.device.type != "cpu":
        raise ConfigError(f"{classifier.architecture}: is exported in float32 and on the CPU; move it there")
    module = _Outputs(classifier).eval()
    images = torch.zeros(2, *classifier.input_config.input_size)
    with _exporting(classifier):
        names = [LOGITS, FEATURES] if isinstance(module(images), tuple) else [LOGITS]
    batches = {name: {0: "batch"} for name in (INPUT, *names)}
    graph = traced(classifier, module, images, INPUT, names, export_params=False, dynamic_axes=batches)
    _take_weights_from(onnx, graph, weights, prefix)
    data = bytes(graph.SerializeToString(deterministic=True))
    _require_same_answers(classifier, module, data, weights.parent)
    return data


def traced(
    classifier: LesionClassifier, module: nn.Module, example: Tensor, source: str, outputs: list[str], **options: Any
) -> Any:
    """Trace a module of one input into an ONNX model, no weights folded; one line where it cannot be done.

    By torch.onnx's tracer and not its newer exporter: it takes half a second where that takes ten or more, and gives every
    tensor the name of its parameter, unfused. ``options`` are further ones of ``torch.onnx.export``.
    """
    stream = io.BytesIO()
    with _exporting(classifier):
        torch.onnx.export(
            module.eval(),
            (example,),
            cast(Any, stream),  # a stream will do, whatever the annotation says
            input_names=[source],
            output_names=outputs,
            opset_version=OPSET,
            dynamo=False,
            do_constant_folding=False,
            training=torch.onnx.TrainingMode.PRESERVE,
            **options,
        )
    return require_onnx().load_from_string(stream.getvalue())


@contextmanager
def _exporting(classifier: LesionClassifier) -> Iterator[None]:
    """Turn whatever an exporter meets in a network that it does not know into one line."""
    try:
        with quiet_exporter(), torch.no_grad():
            yield
    except Exception as error:  # noqa: BLE001 - see above
        raise ConfigError(f"{classifier.architecture}: cannot be exported ({one_line(error)[:200]})") from None


@torch.no_grad()
def _require_same_answers(classifier: LesionClassifier, module: nn.Module, data: bytes, folder: Path) -> None:
    """Raise one line unless the graph's outputs are the network's, on images of noise and whatever their number."""
    differs = ConfigError(f"{classifier.architecture}: its graph gives other answers than the network; it stays in torch")
    try:
        session = open_session(data, folder, torch.get_num_threads())
    except StoreError as error:
        raise ConfigError(str(error)) from None
    generator = torch.Generator().manual_seed(0)
    for count in _PARITY_BATCHES:
        images = torch.randn(count, *classifier.input_config.input_size, generator=generator)
        ours = module(images)
        try:
            found = [torch.from_numpy(output) for output in session.run(None, {INPUT: images.numpy()})]
        except Exception:  # noqa: BLE001 - ONNX Runtime's errors share no class of their own
            raise differs from None
        for i, (own, other) in enumerate(zip(ours if isinstance(ours, tuple) else (ours,), found, strict=True)):
            if i == 0:
                own, other = own.softmax(dim=1), other.softmax(dim=1)
            scale = max(1.0, float(own.abs().max()))
            if own.shape != other.shape or not float((own - other).abs().max()) <= LARGEST_DIFFERENCE * scale:
                raise differs


def require_onnx() -> Any:
    """Import onnx; where it is not installed, one line says how to get it."""
    try:
        return import_module("onnx")
    except ImportError:
        raise ConfigError("onnx is not installed, which exports networks; pip install 'lesion-hub[onnx]'") from None


@contextmanager
def errors_only(name: str | None) -> Iterator[None]:
    """Silence a logger (None: the root) below errors while the block runs."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


@contextmanager
def quiet_exporter() -> Iterator[None]:
    """Silence the exporter, which is checked by its answers: its warnings, and what it prints of a network it cannot export."""
    prints = torch._C._jit_onnx_log
    # It would print the whole graph on standard output, where a command's JSON goes; there is no option against that.
    torch._C._jit_onnx_log = lambda *_: None
    try:
        with errors_only("torch.onnx"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch._C._jit_onnx_log = prints


def _take_weights_from(onnx: Any, model: Any, weights: Path, prefix: str) -> None:
    """Turn the graph's inputs that are parameters into tensors of the safetensors file, cast to float32 where they are not."""
    graph, places = model.graph, _places(weights)
    parameters = {value.name: prefix + value.name.removeprefix(_MODULE) for value in graph.input if value.name != INPUT}
    missing = sorted(set(parameters.values()) - set(places))
    if missing:
        raise ConfigError(f"{weights}: holds no tensor {missing[0]}, which the network's graph needs")
    images = [value for value in graph.input if value.name == INPUT]
    del graph.input[:]
    graph.input.extend(images)
    casts = []
    for key in parameters.values():
        kind, shape, start, length = places[key]
        if kind not in _NUMBERS:
            raise ConfigError(f"{weights}: {key} is stored as {kind}, which no graph reads; store it as float32")
        tensor = graph.initializer.add()
        stored = key if kind != "F16" else f"{key}.{kind.lower()}"
        tensor.name, tensor.data_type = stored, _NUMBERS[kind]
        tensor.dims.extend(shape)
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for word, value in (("location", WEIGHTS_NAME), ("offset", start), ("length", length)):
            entry = tensor.external_data.add()
            entry.key, entry.value = word, str(value)
        if kind == "F16":  # folded when a session is made
            casts.append(onnx.helper.make_node("Cast", [stored], [key], name=f"{key}.cast", to=_FLOAT32))
    for node in graph.node:
        node.input[:] = [parameters.get(name, name) for name in node.input]
    for node in reversed(casts):
        graph.node.insert(0, node)
    graph.name, model.producer_name, model.producer_version = "lesion_hub", "", ""


def _places(weights: Path) -> dict[str, tuple[str, list[int], int, int]]:
    """Find each tensor of a safetensors file: its type, its shape, and where it starts and how long it is, in bytes."""
    with weights.open("rb") as stream:
        size = int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(size))
    found = {}
    for key, facts in header.items():
        if key != "__metadata__":
            start, end = facts["data_offsets"]
            found[key] = (facts["dtype"], facts["shape"], 8 + size + start, end - start)
    return found
