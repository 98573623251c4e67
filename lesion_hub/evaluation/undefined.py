"""Why a measure has no value: the words that stand beside every None in a report."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from lesion_hub.taxonomy import LabelSpace

_OVERALL = {
    "cohen_kappa": "truth and predictions are all one and the same label",
    "mcc": "the truth or the predictions are all one label",
    "macro_auroc": "no label has both examples and counterexamples",
}


def reasons(values: Mapping[str, float | None], matrix: NDArray[np.float64], space: LabelSpace) -> dict[str, str]:
    """A reason for each None among dotted ``values``, from the (C, C) confusion ``matrix`` of the same predictions."""
    return {name: _reason(name, matrix, space) for name, value in values.items() if value is None}


def _reason(name: str, matrix: NDArray[np.float64], space: LabelSpace) -> str:
    if name in _OVERALL:
        return _OVERALL[name]
    if name.startswith("malignancy."):
        return "the examples are not both malignant and benign"
    label, _, measure = name.removeprefix("per_class.").rpartition(".")
    i = space.index(label)
    present, called, total = matrix[i].sum(), matrix[:, i].sum(), matrix.sum()
    if measure == "ppv":
        return f"{label!r} is never predicted"
    if measure == "npv":
        return f"{label!r} is always predicted"
    if present == 0:
        return f"{label!r} has no example" + (" and is never predicted" if measure == "f1" and called == 0 else "")
    return f"{label!r} is the label of every example" if present == total else "not defined for these predictions"
