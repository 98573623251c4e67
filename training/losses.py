"""Losses over class indices or soft targets; all are plain means over the batch, which distributed runs average right."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lesion_hub.errors import ConfigError
from lesion_hub.taxonomy import nearest

CLASS_WEIGHTS = ("inverse", "effective")
REDUCTIONS = ("mean", "none")


class SoftTargetLoss(nn.Module):
    """Base of the losses: logits (N, C) against targets that are (N,) int64 classes or (N, C) rows summing to 1.

    Gives the scalar mean over the batch, or (N,) values under ``reduction="none"``. Weights of classes scale each row's
    value and not the mean's denominator. The arithmetic is float32 whatever the type of the logits.
    """

    weight: Tensor | None

    def __init__(self, weight: Tensor | None = None, label_smoothing: float = 0.0, reduction: str = "mean") -> None:
        super().__init__()
        if reduction not in REDUCTIONS:
            raise ConfigError(f"loss reduction {reduction!r}: use one of {', '.join(REDUCTIONS)}")
        self.register_buffer("weight", weight, persistent=False)
        self.label_smoothing = label_smoothing
        self.reduction = reduction

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        values = self.per_sample(logits.float(), self.soft(targets, logits.shape[1]))
        return values.mean() if self.reduction == "mean" else values

    def soft(self, targets: Tensor, classes: int) -> Tensor:
        """``targets`` as float32 rows (N, C), smoothed."""
        rows = F.one_hot(targets, classes).float() if targets.ndim == 1 else targets.float()
        return rows.lerp(torch.full_like(rows, 1 / classes), self.label_smoothing) if self.label_smoothing else rows

    def per_sample(self, logits: Tensor, targets: Tensor) -> Tensor:
        """float32 logits and targets, both (N, C), to the (N,) losses."""
        raise NotImplementedError


class CrossEntropy(SoftTargetLoss):
    """-sum_c w_c q_c log p_c."""

    def per_sample(self, logits: Tensor, targets: Tensor) -> Tensor:
        return _weighted_sum(self.weight, targets, F.log_softmax(logits, dim=1))


class Focal(SoftTargetLoss):
    """-sum_c w_c q_c (1 - p_c)^gamma log p_c (Lin et al. 2017, arXiv 1708.02002, over the softmax)."""

    def __init__(self, gamma: float = 2.0, **options: object) -> None:
        super().__init__(**options)  # type: ignore[arg-type]
        self.gamma = gamma

    def per_sample(self, logits: Tensor, targets: Tensor) -> Tensor:
        log_p = F.log_softmax(logits, dim=1)
        # 1 - p from the logarithm keeps its digits where p is near 1; the clamp keeps the gradient of 0^gamma finite.
        miss = (-torch.expm1(log_p)).clamp_min(torch.finfo(log_p.dtype).tiny)
        return _weighted_sum(self.weight, targets, miss.pow(self.gamma) * log_p)


class LogitAdjusted(SoftTargetLoss):
    """Cross-entropy of logits + tau log prior (Menon et al. 2021, arXiv 2007.07314).

    The bare logits then rank by balanced likelihood.
    """

    adjustment: Tensor

    def __init__(self, class_counts: Sequence[int], tau: float = 1.0, **options: object) -> None:
        super().__init__(**options)  # type: ignore[arg-type]
        counts = torch.tensor(class_counts, dtype=torch.float64).clamp_min(1)
        self.register_buffer("adjustment", (tau * (counts / counts.sum()).log()).float(), persistent=False)

    def per_sample(self, logits: Tensor, targets: Tensor) -> Tensor:
        return _weighted_sum(self.weight, targets, F.log_softmax(logits + self.adjustment, dim=1))


class BinaryCrossEntropy(SoftTargetLoss):
    """Binary cross-entropy on the difference of two logits, the second label being the positive one."""

    def per_sample(self, logits: Tensor, targets: Tensor) -> Tensor:
        difference = logits[:, 1] - logits[:, 0]
        both = torch.stack([F.logsigmoid(-difference), F.logsigmoid(difference)], dim=1)
        return _weighted_sum(self.weight, targets, both)


def _weighted_sum(weight: Tensor | None, targets: Tensor, log_p: Tensor) -> Tensor:
    weighted = targets if weight is None else targets * weight
    return -(weighted * log_p).sum(dim=1)


def weigh_classes(kind: str | None, class_counts: Sequence[int], beta: float = 0.999) -> Tensor | None:
    """One float32 weight per class, (C,), from the training images per class; 0 for a class without any.

    ``inverse`` is N / (C n_c), scikit-learn's "balanced": a training image weighs 1 on average. ``effective`` is
    (1 - beta) / (1 - beta^n_c), scaled to a mean of 1 over the classes (Cui et al. 2019, arXiv 1901.05555).

    >>> weigh_classes("inverse", [30, 10])
    tensor([0.6667, 2.0000])
    """
    if kind is None:
        return None
    counts = np.asarray(class_counts, np.float64)
    present = counts > 0
    if not present.any():
        raise ConfigError("class weights: no class has a training image; check the split")
    weights = np.zeros_like(counts)
    if kind == "inverse":
        weights[present] = counts.sum() / (present.sum() * counts[present])
    elif kind == "effective":
        weights[present] = (1 - beta) / -np.expm1(counts[present] * np.log(beta)) if beta > 0 else 1.0
        weights *= present.sum() / weights.sum()
    else:
        raise ConfigError(f"unknown class_weights {kind!r}; {nearest(kind, CLASS_WEIGHTS)}")
    return torch.from_numpy(weights).float()


LOSSES = ("cross_entropy", "weighted_cross_entropy", "focal", "class_balanced_focal", "logit_adjusted", "bce")
_IMPLIED_WEIGHTS = {"weighted_cross_entropy": "inverse", "class_balanced_focal": "effective"}


def make_loss(
    name: str,
    *,
    class_counts: Sequence[int],
    class_weights: str | None = None,
    label_smoothing: float = 0.0,
    gamma: float = 2.0,
    beta: float = 0.999,
    tau: float = 1.0,
    reduction: str = "mean",
) -> SoftTargetLoss:
    """The loss called ``name``: one of ``LOSSES``.

    Args:
        class_counts: training images of each class, in the order of the labels.
        class_weights: None, ``inverse`` or ``effective`` (see `weigh_classes`), for any loss; ``weighted_cross_entropy``
            implies inverse and ``class_balanced_focal`` effective ones.
        label_smoothing: share of each target spread evenly over all classes, 0 to 1.
        gamma: focal exponent.
        beta: of the effective number of images.
        tau: strength of the logit adjustment.
        reduction: ``mean``, or ``none`` for (N,) values.

    >>> loss = make_loss("focal", class_counts=[90, 10], gamma=0.0)
    >>> round(loss(torch.zeros(4, 2), torch.tensor([0, 1, 1, 0])).item(), 4)
    0.6931
    """
    if name not in LOSSES:
        raise ConfigError(f"unknown loss {name!r}; {nearest(name, LOSSES)}")
    if name == "bce" and len(class_counts) != 2:
        raise ConfigError(f"loss bce is for two classes, not {len(class_counts)}; use cross_entropy")
    weight = weigh_classes(class_weights or _IMPLIED_WEIGHTS.get(name), class_counts, beta)
    options = {"weight": weight, "label_smoothing": label_smoothing, "reduction": reduction}
    if name in ("focal", "class_balanced_focal"):
        return Focal(gamma, **options)
    if name == "logit_adjusted":
        return LogitAdjusted(class_counts, tau, **options)
    return (BinaryCrossEntropy if name == "bce" else CrossEntropy)(**options)  # type: ignore[arg-type]
