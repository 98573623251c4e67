"""Test-time augmentation: the eight ways to lay a picture on the table, each with its way back."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from lesion_hub.errors import ConfigError


@dataclass(frozen=True)
class View:
    """Mirror the columns, then turn by ``quarters`` of a circle."""

    mirrored: bool
    quarters: int

    def apply(self, batch: Tensor) -> Tensor:
        """(N, C, H, W) to the same images in this view."""
        turned = batch.flip(3) if self.mirrored else batch
        return torch.rot90(turned, self.quarters, (2, 3)) if self.quarters else turned

    def undo(self, maps: Tensor) -> Tensor:
        """(N, h, w) maps over the view to maps over the image."""
        straight = torch.rot90(maps, -self.quarters, (1, 2)) if self.quarters else maps
        return straight.flip(2) if self.mirrored else straight


# Those that keep a landscape picture landscape come first.
VIEWS = tuple(View(mirrored, quarters) for quarters in (0, 2, 1, 3) for mirrored in (False, True))


def views(count: int, size: tuple[int, int]) -> tuple[View, ...]:
    """The first ``count`` views of an input of (height, width).

    >>> [view.quarters for view in views(3, (224, 224))]
    [0, 0, 2]
    """
    if count > 4 and size[0] != size[1]:
        raise ConfigError(f"tta {count} would turn inputs of {size[0]} x {size[1]} on their side; use at most 4 views")
    return VIEWS[:count]
