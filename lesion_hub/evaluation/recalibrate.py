"""``calibrate`` a run that has no temperature yet, or an ensemble: fitted on validation, then made part of the model."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open

from lesion_hub.config import ENSEMBLE_NAME, EnsembleConfig, ModelConfig, OperatingPoint, dump_json, read_json
from lesion_hub.data.sources import read
from lesion_hub.errors import ConfigError, DataError
from lesion_hub.evaluation import operating_points
from lesion_hub.evaluation.assessment import assess, calibration_effect
from lesion_hub.evaluation.calibration import PROBABILITY_FLOOR, CalibrationResult, apply_temperature, calibrate
from lesion_hub.evaluation.predictions import check
from lesion_hub.evaluation.run import EvaluateOptions, select
from lesion_hub.evaluation.scoring import Progress, Scored, read_scored, score
from lesion_hub.evaluation.selection import memories
from lesion_hub.hub.atomic import write_text
from lesion_hub.hub.format import StorageType, fold_temperature, read_model, write_model
from lesion_hub.hub.layout import METRICS_NAME, WEIGHTS_NAME, load_config
from lesion_hub.hub.store import Resolved
from lesion_hub.inference import from_pretrained

VALIDATION_NAME = "predictions_validation.parquet"


@dataclass(frozen=True)
class Calibrated:
    """What was fitted, and the thresholds that were chosen on the calibrated validation predictions."""

    folder: Path
    result: CalibrationResult
    points: dict[str, OperatingPoint]


def calibrate_run(
    folder: str | Path,
    data: str | Path | None = None,
    *,
    registry: str | Path | None = None,
    progress: Progress | None = None,
) -> Calibrated:
    """Fit a temperature on validation predictions and make it part of the model in ``folder``.

    A model's goes into its last layer; an ensemble's into ensemble.json. Decisions stay as they are. The predictions are those
    that the run keeps, or those of the validation part of ``data``, which an ensemble needs. What is calibrated already is
    refused: a second temperature on top of the first would be fitted to the same images again.

        calibrate_run("runs/ham10000_lite0").result.temperature
    """
    place = Path(folder)
    config = load_config(place)
    before = read_json(place / METRICS_NAME) if (place / METRICS_NAME).is_file() else {}
    _refuse_calibrated(place, config, before)
    scored = _validation(place, config, data, registry, progress)
    result = calibrate(np.log(np.maximum(scored.probabilities, PROBABILITY_FLOOR)), scored.labels)
    tempered = replace(scored, probabilities=apply_temperature(scored.probabilities, result.temperature))
    done = Calibrated(place, result, _points(tempered))
    if isinstance(config, ModelConfig):
        _fold(place, result.temperature, done.points)
    else:
        changed = config.model_copy(update={"temperature": result.temperature, "operating_points": done.points})
        write_text(place / ENSEMBLE_NAME, dump_json(changed))
    _note(place, before, tempered, done)
    tempered.save(place / VALIDATION_NAME)
    return done


def _refuse_calibrated(folder: Path, config: ModelConfig | EnsembleConfig, before: dict[str, Any]) -> None:
    if isinstance(config, ModelConfig):
        temperature = config.lesion_hub.temperature
    else:
        temperature = config.temperature if config.temperature != 1.0 or "calibration" in before.get("validation", {}) else None
    if temperature is not None:
        raise ConfigError(f"{folder}: is calibrated already (temperature {temperature:.4g}); train or combine anew to refit")


def _validation(
    folder: Path,
    config: ModelConfig | EnsembleConfig,
    data: str | Path | None,
    registry: str | Path | None,
    progress: Progress | None,
) -> Scored:
    """Validation predictions of the model as it stands."""
    kept = folder / VALIDATION_NAME
    if data is None:
        if not kept.is_file():
            raise ConfigError(f"{kept}: no such file, so nothing to calibrate on; give the data set with --data")
        return read_scored(kept, config.space)
    found = Resolved(str(folder), folder, None)
    source = read(data)
    known = memories(found, registry=registry)
    subject = select(found, source, known, EvaluateOptions(split="val"), from_pretrained(folder, registry=registry))
    remembered = any("val" in model.parts for model in known)
    if subject.choice.whole or (remembered and not subject.choice.own):
        raise DataError(f"{data}: does not hold the validation images of the model's split; give the data it was trained on")
    return score(subject.predictor, subject.dataset, source.space, space=config.space, progress=progress)


def _points(scored: Scored) -> dict[str, OperatingPoint]:
    question = check(scored.probabilities, scored.labels, scored.space).malignancy()
    return {} if question is None else operating_points.choose(question.scores, question.truth)


def _fold(folder: Path, temperature: float, points: dict[str, OperatingPoint]) -> None:
    classifier, config = read_model(folder)
    fold_temperature(classifier, temperature)
    section = config.lesion_hub
    write_model(
        folder,
        classifier,
        training=section.training,
        temperature=temperature,
        operating_points=points,
        storage=_storage(folder),
    )


def _storage(folder: Path) -> StorageType:
    """The precision that the weights are stored in: a matrix of float32 says that they all are."""
    with safe_open(folder / WEIGHTS_NAME, framework="np") as stored:
        slices = [stored.get_slice(key) for key in stored.keys()]  # noqa: SIM118 - no mapping
    return "float32" if any(part.get_dtype() == "F32" and len(part.get_shape()) > 1 for part in slices) else "float16"


def _note(folder: Path, before: dict[str, Any], scored: Scored, result: Calibrated) -> None:
    """Into metrics.json: the validation results anew; what the test measured with the old probabilities is no longer true."""
    given = (scored.probabilities, scored.labels, scored.groups, scored.space)
    section = {
        **assess(*given, points=result.points),
        "calibration": calibration_effect(*given, result.result.temperature),
    }
    content = {name: value for name, value in before.items() if name not in ("validation", "test")}
    text = json.dumps({**content, "validation": section}, indent=2, ensure_ascii=False, allow_nan=False)
    write_text(folder / METRICS_NAME, text + "\n")
