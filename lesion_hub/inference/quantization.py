"""Quantise an exported file: it is only kept if no class loses sensitivity for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lesion_hub.errors import ConfigError, DataError, ImageError
from lesion_hub.inference.export import (
    INPUT,
    Batch,
    ExportReport,
    as_one_member,
    errors_only,
    kept_if_good,
    onnx_libraries,
    run_onnx,
)
from lesion_hub.inference.members import Member
from lesion_hub.inference.predictor import Predictor
from lesion_hub.inference.preprocess import as_rgb
from lesion_hub.inference.rows import RowSource

RECALL_DROP = 0.02
CALIBRATION_IMAGES = 64


@dataclass(frozen=True)
class QuantizedReport(ExportReport):
    """What was written: ``recall`` holds each class's before and after, on ``images`` labelled images."""

    precision: str = "int8"
    images: int = 0
    recall: Mapping[str, tuple[float, float]] | None = None


def quantize_onnx(
    model: Predictor, exported: str | Path, path: str | Path, source: RowSource, *, recall_drop: float = RECALL_DROP
) -> QuantizedReport:
    """Quantise an exported file to 8 bits, calibrated and judged on labelled images.

    The file is kept only if no class's recall falls by more than ``recall_drop``: a mean would hide a lost melanoma.
    """
    member, origin, target = as_one_member(model), Path(exported).expanduser(), Path(path).expanduser()
    crops, labels = _labelled(member, source)
    onnx_libraries()
    quantization = import_module("onnxruntime.quantization")
    with kept_if_good(target) as aside:
        calibration = _Calibration(crops[:: max(1, len(crops) // CALIBRATION_IMAGES)][:CALIBRATION_IMAGES])
        with errors_only(None):
            quantization.quantize_static(str(origin), str(aside), calibration, per_channel=True)
        whole, small = run_onnx(origin, crops), run_onnx(aside, crops)
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
    return QuantizedReport(str(target), target.stat().st_size, difference, "int8", len(labels), recall)


class _Calibration:
    """Feeds prepared images to onnxruntime's quantiser, one at a time."""

    def __init__(self, images: Sequence[Batch]) -> None:
        self._images = iter(images)

    def get_next(self) -> dict[str, Batch] | None:
        image = next(self._images, None)
        return None if image is None else {INPUT: image[None]}


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
