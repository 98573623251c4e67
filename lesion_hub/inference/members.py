"""A member: one classifier with its name and its own preprocessing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch
from PIL import Image
from torch import Tensor

from lesion_hub.inference.framing import Framing, Normalisation, Pixels
from lesion_hub.models import LesionClassifier
from lesion_hub.taxonomy import LabelSpace


@dataclass(frozen=True)
class Member:
    """A loaded model, ready to score images; it prepares them the way it was trained."""

    name: str
    classifier: LesionClassifier = field(repr=False)

    @property
    def space(self) -> LabelSpace:
        return self.classifier.space

    @cached_property
    def framing(self) -> Framing:
        return Framing.of(self.classifier.input_config)

    @cached_property
    def normalisation(self) -> Normalisation:
        config = self.classifier.input_config
        return Normalisation(config.mean, config.std)

    def batch(self, crops: Sequence[Pixels]) -> Tensor:
        """N crops by this member's framing to its (N, 3, H, W) batch, on its device and in its dtype."""
        return self.normalisation(crops, self.classifier.device, self.classifier.dtype)

    def prepare(self, images: Sequence[Image.Image]) -> Tensor:
        """RGB images to the (N, 3, H, W) batch that this member takes, on its device and in its dtype."""
        return self.batch([self.framing.crop(image) for image in images])

    @torch.inference_mode()
    def logits(self, images: Sequence[Image.Image], metadata: Tensor | None = None) -> Tensor:
        """(N, C) float32 logits on the CPU; their softmax is calibrated."""
        return self.score(self.prepare(images), metadata).cpu()

    @torch.inference_mode()
    def score(self, batch: Tensor, metadata: Tensor | None = None) -> Tensor:
        """(N, 3, H, W) prepared images to (N, C) float32 logits on the member's device."""
        known = None if metadata is None else metadata.to(batch)
        return self.classifier(batch, known).float()

    def ready(self) -> Member:
        """Evaluation mode, and weights in channels-last memory, which convolutions run faster in; values stay as they are."""
        self.classifier.eval().to(memory_format=torch.channels_last)
        return self
