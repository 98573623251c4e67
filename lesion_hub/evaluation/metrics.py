"""Every number we report about a classifier, from probabilities and labels.

One implementation serves the plain measures and their intervals: each measure is a function of how often every group of
examples counts, and the plain value is the case where all count once.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lesion_hub.errors import DataError
from lesion_hub.evaluation import confusion
from lesion_hub.evaluation.additive import AdditiveSums
from lesion_hub.evaluation.calibration import BINS, PROBABILITY_FLOOR, bin_of
from lesion_hub.evaluation.predictions import MALIGNANCY_SPACES, Predictions, check
from lesion_hub.evaluation.ranking import Curve, Ranking
from lesion_hub.evaluation.undefined import reasons
from lesion_hub.taxonomy import LabelSpace, label_space, nearest

Array = NDArray[np.float64]
Counts = NDArray[np.floating]

RANKING = ("auroc", "average_precision")
MACRO_RANKING = {"macro_auroc": "auroc", "macro_average_precision": "average_precision"}
CALIBRATION = ("ece", "classwise_ece", "brier", "nll")
MALIGNANCY = (
    "auroc",
    "sensitivity_at_90_specificity",
    "sensitivity_at_95_specificity",
    "specificity_at_95_sensitivity",
    "pauc_80",
)


def compute(
    probabilities: ArrayLike, labels: ArrayLike, space: LabelSpace | str, weights: ArrayLike | None = None
) -> dict[str, Any]:
    """All measures of (N, C) ``probabilities`` against (N,) integer ``labels`` of a label space.

    Returns JSON-able values: overall measures by name, ``per_class`` and ``malignancy`` groups, the ``confusion_matrix``
    (rows are the truth), and ``undefined``, which says why a value is None. ``weights`` (N,), each >= 0, count an example
    several times or not at all.

    >>> result = compute([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]], [0, 1, 1], "binary")
    >>> result["balanced_accuracy"], result["malignancy"]["auroc"], result["undefined"]
    (0.75, 1.0, {})
    """
    space = label_space(space) if isinstance(space, str) else space
    predictions = check(probabilities, labels, space)
    counts = _checked_weights(weights, len(predictions))[:, None]
    measures = Measures(predictions, np.arange(len(predictions)))
    matrix = measures.confusion(counts)
    values = {name: _plain(value[0]) for name, value in measures.evaluate(counts).items()}
    question = predictions.malignancy()
    result: dict[str, Any] = {"label_space": space.name, "labels": list(space.labels), "examples": len(predictions)}
    result |= {name: value for name, value in values.items() if "." not in name}
    result["per_class"] = {
        label: {"support": _count(matrix[i, :, 0].sum())}
        | {name: values[f"per_class.{label}.{name}"] for name in (*confusion.PER_CLASS, *RANKING)}
        for i, label in enumerate(space.labels)
    }
    result["malignancy"] = question and {
        "label_space": question.space,
        "malignant": int(question.truth.sum()),
        "benign": int((~question.truth).sum()),
        **{name: values[f"malignancy.{name}"] for name in MALIGNANCY},
    }
    result["confusion_matrix"] = [[_count(cell) for cell in row] for row in matrix[:, :, 0]]
    result["undefined"] = reasons(values, matrix[:, :, 0], space)
    return result


def flatten(result: Mapping[str, Any]) -> dict[str, float | None]:
    """The measures of a ``compute`` result under the dotted names that intervals use.

    >>> flatten(compute([[0.9, 0.1], [0.2, 0.8]], [0, 1], "binary"))["per_class.malignant.sensitivity"]
    1.0
    """
    space = list(result["labels"])
    flat = {name: result[name] for name in (*confusion.OVERALL, *MACRO_RANKING, *CALIBRATION)}
    for label in space:
        flat |= {f"per_class.{label}.{name}": result["per_class"][label][name] for name in (*confusion.PER_CLASS, *RANKING)}
    if result["malignancy"]:
        flat |= {f"malignancy.{name}": result["malignancy"][name] for name in MALIGNANCY}
    return flat


def names(space: LabelSpace) -> tuple[str, ...]:
    """The dotted names of all measures in a label space."""
    per_class = [f"per_class.{label}.{name}" for label in space.labels for name in (*confusion.PER_CLASS, *RANKING)]
    speaks = any(space.maps_to(name) for name in MALIGNANCY_SPACES)
    malignancy = [f"malignancy.{name}" for name in MALIGNANCY] if speaks else []
    return (*confusion.OVERALL, *MACRO_RANKING, *CALIBRATION, *per_class, *malignancy)


class Measures:
    """The measures of one set of predictions as functions of how often each group counts.

    ``group`` (N,) gives each example's group in [0, G). ``wanted`` limits the work to the measures of those dotted names.
    """

    def __init__(self, predictions: Predictions, group: NDArray[np.int64], wanted: Collection[str] | None = None) -> None:
        self.space = predictions.space
        self.names = checked_names(wanted, self.space)
        self._groups = int(group.max()) + 1
        classes = len(self.space)
        cell = predictions.labels * classes + predictions.predicted
        self._cells = AdditiveSums(np.ones(len(group)), cell, group, (classes**2, self._groups))
        self._calibration = self._calibration_sums(predictions, group) if set(CALIBRATION) & self.names else None
        self._ranked = {
            i: Ranking(predictions.probabilities[:, i], predictions.labels == i, group, self._groups)
            for i, label in enumerate(self.space.labels)
            if self.names & {f"per_class.{label}.{name}" for name in RANKING} or self.names & set(MACRO_RANKING)
        }
        question = predictions.malignancy() if any(name.startswith("malignancy.") for name in self.names) else None
        self._malignancy = question and Ranking(question.scores, question.truth, group[question.kept], self._groups)

    def confusion(self, counts: Counts) -> Array:
        """(C, C, B) weighted confusion matrices, true label first, for (G, B) ``counts``."""
        return self._cells.weighted(counts).reshape(len(self.space), len(self.space), counts.shape[1])

    def evaluate(self, counts: Counts) -> dict[str, Array]:
        """Each wanted measure as (B,) values, NaN where undefined, for (G, B) ``counts`` of the groups."""
        matrix = self.confusion(counts)
        values = confusion.overall(matrix)
        for name, rows in confusion.per_class(matrix).items():
            values |= {f"per_class.{label}.{name}": row for label, row in zip(self.space.labels, rows, strict=True)}
        values |= self._calibration_values(counts, matrix.sum(axis=(0, 1)))
        values |= self._ranking_values(counts)
        if self._malignancy:
            values |= _malignancy_values(self._malignancy.curve(counts))
        return {name: values[name] for name in names(self.space) if name in self.names}

    def _ranking_values(self, counts: Counts) -> dict[str, Array]:
        per_class = {name: np.full((len(self.space), counts.shape[1]), np.nan) for name in RANKING}
        for i, ranking in self._ranked.items():
            curve = ranking.curve(counts)
            per_class["auroc"][i], per_class["average_precision"][i] = curve.auroc(), curve.average_precision()
        values = {
            f"per_class.{label}.{name}": per_class[name][i] for i, label in enumerate(self.space.labels) for name in RANKING
        }
        for name, part in MACRO_RANKING.items():
            values[name] = confusion.mean_over(per_class[part], ~np.isnan(per_class[part]))
        return values

    def _calibration_sums(self, predictions: Predictions, group: NDArray[np.int64]) -> AdditiveSums:
        """Rows: top-label bins, then each class's bins, then Brier and NLL. All of them are sums over examples."""
        probabilities, labels = predictions.probabilities, predictions.labels
        count, classes = probabilities.shape
        residual = probabilities.copy()
        residual[np.arange(count), labels] -= 1
        confidence, correct = probabilities.max(axis=1), predictions.predicted == labels
        likelihood = np.clip(probabilities[np.arange(count), labels], PROBABILITY_FLOOR, 1)
        last = BINS * (1 + classes)
        rows = [bin_of(confidence), bin_of(probabilities) + BINS * (1 + np.arange(classes))]
        rows += [np.full(count, last), np.full(count, last + 1)]
        data = [confidence - correct, residual, (residual**2).sum(axis=1), -np.log(likelihood)]
        group = np.concatenate([np.repeat(group, part.size // count) for part in data])
        value, row = (np.concatenate([part.ravel() for part in parts]) for parts in (data, rows))
        return AdditiveSums(value, row, group, (last + 2, self._groups))

    def _calibration_values(self, counts: Counts, total: Array) -> dict[str, Array]:
        if self._calibration is None:
            return {}
        sums = self._calibration.weighted(counts)
        with np.errstate(invalid="ignore"):
            means = np.where(total > 0, sums / total, np.nan)
        gaps = np.abs(means[:-2]).reshape(1 + len(self.space), BINS, -1).sum(axis=1)
        return {"ece": gaps[0], "classwise_ece": gaps[1:].mean(axis=0), "brier": means[-2], "nll": means[-1]}


def checked_names(wanted: Collection[str] | None, space: LabelSpace) -> frozenset[str]:
    """All names when None; an unknown name raises and names the nearest."""
    known = names(space)
    for name in wanted or ():
        if name not in known:
            raise DataError(f"unknown measure {name!r} for label space {space.name!r}; {nearest(name, known)}")
    return frozenset(known if wanted is None else wanted)


def _malignancy_values(curve: Curve) -> dict[str, Array]:
    values = (
        curve.auroc(),
        curve.sensitivity_at_specificity(0.90),
        curve.sensitivity_at_specificity(0.95),
        curve.specificity_at_sensitivity(0.95),
        curve.partial_auroc(0.80),
    )
    return {f"malignancy.{name}": value for name, value in zip(MALIGNANCY, values, strict=True)}


def _checked_weights(weights: ArrayLike | None, rows: int) -> Array:
    values = np.ones(rows) if weights is None else np.asarray(weights, dtype=np.float64)
    if values.shape != (rows,) or not (np.isfinite(values) & (values >= 0)).all() or not values.any():
        raise DataError(f"weights must be {rows} finite numbers >= 0, not all zero, one per prediction")
    return values


def _plain(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _count(value: float) -> int | float:
    return int(value) if float(value).is_integer() else float(value)
