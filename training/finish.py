"""From the best weights to a publishable folder: calibrate, choose operating points, measure, write, in that order.

Validation chooses everything; the test part is looked at once, when all is chosen. Every number comes from the path that
users take (``lesion_hub.evaluation.scoring``): original files, the model's own preprocessing, float32.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import classification_report

from lesion_hub.config import OperatingPoint, Training
from lesion_hub.data.splits.record import PartRecord, describe_parts
from lesion_hub.evaluation import calibration, operating_points
from lesion_hub.evaluation.assessment import assess, calibration_effect
from lesion_hub.evaluation.figures import draw_figures
from lesion_hub.evaluation.predictions import check
from lesion_hub.evaluation.run import save_figures
from lesion_hub.evaluation.scoring import Scored, score
from lesion_hub.hub.atomic import write_text
from lesion_hub.hub.card import write_card
from lesion_hub.hub.format import StorageType, fold_temperature, stored_weights, write_model
from lesion_hub.hub.layout import METRICS_NAME, SPLIT_NAME
from lesion_hub.inference import Predictor
from lesion_hub.models import LesionClassifier
from training.curves import draw_history
from training.partition import Division
from training.parts import Part
from training.recipe import Recipe
from training.run_folder import RunFolder
from training.start import Start

STORAGE: StorageType = "float16"
PACKAGES = ("lesion-hub", "torch", "timm", "accelerate")


@dataclass(frozen=True)
class Outcome:
    """What a finished run found."""

    metrics: dict[str, Any]
    temperature: float
    operating_points: dict[str, OperatingPoint]


def finish(
    folder: RunFolder,
    recipe: Recipe,
    classifier: LesionClassifier,
    division: Division,
    history: list[dict[str, Any]],
    start: Start,
) -> Outcome:
    """Write everything that a model folder holds into the run's: ``config.json`` last, but for the card made of it all."""
    validation = division.parts["validation"]
    temperature = calibrate(classifier, validation)
    scored = {name: scores(classifier, part) for name, part in division.parts.items() if name != "train"}
    points = chosen_points(scored["validation"])
    results: dict[str, Any] = {
        name: {"data": division.describe(name), **assessed(found, points, temperature)} for name, found in scored.items()
    }
    best = max(history, key=lambda record: record["balanced_accuracy"])
    for name, found in scored.items():
        keep(folder, name, found, results[name])
    results["training"] = {"epochs": len(history), "best": best, "recipe": published_recipe(recipe, start)}
    draw_history(history, folder.plots / "training_curves.png")
    folder.write_json(METRICS_NAME, results)
    folder.write_json(SPLIT_NAME, split_record(division))
    training = provenance(recipe, division, start)
    write_model(
        folder.path,
        classifier,
        training=training,
        temperature=temperature,
        operating_points=points,
        storage=STORAGE,
    )
    write_card(folder.path)
    return Outcome(results, temperature, points)


def calibrate(classifier: LesionClassifier, validation: Part) -> float:
    """Fit the temperature, fold it in, and round the weights as they are stored: what is measured is what is published."""
    probabilities = scores(classifier, validation).probabilities
    temperature = calibration.fit_temperature(np.log(np.maximum(probabilities, np.finfo(float).tiny)), validation.labels)
    fold_temperature(classifier, temperature)
    classifier.network.load_state_dict(stored_weights(classifier, STORAGE))
    return temperature


def scores(classifier: LesionClassifier, part: Part) -> Scored:
    """The part's probabilities, by the path that users take."""
    return score(Predictor.of(classifier), part.dataset, part.space)


def chosen_points(validation: Scored) -> dict[str, OperatingPoint]:
    """Malignancy thresholds chosen on validation; none where the labels say nothing of malignancy."""
    question = check(validation.probabilities, validation.labels, validation.space).malignancy()
    return {} if question is None else operating_points.choose(question.scores, question.truth)


def assessed(found: Scored, points: dict[str, OperatingPoint], temperature: float) -> dict[str, Any]:
    """What ``metrics.json`` says of a part."""
    given = (found.probabilities, found.labels, found.groups, found.space)
    return {
        **assess(*given, points=points, facts=found.facts),
        "calibration": calibration_effect(*given, temperature),
    }


def keep(folder: RunFolder, name: str, found: Scored, section: dict[str, Any]) -> None:
    """Predictions, classification report and plots of a part."""
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


def split_record(division: Division) -> dict[str, Any]:
    """What ``split.json`` says: how the split was made, its hash, and digests that tell others whether an image was in it."""
    names = zip(division.dataset["image_id"][:], division.dataset["group"][:], strict=True)
    part_of = division.manifest.part_of
    columns: dict[str, tuple[list[str], list[str]]] = {part: ([], []) for part in division.manifest.parts}
    for image_id, group in names:
        if image_id in part_of:
            columns[part_of[image_id]][0].append(image_id)
            columns[part_of[image_id]][1].append(group)
    records = {part: PartRecord.of(*found) for part, found in columns.items()}
    return {**division.manifest.describe(), **describe_parts(records)}


def published_recipe(recipe: Recipe, start: Start) -> dict[str, Any]:
    """The recipe as ``metrics.json`` tells it; where a file of weights lies is nobody's business, so it goes by its name."""
    told = recipe.model_dump(mode="json")
    if isinstance(told["model"]["pretrained"], str):
        told["model"]["pretrained"] = start.base_model if start.published else Path(told["model"]["pretrained"]).name
    return told


def provenance(recipe: Recipe, division: Division, start: Start) -> Training:
    """Where the weights come from; what the start had seen counts, with its licence."""
    return Training(
        recipe=recipe.name,
        data=(*division.sources, *start.data),
        split_hash=division.manifest.hash,
        seed=recipe.seed,
        base_model=start.base_model,
        packages={name: version(name) for name in PACKAGES},
    )
