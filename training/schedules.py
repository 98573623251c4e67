"""Learning rates as functions of the optimiser step.

A schedule is a class and a row of `SCHEDULES`, which states the keys that it has in a recipe.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any

from pydantic import Field

from lesion_hub.config import NonNegative, NonNegativeCount, Positive, Share
from lesion_hub.errors import ConfigError
from lesion_hub.taxonomy import nearest
from lesion_hub.training.components import Component, check_options


@dataclass
class Schedule(ABC):
    """The learning rate at every step of a run or phase: ``lr`` is its peak, steps count from 0.

    In the first ``warmup_steps`` it rises linearly to where the schedule proper begins: step w has (w + 1) / (warmup_steps
    + 1) of it, and the schedule then has ``total_steps - warmup_steps`` steps of its own. The last one has its final value.
    """

    lr: float
    total_steps: int
    warmup_steps: int = 0

    def lr_at(self, step: int) -> float:
        """Return the learning rate of optimiser step ``step``, 0 to total_steps - 1; the last one's beyond."""
        if step < self.warmup_steps:
            return self._shape(0.0, 0) * (step + 1) / (self.warmup_steps + 1)
        proper, length = step - self.warmup_steps, self.total_steps - self.warmup_steps
        return self._shape(min(1.0, proper / (length - 1)) if length > 1 else 1.0, proper)

    @abstractmethod
    def _shape(self, progress: float, step: int) -> float:
        """Return the rate after the warm-up: ``progress`` from 0 (its first step) to 1 (its last), ``step`` from 0."""

    def observe(self, metric: float) -> None:  # noqa: B027 - most schedules do not depend on it
        """Tell the schedule a validation metric (higher is better)."""

    def state_dict(self) -> dict[str, Any]:
        """Return what it keeps of the metrics that it was told, as JSON types."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:  # noqa: B027 - most schedules have no state
        """Restore what `state_dict` returned."""


@dataclass
class Constant(Schedule):
    """``lr`` throughout."""

    def _shape(self, progress: float, step: int) -> float:
        return self.lr


@dataclass
class Cosine(Schedule):
    """Half a cosine from ``lr`` to ``final * lr``."""

    final: float = 0.0

    def _shape(self, progress: float, step: int) -> float:
        return self.lr * (self.final + (1 - self.final) * (1 + math.cos(math.pi * progress)) / 2)


@dataclass
class OneCycle(Schedule):
    """Up from lr / ``start_divisor`` along half a cosine for ``rising`` of the steps, then down to ``final * lr``.

    The shape is that of ``torch.optim.lr_scheduler.OneCycleLR`` (Smith and Topin 2018, arXiv 1708.07120).
    """

    final: float = 4e-6
    rising: float = 0.3
    start_divisor: float = 25.0

    def _shape(self, progress: float, step: int) -> float:
        length = self.total_steps - self.warmup_steps
        peak, last = self.rising * length - 1, length - 1
        if step <= peak:
            return _half_cosine(self.lr / self.start_divisor, self.lr, step / peak if peak > 0 else 1.0)
        return _half_cosine(self.lr, self.final * self.lr, min(1.0, (step - peak) / (last - peak)) if last > peak else 1.0)


@dataclass
class Exponential(Schedule):
    """From ``lr`` to ``final * lr``, by the same factor at every step; ``final`` may be above 1."""

    final: float = 0.01

    def _shape(self, progress: float, step: int) -> float:
        return self.lr * self.final**progress


@dataclass
class Step(Schedule):
    """Multiplied by ``factor`` at every one of ``milestones``, shares of the steps in increasing order."""

    factor: float = 0.1
    milestones: Sequence[float] = (0.5, 0.75)

    def _shape(self, progress: float, step: int) -> float:
        length = self.total_steps - self.warmup_steps
        return self.lr * self.factor ** sum(step >= share * length for share in self.milestones)


@dataclass
class Plateau(Schedule):
    """Multiplied by ``factor`` when the metric has not risen by more than ``min_delta`` in more than ``patience`` epochs.

    It never falls below ``final * lr``. The same metrics at the same steps give the same rates.
    """

    final: float = 0.0
    factor: float = 0.1
    patience: int = 5
    min_delta: float = 0.0
    best: float = field(default=-math.inf, init=False)
    looks_without_rise: int = field(default=0, init=False)
    reductions: int = field(default=0, init=False)

    def _shape(self, progress: float, step: int) -> float:
        return self.lr * max(self.final, self.factor**self.reductions)

    def observe(self, metric: float) -> None:
        if metric > self.best + self.min_delta:
            self.best, self.looks_without_rise = metric, 0
            return
        self.looks_without_rise += 1
        if self.looks_without_rise > self.patience:
            self.reductions += 1
            self.looks_without_rise = 0

    def state_dict(self) -> dict[str, Any]:
        best = None if self.best == -math.inf else self.best
        return {"best": best, "looks_without_rise": self.looks_without_rise, "reductions": self.reductions}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.best = -math.inf if state["best"] is None else float(state["best"])
        self.looks_without_rise = int(state["looks_without_rise"])
        self.reductions = int(state["reductions"])


_FINAL = {"final": (NonNegative | None, None)}
_FACTOR = {"factor": (Annotated[float, Field(strict=True, gt=0, lt=1)] | None, None)}

SCHEDULES = {
    "constant": Component(Constant),
    "cosine": Component(Cosine, _FINAL),
    "one_cycle": Component(OneCycle, {**_FINAL, "rising": (Share | None, None), "start_divisor": (Positive | None, None)}),
    "step": Component(Step, {**_FACTOR, "milestones": (tuple[Share, ...] | None, None)}),
    "plateau": Component(
        Plateau, {**_FINAL, **_FACTOR, "patience": (NonNegativeCount | None, None), "min_delta": (NonNegative | None, None)}
    ),
}


def make_schedule(name: str, *, lr: float, total_steps: int, warmup_steps: int = 0, **options: Any) -> Schedule:
    """Make the schedule called ``name``: constant, cosine, one_cycle, step or plateau.

    ``options`` are those of that row of `SCHEDULES`: ``final`` (a share of ``lr``: cosine, one_cycle, plateau), ``factor``
    (step, plateau), ``patience`` and ``min_delta`` (plateau), ``milestones`` (step), ``rising`` and ``start_divisor``
    (one_cycle). Those that the kind does not have are refused.

    >>> schedule = make_schedule("cosine", lr=0.1, total_steps=101, final=0.0)
    >>> [round(schedule.lr_at(step), 3) for step in (0, 50, 100)]
    [0.1, 0.05, 0.0]
    """
    if name not in SCHEDULES:
        raise ConfigError(f"unknown schedule {name!r}; {nearest(name, SCHEDULES)}")
    if not 0 <= warmup_steps < max(total_steps, 1):
        raise ConfigError(f"schedule {name}: {warmup_steps} warm-up steps leave none of {total_steps}; shorten the warm-up")
    check_options(f"schedule {name}", options, SCHEDULES[name].options)
    return SCHEDULES[name].make(lr=lr, total_steps=total_steps, warmup_steps=warmup_steps, **options)


def _half_cosine(start: float, end: float, progress: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * progress)) / 2
