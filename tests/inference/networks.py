"""Small networks and pictures for the tests of this package."""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image

from lesion_hub.config import Abstention, AnswerRules, BalancedDecision, LabelSets
from lesion_hub.inference.members import Combination, Member
from lesion_hub.inference.predictor import Predictor
from lesion_hub.models import LesionClassifier
from lesion_hub.taxonomy import label_space


def classifier(backbone="lesion_cnn_shallow", space="ham7", seed=0, size=32, **options) -> LesionClassifier:
    """A network with random weights whose answers differ from image to image."""
    torch.manual_seed(seed)
    model = LesionClassifier.create(backbone, space, image_size=size, **options).eval()
    for layer in model.last_layers:
        torch.nn.init.normal_(layer.weight, std=1.0 / layer.weight[0].numel() ** 0.5)
    settle(model)
    return model


def settle(model: LesionClassifier) -> None:
    """Give normalisation layers the statistics of some noise: untouched ones let deep random networks fade to nothing."""
    norms = [m for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d)]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.train()
        norm.momentum = 1.0
    with torch.no_grad():
        model(torch.randn(4, *model.input_config.input_size, generator=torch.Generator().manual_seed(1)))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
        norm.eval()


def picture(height=48, width=64, seed=0) -> Image.Image:
    """A picture with structure at several scales."""
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize((width, height), Image.BICUBIC)
    noise = random.integers(-20, 20, (height, width, 3))
    return Image.fromarray(np.clip(np.asarray(coarse).astype(int) + noise, 0, 255).astype(np.uint8))


def predictor(**options) -> Predictor:
    return Predictor.of(classifier(**options))


def ensemble(weights=(0.25, 0.75), spaces=("ham7", "isic8")) -> Predictor:
    """Members of different architectures, input sizes and label spaces."""
    backbones, sizes = ("lesion_cnn_shallow", "lesion_cnn_deep"), (32, 64)
    members = [
        Member(name, classifier(backbone, space, seed, size))
        for seed, (name, backbone, space, size) in enumerate(zip(("a", "b"), backbones, spaces, sizes, strict=True))
    ]
    return Predictor(members, Combination.of([member.space for member in members], list(weights)), name="pair")


SIDE, PATCH = 96, 40
IMAGES = 21


def planted(seed: int, with_patch: bool = True) -> tuple[np.ndarray, np.ndarray]:
    """An even (SIDE, SIDE, 3) picture with some noise, striped in one place, and the (SIDE, SIDE) mask of that place."""
    random = np.random.default_rng(seed)
    pixels = (np.array([124, 116, 104]) + random.integers(-12, 13, (SIDE, SIDE, 3))).astype(np.uint8)
    top, left = random.integers(0, SIDE - PATCH, 2)
    mask = np.zeros((SIDE, SIDE), bool)
    mask[top : top + PATCH, left : left + PATCH] = True
    if with_patch:
        stripes = np.where(np.arange(SIDE) % 8 < 4, 230, 20).astype(np.uint8)
        pixels[mask] = np.broadcast_to(stripes[None, :, None], pixels.shape)[mask]
    return pixels, mask


HAM7 = label_space("ham7")
SHARES = dict(zip(HAM7.labels, (0.11, 0.67, 0.05, 0.03, 0.11, 0.01, 0.02), strict=True))
RULES = AnswerRules(
    label_sets=LabelSets(
        coverages=(0.8, 0.9),
        lesions=dict.fromkeys(HAM7.labels, 50) | {"df": 8},
        limits=dict.fromkeys(HAM7.labels, (0.8, 0.86)),
    ),
    decision=BalancedDecision(power=0.5, shares=SHARES),
    abstention=Abstention(weights={"confidence": 1.0, "set_size": 0.5}, limits={"0.05": 0.5, "0.1": 0.0}, answered={}),
)
"""Rules for the labels of ham7, with limits of their own making."""
