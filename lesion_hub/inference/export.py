"""Export to ONNX: the file is only kept when it says what the model says, and, quantised, when no class suffers for it."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lesion_hub.errors import ConfigError, DataError, ImageError
from lesion_hub.inference.inputs import as_rgb
from lesion_hub.inference.members import Member
from lesion_hub.inference.predictor import Predictor
from lesion_hub.inference.rows import Row, RowSource

TOLERANCE = 1e-3
RECALL_DROP = 0.02
CALIBRATION_IMAGES = 64
_INPUT, _OUTPUT = "images", "logits"
_PARITY_BATCHES = (1, 3)

Array = NDArray[np.float32]


@dataclass(frozen=True)
class ExportReport:
    """What was written, and how far it is from the model.

    ``difference`` is the largest of the logits' on random inputs. Of a quantised file, ``recall`` holds each class's before
    and after, on ``images`` labelled images.
    """

    path: str
    bytes: int
    difference: float
    quantized: bool = False
    images: int = 0
    recall: Mapping[str, tuple[float, float]] | None = None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class _Logits(nn.Module):
    """The network as (N, 3, H, W) normalised images to (N, C) logits."""

    def __init__(self, member: Member) -> None:
        super().__init__()
        self.network = member.classifier.network

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images)


def export_onnx(model: Predictor, path: str | Path, *, tolerance: float = TOLERANCE) -> ExportReport:
    """Write a single model as ONNX: input ``images`` (N, 3, H, W) float32, normalised; output ``logits`` (N, C).

    Labels and preprocessing stand in the file's metadata. A network that takes patient metadata is exported as if nothing
    were known of the patient. Needs ``pip install 'lesion-hub[onnx]'``. A file that differs by more than ``tolerance`` in any
    logit is not kept.

    >>> export_onnx(from_pretrained("ham-lite0"), "ham-lite0.onnx").difference < 1e-3  # doctest: +SKIP
    True
    """
    member, target = _only(model), Path(path).expanduser()
    onnx, _ = _libraries()
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.with_name(f".{target.name}.tmp")
    try:
        _write(member, aside)
        _describe(onnx, aside, member)
        difference = _difference(member, aside)
        if not difference <= tolerance:
            raise ConfigError(f"{target}: differs from the model by {difference:.2g} in a logit, over {tolerance:g}; not kept")
        aside.replace(target)
    finally:
        aside.unlink(missing_ok=True)
    return ExportReport(str(target), target.stat().st_size, difference)


def quantize_onnx(
    model: Predictor, exported: str | Path, path: str | Path, source: RowSource, *, recall_drop: float = RECALL_DROP
) -> ExportReport:
    """Quantise an exported file to 8 bits, calibrated and judged on labelled images.

    The file is kept only if no class's recall falls by more than ``recall_drop``: a mean would hide a lost melanoma.
    """
    member, origin, target = _only(model), Path(exported).expanduser(), Path(path).expanduser()
    crops, labels = _labelled(member, source)
    aside = target.with_name(f".{target.name}.tmp")
    try:
        _quantize(origin, aside, crops[:: max(1, len(crops) // CALIBRATION_IMAGES)][:CALIBRATION_IMAGES])
        whole, small = _run(origin, crops), _run(aside, crops)
        recall = _recalls(member, labels, whole, small)
        lost = {name: before - after for name, (before, after) in recall.items() if before - after > recall_drop}
        if lost:
            worst = max(lost, key=lambda name: lost[name])
            before, after = recall[worst]
            raise ConfigError(
                f"{target}: quantised, the recall of {worst} falls from {before:.3f} to {after:.3f}, by more than "
                f"{recall_drop:g}; not kept, use the float file or calibrate on more images"
            )
        aside.replace(target)
    finally:
        aside.unlink(missing_ok=True)
    difference = float(np.abs(whole - small).max())
    return ExportReport(str(target), target.stat().st_size, difference, True, len(labels), recall)


def _only(model: Predictor) -> Member:
    if len(model.members) != 1:
        names = ", ".join(member.name for member in model.members)
        raise ConfigError(f"{model.name} is an ensemble; export its members one by one: {names}")
    return model.members[0]


def _libraries() -> tuple[Any, Any]:
    try:
        import_module("onnxscript")
        return import_module("onnx"), import_module("onnxruntime")
    except ImportError as error:
        raise ConfigError(f"{error.name} is not installed; pip install 'lesion-hub[onnx]'") from None


def _write(member: Member, path: Path) -> None:
    """Through torch.export, with any number of images."""
    size = member.classifier.input_config.input_size
    example = torch.zeros(2, *size, device=member.classifier.device, dtype=member.classifier.dtype)
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                _Logits(member).eval(),
                (example,),
                str(path),
                input_names=[_INPUT],
                output_names=[_OUTPUT],
                dynamic_shapes=({0: torch.export.Dim.DYNAMIC},),
                dynamo=True,
                external_data=False,
                verbose=False,
            )
    finally:
        logger.setLevel(level)


def _describe(onnx: Any, path: Path, member: Member) -> None:
    """Labels and preprocessing into the file, so that it can be used on its own."""
    graph = onnx.load(str(path))
    config = member.classifier.input_config
    facts = {
        "labels": json.dumps(list(member.space.labels)),
        "label_space": member.space.name,
        "input_size": json.dumps(config.input_size),
        "mean": json.dumps(config.mean),
        "std": json.dumps(config.std),
        "interpolation": config.interpolation,
        "crop_pct": str(config.crop_pct),
        "crop_mode": config.crop_mode,
    }
    onnx.helper.set_model_props(graph, facts)
    onnx.checker.check_model(graph)
    onnx.save(graph, str(path))


def _difference(member: Member, path: Path) -> float:
    generator = torch.Generator().manual_seed(0)
    size, worst = member.classifier.input_config.input_size, 0.0
    for count in _PARITY_BATCHES:
        batch = torch.randn(count, *size, generator=generator)
        ours = member.score(batch.to(member.classifier.device, member.classifier.dtype)).cpu().numpy()
        worst = max(worst, float(np.abs(_run(path, [image.numpy() for image in batch]) - ours).max()))
    return worst


def _run(path: Path, images: Sequence[Array]) -> Array:
    """(N, C) logits of an ONNX file on the CPU."""
    _, runtime = _libraries()
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    chunks = [np.stack(images[i : i + 32]) for i in range(0, len(images), 32)]
    return np.concatenate([session.run([_OUTPUT], {_INPUT: chunk})[0] for chunk in chunks])


class _Calibration:
    """Feeds prepared images to onnxruntime's quantiser, one at a time."""

    def __init__(self, images: Sequence[Array]) -> None:
        self._images = iter(images)

    def get_next(self) -> dict[str, Array] | None:
        image = next(self._images, None)
        return None if image is None else {_INPUT: image[None]}


def _quantize(origin: Path, path: Path, images: Sequence[Array]) -> None:
    _libraries()
    quantization = import_module("onnxruntime.quantization")
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        quantization.quantize_static(str(origin), str(path), _Calibration(images), per_channel=True)
    finally:
        logger.setLevel(level)


def _labelled(member: Member, source: RowSource) -> tuple[list[Array], NDArray[np.int64]]:
    """Prepared images and their labels; images that cannot be read, or whose label is of another space, are left out."""
    rows = [row for row in source if row.truth is not None and row.truth in member.space]
    found = [(image, row) for row in rows if (image := _prepared(member, row)) is not None]
    if not found:
        raise DataError(f"no readable image has a label of {member.space.name!r}; judge on labelled validation data")
    labels = np.array([member.space.index(str(row.truth)) for _, row in found], dtype=np.int64)
    return [image for image, _ in found], labels


def _prepared(member: Member, row: Row) -> Array | None:
    try:
        return np.asarray(member.prepare([as_rgb(row.image)])[0].float().cpu().contiguous().numpy())
    except ImageError:
        return None


def _recalls(member: Member, labels: NDArray[np.int64], whole: Array, small: Array) -> dict[str, tuple[float, float]]:
    """Each present class's recall before and after."""
    before, after = whole.argmax(axis=1), small.argmax(axis=1)
    return {
        name: (float((before[labels == i] == i).mean()), float((after[labels == i] == i).mean()))
        for i, name in enumerate(member.space.labels)
        if (labels == i).any()
    }
