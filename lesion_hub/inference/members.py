"""The members of a predictor, each a classifier with its own preprocessing, and how their probabilities become one answer."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.special import entr, softmax
from torch import Tensor

from lesion_hub.config import EnsembleMember
from lesion_hub.errors import ConfigError
from lesion_hub.inference.engine import Engine
from lesion_hub.inference.gate import Gate
from lesion_hub.inference.preprocess import Framing, Normalisation, OpenedImage, Pixels
from lesion_hub.models import LesionClassifier
from lesion_hub.models.network_cut import Cut, EndCut, WholeCut, cut
from lesion_hub.taxonomy import LabelMap, LabelSpace, finest_common

Probabilities: TypeAlias = NDArray[np.float64]
Combine: TypeAlias = Literal["probabilities", "logits"]

SMALLEST_PROBABILITY = 1e-12
"""What a probability of zero counts as where its logarithm is taken."""


def member_names(pins: Sequence[EnsembleMember]) -> list[str]:
    """Return what each member is called in a prediction: its name, with its version where several versions of it take part.

    >>> pins = [EnsembleMember(name="a", revision=f"v{i}.0.0", weights_sha256="0" * 64) for i in (1, 2)]
    >>> member_names(pins[:1]), member_names(pins)
    (['a'], ['a@v1.0.0', 'a@v2.0.0'])
    """
    names = [pin.name for pin in pins]
    return [pin.name if names.count(pin.name) == 1 else f"{pin.name}@{pin.revision}" for pin in pins]


@dataclass(frozen=True)
class Member:
    """A loaded model, ready to score images; it prepares them the way it was trained.

    ``engine`` runs the weights that the classifier was read with, and ``gate`` reads their features; who changes those takes
    both away. ``gate`` is None where none was fitted. ``compiled`` maps a batch to logits and features, where there is a gate.
    """

    name: str
    classifier: LesionClassifier = field(repr=False)
    engine: Engine | None = field(default=None, repr=False)
    gate: Gate | None = field(default=None, repr=False)
    compiled: Callable[[Tensor], tuple[Tensor, Tensor]] | None = field(default=None, repr=False)

    @property
    def space(self) -> LabelSpace:
        return self.classifier.space

    @property
    def eight_bits(self) -> bytes | None:
        """The 8-bit file that the member's engine runs; None where it computes in float."""
        return None if self.engine is None else self.engine.eight_bits

    @cached_property
    def framing(self) -> Framing:
        return Framing.of(self.classifier.input_config)

    @cached_property
    def normalisation(self) -> Normalisation:
        config = self.classifier.input_config
        return Normalisation(config.mean, config.std)

    def batch(self, opened: Sequence[OpenedImage]) -> Tensor:
        """Normalise N opened images into this member's (N, 3, H, W) batch, on its device and in its dtype."""
        return self.normalised([image.crops[self.framing] for image in opened])

    def prepare(self, images: Sequence[Image.Image]) -> Tensor:
        """Crop and normalise N RGB images into the (N, 3, H, W) batch that this member takes."""
        return self.normalised([self.framing.crop(image) for image in images])

    def normalised(self, crops: Sequence[Pixels]) -> Tensor:
        """Normalise N crops, uint8 (H, W, 3), into the (N, 3, H, W) batch that this member takes."""
        return self.normalisation(crops, self.classifier.device, self.classifier.dtype)

    @property
    def running(self) -> Engine | None:
        """The engine, where it can stand in for the classifier: on the CPU and in float32."""
        fits = self.classifier.device.type == "cpu" and self.classifier.dtype == torch.float32
        return self.engine if fits else None

    def reads(self, metadata: Tensor | None) -> bool:
        """Tell whether the answer depends on these metadata."""
        return metadata is not None and self.classifier.takes_metadata

    @torch.inference_mode()
    def score(self, batch: Tensor, metadata: Tensor | None = None) -> Tensor:
        """Score an (N, 3, H, W) batch: (N, C) float32 logits on the member's device; their softmax is calibrated."""
        engine, known = self.running, None if metadata is None else metadata.to(batch)
        if engine is not None and not self.reads(metadata):
            return engine.logits(batch)
        if engine is not None and engine.gives_features:  # a graph knows of no patient, but the tail does
            return self.score_in_parts(cut(self.classifier), batch, known)[0]
        return self.classifier(batch, known).float()

    @torch.no_grad()
    def score_and_features(self, batch: Tensor, metadata: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Score a batch as ``score`` does, in one pass: the logits, and the stem's output, which an input gate reads."""
        engine = self.running
        if engine is not None and engine.gives_features and not self.reads(metadata):
            return engine.logits_and_features(batch)
        if self.compiled is not None and not self.reads(metadata):
            logits, features = self.compiled(batch)
            return logits.float(), features
        return self.score_in_parts(cut(self.classifier), batch, None if metadata is None else metadata.to(batch))

    def compile(self, **options: Any) -> Member:
        """Return the member with its network compiled by ``torch.compile``, and without an engine.

        Networks whose features the tail takes whole give them in the same compiled pass; of others the gate's pass is not.
        """
        self.classifier.compile(**options)
        network: Any = self.classifier.network

        def both(batch: Tensor) -> tuple[Tensor, Tensor]:
            features = network.forward_features(batch)
            return network.forward_head(features), features

        whole = self.gate is not None and self.gate.reads_features and isinstance(cut(self.classifier), EndCut)
        compiled: Any = torch.compile(both, **options) if whole else None
        return replace(self, engine=None, compiled=compiled)

    @torch.no_grad()
    def score_in_parts(self, parts: Cut, batch: Tensor, metadata: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Score a batch as ``score`` does, in a pass that can be explained: the logits, and the stem's output of ``parts``."""
        engine = self.running
        if engine is not None and engine.gives_features and not isinstance(parts, WholeCut):
            logits, state = engine.logits_and_features(batch)
            return (parts(state, metadata) if self.reads(metadata) else logits), state
        state = parts.stem(batch)
        return (self.score(batch, metadata) if state is batch else parts(state, metadata)), state

    @torch.inference_mode()
    def logits(self, images: Sequence[Image.Image], metadata: Tensor | None = None) -> Tensor:
        """Prepare and score N RGB images: (N, C) float32 logits on the CPU."""
        return self.score(self.prepare(images), metadata).cpu()

    def ready(self) -> Member:
        """Set evaluation mode, and lay weights out channels-last, which convolutions run faster in; values stay as they are."""
        self.classifier.eval().to(memory_format=torch.channels_last)
        return self


@dataclass(frozen=True)
class Combination:
    """The weighted mean of members' probabilities in their finest common space, then tempered.

    ``combine="logits"`` takes the weighted mean of log-probabilities instead. The temperature divides the log of the mean.
    """

    space: LabelSpace
    maps: tuple[LabelMap, ...]
    weights: tuple[float, ...]
    combine: Combine = "probabilities"
    temperature: float = 1.0

    @classmethod
    def single(cls, space: LabelSpace) -> Combination:
        """Return the combination of a single member, whose probabilities stay as they are."""
        return cls(space, (space.map_to(space),), (1.0,))

    @classmethod
    def of(
        cls,
        spaces: Sequence[LabelSpace],
        weights: Sequence[float],
        *,
        space: LabelSpace | None = None,
        combine: Combine = "probabilities",
        temperature: float = 1.0,
    ) -> Combination:
        """Check the weights, and map every space to the common one (``space``, else the finest); a mistake is one line."""
        if len(weights) != len(spaces) or any(w < 0 for w in weights) or not math.isclose(sum(weights), 1.0, abs_tol=1e-6):
            raise ConfigError(f"weights {list(weights)} must be {len(spaces)} numbers from 0 up that sum to 1")
        target = space or finest_common(spaces)
        return cls(target, tuple(s.map_to(target) for s in spaces), tuple(weights), combine, temperature)

    def __call__(self, by_member: Sequence[Probabilities]) -> Probabilities:
        """Combine the members' (N, C_m) probabilities into the ensemble's (N, C)."""
        mapped = [m.probabilities(p) for m, p in zip(self.maps, by_member, strict=True)]
        if self.combine == "logits":
            logs = sum(w * np.log(np.maximum(p, SMALLEST_PROBABILITY)) for w, p in zip(self.weights, mapped, strict=True))
            return np.asarray(softmax(np.asarray(logs) / self.temperature, axis=-1))
        mean = np.asarray(sum(w * p for w, p in zip(self.weights, mapped, strict=True)))
        if self.temperature == 1.0:
            return mean
        return np.asarray(softmax(np.log(np.maximum(mean, SMALLEST_PROBABILITY)) / self.temperature, axis=-1))

    def disagreement(self, by_member: Sequence[Probabilities]) -> Probabilities | None:
        """Measure how far apart the members are, (N,) in [0, 1]; None for a single one.

        The Jensen-Shannon divergence of the members' mapped probabilities under their weights, as a share of the largest
        value it could take (the entropy of the weights): 0 where all say the same, 1 where each is certain of another label.
        """
        if len(self.weights) == 1:
            return None
        weights = np.asarray(self.weights)
        mapped = np.stack([m.probabilities(p) for m, p in zip(self.maps, by_member, strict=True)])
        mean = np.einsum("m,mnc->nc", weights, mapped)
        spread = entr(mean).sum(axis=-1) - np.einsum("m,mn->n", weights, entr(mapped).sum(axis=-1))
        largest = float(entr(weights).sum())
        # With all the weight on one member there is nobody to disagree with.
        return np.clip(spread / largest, 0.0, 1.0) if largest > SMALLEST_PROBABILITY else np.zeros(len(mean))
