"""What a prediction says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lesion_hub.errors import ConfigError
from lesion_hub.inference.overlay import draw_overlay
from lesion_hub.inference.quality import Quality

Heat = NDArray[np.float32]


@dataclass(frozen=True)
class Explanation:
    """Where the evidence for ``label`` lies.

    ``heat`` is (H, W) float32 in [0, 1] at the image's resolution, zero where the networks did not look; ``members`` holds
    each member's own, by name. ``label`` may be ``malignant`` or ``benign`` where these are no labels of the model.
    """

    method: str
    label: str
    heat: Heat = field(repr=False, compare=False)
    members: Mapping[str, Heat] = field(repr=False, compare=False)
    image: Image.Image = field(repr=False, compare=False)


@dataclass(frozen=True)
class Prediction:
    """One image's answer.

    ``probabilities`` maps every label to a float, and they sum to 1. ``malignancy`` is the probability of a malignant lesion
    in [0, 1], None where the labels say nothing of it; ``decisions`` compares it with each stored operating point.
    ``members`` are the members' probabilities, each over its own labels. ``disagreement`` in [0, 1] says how far apart they
    are (see ``Combination.disagreement``), None for a single model. ``quality`` holds the checks of the image.
    """

    probabilities: Mapping[str, float]
    malignancy: float | None = None
    decisions: Mapping[str, bool] = field(default_factory=dict)
    members: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    disagreement: float | None = None
    quality: Quality | None = None
    explanation: Explanation | None = None
    shown: int = 3

    @property
    def label(self) -> str:
        """The most probable label."""
        return max(self.probabilities, key=lambda label: self.probabilities[label])

    @property
    def heat(self) -> Heat | None:
        """The (H, W) float32 heat map in [0, 1], or None when no explanation was asked for."""
        return self.explanation.heat if self.explanation else None

    @property
    def flags(self) -> tuple[str, ...]:
        """What is wrong with the image (``quality.FLAGS``); empty for a good one."""
        return self.quality.flags if self.quality else ()

    def top(self, k: int | None = None) -> list[tuple[str, float]]:
        """The ``k`` most probable labels with their probabilities, most probable first; by default as many as asked for."""
        return sorted(self.probabilities.items(), key=lambda item: -item[1])[: self.shown if k is None else k]

    def overlay(self, opacity: float = 0.5, member: str | None = None) -> Image.Image:
        """The image under its heat map (or one member's), RGB at the image's size."""
        if self.explanation is None:
            raise ConfigError("no heat map was asked for; predict with explain='gradcam'")
        if member is not None and member not in self.explanation.members:
            raise ConfigError(f"no member {member!r}; the members are {', '.join(self.explanation.members)}")
        heat = self.explanation.heat if member is None else self.explanation.members[member]
        return draw_overlay(self.explanation.image, heat, opacity)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON; of the heat map only what it is about."""
        explained = self.explanation
        return {
            "label": self.label,
            "probabilities": dict(self.probabilities),
            "top": [{"label": label, "probability": value} for label, value in self.top()],
            "malignancy": self.malignancy,
            "decisions": dict(self.decisions),
            "members": {name: dict(values) for name, values in self.members.items()},
            "disagreement": self.disagreement,
            "quality": self.quality.to_dict() if self.quality else None,
            "explanation": {"method": explained.method, "label": explained.label} if explained else None,
        }


@dataclass(frozen=True)
class CasePrediction(Prediction):
    """One answer for several images of a lesion: the mean of theirs. ``images`` are the single images' answers, in order."""

    images: tuple[Prediction, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return {**super().to_dict(), "images": [image.to_dict() for image in self.images]}
