"""The parts of the data that a run works on: training, validation and, where there is one, test."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from lesion_hub.data.images import ImageSource
from lesion_hub.taxonomy import LabelSpace

if TYPE_CHECKING:
    from datasets import Dataset


@dataclass(frozen=True)
class Part:
    """One part of N images.

    ``images`` are undecoded, ``labels`` (N,) int64 index ``space``, ``ids`` and ``groups`` name images and lesions.
    ``dataset`` is what the part was made of, None where it was made by hand; ``metadata`` (N, D) float32 is there where the
    network takes any; ``draw`` are the rows of a balanced draw.
    """

    name: str
    images: Sequence[ImageSource]
    labels: NDArray[np.int64]
    ids: tuple[str, ...]
    groups: tuple[str, ...]
    space: LabelSpace
    dataset: Dataset | None = None
    metadata: Tensor | None = None
    draw: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def class_counts(self) -> NDArray[np.int64]:
        """(C,) images of each class that an epoch may show: those of the draw, where there is one."""
        labels = self.labels if self.draw is None else self.labels[self.draw]
        return np.bincount(labels, minlength=len(self.space))

    def metadata_of(self, rows: NDArray[np.int64], device: torch.device) -> Tensor | None:
        return None if self.metadata is None else self.metadata[torch.from_numpy(rows)].to(device)
