"""The cascading randomisation check: a map must change when the network's weights are replaced, layer by layer."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr
from torch import nn

from lesion_hub.inference.attribution.maps import Heat
from lesion_hub.inference.faithfulness.subject import Subject
from lesion_hub.inference.members import Member
from lesion_hub.inference.predictor import Predictor

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Stage:
    """``share`` of the layers, from the classifier downwards, hold random weights; ``similarity`` in [-1, 1] is the mean rank
    correlation of the maps with those of the trained model, None where a map is flat."""

    share: float
    similarity: float | None


def cascade(model: Predictor, images: Sequence[tuple[Pixels, str]], method: str, stages: int = 4, seed: int = 0) -> list[Stage]:
    """Randomise a copy of every member from the top down in ``stages`` steps and compare the maps of (image, label) pairs."""
    trained = [_heat(model, image, label, method) for image, label in images]
    twin = _copy(model)
    layers = [_layers(member) for member in twin.members]
    generator = torch.Generator().manual_seed(seed)
    found = []
    for stage in range(1, stages + 1):
        for own in layers:
            for layer in own[len(own) * (stage - 1) // stages : len(own) * stage // stages]:
                _randomise(layer, generator)
        now = [_heat(twin, image, label, method) for image, label in images]
        found.append(Stage(stage / stages, _mean_similarity(trained, now)))
    return found


def _heat(model: Predictor, image: Pixels, label: str, method: str) -> Heat:
    return Subject(model, label).heats([image], method)[0]


def _copy(model: Predictor) -> Predictor:
    members: list[Member] = [replace(member, classifier=copy.deepcopy(member.classifier)) for member in model.members]
    return Predictor(members, model.combination, model.operating_points, name=model.name)


def _layers(member: Member) -> list[nn.Module]:
    """Modules with weights of their own, the classifier first."""
    modules = member.classifier.network.modules()
    own = [module for module in modules if next(module.parameters(recurse=False), None) is not None]
    return own[::-1]


@torch.no_grad()
def _randomise(layer: nn.Module, generator: torch.Generator) -> None:
    """New weights of the old mean and spread: of another spread they would switch the network off, which proves nothing."""
    for parameter in layer.parameters(recurse=False):
        noise = torch.randn(parameter.shape, generator=generator).to(parameter)
        spread = parameter.std() if parameter.numel() > 1 else parameter.abs()
        parameter.copy_(noise * spread + parameter.mean())


def _mean_similarity(before: Sequence[Heat], after: Sequence[Heat]) -> float | None:
    pairs = [(a, b) for a, b in zip(before, after, strict=True) if np.ptp(a) > 0 and np.ptp(b) > 0]
    values = [float(spearmanr(a.ravel(), b.ravel()).statistic) for a, b in pairs]
    return float(np.mean(values)) if values else None
