"""Recalibrate a model for another clinic: a new temperature and new operating points, from that clinic's own lesions.

Cameras, patients and the share of malignant lesions differ from place to place, and with them what a probability of 0.3 means
and what a threshold reaches. The weights stay as they are but for the last layer's scale, so no ranking of images changes.

What is fitted on all lesions is published; what is reported is cross-fitted: each lesion is judged by a temperature and by
thresholds that were fitted on others.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from sklearn.model_selection import StratifiedGroupKFold

from lesion_hub.config import (
    CONFIG_NAME,
    AnswerRules,
    EnsembleConfig,
    ModelConfig,
    OperatingPoint,
    Options,
    load_model_config,
    validated,
)
from lesion_hub.data.sources import ReadResult, read
from lesion_hub.data.splits.manifest import PartRecord, describe_parts
from lesion_hub.errors import DataError
from lesion_hub.evaluation.assessment import LEAST_OF_EACH, assess
from lesion_hub.evaluation.calibration import (
    apply_temperature,
    calibration_effect,
    fit_calibration,
    refuse_worse,
    stored_precision,
)
from lesion_hub.evaluation.intervals import LEAST_GROUPS, RESAMPLES
from lesion_hub.evaluation.operating_points import TARGETS, Metric, choose_for, judge_points, lesions_needed, point_name
from lesion_hub.evaluation.overlap import FITTED, NO_IMAGES, data_name, fitted_on, training_record
from lesion_hub.evaluation.plots import draw_figures
from lesion_hub.evaluation.predictions import log_probabilities
from lesion_hub.evaluation.rules import RuleAnswers, answers_by, fit_rules, judge_rules
from lesion_hub.evaluation.run import EvaluateOptions, EvaluationInput, load_input, save_figures, score_input
from lesion_hub.evaluation.scoring import BATCH, Scored, score_dataset
from lesion_hub.files import read_json, require_new_folder, write_json
from lesion_hub.hub.bundle import write_ensemble
from lesion_hub.hub.card import PARTS, RECALIBRATION, write_card
from lesion_hub.hub.format import fold_temperature, read_model, stored_weights, write_model
from lesion_hub.hub.gate_file import carry_gate, read_gate
from lesion_hub.hub.layout import METRICS_NAME, MODELING_NAME, SPLIT_NAME, WEIGHTS_NAME, gate_names, load_config, own_section
from lesion_hub.hub.licences import card_licence
from lesion_hub.inference import Predictor
from lesion_hub.models import LesionClassifier
from lesion_hub.progress import Progress

FOLDS = 5
KEPT_METRICS = ("training", "ensemble_fit", "source_only_auroc", "gate", "gate_check")
"""What a recalibrated model keeps of its metrics.json: all else was measured with the old temperature and thresholds."""

Targets = Mapping[str, tuple[Metric, float]]


class RecalibrateOptions(Options):
    """How to recalibrate.

    ``split`` and ``manifest`` choose the images as for an evaluation, and ``near_duplicates`` and ``training_data`` look for
    those that the model has seen. ``margin`` is how closely a sensitivity should be known, for the number of lesions needed.
    """

    split: str = "all"
    manifest: Path | None = None
    near_duplicates: bool = False
    training_data: str | None = None
    margin: Annotated[float, Field(gt=0, lt=0.5)] = 0.05
    batch_size: int = Field(default=BATCH, ge=1)
    resamples: int = Field(default=RESAMPLES, ge=1)
    seed: int = Field(default=0, ge=0)


@dataclass(frozen=True)
class Recalibration:
    """A recalibrated model in ``folder``; ``section`` is what its metrics.json holds under ``recalibration``."""

    folder: Path
    temperature: float
    points: dict[str, OperatingPoint]
    section: Mapping[str, Any] = field(repr=False)


@dataclass(frozen=True)
class CrossFit:
    """Each lesion judged by what was fitted on others: ``scored``, each point's calls (M,) on malignancy, and rules."""

    scored: Scored
    calls: dict[str, NDArray[np.bool_]]
    answers: RuleAnswers


def recalibrate(
    model: str | Path,
    data: str | Path | ReadResult,
    *,
    out: str | Path,
    revision: str | None = None,
    registry: str | Path | None = None,
    token: str | None = None,
    device: str = "cpu",
    engine: str = "auto",
    progress: Progress | None = None,
    **options: Any,
) -> Recalibration:
    """Refit temperature and operating points of a model or an ensemble on a clinic's images; write a new model folder ``out``.

    Args:
        model, revision, registry, token, device, engine: as for ``from_pretrained``.
        data: the clinic's folder, table or Hub data set, or what ``lesion_hub.data.read`` returned.
        out: new folder, ready to be published as a new version.
        progress: called with (images done, images in all).
        options: fields of ``RecalibrateOptions``.

    `DataError` where the model has seen some of the images, or where there are too few lesions.

        done = recalibrate("dermoscopy-trio", "data/clinic", out="runs/trio-clinic")
        done.section["points"]["sensitivity_90"]["before"]["sensitivity"]
    """
    chosen = validated(RecalibrateOptions, options, "recalibrate")
    place = Path(out).expanduser()
    require_new_folder(place)
    source = data if isinstance(data, ReadResult) else read(data)
    how = validated(EvaluateOptions, chosen.model_dump(exclude={"margin"}), "recalibrate")
    given = load_input(model, revision, source, how, registry=registry, token=token, device=device, engine=engine)
    config = load_config(given.found.folder)
    if not source.space.maps_to(config.space):
        raise DataError(
            f"{data_name(source)}: its labels ({', '.join(source.space.labels)}) are not the model's "
            f"({', '.join(config.space.labels)}) or finer ones, so its temperature cannot be fitted on them"
        )
    scored = score_input(given, given.dataset, config.space, how, progress)
    counts = _counts(scored, data_name(source))
    stored = own_section(config).operating_points
    targets = {name: (point.metric, point.target) for name, point in stored.items()}
    targets = targets or {point_name(*target): target for target in TARGETS}
    held_out = cross_fit(scored, targets, chosen.seed)
    factor = fit_calibration(log_probabilities(scored.probabilities), scored.labels).temperature
    if isinstance(config, ModelConfig):
        classifier, after = _recalibrated_model(given, scored, factor, how)
    else:
        classifier, after = None, _tempered(scored, factor)
    points = _points(after, targets, data_name(source))
    rules = fit_rules(after, data_name(source))
    temperature = (own_section(config).temperature or 1.0) * factor
    section = _describe(given, scored, held_out, stored, points, rules, temperature, counts, chosen)
    if classifier is not None:
        _write_model(place, given, scored, classifier, temperature, points, rules, factor)
    else:
        assert isinstance(config, EnsembleConfig)
        _write_ensemble(place, given, scored, config, temperature, points, rules)
    before = read_json(given.found.folder / METRICS_NAME, missing_ok=True)
    write_json(place / METRICS_NAME, {name: before[name] for name in KEPT_METRICS if name in before} | {RECALIBRATION: section})
    save_figures(place / "plots", draw_figures(held_out.scored, section), RECALIBRATION)
    # The card comes last: a folder with a card is finished.
    licence = None if own_section(config).training else card_licence(given.found.folder)
    write_card(place, name=given.found.name if given.found.revision else None, licence=licence)
    return Recalibration(place, temperature, points, section)


# ------------------------------------------------------------------------------------------------ fitting


def cross_fit(scored: Scored, targets: Targets, seed: int = 0, folds: int = FOLDS) -> CrossFit:
    """Fit temperature and thresholds without each fold of lesions, and apply them to it.

    The folds hold whole lesions, and malignant ones in like shares.
    """
    malignancy = scored.predictions.malignancy()
    strata = np.zeros(len(scored), dtype=np.int64)
    if malignancy is not None:
        strata[malignancy.kept] = malignancy.truth
    answers: list[tuple[NDArray[np.int64], RuleAnswers]] = []
    splitter = StratifiedGroupKFold(folds, shuffle=True, random_state=seed)
    probabilities = np.empty_like(scored.probabilities)
    calls = {name: np.zeros(len(scored), dtype=bool) for name in targets if malignancy is not None}
    for rest, held in splitter.split(probabilities, strata, scored.groups):
        others, own = scored.select(rest), scored.select(held)
        temperature = fit_calibration(log_probabilities(others.probabilities), others.labels).temperature
        others, own = _tempered(others, temperature), _tempered(own, temperature)
        points = _points(others, targets, "other lesions")
        probabilities[held] = own.probabilities
        rules = fit_rules(others)
        answers.append((held, answers_by(own.probabilities, own.space, points, rules, own)))
        judged = own.predictions.malignancy()
        if judged is None:
            continue
        for name in calls:
            # Where no threshold reaches a specificity, none is called suspicious.
            threshold = points[name].threshold if name in points else math.inf
            calls[name][held[judged.kept]] = judged.scores >= threshold
    kept = slice(None) if malignancy is None else malignancy.kept
    found = replace(scored, probabilities=probabilities)
    return CrossFit(found, {name: called[kept] for name, called in calls.items()}, RuleAnswers.joined(answers))


def _points(scored: Scored, targets: Targets, chosen_on: str) -> dict[str, OperatingPoint]:
    """Choose the thresholds of ``targets`` anew, under the names that they have."""
    found = choose_for(scored.predictions, list(dict.fromkeys(targets.values())), chosen_on)
    return {name: found[point_name(*target)] for name, target in targets.items() if point_name(*target) in found}


def _tempered(scored: Scored, temperature: float) -> Scored:
    return replace(scored, probabilities=apply_temperature(scored.probabilities, temperature))


def _recalibrated_model(
    given: EvaluationInput, scored: Scored, factor: float, how: EvaluateOptions
) -> tuple[LesionClassifier, Scored]:
    """Fold ``factor`` into the model, rounded as it is stored, and score the images with what will be published.

    Its gate says of them what it said before.
    """
    classifier, _ = read_model(given.found.folder)
    fold_temperature(classifier, factor)
    classifier.network.load_state_dict(stored_weights(classifier, stored_precision(given.found.folder)))
    predictor = Predictor.of(classifier).to(given.predictor.classifier.device)
    after = score_dataset(predictor, given.dataset, given.data.space, space=scored.space, batch_size=how.batch_size)
    refuse_worse(scored, after)
    return classifier, replace(after, facts=scored.facts)


# ------------------------------------------------------------------------------------------------ numbers


def _counts(scored: Scored, site: str) -> dict[str, int]:
    """Count images and lesions; `DataError` where they are too few to choose anything by, which says how many it takes."""
    groups = np.array(scored.groups)
    counts = {"images": len(scored), "lesions": len(set(scored.groups))}
    least, told = {"lesions": LEAST_GROUPS}, f"{counts['lesions']} lesions"
    malignancy = scored.predictions.malignancy()
    if malignancy is not None:
        kept = groups[malignancy.kept]
        counts["malignant_lesions"] = len(set(kept[malignancy.truth]))
        counts["benign_lesions"] = len(set(kept[~malignancy.truth]))
        least |= {"malignant_lesions": LEAST_OF_EACH, "benign_lesions": LEAST_OF_EACH}
        told += f", {counts['malignant_lesions']} of them malignant and {counts['benign_lesions']} benign"
    if any(counts[name] < number for name, number in least.items()):
        needed = f"{LEAST_GROUPS} lesions"
        if malignancy is not None:
            needed += f", {LEAST_OF_EACH} of them malignant and {LEAST_OF_EACH} benign"
        raise DataError(f"{site}: holds {told}, too few to recalibrate on; it takes at least {needed}")
    return counts


def _describe(
    given: EvaluationInput,
    scored: Scored,
    held_out: CrossFit,
    stored: Mapping[str, OperatingPoint],
    points: Mapping[str, OperatingPoint],
    rules: AnswerRules,
    temperature: float,
    counts: dict[str, int],
    options: RecalibrateOptions,
) -> dict[str, Any]:
    """Make the section of metrics.json: what the model did on these images, and what it does, cross-fitted, from now on."""
    sampling: dict[str, Any] = {"resamples": options.resamples, "seed": options.seed}
    after, groups = held_out.scored, scored.groups
    section: dict[str, Any] = {
        **given.describe(options.split, scored),
        "model": {"name": given.found.display_name, "revision": given.found.revision},
        "counts": counts,
        "folds": FOLDS,
        "margin": options.margin,
        **assess(after.probabilities, after.labels, groups, after.space, **sampling),
        **judge_rules(held_out.answers, after, after.space, rules, **sampling),
    }
    section["calibration"] = calibration_effect(
        after.probabilities, after.labels, groups, after.space, temperature, before=scored.probabilities, **sampling
    )
    section["points"] = {}
    malignancy = scored.predictions.malignancy()
    if malignancy is None:
        return section
    kept = np.array(groups)[malignancy.kept]
    before = judge_points(stored, malignancy.scores, malignancy.truth, kept, **sampling)
    promised = _promises(given.found.folder, stored)
    for name, point in points.items():
        called = {name: point.model_copy(update={"threshold": 0.5})}
        judged = judge_points(called, held_out.calls[name].astype(float), malignancy.truth, kept, **sampling)[name]
        origin = {"threshold": point.threshold, "metric": point.metric, "target": point.target, "chosen_on": point.chosen_on}
        section["operating_points"][name] = judged | origin
        expected = promised.get(name)
        if expected is None:
            expected = point.target if point.metric == "sensitivity" else judged["sensitivity"]["value"]
        section["points"][name] = {
            "metric": point.metric,
            "target": point.target,
            "promised_sensitivity": promised.get(name),
            "before": before.get(name),
            "after": judged | origin,
            "malignant_lesions_needed": lesions_needed(expected, options.margin),
        }
    return section


def _promises(folder: Path, stored: Mapping[str, OperatingPoint]) -> dict[str, float | None]:
    """Return the sensitivity that each stored point promises: its target, or what the model's own results measured."""
    content = read_json(folder / METRICS_NAME, missing_ok=True)
    judged: dict[str, Any] = {}
    for part in PARTS[::-1]:  # the later ones count
        judged |= (content.get(part) or {}).get("operating_points") or {}
    measured = {name: found["sensitivity"]["value"] for name, found in judged.items()}
    return {name: point.target if point.metric == "sensitivity" else measured.get(name) for name, point in stored.items()}


# ------------------------------------------------------------------------------------------------ the folder


def _write_model(
    place: Path,
    given: EvaluationInput,
    scored: Scored,
    classifier: LesionClassifier,
    temperature: float,
    points: dict[str, OperatingPoint],
    rules: AnswerRules,
    factor: float,
) -> None:
    """Write weights, config, gate and split; the split's record holds the new images beside those that it held."""
    folder = given.found.folder
    before = load_model_config(folder)
    training = own_section(load_config(folder)).training
    known = training_record(given.found.name, folder).parts
    record = PartRecord.of(scored.facts["image_id"].astype(str), scored.groups) | known.get(FITTED, NO_IMAGES)
    split = read_json(folder / SPLIT_NAME, missing_ok=True)
    classifier.to("cpu")
    write_model(
        place,
        classifier,
        training=training,
        temperature=temperature,
        operating_points=points,
        rules=rules,
        storage=stored_precision(folder),
    )
    carry_gate(read_gate(folder, before), before.lesion_hub.gate, place, factor)
    write_json(place / SPLIT_NAME, split | describe_parts({**known, FITTED: record}))


def _write_ensemble(
    place: Path,
    given: EvaluationInput,
    scored: Scored,
    config: EnsembleConfig,
    temperature: float,
    points: dict[str, OperatingPoint],
    rules: AnswerRules,
) -> None:
    """Write ensemble.json, which holds the temperature and says what it was fitted on, and the split."""
    record = fitted_on(data_name(given.data), scored.facts["image_id"].astype(str), scored.groups, config.fitted_on)
    new = {"temperature": temperature, "operating_points": points, "rules": rules, "fitted_on": record}
    changed = config.model_copy(update=new)
    write_json(place / SPLIT_NAME, read_json(given.found.folder / SPLIT_NAME, missing_ok=True))
    if config.weights_sha256 is not None:  # the members' weights travel with it
        for name in (WEIGHTS_NAME, MODELING_NAME, CONFIG_NAME, *gate_names(config, load_model_config(given.found.folder))):
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(given.found.folder / name, place / name)
    write_ensemble(place, changed)
