"""Quantise an exported file to 8 bits: kept only if it answers as the float file does, class by class, and faster.

A short ladder of configurations is tried, from the fastest to the safest, and the first that passes is kept. None depends on
the processor: without VNNI two products of an unsigned and a signed byte are added up in 16 bits, which overflows, so that a
file of full range would answer differently elsewhere than where it passed. Signed weights therefore have 7 bits, which is
fastest; unsigned ones, whose products are added up in 32, have 8.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from lesion_hub.errors import ConfigError, DataError, ImageError
from lesion_hub.files import sha256_of
from lesion_hub.hub.graph import errors_only, require_onnx
from lesion_hub.hub.onnx_file import LOGITS, cpu_session
from lesion_hub.inference.export import (
    Batch,
    ExportReport,
    as_one_member,
    kept_if_good,
    run_onnx,
    session_logits,
)
from lesion_hub.inference.members import Member
from lesion_hub.inference.predictor import Predictor
from lesion_hub.inference.preprocess import as_rgb
from lesion_hub.inference.rows import RowSource
from lesion_hub.progress import Progress

SENSITIVITY_LOSS = 0.01
AGREEMENT = 0.98
CALIBRATION_IMAGES = 300
_RANKING_IMAGES = 16
_BATCHES, _ROUNDS = (1, 32), 5  # of the comparison of speed
# What runs in 8 bits; pooling, the head and what else there is stay in float.
_OPERATORS = ("Conv", "MatMul", "Add", "Clip", "Relu", "MaxPool")
_WEIGHT_LIMIT = 63  # of a signed weight of 7 bits
# A session that rounds where the graph says so and computes in float: nothing overflows.
_AS_WRITTEN = MappingProxyType({"session.disable_quant_qdq": "1"})


@dataclass(frozen=True)
class Configuration:
    """How a network is quantised: the bits of its weights; the share of layers, the most sensitive ones, that stay in float."""

    weight_bits: Literal[7, 8]
    float_share: float

    def __str__(self) -> str:
        kept = f", the {self.float_share:.0%} of the layers that rounding moves most in float" if self.float_share else ""
        return f"weights of {self.weight_bits} bits{kept}"


LADDER = (
    Configuration(7, 0.0),
    Configuration(7, 0.10),
    Configuration(7, 0.25),
    Configuration(8, 0.10),
    Configuration(8, 0.25),
    Configuration(8, 0.50),
)
"""The configurations in the order in which they are tried."""


# ----------------------------------------------------------------------------------------------------------------- gate


@dataclass(frozen=True)
class ClassCount:
    """Of a class's ``images``: how many the float file takes for that class, and how many the quantised one."""

    images: int
    before: int
    after: int

    @property
    def loss(self) -> float:
        """How much sensitivity the class loses; negative where it gains."""
        return (self.before - self.after) / self.images


@dataclass(frozen=True)
class GateFigures:
    """What quantising changed on labelled images; ``largest_change`` is that of a probability, ``agreement`` of the answers."""

    images: int
    agreement: float
    largest_change: float
    classes: Mapping[str, ClassCount]

    @property
    def worst(self) -> str:
        """The class that loses most."""
        return max(self.classes, key=lambda name: self.classes[name].loss)

    def refusal(self, sensitivity_loss: float = SENSITIVITY_LOSS, agreement: float = AGREEMENT) -> str | None:
        """Say in numbers why these do not pass, None where they do.

        What a class loses is net. Of fewer than 1 / ``sensitivity_loss`` images not one may be lost.

        >>> GateFigures(50, 1.0, 0.2, {"df": ClassCount(12, 9, 8)}).refusal()
        'df loses 1 of its 12 images (sensitivity 0.750 to 0.667) and may lose 0.01, which is none of so few'
        """
        found = []
        count = self.classes[self.worst]
        if count.loss > sensitivity_loss + 1e-9:
            few = ", which is none of so few" if sensitivity_loss * count.images < 1 else ""
            found.append(
                f"{self.worst} loses {count.before - count.after} of its {count.images} images (sensitivity "
                f"{count.before / count.images:.3f} to {count.after / count.images:.3f}) and may lose {sensitivity_loss:g}{few}"
            )
        if self.agreement < agreement:
            found.append(f"{self.agreement:.1%} of {self.images} answers agree and {agreement:.1%} must")
        return "; ".join(found) or None


def compare_answers(before: Batch, after: Batch, labels: NDArray[np.int64], names: Sequence[str]) -> GateFigures:
    """Compare the (N, C) logits of two files on images whose (N,) ``labels`` index ``names``.

    >>> figures = compare_answers(np.eye(2), np.eye(2)[::-1], np.array([0, 1]), ["mel", "nv"])
    >>> figures.agreement, figures.classes["mel"]
    (0.0, ClassCount(images=1, before=1, after=0))
    """
    ours, theirs = before.argmax(axis=1), after.argmax(axis=1)
    counts = {}
    for i, name in enumerate(names):
        own = labels == i
        if own.any():
            counts[name] = ClassCount(int(own.sum()), int((ours[own] == i).sum()), int((theirs[own] == i).sum()))
    if not np.isfinite(after).all():  # NaN is no answer, whatever argmax makes of it
        return GateFigures(len(labels), 0.0, 1.0, {name: ClassCount(c.images, c.before, 0) for name, c in counts.items()})
    change = float(np.abs(softmax(before, axis=1) - softmax(after, axis=1)).max())
    return GateFigures(len(labels), float((ours == theirs).mean()), change, counts)


# ------------------------------------------------------------------------------------------------------------- quantise


@dataclass(frozen=True)
class Trial:
    """A configuration that was tried, and why it was ``refused``; the speed is only measured where the gate passes."""

    configuration: str
    gate: GateFigures
    float_layers: tuple[str, ...] = ()
    speedup: Mapping[str, float] = field(default_factory=dict)
    refused: str | None = None


@dataclass(frozen=True)
class QuantizedReport(ExportReport):
    """What was written. The last of ``tried`` is what was kept: its gate, its speed and its layers in float.

    ``speedup`` of a trial is how many times as fast as the float file it is on this machine, by threads and batch.
    ``calibration`` is the number of images that the ranges of activations were measured on.
    """

    precision: str = "int8"
    sha256: str = ""
    calibration: int = 0
    limits: Mapping[str, float] = field(default_factory=dict)
    tried: tuple[Trial, ...] = ()

    @property
    def kept(self) -> Trial:
        return self.tried[-1]


def quantize_onnx(
    model: Predictor,
    exported: str | Path,
    path: str | Path,
    source: RowSource,
    *,
    calibration: RowSource | None = None,
    sensitivity_loss: float = SENSITIVITY_LOSS,
    agreement: float = AGREEMENT,
    least_speedup: float = 1.0,
    ladder: Sequence[Configuration] = LADDER,
    progress: Progress | None = None,
) -> QuantizedReport:
    """Quantise an exported file to 8 bits, judged on labelled images.

    Args:
        model: the model that was exported; it prepares the images.
        exported: ONNX file with one input (N, 3, H, W) and the output ``logits``; further outputs are kept.
        path: file to write; nothing is written where no configuration passes.
        source: labelled images to judge on, best the model's validation part.
        calibration: images to measure ranges and sensitive layers on, best training ones; None takes those of ``source``.
        sensitivity_loss: most that any class may lose: a mean would hide a lost melanoma.
        agreement: least share of answers that are the float file's.
        least_speedup: a file that is not faster than this many times the float file, over all settings, is no use.
        ladder: configurations, tried in order.
        progress: called with (configurations done, in all).
    """
    member, origin, target = as_one_member(model), Path(exported).expanduser(), Path(path).expanduser()
    require_onnx()
    crops, labels = _labelled(member, source)
    fitting = crops if calibration is None else _labelled(member, calibration)[0]
    fitting = [fitting[i] for i in spread(len(fitting), CALIBRATION_IMAGES)]
    target.parent.mkdir(parents=True, exist_ok=True)
    whole, ranked, tried = run_onnx(origin, crops), None, list[Trial]()
    with kept_if_good(target) as aside, TemporaryDirectory() as scratch:
        prepared = _prepared(origin, Path(scratch))
        for number, configuration in enumerate(ladder):
            if progress:
                progress(number, len(ladder))
            if configuration.float_share and ranked is None:
                ranked = rank_layers(prepared, [fitting[i] for i in spread(len(fitting), _RANKING_IMAGES)])
            count = round(configuration.float_share * len(ranked or ()))
            layers = tuple((ranked or ())[:count])
            _quantize(prepared, aside, fitting, configuration, layers)
            small = run_onnx(aside, crops)
            gate = compare_answers(whole, small, labels, member.space.labels)
            refused, speedup = gate.refusal(sensitivity_loss, agreement), dict[str, float]()
            if refused is None:
                speedup = compare_speed(origin, aside, crops)
                mean = float(np.exp(np.mean(np.log(list(speedup.values())))))
                if not mean > least_speedup:
                    refused = f"it runs {mean:.2f} times as fast as the float file and must be over {least_speedup:g}"
            tried.append(Trial(str(configuration), gate, layers, speedup, refused))
            if refused is None:
                break
        if progress:
            progress(len(ladder), len(ladder))
        last = tried[-1]
        if last.refused is not None:
            raise ConfigError(
                f"{target}: not kept in 8 bits, none of {len(tried)} configurations passes: with {last.configuration}, "
                f"{last.refused}; use the float file"
            )
        size, digest = aside.stat().st_size, sha256_of(aside)
    return QuantizedReport(
        str(target),
        size,
        float(np.abs(whole - small).max()),
        sha256=digest,
        calibration=len(fitting),
        limits={"sensitivity_loss": sensitivity_loss, "agreement": agreement},
        tried=tuple(tried),
    )


def rank_layers(path: Path, images: Sequence[Batch]) -> list[str]:
    """Name the layers with weights, the one first that moves the logits most where it alone is rounded.

    Rounded are its weights, to 7 bits, and what goes in and comes out of it, to 8 bits over the range in ``images``.
    """
    onnx = require_onnx()
    graph = onnx.load(str(path)).graph
    stored = {weights.name for weights in graph.initializer}
    layers = [node for node in graph.node if node.op_type in ("Conv", "MatMul") and node.input[1] in stored]
    # A layer's output is what leaves the activation after it, where there is one: they run as one.
    readers: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    ends = {}
    for layer in layers:
        after = readers.get(layer.output[0], [])
        ends[layer.name] = after[0].output[0] if len(after) == 1 and after[0].op_type in ("Clip", "Relu") else layer.output[0]
    seen = {name for layer in layers for name in (layer.input[0], ends[layer.name])}
    values = _tensors(path, images, sorted(seen | {LOGITS}))
    errors = {}
    for layer in layers:
        rounded = onnx.load(str(path))
        weights = next(weights for weights in rounded.graph.initializer if weights.name == layer.input[1])
        _round_weights(weights, 0 if layer.op_type == "Conv" else len(weights.dims) - 1)
        for name in {layer.input[0], ends[layer.name]} - {LOGITS}:
            _round_tensor(rounded.graph, name, min(0.0, float(values[name].min())), max(0.0, float(values[name].max())))
        session = cpu_session(rounded.SerializeToString(), entries=_AS_WRITTEN)
        errors[layer.name] = float(np.square(session_logits(session, images) - values[LOGITS]).mean())
    return sorted(errors, key=lambda name: -errors[name])


def _tensors(path: Path, images: Sequence[Batch], names: Sequence[str]) -> dict[str, Batch]:
    """Compute tensors of a graph by name, on all images at once."""
    onnx = require_onnx()
    model = onnx.load(str(path))
    outputs, given = {output.name for output in model.graph.output}, {entry.name for entry in model.graph.input}
    inner = [name for name in names if name not in given]
    model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in inner if name not in outputs)
    session = cpu_session(model.SerializeToString())
    batch = np.stack(images)
    return dict.fromkeys(given, batch) | dict(zip(inner, session.run(inner, dict.fromkeys(given, batch)), strict=True))


def _round_weights(weights: Any, axis: int) -> None:
    """Round a stored tensor to 7 bits, with one scale per entry of ``axis``."""
    onnx = require_onnx()
    exact = onnx.numpy_helper.to_array(weights)
    largest = np.abs(exact).max(axis=tuple(i for i in range(exact.ndim) if i != axis), keepdims=True)
    scale = np.maximum(largest, 1e-12) / _WEIGHT_LIMIT
    weights.CopyFrom(onnx.numpy_helper.from_array((np.round(exact / scale) * scale).astype(exact.dtype), weights.name))


def _round_tensor(graph: Any, name: str, low: float, high: float) -> None:
    """Let every reader of a tensor read it rounded to 8 bits."""
    onnx = require_onnx()
    scale = max(high - low, 1e-9) / 255
    zero = round(-low / scale)
    parts = [f"{name}_{part}" for part in ("rounding_scale", "rounding_zero", "in_8_bits", "rounded")]
    stored = (np.array(scale, np.float32), np.array(zero, np.uint8))
    graph.initializer.extend(onnx.numpy_helper.from_array(value, part) for value, part in zip(stored, parts, strict=False))
    for node in graph.node:
        for i, read in enumerate(node.input):
            if read == name:
                node.input[i] = parts[3]
    nodes = [
        onnx.helper.make_node("QuantizeLinear", [name, *parts[:2]], [parts[2]]),
        onnx.helper.make_node("DequantizeLinear", [parts[2], *parts[:2]], [parts[3]]),
    ]
    place = next((i + 1 for i, node in enumerate(graph.node) if name in node.output), 0)
    for offset, node in enumerate(nodes):
        graph.node.insert(place + offset, node)


def compare_speed(exported: Path, quantized: Path, images: Sequence[Batch]) -> dict[str, float]:
    """Measure how many times as fast as the float file the quantised one is, by threads and batch; they take turns."""
    found = {}
    for threads in sorted({1, min(2, os.cpu_count() or 1)}):
        sessions = [cpu_session(path, threads) for path in (exported, quantized)]
        for size in _BATCHES:
            batch = [images[i % len(images)] for i in range(size)]
            seconds = np.full((_ROUNDS, 2), np.inf)
            for turn in range(-1, _ROUNDS):  # the first one warms up
                for i, session in enumerate(sessions):
                    started = time.perf_counter()
                    session_logits(session, batch)
                    if turn >= 0:
                        seconds[turn, i] = time.perf_counter() - started
            best = seconds.min(axis=0)
            found[f"{threads} thread{'s' * (threads > 1)}, batch {size}"] = float(best[0] / best[1])
    return found


def _prepared(origin: Path, scratch: Path) -> Path:
    """Fold normalisation into convolutions and infer shapes, as the quantiser wants it."""
    prepared = scratch / "prepared.onnx"
    with errors_only(None):
        import_module("onnxruntime.quantization.shape_inference").quant_pre_process(str(origin), str(prepared))
    return prepared


def _quantize(
    prepared: Path, path: Path, images: Sequence[Batch], configuration: Configuration, float_layers: Sequence[str]
) -> None:
    onnx = require_onnx()
    quantization = import_module("onnxruntime.quantization")
    name = onnx.load(str(prepared), load_external_data=False).graph.input[0].name
    signed = configuration.weight_bits == 7
    with errors_only(None):
        quantization.quantize_static(
            str(prepared),
            str(path),
            _Calibration(name, images),
            op_types_to_quantize=list(_OPERATORS),
            per_channel=True,
            reduce_range=signed,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8 if signed else quantization.QuantType.QUInt8,
            nodes_to_exclude=list(float_layers),
        )


class _Calibration:
    """Feeds prepared images to onnxruntime's quantiser, one at a time."""

    def __init__(self, name: str, images: Sequence[Batch]) -> None:
        self._name, self._images = name, iter(images)

    def get_next(self) -> dict[str, Batch] | None:
        image = next(self._images, None)
        return None if image is None else {self._name: image[None]}


def spread(length: int, count: int) -> NDArray[np.int64]:
    """Choose ``count`` of ``length`` places at even distances, or all where there are fewer.

    >>> spread(9, 3)
    array([0, 4, 8])
    """
    return np.linspace(0, length - 1, min(count, length)).astype(np.int64)


def _labelled(member: Member, source: RowSource) -> tuple[list[Batch], NDArray[np.int64]]:
    """Prepare images with their labels; images that cannot be read, or whose label is of another space, are left out."""
    images, labels = [], []
    for row in source:
        if row.truth is None or row.truth not in member.space:
            continue
        try:
            image = as_rgb(row.image)
        except ImageError:
            continue
        images.append(np.asarray(member.prepare([image])[0].float().cpu().contiguous().numpy()))
        labels.append(member.space.index(row.truth))
    if not images:
        raise DataError(f"no readable image has a label of {member.space.name!r}; judge on labelled validation data")
    return images, np.array(labels, dtype=np.int64)
