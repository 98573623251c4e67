"""How numbers and names of measures are printed, in reports and on cards alike."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

UNDEFINED = "n/a"
_SPELLED = {
    "auroc": "AUROC",
    "f1": "F1",
    "ppv": "PPV",
    "npv": "NPV",
    "ece": "ECE",
    "nll": "NLL",
    "pauc": "partial AUC",
    "brier": "Brier score",
    "mcc": "MCC",
    "jpeg": "JPEG",
}


def shown(value: float | None, digits: int = 3) -> str:
    """A number as tables print it.

    >>> shown(0.12345), shown(None)
    ('0.123', 'n/a')
    """
    return UNDEFINED if value is None else f"{value:.{digits}f}"


def interval(value: Mapping[str, Any] | None, digits: int = 3) -> str:
    """A value with its 95 % interval.

    >>> interval({"value": 0.7, "low": 0.61, "high": 0.8})
    '0.700 (0.610–0.800)'
    """
    if value is None or value["value"] is None:
        return UNDEFINED
    low, high = value["low"], value["high"]
    if low is None or high is None:
        return shown(value["value"], digits)
    dash = "–" if low >= 0 else " to "
    return f"{shown(value['value'], digits)} ({shown(low, digits)}{dash}{shown(high, digits)})"


def words(name: str) -> str:
    """The name of a measure for people.

    >>> words("malignancy.auroc"), words("macro_f1"), words("malignancy.sensitivity_at_90_specificity")
    ('malignancy: AUROC', 'macro F1', 'malignancy: sensitivity at 90 % specificity')
    """
    parts = [" ".join(_SPELLED.get(word, word) for word in part.split("_")) for part in name.split(".")]
    text = re.sub(r"\bat (\d+)", r"at \1 %", ": ".join(parts))
    return re.sub(r"partial AUC (\d+)", r"partial AUC above \1 % sensitivity", text)
