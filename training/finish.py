"""The end of a run: calibrate the best weights, choose operating points, measure, write the model folder, and publish it.

Everything is chosen on validation; the test part is measured once, after that. Every number comes from the path that users
take (``lesion_hub.evaluation.scoring``): original files, the model's own preprocessing, float32.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import classification_report

from lesion_hub.config import REGISTRY_NAME, REPO_ID, OperatingPoint, Training
from lesion_hub.data.scan import image_sources
from lesion_hub.data.splits.manifest import PartRecord, describe_parts
from lesion_hub.errors import ConfigError
from lesion_hub.evaluation import calibration, operating_points
from lesion_hub.evaluation.assessment import assess
from lesion_hub.evaluation.calibration import calibration_effect
from lesion_hub.evaluation.gate_fit import FittedGate, GateOptions, fit_gate
from lesion_hub.evaluation.intervals import LEAST_GROUPS
from lesion_hub.evaluation.plots import draw_figures
from lesion_hub.evaluation.predictions import log_probabilities
from lesion_hub.evaluation.rules import fit_rules, measure_rules
from lesion_hub.evaluation.run import save_figures
from lesion_hub.evaluation.scoring import Scored, score_dataset
from lesion_hub.files import write_text
from lesion_hub.hub.card import write_card
from lesion_hub.hub.format import StorageType, fold_temperature, stored_weights, write_model
from lesion_hub.hub.layout import METRICS_NAME, SPLIT_NAME
from lesion_hub.hub.registry import Registries
from lesion_hub.hub.store import publish
from lesion_hub.hub.versions import Version, checked_notes, without_revision
from lesion_hub.inference import Predictor
from lesion_hub.inference.members import Member
from lesion_hub.models import LesionClassifier
from lesion_hub.training.data import Part, RunData
from lesion_hub.training.loop import Record
from lesion_hub.training.recipe import Recipe
from lesion_hub.training.reporting import draw_history
from lesion_hub.training.run_folder import RunFolder
from lesion_hub.training.start import Lineage

logger = logging.getLogger(__name__)

STORAGE: StorageType = "float16"
GATE_IMAGES = 400
PACKAGES = ("lesion-hub", "torch", "timm", "accelerate")


@dataclass(frozen=True)
class Outcome:
    """The results of a finished run."""

    metrics: dict[str, Any]
    temperature: float
    operating_points: dict[str, OperatingPoint]


def finish(
    folder: RunFolder,
    recipe: Recipe,
    classifier: LesionClassifier,
    data: RunData,
    history: list[dict[str, Any]],
    lineage: Lineage,
) -> Outcome:
    """Write all files of a model folder into the run's: ``config.json`` last but one, and then the card, made from the rest."""
    uncalibrated = score_part(classifier, data.parts["validation"])
    temperature = fold_temperature_in(classifier, uncalibrated)
    scored = {name: score_part(classifier, part) for name, part in data.parts.items() if name != "train"}
    calibration.refuse_worse(uncalibrated, scored["validation"])
    points = operating_points.choose_for(scored["validation"].predictions)
    rules = fit_rules(scored["validation"])
    results: dict[str, Any] = {}
    for name, found in scored.items():
        given = (found.probabilities, found.labels, found.groups, found.space)
        results[name] = {
            "data": data.describe(name),
            **assess(*given, points=points, facts=found.facts),
            "calibration": calibration_effect(*given, temperature),
            **measure_rules(found, points, rules),
        }
    for name, found in scored.items():
        write_part(folder, name, found, results[name])
    best = max(history, key=lambda record: record["balanced_accuracy"])
    gate = _fit_gate(classifier, data) if recipe.gate else None
    if gate is not None:
        results["gate"] = {"data": ", ".join(source.name for source in data.sources), **gate.section}
    results["training"] = {**covered(recipe, history), "best": best, "recipe": published_recipe(recipe, lineage)}
    draw_history(history, folder.plots / "training_curves.png")
    folder.write_json(METRICS_NAME, results)
    folder.write_json(SPLIT_NAME, split_record(data))
    training = Training(
        recipe=recipe.name,
        # What the starting weights and the teacher saw counts too, with its licence.
        data=(*data.sources, *lineage.data),
        split_hash=data.manifest.hash,
        seed=recipe.seed,
        base_model=lineage.start.base_model,
        packages={name: version(name) for name in PACKAGES},
    )
    fitted: dict[str, Any] = {"temperature": temperature, "operating_points": points, "rules": rules}
    write_model(folder.path, classifier, training=training, storage=STORAGE, **fitted)
    if gate is not None:
        gate.write(folder.path)
    write_card(folder.path)
    return Outcome(results, temperature, points)


def fold_temperature_in(classifier: LesionClassifier, validation: Scored) -> float:
    """Fit the temperature, fold it in, and round the weights as they are stored: what is measured is what is published.

    A handful of validation images may say that none fits; then it stays 1. Of more it is a mistake in the labels.
    """
    try:
        temperature = calibration.fit_temperature(log_probabilities(validation.probabilities), validation.labels)
    except calibration.NoTemperature as error:
        if len(validation) >= LEAST_GROUPS:
            raise
        logger.warning("%s; until then the temperature stays 1", error)
        temperature = 1.0
    fold_temperature(classifier, temperature)
    classifier.network.load_state_dict(stored_weights(classifier, STORAGE))
    return temperature


def score_part(classifier: LesionClassifier, part: Part) -> Scored:
    """Compute the part's probabilities in the classifier's own labels, by the path that users take."""
    return score_dataset(Predictor.of(classifier), part.dataset, part.space, space=classifier.space)


def _fit_gate(classifier: LesionClassifier, data: RunData) -> FittedGate:
    """Fit the input gate on some of the images, which is quick: ``lesion-hub gate fit`` takes more, and photographs too."""
    training, held_out = (image_sources(data.parts[name].dataset) for name in ("train", "validation"))
    options = GateOptions(images=GATE_IMAGES, held_out=GATE_IMAGES)
    return fit_gate(Member("model", classifier).ready(), training, held_out, options=options)


def write_part(folder: RunFolder, name: str, found: Scored, section: dict[str, Any]) -> None:
    """Write predictions, classification report and plots of a part."""
    labels = found.space.labels
    found.save(folder.path / f"predictions_{name}.parquet")
    report = classification_report(
        found.labels,
        found.probabilities.argmax(axis=1),
        labels=np.arange(len(labels)),
        target_names=labels,
        digits=3,
        zero_division=0,
    )
    write_text(folder.path / f"classification_report_{name}.txt", report)
    save_figures(folder.plots, draw_figures(found, section), name)


def split_record(data: RunData) -> dict[str, Any]:
    """Make ``split.json``: how the split was made, its hash, and digests that tell others whether an image was in it."""
    columns: dict[str, tuple[list[str], list[str]]] = {part: ([], []) for part in data.manifest.parts}
    for image_id, group in zip(data.dataset["image_id"][:], data.dataset["group"][:], strict=True):
        part = data.manifest.part_of.get(image_id)
        if part is not None:
            columns[part][0].append(image_id)
            columns[part][1].append(group)
    records = {part: PartRecord.of(*found) for part, found in columns.items()}
    return {**data.manifest.describe(), **describe_parts(records)}


def covered(recipe: Recipe, history: Sequence[Record]) -> dict[str, Any]:
    """Count the epochs, or the views and strengths of a probe.

    Where the run was made longer on the way, ``schedules`` says which epochs had the learning rates of a run of how many.
    """
    if recipe.probe is not None:
        return {"views": recipe.epochs, "strengths": len(history)}
    spans = [(of, [record["epoch"] for record in span]) for of, span in groupby(history, lambda record: record.get("of"))]
    schedules = [{"first": epochs[0], "last": epochs[-1], "of": of} for of, epochs in spans]
    return {"epochs": len(history), **({"schedules": schedules} if len(schedules) > 1 else {})}


def published_recipe(recipe: Recipe, lineage: Lineage) -> dict[str, Any]:
    """Return the recipe as ``metrics.json`` holds it: a model with its version, a file by its name: its folder is private."""
    plain, start = recipe.model_dump(mode="json"), lineage.start
    if isinstance(plain["model"]["pretrained"], str):
        plain["model"]["pretrained"] = start.base_model if start.published else Path(plain["model"]["pretrained"]).name
    if lineage.teacher is not None:
        plain["distill"]["teacher"] = lineage.teacher.title
    return plain


# ------------------------------------------------------------------------------------------------ publishing


@dataclass(frozen=True)
class Publication:
    """The name, version and notes that a run is published under."""

    name: str
    version: str
    notes: str


def check_publication(name: str | None, version: str | None, notes: str | None) -> Publication | None:
    """Return the publication that the command line asks for, or None; a half-stated one is refused."""
    if name is None:
        if version or notes:
            raise ConfigError("--version and --notes are for publishing; say where with --push-to")
        return None
    without_revision(name, "write --push-to {name} --version {revision}")
    if not (REGISTRY_NAME.fullmatch(name) or REPO_ID.fullmatch(name)):
        raise ConfigError(f"--push-to {name!r} is neither a Hub id (org/name) nor a registry name")
    if version is None or notes is None:
        raise ConfigError('--push-to needs --version X.Y.Z and --notes "what changed"')
    if REGISTRY_NAME.fullmatch(name):
        Registries().to_publish_into()
    return Publication(name, str(Version.parse(version)).removeprefix("v"), checked_notes(notes))


def publish_run(folder: Path, publication: Publication) -> None:
    """Publish the model in a run's folder, in the first process only."""
    if os.environ.get("RANK", "0") != "0":
        return
    print(publish(folder, publication.name, version=publication.version, notes=publication.notes))
