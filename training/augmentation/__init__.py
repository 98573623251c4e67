"""Augmentation in batch, per sample, on the device that trains; and the evaluation preprocessing beside it."""

from __future__ import annotations

from training.augmentation.evaluation import eval_batch
from training.augmentation.options import AugmentationOptions
from training.augmentation.picture import augmentation_picture
from training.augmentation.pipeline import Augmenter

__all__ = ["AugmentationOptions", "Augmenter", "augmentation_picture", "eval_batch"]
