"""Augmentation in batch, per sample, on the device that trains; and the evaluation preprocessing beside it.

``draws`` holds the options and draws every sample's parameters, ``operations`` apply them to pixels, ``pipeline`` runs the
operations in order, ``mixing`` blends pairs of samples.
"""

from __future__ import annotations

from lesion_hub.training.augmentation.draws import AugmentationOptions
from lesion_hub.training.augmentation.mixing import MixingOptions, mix_batch, plan_mix
from lesion_hub.training.augmentation.pipeline import Augmenter, augmentation_picture, eval_batch

__all__ = [
    "AugmentationOptions",
    "Augmenter",
    "MixingOptions",
    "augmentation_picture",
    "eval_batch",
    "mix_batch",
    "plan_mix",
]
