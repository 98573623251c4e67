"""What stops a run before its end: a loss or a weight that is no longer finite, validation that no longer rises, a signal.

Losses are checked without making the device wait for the host.
"""

from __future__ import annotations

import math
import signal
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lesion_hub.errors import LesionHubError

if TYPE_CHECKING:
    from lesion_hub.training.recipe import EarlyStopping

CHECK_DELAY = 8  # batches
IMAGES_NAMED = 6


class TrainingDiverged(LesionHubError):
    """The loss or a weight became NaN or infinite."""


class RunInterrupted(LesionHubError):
    """The run was asked to stop and has saved where it stands; ``signum`` is the signal that asked."""

    def __init__(self, message: str, signum: int) -> None:
        super().__init__(message)
        self.signum = signum


def diverged(what: str, place: str, images: list[str]) -> TrainingDiverged:
    """Make the error about a run that diverged, with the images of the batch that it happened in."""
    more = f" and {len(images) - IMAGES_NAMED} more" if len(images) > IMAGES_NAMED else ""
    return TrainingDiverged(
        f"{what} at {place} (images {', '.join(images[:IMAGES_NAMED])}{more}); "
        "look at these images, lower optimiser.lr, or set clip: 1.0"
    )


def stopped_early(history: Sequence[Mapping[str, Any]], rule: EarlyStopping | None) -> bool:
    """Tell whether the ``balanced_accuracy`` of these records, in order, has not risen for as long as ``rule`` waits."""
    best, since = -1.0, 0
    for record in history:
        if rule is not None and record["balanced_accuracy"] > best + rule.min_delta:
            best, since = record["balanced_accuracy"], 0
        else:
            since += 1
    return rule is not None and since >= rule.patience


class LossMonitor:
    """Checks every loss a few batches after it was computed: reading it at once would stall an accelerator.

    >>> monitor = LossMonitor(delay=0)  # doctest: +ELLIPSIS
    >>> monitor.add(torch.tensor(float("nan")), "epoch 1, step 3", lambda: ["ISIC_0000001"])
    Traceback (most recent call last):
    lesion_hub.training.stopping.TrainingDiverged: the loss is nan at epoch 1, step 3 ...
    """

    def __init__(self, delay: int = CHECK_DELAY) -> None:
        self.delay = delay
        self.latest = math.nan
        # Each a loss, the event after which it can be read, the place in the run, and the names of the batch's images.
        self._pending: deque[tuple[Tensor, torch.cuda.Event | None, str, Callable[[], list[str]]]] = deque()

    def add(self, loss: Tensor, place: str, images: Callable[[], list[str]]) -> None:
        """Note a scalar loss, and raise `TrainingDiverged` if one noted earlier is not finite."""
        value, ready = loss.detach(), None
        if value.device.type == "cuda":
            # Only into pinned memory does a copy not wait for all that is queued before it.
            value = torch.empty((), dtype=value.dtype, pin_memory=True).copy_(value, non_blocking=True)
            ready = torch.cuda.Event()
            ready.record()
        self._pending.append((value, ready, place, images))
        self._check_all_but(self.delay if ready is not None else 0)

    def check_all(self) -> None:
        """Check every loss that is still noted; call it before anything is saved or measured."""
        self._check_all_but(0)

    def _check_all_but(self, newest: int) -> None:
        while len(self._pending) > newest:
            loss, ready, place, images = self._pending.popleft()
            if ready is not None:
                ready.synchronize()
            self.latest = float(loss)
            if not math.isfinite(self.latest):
                raise diverged(f"the loss is {self.latest}", place, images())


class StopSignal:
    """A request to stop (SIGTERM or Ctrl-C): the first is noted in ``signum``, 0 for none; the second interrupts at once."""

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
