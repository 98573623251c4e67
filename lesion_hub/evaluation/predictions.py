"""Predictions, checked before anything is measured: rows of probabilities that sum to 1, labels that exist."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lesion_hub.errors import DataError
from lesion_hub.taxonomy import ABSTAIN, LabelSpace

SUM_TOLERANCE = 1e-3


class Malignancy(NamedTuple):
    """The same predictions as malignant or benign; examples whose true label is neither are left out.

    ``scores`` is (M,) float64, the probability of malignancy; ``truth`` is (M,) bool; ``kept`` is (N,) bool, the M of the
    N examples that take part; ``space`` names the convention (whether actinic keratosis counts as malignant).
    """

    scores: NDArray[np.float64]
    truth: NDArray[np.bool_]
    kept: NDArray[np.bool_]
    space: str


@dataclass(frozen=True, eq=False)
class Predictions:
    """Checked predictions: ``probabilities`` (N, C) float64 in [0, 1], ``labels`` (N,) int64 in [0, C)."""

    probabilities: NDArray[np.float64]
    labels: NDArray[np.int64]
    space: LabelSpace

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def predicted(self) -> NDArray[np.int64]:
        """Return the (N,) labels of highest probability, the first one of a tie."""
        return self.probabilities.argmax(axis=1)

    def malignancy(self) -> Malignancy | None:
        """Reduce the predictions to malignant or benign; None where the label space does not say which labels are malignant."""
        mapping = self.space.malignancy_map
        if mapping is None:
            return None
        truth = mapping.labels(self.labels)
        kept = truth != ABSTAIN
        malignant = mapping.target.index("malignant")
        scores = mapping.probabilities(self.probabilities[kept])[:, malignant]
        # A row of float32 probabilities may sum to a little more than 1.
        return Malignancy(np.minimum(scores, 1.0), truth[kept] == malignant, kept, mapping.target.name)


def check_predictions(probabilities: ArrayLike, labels: ArrayLike, space: LabelSpace) -> Predictions:
    """Turn arrays into ``Predictions``; bad input raises one line that names the first bad row.

    >>> from lesion_hub.taxonomy import label_space
    >>> len(check_predictions([[0.2, 0.8]], [1], label_space("binary")))
    1
    """
    values = checked_scores(probabilities, "probabilities", len(space))
    truth = checked_labels(labels, len(space), rows=len(values), where=f"label space {space.name!r}")
    outside = (values < 0) | (values > 1 + SUM_TOLERANCE)
    if outside.any():
        row, column = np.argwhere(outside)[0]
        raise DataError(
            f"probabilities row {row} holds {values[row, column]:.6g} for {space.labels[column]!r}, outside 0..1; "
            "give softmax probabilities, not logits"
        )
    sums = values.sum(axis=1)
    wrong = np.abs(sums - 1) > SUM_TOLERANCE
    if wrong.any():
        row = int(wrong.argmax())
        raise DataError(
            f"probabilities row {row} sums to {sums[row]:.6g}, not 1; give softmax probabilities over the "
            f"{len(space)} labels of {space.name!r}, computed in float32"
        )
    return Predictions(values, truth, space)


def log_probabilities(probabilities: ArrayLike) -> NDArray[np.float64]:
    """Return the logarithm of (..., C) probabilities, which is their logits plus a constant; that of zero is finite.

    >>> log_probabilities([1.0, 0.0]).round().tolist()
    [0.0, -708.0]
    """
    return np.log(np.maximum(np.asarray(probabilities, dtype=np.float64), np.finfo(np.float64).tiny))


def checked_scores(scores: ArrayLike, name: str, columns: int | None = None) -> NDArray[np.float64]:
    """Turn ``scores`` into (N, C) float64 without NaN, N >= 1; ``columns`` fixes C.

    Minus infinity passes: it is the logarithm of zero.
    """
    try:
        values = np.asarray(scores, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError(f"{name} are not a table of numbers ({error}); give an array of shape (N, C)") from None
    if values.ndim != 2 or (columns is not None and values.shape[1] != columns):
        raise DataError(f"{name} have shape {values.shape}; give (N, {columns or 'C'}), one column per label")
    if not len(values):
        raise DataError(f"{name} hold no row; there is nothing to evaluate")
    bad = np.isnan(values) | np.isposinf(values)
    if bad.any():
        row = int(bad.any(axis=1).argmax())
        raise DataError(f"{name} row {row} holds NaN or infinity; look for a diverged model or a broken image")
    return values


def checked_labels(labels: ArrayLike, classes: int, *, rows: int, where: str) -> NDArray[np.int64]:
    """Turn ``labels`` into (N,) int64 in [0, classes), as many as there are ``rows``."""
    given = np.asarray(labels)
    if given.ndim != 1 or len(given) != rows:
        raise DataError(f"labels have shape {given.shape} for {rows} predictions; give one label per row")
    if given.dtype.kind not in "iub":
        raise DataError(f"labels are {given.dtype}, not integers; give indices into {where}")
    values = given.astype(np.int64)
    bad = (values < 0) | (values >= classes)
    if bad.any():
        row = int(bad.argmax())
        raise DataError(f"label {values[row]} in row {row} is outside 0..{classes - 1}; check that it belongs to {where}")
    return values
