"""A member: one classifier with its name and its own preprocessing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from PIL import Image
from torch import Tensor

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
    def transform(self) -> Callable[[Any], Tensor]:
        return self.classifier.transform

    def prepare(self, images: Sequence[Image.Image]) -> Tensor:
        """RGB images to the (N, 3, H, W) batch that this member takes, on its device and in its dtype."""
        batch = torch.stack([self.transform(image) for image in images])
        return batch.to(self.classifier.device, self.classifier.dtype)

    @torch.inference_mode()
    def logits(self, images: Sequence[Image.Image], metadata: Tensor | None = None) -> Tensor:
        """(N, C) float32 logits on the CPU; their softmax is calibrated."""
        batch = self.prepare(images)
        known = None if metadata is None else metadata.to(batch)
        return self.classifier(batch, known).float().cpu()
