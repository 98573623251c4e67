"""The model under examination, as a function from pictures to one label's probability."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from lesion_hub.inference.attribution.maps import Heat
from lesion_hub.inference.predictor import Predictor

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Subject:
    """A predictor and the label whose probability and maps are examined."""

    model: Predictor
    label: str

    def probabilities(self, images: Sequence[Pixels]) -> NDArray[np.float64]:
        """(N,) probability of the label."""
        return np.array([p.probabilities[self.label] for p in self.model.stream([Image.fromarray(i) for i in images])])

    def heats(self, images: Sequence[Pixels], method: str) -> list[Heat]:
        """The (H, W) map of each image."""
        found = self.model.stream([Image.fromarray(i) for i in images], explain=method, target=self.label)
        return [prediction.heat for prediction in found if prediction.heat is not None]

    def forward(self, batch: Tensor) -> Tensor:
        """(N, 3, H, W) in [0, 1] to (N,) probabilities: the form that Captum's measures ask for."""
        return torch.from_numpy(self.probabilities(as_pixels(batch)))

    def explain(self, inputs: Tensor | tuple[Tensor, ...], method: str) -> Tensor:
        """An (N, 3, H, W) batch in [0, 1], which Captum hands over bare or in a tuple, to (N, 1, H, W) maps."""
        batch = inputs if isinstance(inputs, Tensor) else inputs[0]
        return torch.from_numpy(np.stack(self.heats(as_pixels(batch), method)))[:, None]


def as_batch(image: Pixels) -> Tensor:
    """One (H, W, 3) uint8 image to (1, 3, H, W) float32 in [0, 1]."""
    return torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float() / 255


def as_pixels(batch: Tensor) -> list[Pixels]:
    """(N, 3, H, W) in [0, 1] to N uint8 images."""
    pixels = (batch.detach().clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()
    return list(pixels.numpy())
