"""A teacher: a published model or ensemble, whose probabilities a network learns from beside the labels.

It sees what the network sees, augmented and mixed, made into its own size and normalisation, and so has something new to say
of an image in every epoch. It computes as predictions do: on a CPU in ONNX Runtime, where that can be had.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from lesion_hub.config import InputConfig
from lesion_hub.errors import ConfigError
from lesion_hub.inference import Predictor, from_pretrained
from lesion_hub.inference.members import SMALLEST_PROBABILITY
from lesion_hub.models import LesionClassifier
from lesion_hub.models.networks import as_seen_by
from lesion_hub.training.recipe import DistillOptions, Recipe


class Teacher:
    """Says what it makes of a batch of its pupil's input, in the pupil's labels."""

    def __init__(self, predictor: Predictor, options: DistillOptions, pupil: LesionClassifier) -> None:
        self.predictor = predictor
        self.options = options
        self.seen = _plain(pupil.input_config)
        self.mapping = predictor.space.map_to(pupil.space)
        self.inputs = [_plain(member.classifier.input_config) for member in predictor.members]

    @torch.no_grad()
    def probabilities(self, images: Tensor) -> Tensor:
        """Map an (N, 3, H, W) batch of the network's input to (N, C) float32 probabilities on the same device."""
        logits = [
            member.score(as_seen_by(own, images, self.seen))
            for member, own in zip(self.predictor.members, self.inputs, strict=True)
        ]
        by_member = [found.double().softmax(dim=1).cpu().numpy() for found in logits]
        mapped = self.mapping.probabilities(self.predictor.combination(by_member))
        return torch.from_numpy(np.asarray(mapped, np.float32)).to(images.device)

    def blended(self, losses: Tensor, logits: Tensor, images: Tensor) -> Tensor:
        """Blend the (N,) losses against labels with those against what the teacher says of ``images``."""
        temperature, weight = self.options.temperature, self.options.weight
        said = self.probabilities(images).clamp_min(SMALLEST_PROBABILITY).log()
        own = F.log_softmax(logits.float() / temperature, dim=1)
        apart = F.kl_div(own, F.log_softmax(said / temperature, dim=1), reduction="none", log_target=True).sum(dim=1)
        return (1 - weight) * losses + weight * temperature**2 * apart


def teacher_for(recipe: Recipe, classifier: LesionClassifier, device: torch.device) -> Teacher | None:
    """Load the teacher that the recipe names for the network that it trains; None where it names none."""
    if recipe.distill is None:
        return None
    predictor = from_pretrained(recipe.distill.teacher, device=device)
    if not predictor.space.maps_to(classifier.space):
        theirs, ours = predictor.space.name, classifier.space.name
        raise ConfigError(
            f"distill.teacher: {predictor.name} answers in {theirs}, which does not map to the recipe's {ours}; take another"
        )
    return Teacher(predictor, recipe.distill, classifier)


def _plain(config: InputConfig) -> Mapping[str, Any]:
    return config.model_dump(mode="json")
