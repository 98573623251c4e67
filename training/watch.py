"""Noticing, without making the device wait for the host, that a loss is no longer a number, and that a run is asked to stop."""

from __future__ import annotations

import math
import signal
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

import torch
from torch import Tensor

from lesion_hub.errors import LesionHubError

DELAY = 8
NAMED = 6


class TrainingDiverged(LesionHubError):
    """The loss became NaN or infinite."""


def diverged(what: str, place: str, images: list[str]) -> str:
    """The line about a run that diverged, with the images of the batch it happened in."""
    more = f" and {len(images) - NAMED} more" if len(images) > NAMED else ""
    return (
        f"{what} at {place} (images {', '.join(images[:NAMED])}{more}); "
        "look at these images, lower optimiser.lr, or set clip: 1.0"
    )


class RunInterrupted(LesionHubError):
    """The run was asked to stop and has saved where it stands; ``signum`` is the signal that asked."""

    def __init__(self, message: str, signum: int) -> None:
        super().__init__(message)
        self.signum = signum


@dataclass(frozen=True)
class _Seen:
    loss: Tensor
    ready: torch.cuda.Event | None
    place: str
    images: Callable[[], list[str]]


class LossWatch:
    """Looks at every loss a few batches after it was computed: reading it at once would stall an accelerator.

    >>> watch = LossWatch(delay=0)
    >>> watch.add(torch.tensor(float("nan")), "epoch 1, step 3", lambda: ["ISIC_0000001"])
    Traceback (most recent call last):
    training.watch.TrainingDiverged: the loss is nan at epoch 1, step 3 (images ISIC_0000001); look at these images, lower ...
    """

    def __init__(self, delay: int = DELAY) -> None:
        self.delay = delay
        self.latest = math.nan
        self._pending: deque[_Seen] = deque()

    def add(self, loss: Tensor, place: str, images: Callable[[], list[str]]) -> None:
        """Take note of a scalar loss; raises `TrainingDiverged` for one noted earlier."""
        value, ready = loss.detach(), None
        if value.device.type == "cuda":
            # Only into pinned memory does a copy not wait for all that is queued before it.
            value = torch.empty((), dtype=value.dtype, pin_memory=True).copy_(value, non_blocking=True)
            ready = torch.cuda.Event()
            ready.record()
        self._pending.append(_Seen(value, ready, place, images))
        self._look(self.delay if ready is not None else 0)

    def settle(self) -> None:
        """Look at all that is noted; before anything is saved or measured."""
        self._look(0)

    def _look(self, leave: int) -> None:
        while len(self._pending) > leave:
            seen = self._pending.popleft()
            if seen.ready is not None:
                seen.ready.synchronize()
            self.latest = float(seen.loss)
            if not math.isfinite(self.latest):
                raise TrainingDiverged(diverged(f"the loss is {self.latest}", seen.place, seen.images()))


class StopSignal:
    """Whether the run was asked to stop (SIGTERM, or Ctrl-C once); asked a second time, it stops where it stands."""

    def __init__(self) -> None:
        self.signum = 0

    @contextmanager
    def listening(self) -> Iterator[StopSignal]:
        """Listen inside the block; the previous handlers come back afterwards."""
        before = {number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield self
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        if self.signum:
            raise KeyboardInterrupt
        self.signum = signum
