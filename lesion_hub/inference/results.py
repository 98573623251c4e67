"""What a prediction says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Prediction:
    """One image's answer.

    ``probabilities`` maps every label to a float, and they sum to 1. ``malignancy`` is the probability of a malignant lesion
    in [0, 1], None where the labels say nothing of it; ``decisions`` compares it with each stored operating point.
    """

    probabilities: Mapping[str, float]
    malignancy: float | None = None
    decisions: Mapping[str, bool] = field(default_factory=dict)
    members: Mapping[str, Mapping[str, float]] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """The most probable label."""
        return max(self.probabilities, key=lambda label: self.probabilities[label])

    def top(self, k: int = 3) -> list[tuple[str, float]]:
        """The ``k`` most probable labels with their probabilities, most probable first."""
        return sorted(self.probabilities.items(), key=lambda item: -item[1])[:k]

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return {
            "label": self.label,
            "probabilities": dict(self.probabilities),
            "malignancy": self.malignancy,
            "decisions": dict(self.decisions),
            "members": {name: dict(values) for name, values in self.members.items()},
        }
