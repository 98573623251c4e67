"""What a prediction says of an image or a case: probabilities, malignancy, quality, heat map; and the overlay that shows it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lesion_hub.config import AnswerRules
from lesion_hub.data.quality import ImageQuality
from lesion_hub.errors import ConfigError
from lesion_hub.inference.decisions import MOST_PROBABLE
from lesion_hub.inference.label_sets import COVERAGE, LabelSet, label_set_of

HeatMap: TypeAlias = NDArray[np.float32]
Verdict: TypeAlias = Literal["in scope", "unsure", "out of scope"]
VERDICTS: tuple[Verdict, ...] = get_args(Verdict)

OVERLAY_COLOURS = "turbo"


@dataclass(frozen=True)
class Explanation:
    """Where the evidence for ``label`` lies.

    ``heat`` is (H, W) float32 in [0, 1] at the image's resolution, zero where the networks did not look; ``members`` holds
    each member's own, by name. ``label`` may be ``malignant`` or ``benign`` where these are no labels of the model.
    """

    method: str
    label: str
    heat: HeatMap = field(repr=False, compare=False)
    members: Mapping[str, HeatMap] = field(repr=False, compare=False)
    image: Image.Image = field(repr=False, compare=False)


@dataclass(frozen=True)
class Scope:
    """What the input gate says of an image: whether it is one of those that the model was made for.

    ``score`` in [0, 1] is the higher, the more the image is like the training images. Below ``refuse_below`` the verdict is
    "out of scope", from ``accept_from`` on "in scope", and between them "unsure".
    """

    score: float
    refuse_below: float
    accept_from: float

    @property
    def verdict(self) -> Verdict:
        if self.score < self.refuse_below:
            return "out of scope"
        return "in scope" if self.score >= self.accept_from else "unsure"

    def to_dict(self) -> dict[str, Any]:
        return {"verdict": self.verdict, **asdict(self)}


@dataclass(frozen=True)
class Prediction:
    """One image's answer.

    ``probabilities`` maps every label to a float, and they sum to 1. ``malignancy`` is the probability of a malignant lesion
    in [0, 1], None where the labels say nothing of it; ``decisions`` compares it with each stored operating point.
    ``members`` are the members' probabilities, each over its own labels. ``disagreement`` in [0, 1] says how far apart they
    are (see ``Combination.disagreement``), None for a single model. ``quality`` holds the checks of the image, ``scope`` the
    input gate's verdict, None where no gate was fitted.

    ``decided`` is the label that the rule ``decided_by`` names. ``rules`` are the model's, None where they are not fitted.
    ``abstains`` says whether the model keeps silent, None where that was not asked for; ``doubt`` in [0, 1] is what it goes by.
    ``at_training_mix`` holds the probabilities before they were re-weighted to another prevalence, None where they were not.
    """

    probabilities: Mapping[str, float]
    malignancy: float | None = None
    decisions: Mapping[str, bool] = field(default_factory=dict)
    members: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    disagreement: float | None = None
    quality: ImageQuality | None = None
    scope: Scope | None = None
    explanation: Explanation | None = None
    shown: int = 3
    decided: str | None = None
    decided_by: str = MOST_PROBABLE
    at_training_mix: Mapping[str, float] | None = None
    doubt: float | None = None
    abstains: bool | None = None
    coverage: float = COVERAGE
    rules: AnswerRules | None = field(default=None, repr=False, compare=False)
    names: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)

    @property
    def label(self) -> str:
        """The label that was decided for: the most probable one, unless another rule was asked for."""
        return self.decided or self.most_probable

    @property
    def most_probable(self) -> str:
        """The most probable label."""
        return max(self.probabilities, key=lambda label: self.probabilities[label])

    @property
    def has_sets(self) -> bool:
        """Whether the model's label sets are fitted."""
        return self.rules is not None and self.rules.label_sets is not None

    def label_set(self, coverage: float | None = None) -> LabelSet:
        """Return the labels that the image may well have; for a share ``coverage`` of lesions the true one is among them.

        By default the coverage that was asked for with the prediction (0.9). `ConfigError` where the sets are not fitted.
        """
        known = self.at_training_mix or self.probabilities
        return label_set_of(known, self.rules, self.coverage if coverage is None else coverage, self.names)

    @property
    def heat(self) -> HeatMap | None:
        """The (H, W) float32 heat map in [0, 1], or None when no explanation was asked for."""
        return self.explanation.heat if self.explanation else None

    @property
    def flags(self) -> tuple[str, ...]:
        """What is wrong with the image (``data.quality.FLAGS``); empty for a good one."""
        return self.quality.flags if self.quality else ()

    def top(self, k: int | None = None) -> list[tuple[str, float]]:
        """Return the ``k`` most probable labels and their probabilities, falling; by default as many as were asked for."""
        return sorted(self.probabilities.items(), key=lambda item: -item[1])[: self.shown if k is None else k]

    def overlay(self, opacity: float = 0.5, member: str | None = None) -> Image.Image:
        """Draw the image under its heat map (or one member's): RGB at the image's size."""
        if self.explanation is None:
            raise ConfigError("no heat map was asked for; predict with explain='gradcam'")
        if member is not None and member not in self.explanation.members:
            raise ConfigError(f"no member {member!r}; the members are {', '.join(self.explanation.members)}")
        heat = self.explanation.heat if member is None else self.explanation.members[member]
        return draw_overlay(self.explanation.image, heat, opacity)

    def to_dict(self) -> dict[str, Any]:
        """Return plain data, ready for JSON; of the heat map only what it is about."""
        explained = self.explanation
        return {
            "label": self.label,
            "decided_by": self.decided_by,
            "most_probable": self.most_probable,
            "label_set": self.label_set().to_dict() if self.has_sets else None,
            "abstains": self.abstains,
            "doubt": self.doubt,
            "probabilities": dict(self.probabilities),
            "top": [{"label": label, "probability": value} for label, value in self.top()],
            "malignancy": self.malignancy,
            "decisions": dict(self.decisions),
            "members": {name: dict(values) for name, values in self.members.items()},
            "disagreement": self.disagreement,
            "quality": self.quality.to_dict() if self.quality else None,
            "scope": self.scope.to_dict() if self.scope else None,
            "explanation": {"method": explained.method, "label": explained.label} if explained else None,
        }


@dataclass(frozen=True)
class CasePrediction(Prediction):
    """One answer for several images of a lesion: the mean of theirs; ``scope`` is that of the image that fits the least.

    ``images`` are the single images' answers, in order.
    """

    images: tuple[Prediction, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return {**super().to_dict(), "images": [image.to_dict() for image in self.images]}


def draw_overlay(image: Image.Image, heat: HeatMap, opacity: float = 0.5) -> Image.Image:
    """Lay the (H, W) heat in [0, 1] in colour over the RGB image; cold places stay as they are.

    >>> draw_overlay(Image.new("RGB", (4, 3), "white"), np.zeros((3, 4), np.float32)).getpixel((0, 0))
    (255, 255, 255)
    """
    if not 0 <= opacity <= 1:
        raise ConfigError(f"opacity {opacity} is not in 0..1")
    if heat.shape != (image.height, image.width):
        raise ConfigError(f"the heat map is {heat.shape}, the image {(image.height, image.width)}; they must be of one size")
    colours, strength = _layer(heat, opacity)
    return Image.composite(colours, image, strength)


def heat_layer(heat: HeatMap) -> Image.Image:
    """Draw the (H, W) heat in [0, 1] as an RGBA image; laid over its picture at some opacity, it gives ``draw_overlay``'s.

    >>> heat_layer(np.zeros((3, 4), np.float32)).getpixel((0, 0))[3]
    0
    """
    layer, strength = _layer(heat, opacity=1)
    layer.putalpha(strength)
    return layer


def _layer(heat: HeatMap, opacity: float) -> tuple[Image.Image, Image.Image]:
    """Return the colours of the (H, W) heat as an RGB image, and as a gray one how much of the picture they cover.

    Looking colours up and mixing are Pillow's: numpy takes ten times as long for it.
    """
    heat = np.clip(heat, 0, 1)
    levels = Image.fromarray((heat * 255).astype(np.uint8))
    levels.putpalette(palette())
    strength = Image.fromarray(np.rint(np.sqrt(heat) * (255 * opacity)).astype(np.uint8))
    return levels.convert("RGB"), strength


@cache
def palette() -> bytes:
    """Return the 256 colours from cold to hot, three bytes each."""
    from matplotlib import colormaps

    return np.rint(colormaps[OVERLAY_COLOURS](np.linspace(0, 1, 256))[:, :3] * 255).astype(np.uint8).tobytes()
