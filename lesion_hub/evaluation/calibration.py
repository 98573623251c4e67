"""Calibration: fit a temperature on validation predictions alone, measure its effect, fold it into a model that has none.

Dividing logits by one positive number changes how confident a model is, and no decision. As a function of the inverse
temperature the negative log-likelihood is convex, so the fit is the root of one increasing function: no step size, no
starting point, no local minimum.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from safetensors import safe_open
from scipy.optimize import brentq
from scipy.special import log_softmax, softmax

from lesion_hub.config import CONFIG_NAME, AnswerRules, EnsembleConfig, ModelConfig, OperatingPoint, dump_json
from lesion_hub.data.sources import ReadResult, read
from lesion_hub.errors import ConfigError, DataError
from lesion_hub.evaluation import operating_points
from lesion_hub.evaluation.assessment import assess
from lesion_hub.evaluation.intervals import RESAMPLES, bootstrap
from lesion_hub.evaluation.metrics import BINS, PROBABILITY_FLOOR, bin_of
from lesion_hub.evaluation.overlap import FITTED, choose_images, data_name, fitted_on, training_records
from lesion_hub.evaluation.predictions import checked_labels, checked_scores, log_probabilities
from lesion_hub.evaluation.rules import RULE_RESULTS, fit_rules, measure_rules, without_results
from lesion_hub.evaluation.scoring import Scored, read_scored, score_dataset
from lesion_hub.files import read_json, write_json, write_text
from lesion_hub.hub.bundle import write_ensemble
from lesion_hub.hub.format import StorageType, fold_temperature, read_model, write_model
from lesion_hub.hub.gate_file import carry_gate, read_gate
from lesion_hub.hub.layout import METRICS_NAME, WEIGHTS_NAME, load_config, own_section
from lesion_hub.hub.store import Resolved
from lesion_hub.inference import from_pretrained
from lesion_hub.inference.ensemble import mean_nll
from lesion_hub.progress import Progress
from lesion_hub.taxonomy import LabelSpace

TEMPERATURE_BOUNDS = (0.05, 20.0)
_WIDE = 10.0  # the mean deviation of an image's logits, beyond which the upper bound grows with it
VALIDATION_NAME = "predictions_validation.parquet"
_AT_BOUND = 1e-3
_ROUNDING = 0.01  # nats that storing the weights in half precision may cost


class NoTemperature(DataError):
    """No temperature fits: the search ended at one of its bounds."""


@dataclass(frozen=True)
class CalibrationResult:
    """A fitted temperature and what it did to the data it was fitted on; ``note`` says when it had nothing to do."""

    temperature: float
    nll_before: float
    nll_after: float
    ece_before: float
    ece_after: float
    examples: int
    note: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as JSON-able values."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class ReliabilityBins:
    """A reliability diagram: (bins + 1,) edges; (bins,) example counts, mean confidence and accuracy, NaN in empty bins."""

    edges: NDArray[np.float64]
    counts: NDArray[np.int64]
    confidence: NDArray[np.float64]
    accuracy: NDArray[np.float64]


@dataclass(frozen=True)
class CalibratedRun:
    """What ``calibrate_run`` fitted, and the operating points and rules chosen on the calibrated validation predictions.

    ``result`` is None where the model was calibrated before, and only the rules are new.
    """

    folder: Path
    result: CalibrationResult | None
    points: dict[str, OperatingPoint]
    rules: AnswerRules


def fit_temperature(logits: ArrayLike, labels: ArrayLike) -> float:
    """Return the temperature that minimises the NLL of ``softmax(logits / temperature)``, within `temperature_bounds`.

    ``logits`` are (N, C) logits or log-probabilities (an ensemble's log of its mean probability), ``labels`` (N,) integers in
    [0, C). The NLL at the result is never above that at 1. A temperature at a bound is no fit, and raises `NoTemperature`.

    >>> 3.6 < fit_temperature([[4.0, 0.0]] * 4, [0, 0, 0, 1]) < 3.7
    True
    """
    return fit_calibration(logits, labels).temperature


def fit_calibration(logits: ArrayLike, labels: ArrayLike) -> CalibrationResult:
    """Fit the temperature as ``fit_temperature`` does and report NLL and ECE before and after."""
    scores = checked_scores(logits, "logits")
    truth = checked_labels(labels, scores.shape[1], rows=len(scores), where="the logits' columns")
    # The logarithm of a zero becomes that of the floor, so that one impossible class cannot make the likelihood infinite.
    top = scores.max(axis=1, keepdims=True)
    scores = np.where(np.isneginf(scores), np.where(np.isfinite(top), top, 0.0) + np.log(PROBABILITY_FLOOR), scores)
    bounds = temperature_bounds(scores)
    temperature, note = _minimise(scores, truth, bounds)
    _refuse_bound(temperature, len(truth), bounds)
    before, after = (softmax(scores / t, axis=1) for t in (1.0, temperature))
    nll_before, nll_after = (
        float(-log_softmax(scores / t, axis=1)[np.arange(len(truth)), truth].mean()) for t in (1.0, temperature)
    )
    if nll_after > nll_before:
        temperature, note, after, nll_after = 1.0, "the logits are as calibrated as they get", before, nll_before
    return CalibrationResult(
        temperature=temperature,
        nll_before=nll_before,
        nll_after=nll_after,
        ece_before=expected_calibration_error(before, truth),
        ece_after=expected_calibration_error(after, truth),
        examples=len(truth),
        note=note,
    )


def temperature_bounds(logits: NDArray[np.float64]) -> tuple[float, float]:
    """Return the coldest and the hottest temperature to search for (N, C) ``logits``: ``TEMPERATURE_BOUNDS``, the upper one
    raised for logits of a network that grew without limit, which may rank well and need more.

    >>> temperature_bounds(np.array([[3.0, -3.0]])), temperature_bounds(np.array([[150.0, -150.0]]))
    ((0.05, 20.0), (0.05, 300.0))
    """
    coldest, hottest = TEMPERATURE_BOUNDS
    return coldest, hottest * max(1.0, float(logits.std(axis=1).mean()) / _WIDE)


def _refuse_bound(temperature: float, examples: int, bounds: tuple[float, float]) -> None:
    """Raise one line where the search ended at one of its bounds: then there is no temperature that fits the labels."""
    coldest, hottest = bounds
    if temperature >= hottest * (1 - _AT_BOUND):
        raise NoTemperature(
            f"no temperature calibrates these {examples} images: the search ended at {temperature:.4g}, its upper bound, since "
            "the scores say nothing of the labels; check that the labels are right and the model's own, or train longer"
        )
    if temperature <= coldest * (1 + _AT_BOUND):
        raise NoTemperature(
            f"no temperature calibrates these {examples} images: the search ended at {temperature:.4g}, its lower bound, since "
            "every label is the top one by far; give more images, and check that the model was not trained on them"
        )


def refuse_worse(before: Scored, after: Scored) -> None:
    """Raise one line where a temperature made the NLL of the images that it was fitted on worse than ``before``."""
    first, second = (mean_nll(scored.probabilities, scored.labels) for scored in (before, after))
    if second > first + _ROUNDING:
        raise DataError(
            f"the fitted temperature worsens the NLL of the {len(after)} images that it was fitted on, from {first:.4g} to "
            f"{second:.4g}; check that their labels are those that the model was trained with, in its order"
        )


def _minimise(scores: NDArray[np.float64], labels: NDArray[np.int64], bounds: tuple[float, float]) -> tuple[float, str | None]:
    """Find the temperature of least NLL within ``bounds`` for (N, C) ``scores``, and a note where none changes anything."""
    coldest, hottest = bounds
    truth = scores[np.arange(len(labels)), labels]

    def slope(log_inverse: float) -> float:
        """Differentiate the NLL by the inverse temperature; the result increases, hence has at most one root."""
        inverse = np.exp(log_inverse)
        return float(((softmax(scores * inverse, axis=1) * scores).sum(axis=1) - truth).mean())

    low, high = -np.log(hottest), -np.log(coldest)
    at_low, at_high = slope(low), slope(high)
    if at_low >= 0 >= at_high:
        return 1.0, "the logits do not depend on the class, so no temperature changes them"
    if at_high <= 0:
        return coldest, None
    if at_low >= 0:
        return hottest, None
    # A root is known to the last digits, a minimum (scipy's minimize_scalar) to half of them; published temperatures are roots.
    return float(np.exp(-brentq(slope, low, high, xtol=1e-10))), None


def apply_temperature(probabilities: ArrayLike, temperature: float) -> NDArray[np.float64]:
    """Apply a temperature to (..., C) probabilities, through their logarithm, as an ensemble does to its mean probability.

    >>> apply_temperature([[0.8, 0.2]], 2.0).round(3).tolist()
    [[0.667, 0.333]]
    """
    return softmax(log_probabilities(probabilities) / temperature, axis=-1)


def reliability_bins(probabilities: ArrayLike, labels: ArrayLike, bins: int = BINS) -> ReliabilityBins:
    """Compare confidence with accuracy of the top label, for (N, C) ``probabilities`` and (N,) ``labels``."""
    values = checked_scores(probabilities, "probabilities")
    truth = checked_labels(labels, values.shape[1], rows=len(values), where="the probabilities' columns")
    confidence, correct = values.max(axis=1), values.argmax(axis=1) == truth
    place = bin_of(confidence, bins)
    counts = np.bincount(place, minlength=bins)
    filled = np.where(counts > 0, counts, np.nan)
    return ReliabilityBins(
        edges=np.linspace(0.0, 1.0, bins + 1),
        counts=counts,
        confidence=np.bincount(place, weights=confidence, minlength=bins) / filled,
        accuracy=np.bincount(place, weights=correct, minlength=bins) / filled,
    )


def expected_calibration_error(probabilities: ArrayLike, labels: ArrayLike, bins: int = BINS) -> float:
    """Average the distance between confidence and accuracy of the top label over equal-width bins, in [0, 1]."""
    diagram = reliability_bins(probabilities, labels, bins)
    distance = np.nan_to_num(np.abs(diagram.confidence - diagram.accuracy))
    return float(distance @ diagram.counts / diagram.counts.sum())


def calibration_effect(
    probabilities: NDArray[np.float64],
    labels: NDArray[np.int64],
    groups: Sequence[Any],
    space: LabelSpace,
    temperature: float,
    resamples: int = RESAMPLES,
    seed: int = 0,
    before: NDArray[np.float64] | None = None,
) -> dict[str, Any]:
    """Measure ECE and NLL, with intervals, before and after a temperature that is already in the (N, C) ``probabilities``.

    Where those ``before`` are not given it is taken out, exactly: the logarithm of a softmax is the logits plus a constant.
    """
    if before is None:
        before = apply_temperature(probabilities, 1 / temperature)
    found: dict[str, Any] = {"temperature": temperature}
    for name, values in (("before", before), ("after", probabilities)):
        intervals = bootstrap(values, labels, groups, space, resamples, seed, metrics=("ece", "nll"))
        found |= {f"{measure}_{name}": intervals[measure].to_dict() for measure in ("ece", "nll")}
    return found


def calibrate_run(
    folder: str | Path,
    data: str | Path | ReadResult | None = None,
    *,
    rules_anew: bool = False,
    manifest: str | Path | None = None,
    registry: str | Path | None = None,
    engine: str = "auto",
    progress: Progress | None = None,
) -> CalibratedRun:
    """Fit a temperature, operating points and rules on validation predictions and store them in the model in ``folder``.

    A model's is folded into its last layer; an ensemble's is written into ensemble.json. No decision changes. The predictions
    are those that the run keeps, or those of the validation part of ``data``, which an ensemble needs; ``manifest`` is a split
    file that says which images that is. ``engine`` is that of ``from_pretrained``. A model that is calibrated already keeps its
    temperature and operating points, and gets the rules that it lacks: label sets, the balanced decision, abstention. One that
    has them all is refused, unless its rules are to be fitted ``rules_anew``: the gate may have come after them, whose score
    is a signal of doubt.

        calibrate_run("runs/ham10000_lite0").result.temperature
    """
    place = Path(folder)
    config = load_config(place)
    content = read_json(place / METRICS_NAME, missing_ok=True)
    source = data_name(data) if isinstance(data, ReadResult) else Path(data or "validation").name
    calibrated = _is_calibrated(config, content)
    if calibrated and own_section(config).rules is not None and not rules_anew:
        held = f"temperature {own_section(config).temperature:.4g}, with its rules"
        fix = "train or combine anew to refit, or fit the rules alone with --rules-anew"
        raise ConfigError(f"{place}: is calibrated already ({held}); {fix}")
    scored = _validation_predictions(place, config, data, manifest, registry, engine, progress)
    if calibrated:
        return _add_rules(place, config, scored, content, source)
    result = fit_calibration(log_probabilities(scored.probabilities), scored.labels)
    scored = replace(scored, probabilities=apply_temperature(scored.probabilities, result.temperature))
    given = (scored.probabilities, scored.labels, scored.groups, scored.space)
    points = operating_points.choose_for(scored.predictions)
    rules = fit_rules(scored)
    if isinstance(config, ModelConfig):
        classifier, config = read_model(place)
        gate = read_gate(place, config)
        fold_temperature(classifier, result.temperature)
        write_model(
            place,
            classifier,
            training=config.lesion_hub.training,
            temperature=result.temperature,
            operating_points=points,
            rules=rules,
            storage=stored_precision(place),
        )
        carry_gate(gate, config.lesion_hub.gate, place, result.temperature)
    else:
        record = fitted_on(source, scored.facts["image_id"].astype(str), scored.groups, config.fitted_on)
        changed = {"temperature": result.temperature, "operating_points": points, "rules": rules, "fitted_on": record}
        write_ensemble(place, config.model_copy(update=changed))
    # The validation results are made anew; those of other images are of the old probabilities and no longer true.
    content = {name: value for name, value in content.items() if name not in ("validation", "test", "external")}
    content["validation"] = {
        **assess(*given, points=points),
        "calibration": calibration_effect(*given, result.temperature),
        **measure_rules(scored, points, rules),
    }
    write_json(place / METRICS_NAME, content)
    scored.save(place / VALIDATION_NAME)
    return CalibratedRun(place, result, points, rules)


def _is_calibrated(config: ModelConfig | EnsembleConfig, content: dict[str, Any]) -> bool:
    if isinstance(config, ModelConfig):
        return config.lesion_hub.temperature is not None
    # An ensemble that was never calibrated holds a temperature of 1.
    return config.temperature != 1.0 or bool(config.fitted_on) or "calibration" in content.get("validation", {})


def _add_rules(
    folder: Path, config: ModelConfig | EnsembleConfig, scored: Scored, content: dict[str, Any], source: str
) -> CalibratedRun:
    """Fit the rules alone: no probability changes, so all but what was measured of earlier rules stays."""
    rules, points = fit_rules(scored), own_section(config).operating_points
    if isinstance(config, ModelConfig):
        section = config.lesion_hub.model_copy(update={"rules": rules})
        write_text(folder / CONFIG_NAME, dump_json(config.model_copy(update={"lesion_hub": section})))
    else:
        record = fitted_on(source, scored.facts["image_id"].astype(str), scored.groups, config.fitted_on)
        write_ensemble(folder, config.model_copy(update={"rules": rules, "fitted_on": record}))
    content = without_results(content, RULE_RESULTS)
    content["validation"] = {**content.get("validation", {}), **measure_rules(scored, points, rules)}
    write_json(folder / METRICS_NAME, content)
    scored.save(folder / VALIDATION_NAME)
    return CalibratedRun(folder, None, points, rules)


def _validation_predictions(
    folder: Path,
    config: ModelConfig | EnsembleConfig,
    data: str | Path | ReadResult | None,
    manifest: str | Path | None,
    registry: str | Path | None,
    engine: str,
    progress: Progress | None,
) -> Scored:
    """Read the predictions that the run keeps, or score the validation part of ``data`` with the model as it stands."""
    if data is None:
        kept = folder / VALIDATION_NAME
        if not kept.is_file():
            raise ConfigError(f"{kept}: no such file, so nothing to calibrate on; give the data set with --data")
        return read_scored(kept, config.space)
    source = data if isinstance(data, ReadResult) else read(data)
    records = training_records(Resolved(str(folder), folder, None), registry=registry)
    predictor = from_pretrained(folder, registry=registry, engine=engine)
    # What an ensemble's temperature was fitted on may fit its rules as well: those are validation images.
    bare = [replace(one, parts={part: found for part, found in one.parts.items() if part != FITTED}) for one in records]
    chosen, _ = choose_images(str(folder), source, bare, split="val", manifest=manifest)
    place = source.report.place
    if chosen.whole and not any(record.parts for record in records):
        raise DataError(f"{place}: brings no split, and that of the model is not known; name the images with --manifest")
    if chosen.whole or (manifest is None and any("val" in record.parts for record in records) and not chosen.own):
        raise DataError(f"{place}: does not hold the validation images of the model's split; give the data it was trained on")
    return score_dataset(predictor, source.dataset.select(chosen.rows), source.space, space=config.space, progress=progress)


def stored_precision(folder: Path) -> StorageType:
    """Find the precision that the weights are stored in: a matrix of float32 says that they all are."""
    with safe_open(folder / WEIGHTS_NAME, framework="np") as stored:
        slices = [stored.get_slice(key) for key in stored.keys()]  # noqa: SIM118 - no mapping
    return "float32" if any(part.get_dtype() == "F32" and len(part.get_shape()) > 1 for part in slices) else "float16"
