"""Quantise a model with its own split: ranges from its training part, the gate on its validation part."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesion_hub.config import CONFIG_NAME, EnsembleConfig, dump_json, with_graph
from lesion_hub.data import undecoded
from lesion_hub.data.sources import ReadResult
from lesion_hub.data.splits.manifest import image_digest
from lesion_hub.errors import ConfigError, DataError
from lesion_hub.evaluation.overlap import (
    NO_IMAGES,
    TrainingRecord,
    choose_images,
    choose_rows,
    data_name,
    training_records,
)
from lesion_hub.files import read_json, write_json, write_text
from lesion_hub.hub.layout import GRAPH_NAMES, METRICS_NAME, load_config
from lesion_hub.hub.store import resolve
from lesion_hub.inference import from_pretrained
from lesion_hub.inference.export import export_onnx
from lesion_hub.inference.quantization import CALIBRATION_IMAGES, QuantizedReport, quantize_onnx, spread
from lesion_hub.inference.rows import RowSource
from lesion_hub.progress import Progress

INT8_NAME = GRAPH_NAMES["int8"]
INT8_SECTION = "int8"
"""The key of metrics.json that holds what the gate measured of it."""


def quantize(
    model: str | Path,
    data: ReadResult,
    path: str | Path,
    *,
    revision: str | None = None,
    registry: str | Path | None = None,
    token: str | None = None,
    progress: Progress | None = None,
    **limits: Any,
) -> QuantizedReport:
    """Write a model as an 8-bit ONNX file, kept only if it answers as the float model does and faster.

    It is judged on the validation part of ``data``: by the model's own split where the data hold it, else by the one that the
    data bring, else on all of them, of which the model was trained on none. Ranges are measured on the training images that the
    data hold. ``limits`` are those of `quantize_onnx`: ``sensitivity_loss``, ``agreement`` and so on.

        quantize("dermoscopy-lite0", lesion_hub.data.read("data/ham10000"), "lite0.int8.onnx").kept.gate.agreement
    """
    found = resolve(model, revision, registry=registry, token=token)
    records = training_records(found, registry=registry, token=token)
    chosen, _ = choose_images(found.name, data, records, split="val")
    fitting = None if chosen.whole else _training_rows(data, records)
    predictor = from_pretrained(model, revision=revision, registry=registry, token=token)
    target = Path(path).expanduser()
    with TemporaryDirectory() as scratch:
        exported = export_onnx(predictor, Path(scratch) / "float.onnx").path
        return quantize_onnx(
            predictor,
            exported,
            target,
            _rows(data, chosen.rows),
            calibration=None if fitting is None else _rows(data, fitting[spread(len(fitting), CALIBRATION_IMAGES)]),
            progress=progress,
            **limits,
        )


def quantize_recorded(
    folder: str | Path,
    data: ReadResult,
    *,
    registry: str | Path | None = None,
    progress: Progress | None = None,
    **limits: Any,
) -> QuantizedReport:
    """Write the 8-bit file of the model in ``folder`` into that folder, its figures into metrics.json, for the card.

    With its sha256 in config.json it is published with the model.
    """
    place = Path(folder).expanduser()
    found = resolve(folder, registry=registry)
    if found.revision is not None:
        raise ConfigError(f"{found.name} {found.revision} is published and never changes; record into its run folder")
    config = load_config(place)
    if isinstance(config, EnsembleConfig):
        raise ConfigError(f"{place}: is an ensemble; record the 8-bit files of its members, each in its own folder")
    done = quantize(folder, data, place / INT8_NAME, registry=registry, progress=progress, **limits)
    write_text(place / CONFIG_NAME, dump_json(with_graph(config, done.sha256, "int8")))
    measured = read_json(place / METRICS_NAME, missing_ok=True)
    write_json(place / METRICS_NAME, {**measured, INT8_SECTION: card_section(done, data_name(data))})
    return done


def card_section(report: QuantizedReport, data: str) -> dict[str, Any]:
    """Give what metrics.json holds of a quantised file, as plain JSON values."""
    gate = report.kept.gate
    return {
        "file": INT8_NAME,
        "sha256": report.sha256,
        "bytes": report.bytes,
        "configuration": report.kept.configuration,
        "float_layers": len(report.kept.float_layers),
        "tried": len(report.tried),
        "data": data,
        "images": gate.images,
        "calibration_images": report.calibration,
        "limits": dict(report.limits),
        "agreement": gate.agreement,
        "largest_change": gate.largest_change,
        "classes": {
            name: {
                "images": count.images,
                "right_before": count.before,
                "right_after": count.after,
                "sensitivity_before": count.before / count.images,
                "sensitivity_after": count.after / count.images,
            }
            for name, count in gate.classes.items()
        },
        "speedup": dict(report.kept.speedup),
    }


def _training_rows(data: ReadResult, records: Sequence[TrainingRecord]) -> NDArray[np.int64] | None:
    """Find the rows of the training part, or of what the data hold of it; None where they hold no such image."""
    try:
        chosen = choose_rows(data, "train", records)
    except DataError:
        return None
    if not chosen.whole:
        return chosen.rows
    trained = frozenset.intersection(*(record.parts.get("train", NO_IMAGES).images for record in records))
    ids = data.dataset["image_id"][:]
    rows = [row for row in chosen.rows if image_digest(ids[row]) in trained]
    return np.array(rows) if rows else None


def _rows(data: ReadResult, rows: NDArray[np.int64]) -> RowSource:
    return RowSource(
        f"{len(rows)} rows of {data.report.place}", len(rows), undecoded(data.dataset.select(rows)), data.space.labels
    )
