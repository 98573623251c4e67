"""The plots of an evaluation, each with its caption, as a report and a model folder show them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from lesion_hub.evaluation import plots, robustness
from lesion_hub.evaluation.intervals import Interval
from lesion_hub.evaluation.predictions import Predictions
from lesion_hub.evaluation.scoring import Scored
from lesion_hub.evaluation.traits import TRAITS

GROUP_FIGURE = "group_"


@dataclass(frozen=True)
class Figure:
    """A plot: its file ``name``, a ``title``, what it shows in a sentence, and the PNG."""

    name: str
    title: str
    caption: str
    png: bytes = field(repr=False)


def draw_figures(scored: Scored, section: Mapping[str, Any]) -> tuple[Figure, ...]:
    """Every plot that the predictions and their ``section`` of metrics.json give."""
    return (*_overall(scored, section), *_groups(section), *_robustness(section))


def _overall(scored: Scored, section: Mapping[str, Any]) -> Iterator[Figure]:
    predictions = Predictions(scored.probabilities, scored.labels, scored.space)
    matrix, labels = section["confusion_matrix"], scored.space.labels
    yield Figure(
        "confusion", "Confusion matrix, counts", "Rows are the true label, columns the predicted one.",
        plots.confusion_matrix(matrix, labels),
    )  # fmt: skip
    yield Figure(
        "confusion_normalised", "Confusion matrix, percent of each row", "The diagonal is each label's sensitivity.",
        plots.confusion_matrix(matrix, labels, normalised=True),
    )  # fmt: skip
    yield Figure("roc", "ROC curves", "Each label against the rest.", plots.roc_curves(predictions))
    yield Figure(
        "precision_recall", "Precision-recall curves", "Each label against the rest.",
        plots.precision_recall_curves(predictions),
    )  # fmt: skip
    yield Figure(
        "reliability", "Reliability", "A calibrated model's points lie on the dotted line.",
        plots.reliability_diagram(scored.probabilities, scored.labels),
    )  # fmt: skip
    yield Figure(
        "risk_coverage", "Risk and coverage", "Errors among the images that the model is surest of.",
        plots.risk_coverage(scored.probabilities, scored.labels),
    )  # fmt: skip


def _groups(section: Mapping[str, Any]) -> Iterator[Figure]:
    for trait, found in section.get("by_group", {}).items():
        bars = {_bar_name(name, entry): _interval(entry) for name, entry in found.items()}
        caption = "Balanced accuracy with 95 % intervals; bins marked * are too small to tell."
        yield Figure(f"{GROUP_FIGURE}{trait}", TRAITS[trait], caption, plots.group_bars(bars, "Balanced accuracy"))


def _bar_name(name: str, entry: Mapping[str, Any]) -> str:
    return f"{name} ({entry['images']}){'*' if entry['warning'] else ''}"


def _interval(entry: Mapping[str, Any]) -> Interval:
    return Interval(**entry["intervals"]["balanced_accuracy"])


def _robustness(section: Mapping[str, Any]) -> Iterator[Figure]:
    if "robustness" in section:
        caption = "Severity 0 is the clean image, 5 the strongest disturbance."
        yield Figure("robustness", "Robustness", caption, robustness.picture(section["robustness"]))
