"""A loss and operations of one's own, as a user's package would have them: what tests name in recipes by dotted path."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lesion_hub.training.losses import SoftTargetLoss

NOT_CALLABLE = 3


class PolyLoss(SoftTargetLoss):
    """Cross-entropy + epsilon (1 - p) (Leng et al. 2022, arXiv 2204.12511)."""

    def __init__(self, epsilon: float = 1.0, **common: object) -> None:
        super().__init__(**common)  # type: ignore[arg-type]
        self.epsilon = epsilon

    def per_sample(self, logits: Tensor, targets: Tensor) -> Tensor:
        log_p = logits.log_softmax(dim=1)
        return self.weighted_sum(targets, log_p) + self.epsilon * (1 - (targets * log_p.exp()).sum(dim=1))


class Scalar(nn.Module):
    """A loss that gives its mean whatever is asked."""

    def __init__(self, class_counts: Sequence[int], **common: object) -> None:
        super().__init__()

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        return logits.mean()


def no_module(**common: object) -> str:
    return "loss"


def noise(images: Tensor, generator: torch.Generator) -> Tensor:
    return images + 0.1 * torch.randn(images.shape, generator=generator, device=images.device)


def negative(images: Tensor, generator: torch.Generator) -> Tensor:
    return -images


def halved(images: Tensor, generator: torch.Generator) -> Tensor:
    return images[..., ::2]
