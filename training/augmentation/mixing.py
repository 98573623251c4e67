"""Mixup and CutMix on a batch that is already on the device, with parameters that depend on (seed, epoch, step, rank) alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from lesion_hub.config import NonNegative, Options, Share
from lesion_hub.training.device import to_device


class MixingOptions(Options):
    """How batches are mixed. With both alphas 0 nothing is.

    ``mixup`` and ``cutmix`` are the alphas of Beta(alpha, alpha) (Zhang et al. 2018; Yun et al. 2019); where both are on,
    ``switch`` is the share of CutMix batches. ``probability`` is the share of batches that are mixed at all.
    """

    mixup: NonNegative = 0.0
    cutmix: NonNegative = 0.0
    probability: Share = 1.0
    switch: Share = 0.5

    @property
    def active(self) -> bool:
        return self.probability > 0 and max(self.mixup, self.cutmix) > 0


@dataclass(frozen=True)
class MixPlan:
    """What happens to one batch.

    Attributes:
        kind: ``mixup``, ``cutmix`` or None.
        partner: (N,) int64, the sample that each one is mixed with.
        keep: (N,) float32, each sample's own share, 0 to 1.
        box: (N, 4) float32 top, left, bottom, right, in shares of height and width; used by CutMix.
    """

    kind: str | None
    partner: NDArray[np.int64]
    keep: NDArray[np.float32]
    box: NDArray[np.float32]


def plan_mix(options: MixingOptions, size: int, seed: int, epoch: int, step: int, rank: int = 0) -> MixPlan:
    """Draw the plan of one batch of ``size`` samples."""
    stream = np.random.default_rng((seed, epoch, step, rank))
    mixed, cut = stream.random() < options.probability, stream.random() < options.switch
    kind = ("cutmix" if options.cutmix and (cut or not options.mixup) else "mixup") if mixed and options.active else None
    alpha = options.cutmix if kind == "cutmix" else options.mixup
    partner = stream.permutation(size)
    keep = stream.beta(alpha, alpha, size) if kind else np.ones(size)
    half = np.sqrt(1 - keep)[:, None] / 2
    centre = stream.random((size, 2))
    box = np.clip(np.concatenate([centre - half, centre + half], axis=1), 0, 1)
    return MixPlan(kind, partner, keep.astype(np.float32), box.astype(np.float32))


def mix_batch(images: Tensor, targets: Tensor, num_classes: int, plan: MixPlan) -> tuple[Tensor, Tensor]:
    """Mix (N, 3, h, w) float images and their targets, (N,) int64 or (N, C) rows, as ``plan`` says.

    Returns images like those given, and float32 targets (N, num_classes) whose rows sum to 1. Label smoothing is the
    loss's and composes with it.

    >>> plan = plan_mix(MixingOptions(mixup=0.4), 4, seed=0, epoch=0, step=7)
    >>> images, targets = mix_batch(torch.rand(4, 3, 8, 8), torch.tensor([0, 1, 2, 1]), 3, plan)
    >>> targets.sum(1)
    tensor([1., 1., 1., 1.])
    """
    soft = F.one_hot(targets, num_classes).float() if targets.ndim == 1 else targets.float()
    if plan.kind is None:
        return images, soft
    partner = to_device(torch.from_numpy(plan.partner), images.device)
    keep = plan.keep
    if plan.kind == "cutmix":
        height, width = images.shape[-2:]
        top, left, bottom, right = np.rint(plan.box * (height, width, height, width)).astype(np.int64).T
        rows, columns = np.arange(height), np.arange(width)
        in_rows = (rows >= top[:, None]) & (rows < bottom[:, None])
        in_columns = (columns >= left[:, None]) & (columns < right[:, None])
        inside = to_device(torch.from_numpy(in_rows), images.device)[:, None, :, None]
        inside = inside & to_device(torch.from_numpy(in_columns), images.device)[:, None, None, :]
        images = torch.where(inside, images[partner], images)
        # Targets go by the share of pixels that stayed, which rounding and the border make another than was drawn.
        keep = (1 - (bottom - top) * (right - left) / (height * width)).astype(np.float32)
    else:
        weight = to_device(torch.from_numpy(1 - keep), images.device).to(images.dtype)
        images = torch.lerp(images, images[partner], weight[:, None, None, None])
    share = to_device(torch.from_numpy(keep), images.device)[:, None]
    return images, soft * share + soft[partner] * (1 - share)
