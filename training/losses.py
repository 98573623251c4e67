"""Losses over class indices or soft targets; all are plain means over the batch, which distributed runs average right.

A loss is a class and a row of `LOSSES`. It is made with ``class_counts``, ``weight``, ``label_smoothing`` and
``reduction`` as keywords, and with those options of its row that the recipe states; so is one of your own, which a recipe
names by its dotted path.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lesion_hub.config import NonNegative
from lesion_hub.errors import ConfigError
from lesion_hub.taxonomy import nearest
from lesion_hub.training.components import Component, check_options, is_own, own_callable

CLASS_WEIGHTS = ("inverse", "effective")
REDUCTIONS = ("mean", "none")


class SoftTargetLoss(nn.Module):
    """Base of the losses: logits (N, C) against targets that are (N,) int64 classes or (N, C) rows summing to 1.

    Gives the scalar mean over the batch, or (N,) values under ``reduction="none"``. ``class_counts`` (C,) are the training
    images of each class. ``weight`` (C,) scales each row's value and not the mean's denominator. The arithmetic is that of
    float64 logits, and float32 of all others. A subclass says `per_sample`.
    """

    weight: Tensor | None

    def __init__(
        self,
        class_counts: Sequence[int] = (),
        weight: Tensor | None = None,
        label_smoothing: float = 0.0,
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        if reduction not in REDUCTIONS:
            raise ConfigError(f"loss reduction {reduction!r}: use one of {', '.join(REDUCTIONS)}")
        self.register_buffer("weight", weight, persistent=False)
        self.label_smoothing = label_smoothing
        self.reduction = reduction

    def forward(self, logits: Tensor, targets: Tensor) -> Tensor:
        classes = logits.shape[1]
        if logits.dtype != torch.float64:
            logits = logits.float()
        rows = (F.one_hot(targets, classes) if targets.ndim == 1 else targets).to(logits.dtype)
        if self.label_smoothing:
            rows = rows.lerp(torch.full_like(rows, 1 / classes), self.label_smoothing)
        values = self.per_sample(logits, rows)
        return values.mean() if self.reduction == "mean" else values

    def per_sample(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Turn logits and smoothed targets, both (N, C) and of one type, into the (N,) losses."""
        raise NotImplementedError

    def weighted_sum(self, targets: Tensor, log_p: Tensor) -> Tensor:
        """Return -sum_c w_c q_c log p_c of (N, C) targets and log-probabilities: (N,)."""
        weighted = targets if self.weight is None else targets * self.weight
        return -(weighted * log_p).sum(dim=1)


class CrossEntropy(SoftTargetLoss):
    """-sum_c w_c q_c log p_c."""

    def per_sample(self, logits: Tensor, targets: Tensor) -> Tensor:
        return self.weighted_sum(targets, F.log_softmax(logits, dim=1))


class Focal(SoftTargetLoss):
    """-sum_c w_c q_c (1 - p_c)^gamma log p_c (Lin et al. 2017, arXiv 1708.02002, over the softmax)."""

    def __init__(self, gamma: float = 2.0, **common: Any) -> None:
        super().__init__(**common)
        self.gamma = gamma

    def per_sample(self, logits: Tensor, targets: Tensor) -> Tensor:
        log_p = F.log_softmax(logits, dim=1)
        # 1 - p from the logarithm keeps its digits where p is near 1; the clamp keeps the gradient of 0^gamma finite.
        miss = (-torch.expm1(log_p)).clamp_min(torch.finfo(log_p.dtype).tiny)
        return self.weighted_sum(targets, miss.pow(self.gamma) * log_p)


class LogitAdjusted(SoftTargetLoss):
    """Cross-entropy of logits + tau log prior (Menon et al. 2021, arXiv 2007.07314).

    The bare logits then rank by balanced likelihood.
    """

    adjustment: Tensor

    def __init__(self, class_counts: Sequence[int], tau: float = 1.0, **common: Any) -> None:
        super().__init__(**common)
        counts = torch.tensor(class_counts, dtype=torch.float64).clamp_min(1)
        self.register_buffer("adjustment", (tau * (counts / counts.sum()).log()).float(), persistent=False)

    def per_sample(self, logits: Tensor, targets: Tensor) -> Tensor:
        return self.weighted_sum(targets, F.log_softmax(logits + self.adjustment, dim=1))


class BinaryCrossEntropy(SoftTargetLoss):
    """Binary cross-entropy on the difference of two logits, the second label being the positive one."""

    def per_sample(self, logits: Tensor, targets: Tensor) -> Tensor:
        difference = logits[:, 1] - logits[:, 0]
        return self.weighted_sum(targets, torch.stack([F.logsigmoid(-difference), F.logsigmoid(difference)], dim=1))


@dataclass(frozen=True)
class LossComponent(Component):
    """A row of `LOSSES`.

    ``class_weights`` are those that the loss implies; ``binary`` ones are for two classes; a ``convex`` one is convex in the
    logits.
    """

    class_weights: str | None = None
    binary: bool = False
    convex: bool = True


_GAMMA = {"gamma": (NonNegative | None, None)}

LOSSES = {
    "cross_entropy": LossComponent(CrossEntropy),
    "weighted_cross_entropy": LossComponent(CrossEntropy, class_weights="inverse"),
    "focal": LossComponent(Focal, _GAMMA, convex=False),
    "class_balanced_focal": LossComponent(Focal, _GAMMA, class_weights="effective", convex=False),
    "logit_adjusted": LossComponent(LogitAdjusted, {"tau": (NonNegative | None, None)}),
    "bce": LossComponent(BinaryCrossEntropy, binary=True),
}


def make_loss(
    name: str,
    *,
    class_counts: Sequence[int],
    class_weights: str | None = None,
    beta: float = 0.999,
    label_smoothing: float = 0.0,
    reduction: str = "mean",
    **options: Any,
) -> nn.Module:
    """Make the loss called ``name``: a row of `LOSSES`, or one of your own at ``package.module:name``.

    Args:
        class_counts: training images of each class, in the order of the labels.
        class_weights: None, ``inverse`` or ``effective`` (see `weigh_classes`), for any loss; ``weighted_cross_entropy``
            implies inverse and ``class_balanced_focal`` effective ones.
        beta: of the effective number of images.
        label_smoothing: share of each target spread evenly over all classes, 0 to 1.
        reduction: ``mean``, or ``none`` for (N,) values.
        options: those of the row: ``gamma`` is the focal exponent, ``tau`` the strength of the logit adjustment.

    >>> loss = make_loss("focal", class_counts=[90, 10], gamma=0.0)
    >>> round(loss(torch.zeros(4, 2), torch.tensor([0, 1, 1, 0])).item(), 4)
    0.6931
    """
    if is_own(name):
        weight = weigh_classes(class_weights, class_counts, beta)
        common = {"class_counts": list(class_counts), "weight": weight, "label_smoothing": label_smoothing}
        return _make_own(name, {**common, "reduction": reduction, **options}, len(class_counts))
    if name not in LOSSES:
        raise ConfigError(f"unknown loss {name!r}; {nearest(name, LOSSES)}")
    row = LOSSES[name]
    check_options(f"loss {name}", options, row.options)
    if row.binary and len(class_counts) != 2:
        raise ConfigError(f"loss {name} is for two classes, not {len(class_counts)}; use cross_entropy")
    weight = weigh_classes(class_weights or row.class_weights, class_counts, beta)
    return row.make(class_counts=class_counts, weight=weight, label_smoothing=label_smoothing, reduction=reduction, **options)


def check_own_loss(name: str, options: dict[str, Any]) -> None:
    """Refuse a user's own loss that cannot be imported, or cannot be called as losses are with ``options``."""
    common = {"class_counts": [1, 1], "weight": None, "label_smoothing": 0.0, "reduction": "none"}
    try:
        inspect.signature(own_callable(name)).bind(**{**common, **options})
    except TypeError as error:
        raise ConfigError(
            f"{name}: cannot be called with {', '.join([*common, *options])} as keywords ({error}); take **common too"
        ) from None


def _make_own(name: str, arguments: dict[str, Any], classes: int) -> nn.Module:
    """Make a user's own loss, and try it on two rows: a mean in place of values would weigh every image wrongly."""
    loss = own_callable(name)(**arguments)
    if not isinstance(loss, nn.Module):
        raise ConfigError(f"{name}: gave a {type(loss).__name__}; a loss is a torch.nn.Module")
    with torch.no_grad():
        values = loss(torch.zeros(2, classes), torch.arange(2) % classes)
    due = (2,) if arguments["reduction"] == "none" else ()
    if tuple(values.shape) != due:
        raise ConfigError(f"{name}: gave values of shape {tuple(values.shape)} for 2 images, not {due}; mind reduction")
    return loss


def weigh_classes(kind: str | None, class_counts: Sequence[int], beta: float = 0.999) -> Tensor | None:
    """Return one float32 weight per class, (C,), from the training images per class; 0 for a class without any.

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
