"""Draw the plots of an evaluation, each as the bytes of a PNG or SVG file, and list them with titles and captions.

Only matplotlib's object interface is used, so that a call leaves no global state behind and works without a display. Curves
differ in colour and in dash, with the colours of Okabe and Ito, which stay apart for colour-blind readers.
"""

from __future__ import annotations

import io
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike, NDArray
from sklearn.metrics import auc, average_precision_score, precision_recall_curve, roc_curve

from lesion_hub.errors import DataError
from lesion_hub.evaluation.abstention import risk_coverage
from lesion_hub.evaluation.assessment import TRAITS
from lesion_hub.evaluation.calibration import reliability_bins
from lesion_hub.evaluation.intervals import Interval
from lesion_hub.evaluation.predictions import Predictions
from lesion_hub.evaluation.scoring import Scored

Format = Literal["png", "svg"]

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C6D31")
DASHES = ("-", "--", "-.", ":")
GREY = "#767676"
GROUP_FIGURE = "group_"
"""What the names of plots by group begin with; a trait follows."""
_DPI = 160
_CHANCE: dict[str, Any] = {"color": GREY, "linewidth": 1, "linestyle": (0, (1, 2)), "zorder": 1}


@dataclass(frozen=True)
class PlotFile:
    """A plot: its file ``name``, a ``title``, what it shows in a sentence, and the PNG."""

    name: str
    title: str
    caption: str
    png: bytes = field(repr=False)


def draw_figures(scored: Scored, section: Mapping[str, Any]) -> tuple[PlotFile, ...]:
    """Draw all plots of the predictions and their ``section`` of metrics.json."""
    predictions = scored.predictions
    matrix, labels = section["confusion_matrix"], scored.space.labels
    figures = [
        PlotFile(
            "confusion",
            "Confusion matrix, counts",
            "Rows are the true label, columns the predicted one.",
            confusion_matrix(matrix, labels),
        ),
        PlotFile(
            "confusion_normalised",
            "Confusion matrix, percent of each row",
            "The diagonal is each label's sensitivity.",
            confusion_matrix(matrix, labels, normalised=True),
        ),
        PlotFile("roc", "ROC curves", "Each label against the rest.", roc_curves(predictions)),
        PlotFile(
            "precision_recall",
            "Precision-recall curves",
            "Each label against the rest.",
            precision_recall_curves(predictions),
        ),
        PlotFile(
            "reliability",
            "Reliability",
            "A calibrated model's points lie on the dotted line.",
            reliability_diagram(scored.probabilities, scored.labels),
        ),
        PlotFile(
            "risk_coverage",
            "Risk and coverage",
            "Errors among the images that the model is surest of.",
            risk_coverage_plot(scored.probabilities, scored.labels),
        ),
    ]
    for trait, found in section.get("by_group", {}).items():
        bars = {
            f"{name} ({entry['images']}){'*' if entry['warning'] else ''}": Interval(**entry["intervals"]["balanced_accuracy"])
            for name, entry in found.items()
        }
        caption = "Balanced accuracy with 95 % intervals; bins marked * are too small to tell."
        figures.append(PlotFile(f"{GROUP_FIGURE}{trait}", TRAITS[trait], caption, group_bars(bars, "Balanced accuracy")))
    if "robustness" in section:
        caption = "Severity 0 is the clean image, 5 the strongest disturbance."
        figures.append(PlotFile("robustness", "Robustness", caption, robustness_plot(section["robustness"])))
    return tuple(figures)


def confusion_matrix(
    matrix: ArrayLike, labels: Sequence[str], normalised: bool = False, title: str = "", fmt: Format = "png"
) -> bytes:
    """Draw a (C, C) confusion matrix, rows the truth: counts, or the share of each row in percent. Colour is always the share.

    >>> confusion_matrix([[8, 2], [1, 9]], ["benign", "malignant"])[:4]
    b'\\x89PNG'
    """
    counts = np.asarray(matrix, dtype=np.float64)
    if counts.shape != (len(labels), len(labels)):
        raise DataError(f"confusion matrix of shape {counts.shape} does not fit {len(labels)} labels; give (C, C)")
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.zeros_like(counts), where=totals > 0)
    side = 1.8 + 0.47 * len(labels)
    figure, axes = _canvas(title, "Predicted", "True", (side, side * 0.95))
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for (row, column), share in np.ndenumerate(shares):
        text = f"{100 * share:.0f}" if normalised else f"{counts[row, column]:g}"
        axes.text(column, row, text, ha="center", va="center", fontsize=11, color="white" if share > 0.7 else "black")
    axes.set_xticks(range(len(labels)), labels, rotation=40, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(labels)), labels)
    axes.set_xlabel("Predicted (% of each true label)" if normalised else "Predicted (number of images)")
    axes.spines[:].set_visible(False)
    return _bytes(figure, fmt)


def roc_curves(predictions: Predictions, title: str = "", fmt: Format = "png") -> bytes:
    """Draw the one-vs-rest ROC curve of each label that has both examples and counterexamples."""
    figure, axes = _canvas(title, "1 - specificity", "Sensitivity")
    axes.plot([0, 1], [0, 1], **_CHANCE)
    for style, (label, truth, score) in zip(_styles(), _against_the_rest(predictions), strict=False):
        false_positive, true_positive, _ = roc_curve(truth, score)
        name = f"{label} {auc(false_positive, true_positive):.2f}"
        axes.plot(false_positive, true_positive, label=name, **style)
    _unit_square(axes)
    _legend(axes, "AUROC", "lower right")
    return _bytes(figure, fmt)


def precision_recall_curves(predictions: Predictions, title: str = "", fmt: Format = "png") -> bytes:
    """Draw the one-vs-rest precision-recall curve of each label that has both examples and counterexamples."""
    figure, axes = _canvas(title, "Sensitivity (recall)", "Positive predictive value (precision)", (6.4, 4.4))
    for style, (label, truth, score) in zip(_styles(), _against_the_rest(predictions), strict=False):
        precision, recall, _ = precision_recall_curve(truth, score)
        name = f"{label} {average_precision_score(truth, score):.2f}"
        axes.plot(recall, precision, label=name, drawstyle="steps-post", **style)
    _unit_square(axes)
    _legend(axes, "Average precision", "outside")
    return _bytes(figure, fmt)


def reliability_diagram(probabilities: ArrayLike, labels: ArrayLike, title: str = "", fmt: Format = "png") -> bytes:
    """Draw accuracy against confidence of the top label, over how often each confidence occurs, of (N, C) predictions."""
    bins = reliability_bins(probabilities, labels)
    figure = Figure(figsize=(4.8, 5.4), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    filled = bins.counts > 0
    gap = float(np.abs(bins.confidence - bins.accuracy)[filled] @ bins.counts[filled] / bins.counts.sum())
    width = np.diff(bins.edges)
    upper.bar(bins.edges[:-1], np.nan_to_num(bins.accuracy), width, align="edge", color=COLOURS[5], edgecolor="white")
    upper.plot([0, 1], [0, 1], **_CHANCE | {"color": "black", "zorder": 3})
    upper.plot(bins.confidence[filled], bins.accuracy[filled], "o", color=COLOURS[1], markersize=5, zorder=4)
    upper.set(ylabel="Accuracy", ylim=(0, 1))
    figure.suptitle(title)
    upper.set_title(f"expected calibration error {gap:.3f}", loc="left", fontsize=10)
    lower.bar(bins.edges[:-1], bins.counts / bins.counts.sum(), width, align="edge", color=GREY, edgecolor="white")
    lower.set(xlabel="Confidence of the top label", ylabel="Share", xlim=(0, 1))
    for axes in (upper, lower):
        _plain(axes)
    return _bytes(figure, fmt)


def risk_coverage_plot(probabilities: ArrayLike, labels: ArrayLike, title: str = "", fmt: Format = "png") -> bytes:
    """Draw the error rate among the most confident share of (N, C) predictions, as that share grows to all of them."""
    values, truth = np.asarray(probabilities, dtype=np.float64), np.asarray(labels)
    coverage, risk = risk_coverage(-values.max(axis=1), values.argmax(axis=1) != truth)
    figure, axes = _canvas(title, "Coverage (share of images answered)", "Error rate among them")
    axes.plot(coverage, risk, color=COLOURS[0], linewidth=2)
    axes.plot([0, 1], [risk[-1]] * 2, **_CHANCE)
    axes.text(0.02, risk[-1], f"all images: {risk[-1]:.3f}", va="bottom", color=GREY)
    axes.set(xlim=(0, 1), ylim=(0, max(1.25 * float(risk.max()), 0.02)))
    return _bytes(figure, fmt)


def group_bars(intervals: Mapping[str, Interval], measure: str, title: str = "", fmt: Format = "png") -> bytes:
    """Draw one bar for each group (a label, a body site, a source) with its 95 % interval, or say that it is not defined."""
    known = {name: interval for name, interval in intervals.items() if interval.value is not None}
    figure, axes = _canvas(title, measure, "", (5.6, 1.2 + 0.42 * max(len(intervals), 1)))
    rows = list(intervals)
    axes.set_yticks(range(len(rows)), rows)
    values = [interval.value or 0.0 for interval in known.values()]
    axes.barh([rows.index(name) for name in known], values, color=COLOURS[5], height=0.62)
    top = max([1.0, *(bound for i in known.values() for bound in (i.value, i.high) if bound is not None)])
    for row, interval in enumerate(intervals.values()):
        end = interval.high if interval.high is not None else interval.value
        if interval.low is not None and interval.high is not None:
            axes.plot([interval.low, interval.high], [row, row], color="black", linewidth=2, marker="|", markersize=8)
        text = "not defined" if interval.value is None else f"{interval.value:.2f}"
        axes.text((end or 0.0) + 0.015 * top, row, text, va="center")
    axes.set(xlim=(0, 1.13 * top), ylim=(len(rows) - 0.4, -0.6))
    return _bytes(figure, fmt)


def robustness_lines(
    series: Mapping[str, Sequence[float]], severities: Sequence[float], measure: str, title: str = "", fmt: Format = "png"
) -> bytes:
    """Draw a measure against the severity of each corruption; ``series`` has a value per severity (0 is the clean image)."""
    figure, axes = _canvas(title, "Severity of the corruption", measure, (6.6, 4.2))
    for style, marker, (name, values) in zip(_styles(), itertools.cycle("osD^vP*X"), series.items(), strict=False):
        if len(values) != len(severities):
            raise DataError(f"{name!r} has {len(values)} values for {len(severities)} severities; give one for each")
        axes.plot(severities, values, marker=marker, markersize=5, label=name, **style)
    axes.set_xticks(list(severities))
    axes.set_ylim(0, 1)
    _legend(axes, "", "outside")
    return _bytes(figure, fmt)


def robustness_plot(summary: Mapping[str, Any], fmt: Format = "png") -> bytes:
    """Draw balanced accuracy against the severity of each condition of a ``summarise_robustness`` result."""
    clean = summary["clean"]["balanced_accuracy"]["value"]
    severities = [int(severity) for severity in next(iter(summary["conditions"].values()))["by_severity"]]
    series = {
        name.replace("_", " "): [clean, *(part["balanced_accuracy"]["value"] for part in condition["by_severity"].values())]
        for name, condition in summary["conditions"].items()
    }
    return robustness_lines(series, [0, *severities], "Balanced accuracy", fmt=fmt)


def _against_the_rest(predictions: Predictions) -> Iterator[tuple[str, NDArray[np.bool_], NDArray[np.float64]]]:
    for i, label in enumerate(predictions.space.labels):
        truth = predictions.labels == i
        if truth.any() and not truth.all():
            yield label, truth, predictions.probabilities[:, i]


def _styles() -> Iterator[dict[str, Any]]:
    """Yield the colour and dash of one curve after another; no pair repeats within 32 curves."""
    for i in itertools.count():
        shift = i // len(COLOURS)
        yield {"color": COLOURS[i % len(COLOURS)], "linestyle": DASHES[(i + shift) % len(DASHES)], "linewidth": 1.8}


def _canvas(title: str, xlabel: str, ylabel: str, size: tuple[float, float] = (4.8, 4.4)) -> tuple[Figure, Axes]:
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.add_subplot()
    axes.set(title=title, xlabel=xlabel, ylabel=ylabel)
    _plain(axes)
    return figure, axes


def _plain(axes: Axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(length=3)


def _unit_square(axes: Axes) -> None:
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.02), aspect="equal")


def _legend(axes: Axes, title: str, place: str) -> None:
    if not axes.get_legend_handles_labels()[0]:
        axes.text(0.5, 0.5, "nothing to show", ha="center", transform=axes.transAxes, color=GREY)
    elif place == "outside":
        axes.legend(title=title, loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, handlelength=3)
    else:
        axes.legend(title=title, loc=place, frameon=False, handlelength=3, fontsize=9)


def _bytes(figure: Figure, fmt: Format) -> bytes:
    """Return the file's bytes, the same for the same picture: without date, version or random ids."""
    buffer = io.BytesIO()
    metadata = {"Software": None} if fmt == "png" else {"Date": None, "Creator": None}
    with matplotlib.rc_context({"svg.hashsalt": "lesion-hub"}):
        figure.savefig(buffer, format=fmt, dpi=_DPI, metadata=metadata)
    return buffer.getvalue()
