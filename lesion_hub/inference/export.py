"""Export to ONNX: a file is only kept if its logits are the model's, and, quantised, if no class loses recall for it."""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from lesion_hub.errors import ConfigError, DataError, ImageError
from lesion_hub.inference.members import Member
from lesion_hub.inference.predictor import Predictor
from lesion_hub.inference.preprocess import as_rgb
from lesion_hub.inference.rows import RowSource
from lesion_hub.models.joint import join

_Array: TypeAlias = NDArray[np.float32]

TOLERANCE = 1e-3
RECALL_DROP = 0.02
CALIBRATION_IMAGES = 64
_INPUT, _OUTPUT = "images", "logits"
_PARITY_BATCHES = (1, 3)


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


def export_onnx(model: Predictor, path: str | Path, *, tolerance: float = TOLERANCE) -> ExportReport:
    """Write a model as ONNX: input ``images`` (N, 3, H, W) float32, normalised; output ``logits`` (N, C).

    An ensemble becomes one network, which makes each member's input of the one image (see ``joint.shared_input``). Labels
    and preprocessing stand in the file's metadata. A network that takes patient metadata is exported as if nothing
    were known of the patient. Needs ``pip install 'lesion-hub[onnx]'``. A file that differs by more than ``tolerance`` in any
    logit is not kept.

    >>> export_onnx(from_pretrained("ham-lite0"), "ham-lite0.onnx").difference < 1e-3  # doctest: +SKIP
    True
    """
    member, target = _as_one(model), Path(path).expanduser()
    onnx, _ = _libraries()
    target.parent.mkdir(parents=True, exist_ok=True)
    with _kept_if_good(target) as aside:
        _write(member, aside)
        _describe(onnx, aside, member)
        difference = _difference(member, aside)
        if not difference <= tolerance:
            raise ConfigError(f"{target}: differs from the model by {difference:.2g} in a logit, over {tolerance:g}; not kept")
    return ExportReport(str(target), target.stat().st_size, difference)


def quantize_onnx(
    model: Predictor, exported: str | Path, path: str | Path, source: RowSource, *, recall_drop: float = RECALL_DROP
) -> ExportReport:
    """Quantise an exported file to 8 bits, calibrated and judged on labelled images.

    The file is kept only if no class's recall falls by more than ``recall_drop``: a mean would hide a lost melanoma.
    """
    member, origin, target = _as_one(model), Path(exported).expanduser(), Path(path).expanduser()
    crops, labels = _labelled(member, source)
    _libraries()
    quantization = import_module("onnxruntime.quantization")
    with _kept_if_good(target) as aside:
        calibration = _Calibration(crops[:: max(1, len(crops) // CALIBRATION_IMAGES)][:CALIBRATION_IMAGES])
        with _errors_only(None):
            quantization.quantize_static(str(origin), str(aside), calibration, per_channel=True)
        whole, small = _run(origin, crops), _run(aside, crops)
        recall = {}
        for i, name in enumerate(member.space.labels):
            own = labels == i
            if own.any():
                recall[name] = float((whole[own].argmax(axis=1) == i).mean()), float((small[own].argmax(axis=1) == i).mean())
        worst = max(recall, key=lambda name: recall[name][0] - recall[name][1])
        before, after = recall[worst]
        if before - after > recall_drop:
            raise ConfigError(
                f"{target}: quantised, the recall of {worst} falls from {before:.3f} to {after:.3f}, by more than "
                f"{recall_drop:g}; not kept, use the float file or calibrate on more images"
            )
    difference = float(np.abs(whole - small).max())
    return ExportReport(str(target), target.stat().st_size, difference, True, len(labels), recall)


def _as_one(model: Predictor) -> Member:
    """Return the only member; of an ensemble all members as one network, with what combines them."""
    if len(model.members) == 1:
        return model.members[0]
    how = model.combination
    classifiers = [member.classifier for member in model.members]
    joined = join(classifiers, model.space, how.maps, weights=how.weights, combine=how.combine, temperature=how.temperature)
    return Member(model.name, joined)


@contextmanager
def _kept_if_good(target: Path) -> Iterator[Path]:
    """Give a path beside ``target`` that becomes it when the block ends well, and is removed when it raises."""
    aside = target.with_name(f".{target.name}.tmp")
    try:
        yield aside
        aside.replace(target)
    finally:
        aside.unlink(missing_ok=True)


@contextmanager
def _errors_only(name: str | None) -> Iterator[None]:
    """Silence a logger (None: the root) below errors while the block runs."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _libraries() -> tuple[Any, Any]:
    """Import onnx and onnxruntime; where the extra is not installed, one line says how to get it."""
    try:
        import_module("onnxscript")
        return import_module("onnx"), import_module("onnxruntime")
    except ImportError as error:
        raise ConfigError(f"{error.name} is not installed; pip install 'lesion-hub[onnx]'") from None


class _Logits(nn.Module):
    """The network as (N, 3, H, W) normalised images to (N, C) logits."""

    def __init__(self, member: Member) -> None:
        super().__init__()
        self.network = member.classifier.network

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images)


def _write(member: Member, path: Path) -> None:
    """Write the network as ONNX, for any number of images, through torch.export."""
    size = member.classifier.input_config.input_size
    example = torch.zeros(2, *size, device=member.classifier.device, dtype=member.classifier.dtype)
    with _errors_only("torch.onnx"), warnings.catch_warnings(), torch.no_grad():
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


def _describe(onnx: Any, path: Path, member: Member) -> None:
    """Write labels and preprocessing into the file, so that it can be used on its own."""
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
    """Measure the largest difference of a logit between file and model, on random inputs."""
    generator = torch.Generator().manual_seed(0)
    size, worst = member.classifier.input_config.input_size, 0.0
    for count in _PARITY_BATCHES:
        batch = torch.randn(count, *size, generator=generator)
        ours = member.score(batch.to(member.classifier.device, member.classifier.dtype)).cpu().numpy()
        worst = max(worst, float(np.abs(_run(path, [image.numpy() for image in batch]) - ours).max()))
    return worst


def _run(path: Path, images: Sequence[_Array]) -> _Array:
    """Compute the (N, C) logits of an ONNX file on the CPU."""
    _, runtime = _libraries()
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    chunks = [np.stack(images[i : i + 32]) for i in range(0, len(images), 32)]
    return np.concatenate([session.run([_OUTPUT], {_INPUT: chunk})[0] for chunk in chunks])


class _Calibration:
    """Feeds prepared images to onnxruntime's quantiser, one at a time."""

    def __init__(self, images: Sequence[_Array]) -> None:
        self._images = iter(images)

    def get_next(self) -> dict[str, _Array] | None:
        image = next(self._images, None)
        return None if image is None else {_INPUT: image[None]}


def _labelled(member: Member, source: RowSource) -> tuple[list[_Array], NDArray[np.int64]]:
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
