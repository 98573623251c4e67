"""The measures of a classifier, computed from probabilities and labels.

One implementation serves the plain measures and their intervals: each measure is a function of how often every group of
examples counts, and the plain value is the case where all count once. To add a measure, add a row to one of the tables
below: its dotted name, its place in metrics.json and its interval follow from the row, and from the name the words for it
(``lesion_hub.hub.measures.words``).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lesion_hub.errors import DataError
from lesion_hub.evaluation.predictions import Predictions, check_predictions
from lesion_hub.evaluation.weighting import AdditiveSums, Array, Counts, Curve, Ranking
from lesion_hub.taxonomy import LabelSpace, label_space, nearest

BINS = 15
PROBABILITY_FLOOR = float(np.finfo(np.float64).eps)


class Measure(NamedTuple):
    """How to compute a measure (the table that holds it says from what), and why it may have no value.

    ``reason`` may name the ``{label}``; ``reason_if_present`` replaces it for a label that has examples, where given.
    """

    values: Callable[[Any], Array]
    reason: str = ""
    reason_if_present: str = ""


class Confusion:
    """B weighted confusion matrices, (C, C, B) with the true label first, and the sums that measures are made of.

    ``total`` is (B,); ``true``, ``called``, ``hits`` and ``rest`` (neither true nor called) are (C, B) counts of each label.
    """

    def __init__(self, matrix: Array) -> None:
        self.matrix = matrix
        self.total = matrix.sum(axis=(0, 1))
        self.true, self.called = matrix.sum(axis=1), matrix.sum(axis=0)
        self.hits = np.einsum("ccb->cb", matrix)
        self.rest = self.total - self.true - self.called + self.hits
        self.all_hits = np.einsum("ccb->b", matrix)
        self.occurs = self.true + self.called > 0

    @cached_property
    def accuracy(self) -> Array:
        return _ratio(self.all_hits, self.total)

    @cached_property
    def sensitivity(self) -> Array:
        return _ratio(self.hits, self.true)

    @cached_property
    def ppv(self) -> Array:
        return _ratio(self.hits, self.called)

    @cached_property
    def f1(self) -> Array:
        return _ratio(2 * self.hits, self.true + self.called)

    def cohen_kappa(self) -> Array:
        with np.errstate(invalid="ignore"):
            chance = _ratio((self.true * self.called).sum(axis=0), self.total**2)
            return _ratio(self.accuracy - chance, 1 - chance)

    def matthews(self) -> Array:
        covariance = self.all_hits * self.total - (self.true * self.called).sum(axis=0)
        spread_true, spread_called = (self.total**2 - (count**2).sum(axis=0) for count in (self.true, self.called))
        return _ratio(covariance, np.sqrt(spread_true * spread_called))


def _ratio(numerator: Array, denominator: Array) -> Array:
    return np.divide(numerator, denominator, out=np.full(denominator.shape, np.nan), where=denominator > 0)


def _mean_over(values: Array, included: NDArray[np.bool_]) -> Array:
    """Average (C, B) values over the labels included, NaN counting as 0; NaN where a column includes none."""
    return _ratio(np.where(included, np.nan_to_num(values), 0.0).sum(axis=0), included.sum(axis=0).astype(np.float64))


def _residuals(predictions: Predictions) -> Array:
    """Return (N, C) probabilities less the truth as zeros and a one."""
    residuals = predictions.probabilities.copy()
    residuals[np.arange(len(predictions)), predictions.labels] -= 1
    return residuals


def _negative_log_likelihoods(predictions: Predictions) -> Array:
    likelihoods = predictions.probabilities[np.arange(len(predictions)), predictions.labels]
    return -np.log(np.clip(likelihoods, PROBABILITY_FLOOR, 1))


# (B,) values of a `Confusion`.
OVERALL = {
    "accuracy": Measure(lambda found: found.accuracy),
    "balanced_accuracy": Measure(lambda found: _mean_over(found.sensitivity, found.true > 0)),
    "macro_f1": Measure(lambda found: _mean_over(found.f1, found.occurs)),
    "weighted_f1": Measure(lambda found: _ratio((np.nan_to_num(found.f1) * found.true).sum(axis=0), found.total)),
    "macro_precision": Measure(lambda found: _mean_over(found.ppv, found.occurs)),
    "macro_recall": Measure(lambda found: _mean_over(found.sensitivity, found.occurs)),
    "cohen_kappa": Measure(Confusion.cohen_kappa, "truth and predictions are all one and the same label"),
    "mcc": Measure(Confusion.matthews, "the truth or the predictions are all one label"),
}
# (C, B) values of a `Confusion`: each label against the rest.
PER_CLASS = {
    "sensitivity": Measure(lambda found: found.sensitivity, "{label} has no example"),
    "specificity": Measure(lambda found: _ratio(found.rest, found.total - found.true), "{label} is the label of every example"),
    "ppv": Measure(lambda found: found.ppv, "{label} is never predicted"),
    "npv": Measure(lambda found: _ratio(found.rest, found.total - found.called), "{label} is always predicted"),
    "f1": Measure(lambda found: found.f1, "{label} has no example and is never predicted"),
}
# (B,) values of each label's `Curve`.
RANKING = {
    "auroc": Measure(Curve.auroc, "{label} has no example", "{label} is the label of every example"),
    "average_precision": Measure(Curve.average_precision, "{label} has no example"),
}
# (B,) values of the (C, B) tables above by name: means over the labels that have one.
MACRO_RANKING = {
    "macro_auroc": Measure(
        lambda found: _mean_over(found["auroc"], ~np.isnan(found["auroc"])),
        "no label has both examples and counterexamples",
    ),
    "macro_average_precision": Measure(
        lambda found: _mean_over(found["average_precision"], ~np.isnan(found["average_precision"])), "no label has an example"
    ),
}
# (B,) values of (1 + C, B) gaps between confidence and truth, summed over bins: the top label's, then each label's.
BINNED = {
    "ece": Measure(lambda gaps: gaps[0]),
    "classwise_ece": Measure(lambda gaps: gaps[1:].mean(axis=0)),
}
# (N,) values of `Predictions`, one for each example: the measure is their mean.
MEANS = {
    "brier": Measure(lambda predictions: (_residuals(predictions) ** 2).sum(axis=1)),
    "nll": Measure(_negative_log_likelihoods),
}
# (B,) values of the `Curve` of the malignant score.
_NOT_BOTH = "the examples are not both malignant and benign"
MALIGNANCY = {
    "auroc": Measure(Curve.auroc, _NOT_BOTH),
    "sensitivity_at_90_specificity": Measure(lambda curve: curve.sensitivity_at_specificity(0.90), _NOT_BOTH),
    "sensitivity_at_95_specificity": Measure(lambda curve: curve.sensitivity_at_specificity(0.95), _NOT_BOTH),
    "specificity_at_95_sensitivity": Measure(lambda curve: curve.specificity_at_sensitivity(0.95), _NOT_BOTH),
    "pauc_80": Measure(lambda curve: curve.partial_auroc(0.80), _NOT_BOTH),
}

_WHOLE = OVERALL | MACRO_RANKING | BINNED | MEANS
_OF_LABEL = PER_CLASS | RANKING


def compute(
    probabilities: ArrayLike, labels: ArrayLike, space: LabelSpace | str, weights: ArrayLike | None = None
) -> dict[str, Any]:
    """Compute all measures of (N, C) ``probabilities`` against (N,) integer ``labels`` of a label space.

    Returns JSON-able values: overall measures by name, those of ``per_class`` and ``malignancy``, the ``confusion_matrix``
    (rows are the truth), and ``undefined``, which says why a value is None. ``weights`` (N,), each >= 0, count an example
    several times or not at all.

    >>> result = compute([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]], [0, 1, 1], "binary")
    >>> result["balanced_accuracy"], result["malignancy"]["auroc"], result["undefined"]
    (0.75, 1.0, {})
    """
    space = label_space(space) if isinstance(space, str) else space
    predictions = check_predictions(probabilities, labels, space)
    counts = _checked_weights(weights, len(predictions))[:, None]
    measures = Measures(predictions, np.arange(len(predictions)))
    confusion = measures.confusion(counts)
    values = {name: None if np.isnan(value[0]) else float(value[0]) for name, value in measures.evaluate(counts).items()}
    malignancy = predictions.malignancy()
    present = confusion.true[:, 0]
    undefined = {}
    for name, measure, i in _measures_of(space):
        if values[name] is None:
            reason = (i is not None and present[i] and measure.reason_if_present) or measure.reason
            undefined[name] = reason if i is None else reason.format(label=repr(space.labels[i]))
    return {
        "label_space": space.name,
        "labels": list(space.labels),
        "examples": len(predictions),
        **{name: values[name] for name in _WHOLE},
        "per_class": {
            label: {"support": _count(present[i])} | {name: values[f"per_class.{label}.{name}"] for name in _OF_LABEL}
            for i, label in enumerate(space.labels)
        },
        "malignancy": malignancy
        and {
            "label_space": malignancy.space,
            "malignant": int(malignancy.truth.sum()),
            "benign": int((~malignancy.truth).sum()),
            **{name: values[f"malignancy.{name}"] for name in MALIGNANCY},
        },
        "confusion_matrix": [[_count(cell) for cell in row] for row in confusion.matrix[:, :, 0]],
        "undefined": undefined,
    }


def flatten(result: Mapping[str, Any]) -> dict[str, float | None]:
    """Return the measures of a ``compute`` result by the dotted names that intervals use.

    >>> flatten(compute([[0.9, 0.1], [0.2, 0.8]], [0, 1], "binary"))["per_class.malignant.sensitivity"]
    1.0
    """
    flat = {name: result[name] for name in _WHOLE}
    for label in result["labels"]:
        flat |= {f"per_class.{label}.{name}": result["per_class"][label][name] for name in _OF_LABEL}
    if result["malignancy"]:
        flat |= {f"malignancy.{name}": result["malignancy"][name] for name in MALIGNANCY}
    return flat


def names(space: LabelSpace) -> tuple[str, ...]:
    """List the dotted names of all measures in a label space."""
    return tuple(name for name, _, _ in _measures_of(space))


def _measures_of(space: LabelSpace) -> Iterator[tuple[str, Measure, int | None]]:
    """Yield each measure of a label space: its dotted name, its row, and the index of its label (None: of no single label)."""
    for name, measure in _WHOLE.items():
        yield name, measure, None
    for i, label in enumerate(space.labels):
        for name, measure in _OF_LABEL.items():
            yield f"per_class.{label}.{name}", measure, i
    for name, measure in MALIGNANCY.items() if space.malignancy_map else ():
        yield f"malignancy.{name}", measure, None


class Measures:
    """The measures of one set of predictions as functions of how often each group counts.

    ``group`` (N,) gives each example's group in [0, G). ``wanted`` limits the work to the measures of those dotted names.
    """

    def __init__(self, predictions: Predictions, group: NDArray[np.int64], wanted: Collection[str] | None = None) -> None:
        self.space = predictions.space
        known = names(self.space)
        for name in wanted or ():
            if name not in known:
                raise DataError(f"unknown measure {name!r} for label space {self.space.name!r}; {nearest(name, known)}")
        self.names = frozenset(known if wanted is None else wanted)
        self._groups = int(group.max()) + 1
        classes = len(self.space)
        cell = predictions.labels * classes + predictions.predicted
        self._cells = AdditiveSums(np.ones(len(group)), cell, group, (classes**2, self._groups))
        self._calibration = self._calibration_sums(predictions, group) if self.names & {*BINNED, *MEANS} else None
        self._ranked = {
            i: Ranking(predictions.probabilities[:, i], predictions.labels == i, group, self._groups)
            for i, label in enumerate(self.space.labels)
            if self.names & {*MACRO_RANKING, *(f"per_class.{label}.{name}" for name in RANKING)}
        }
        malignancy = predictions.malignancy() if any(name.startswith("malignancy.") for name in self.names) else None
        self._malignancy = malignancy and Ranking(malignancy.scores, malignancy.truth, group[malignancy.kept], self._groups)

    def confusion(self, counts: Counts) -> Confusion:
        """Return the confusion matrices with every example weighted by its group's row of (G, B) ``counts``."""
        return Confusion(self._cells.weighted(counts).reshape(len(self.space), len(self.space), counts.shape[1]))

    def evaluate(self, counts: Counts) -> dict[str, Array]:
        """Compute each wanted measure as (B,) values, NaN where undefined, for (G, B) ``counts`` of the groups."""
        confusion = self.confusion(counts)
        per_class = {name: measure.values(confusion) for name, measure in PER_CLASS.items()}
        per_class |= {name: np.full((len(self.space), counts.shape[1]), np.nan) for name in RANKING}
        for i, ranking in self._ranked.items():
            curve = ranking.curve(counts)
            for name, measure in RANKING.items():
                per_class[name][i] = measure.values(curve)
        values = {name: measure.values(confusion) for name, measure in OVERALL.items()}
        values |= {name: measure.values(per_class) for name, measure in MACRO_RANKING.items()}
        if self._calibration is not None:
            with np.errstate(invalid="ignore"):
                means = np.where(confusion.total > 0, self._calibration.weighted(counts) / confusion.total, np.nan)
            gaps = np.abs(means[: -len(MEANS)]).reshape(1 + len(self.space), BINS, -1).sum(axis=1)
            values |= {name: measure.values(gaps) for name, measure in BINNED.items()}
            values |= dict(zip(MEANS, means[-len(MEANS) :], strict=True))
        for name, rows in per_class.items():
            values |= {f"per_class.{label}.{name}": row for label, row in zip(self.space.labels, rows, strict=True)}
        if self._malignancy:
            curve = self._malignancy.curve(counts)
            values |= {f"malignancy.{name}": measure.values(curve) for name, measure in MALIGNANCY.items()}
        return {name: values[name] for name in names(self.space) if name in self.names}

    def _calibration_sums(self, predictions: Predictions, group: NDArray[np.int64]) -> AdditiveSums:
        """Sum over examples into rows: the top label's bins, then each label's bins, then the ``MEANS``."""
        probabilities = predictions.probabilities
        count, classes = probabilities.shape
        confidence, correct = probabilities.max(axis=1), predictions.predicted == predictions.labels
        rows = [bin_of(confidence), bin_of(probabilities) + BINS * (1 + np.arange(classes))]
        data = [confidence - correct, _residuals(predictions)]
        for i, measure in enumerate(MEANS.values()):
            rows.append(np.full(count, BINS * (1 + classes) + i))
            data.append(measure.values(predictions))
        group = np.concatenate([np.repeat(group, part.size // count) for part in data])
        value, row = (np.concatenate([part.ravel() for part in parts]) for parts in (data, rows))
        return AdditiveSums(value, row, group, (BINS * (1 + classes) + len(MEANS), self._groups))


def bin_of(confidence: NDArray[np.float64], bins: int = BINS) -> NDArray[np.int64]:
    """Return the equal-width bin of each value in [0, 1]; a bin holds its lower edge, the last one also 1."""
    edges = np.linspace(0.0, 1.0, bins + 1)
    return np.clip(np.searchsorted(edges, confidence, side="right") - 1, 0, bins - 1).astype(np.int64)


def _checked_weights(weights: ArrayLike | None, rows: int) -> Array:
    values = np.ones(rows) if weights is None else np.asarray(weights, dtype=np.float64)
    if values.shape != (rows,) or not (np.isfinite(values) & (values >= 0)).all() or not values.any():
        raise DataError(f"weights must be {rows} finite numbers >= 0, not all zero, one per prediction")
    return values


def _count(value: float) -> int | float:
    return int(value) if float(value).is_integer() else float(value)
