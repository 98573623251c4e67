"""Exponential moving average of a model's weights and buffers.

Why not ``torch.optim.swa_utils`` or timm's: the former synchronises with the GPU at every update, the latter does not
save its step, so that an interrupted warm-up would not resume exactly.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lesion_hub.errors import ConfigError


class ModelEma:
    """The moving average of ``model``: float32 shadows of all floating weights and buffers, the latest value of others.

    After n updates the decay is min(decay, (1 + n) / (10 + n)) under ``warmup``, so that the random start is soon
    forgotten. Give the bare model, not the wrapper of a distributed run.

    ``start`` is the share that the values have in the end with which the model comes here: what is applied lies so far on the
    way from the average back to them (Wortsman et al. 2022, arXiv 2109.01903).

    >>> model = nn.Linear(2, 1)
    >>> ema = ModelEma(model, decay=0.9)
    >>> ema.update(model)
    >>> with ema.applied(model):
    ...     model(torch.zeros(1, 2)).shape
    torch.Size([1, 1])
    """

    def __init__(self, model: nn.Module, decay: float = 0.999, *, warmup: bool = True, start: float = 0.0) -> None:
        if not 0 < decay < 1:
            raise ConfigError(f"ema decay {decay}: must be between 0 and 1, such as 0.999")
        self.decay = decay
        self.warmup = warmup
        self.updates = 0
        values = {name: value.detach().clone() for name, value in model.state_dict().items()}
        self.shadow = {name: value.float() if value.is_floating_point() else value for name, value in values.items()}
        self.start = start
        self.started = {name: value.clone() for name, value in self.shadow.items() if start and value.is_floating_point()}

    @property
    def current_decay(self) -> float:
        """The decay of the next update."""
        return min(self.decay, (1 + self.updates) / (10 + self.updates)) if self.warmup else self.decay

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the average towards the model's present values; call it after every optimiser step."""
        values = model.state_dict()
        averaged = [name for name, shadow in self.shadow.items() if shadow.is_floating_point()]
        shadows = [self.shadow[name] for name in averaged]
        torch._foreach_lerp_(shadows, [values[name].float() for name in averaged], 1 - self.current_decay)
        if taken := [name for name, shadow in self.shadow.items() if not shadow.is_floating_point()]:
            torch._foreach_copy_([self.shadow[name] for name in taken], [values[name] for name in taken])
        self.updates += 1

    @contextmanager
    def applied(self, model: nn.Module) -> Iterator[nn.Module]:
        """Put the averaged values into the model inside the block; afterwards it has its own again, bit for bit."""
        own = {name: value.clone() for name, value in model.state_dict().items()}
        _assign(model, self.shadow | {name: self.shadow[name].lerp(value, self.start) for name, value in self.started.items()})
        try:
            yield model
        finally:
            _assign(model, own)

    def state_dict(self) -> dict[str, Any]:
        """Return ``{"updates": int, "shadow": {name: Tensor}}``; the tensors are not copied."""
        return {"updates": self.updates, "shadow": dict(self.shadow)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        if set(state["shadow"]) != set(self.shadow):
            different = min(set(state["shadow"]) ^ set(self.shadow))
            raise ConfigError(f"ema: the saved average is of another model ({different!r}); resume with the same recipe")
        self.updates = int(state["updates"])
        for name, value in state["shadow"].items():
            self.shadow[name].copy_(value)


@torch.no_grad()
def _assign(model: nn.Module, values: dict[str, Tensor]) -> None:
    for name, value in model.state_dict().items():
        value.copy_(values[name])
