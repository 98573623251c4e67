"""The measures that people are shown: which ones where, their names in words, and numbers as tables print them.

A measure is named as in ``metrics.json``: ``balanced_accuracy``, ``malignancy.auroc``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from lesion_hub.config import AnswerRules

# In the order in which they are shown; a measure that the results lack is left out.
CARD_HEADLINES = (
    "balanced_accuracy",
    "accuracy",
    "macro_f1",
    "macro_auroc",
    "malignancy.auroc",
    "malignancy.sensitivity_at_90_specificity",
    "malignancy.sensitivity_at_95_specificity",
    "malignancy.specificity_at_95_sensitivity",
    "malignancy.pauc_80",
    "ece",
    "classwise_ece",
    "brier",
    "nll",
)
"""The card, the evaluation report and the page."""

COMMAND_HEADLINES = ("balanced_accuracy", "accuracy", "macro_f1", "macro_auroc", "malignancy.auroc", "ece", "nll")
"""What ``lesion-hub evaluate`` prints."""

TRAINING_HEADLINES = ("accuracy", "balanced_accuracy", "macro_f1", "macro_auroc", "ece")
"""The table at the end of a training run, and the folds of a cross-validation."""

COMPARISON_MEASURES = ("balanced_accuracy", "accuracy", "macro_f1", "macro_auroc", "malignancy.auroc", "ece", "brier", "nll")
"""The measures whose difference ``lesion-hub compare`` estimates."""

UNDEFINED = "n/a"
_WORDS = {
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


def words(name: str) -> str:
    """Spell out the name of a measure, a group or a disturbance.

    >>> words("malignancy.auroc"), words("macro_f1"), words("malignancy.sensitivity_at_90_specificity")
    ('malignancy: AUROC', 'macro F1', 'malignancy: sensitivity at 90 % specificity')
    """
    parts = [" ".join(_WORDS.get(word, word) for word in part.split("_")) for part in name.split(".")]
    text = re.sub(r"\bat (\d+)", r"at \1 %", ": ".join(parts))
    return re.sub(r"partial AUC (\d+)", r"partial AUC above \1 % sensitivity", text)


def shown(value: float | None, digits: int = 3) -> str:
    """Print a number as tables do.

    >>> shown(0.12345), shown(None)
    ('0.123', 'n/a')
    """
    return UNDEFINED if value is None else f"{value:.{digits}f}"


def interval(value: Mapping[str, Any] | None, digits: int = 3) -> str:
    """Print a value with its 95 % interval.

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


NOT_FITTED = "not fitted"


def rules_in_words(rules: AnswerRules | None) -> dict[str, str]:
    """Say which rules a model has, each on a line.

    >>> rules_in_words(None)
    {'label sets': 'not fitted', 'balanced decision': 'not fitted', 'abstention': 'not fitted'}
    """
    sets, decision, abstention = (rules or AnswerRules()).parts
    told = dict.fromkeys(("label sets", "balanced decision", "abstention"), NOT_FITTED)
    if sets is not None:
        lesions = ", ".join(f"{label} {count}" for label, count in sets.lesions.items())
        told["label sets"] = f"fitted on {sets.chosen_on} lesions: {lesions}"
    if decision is not None:
        told["balanced decision"] = f"shares to the power of {decision.power:g}, chosen on {decision.chosen_on}"
    if abstention is not None:
        reached = ", ".join(f"{float(error):.0%}" for error in abstention.limits) or "none"
        told["abstention"] = f"for errors of {reached}, chosen on {abstention.chosen_on}"
    return told
