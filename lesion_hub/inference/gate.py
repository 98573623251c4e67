"""The input gate: is an image one of those that the model was made for, a close-up of a skin lesion?

A network answers whatever it is shown. But the last features of a photograph, a page of text or bare skin differ from those of
a lesion, and the gate is a linear function that tells the two apart: of the stem's output, which a prediction has computed
anyway, each channel's mean and standard deviation over the image. So it costs next to nothing. How its weights are found is in
`evaluation.gate_fit`, their file in `hub.gate_file`.

An ensemble has no gate of its own: its score is the mean of its members', in log-odds, and so are the limits that it is
compared with. Gates then stay with the networks whose features they read, a new combination of published models has one at
once, and what one member mistakes for a lesion the others may not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit
from torch import Tensor

from lesion_hub.config import ModelConfig
from lesion_hub.errors import StoreError
from lesion_hub.hub.gate_file import GateWeights, read_gate
from lesion_hub.hub.layout import GATE_NAME
from lesion_hub.inference.results import Scope

_FARTHEST = 1e-9  # a limit of 0 or 1 has no log-odds


@dataclass(frozen=True)
class Gate:
    """A member's input gate, and the scores at which its verdicts begin."""

    weights: GateWeights
    refuse_below: float
    accept_from: float

    @classmethod
    def read(cls, folder: Path, config: ModelConfig, name: str = GATE_NAME) -> Gate | None:
        """Read the gate that a model, or a bundled member, was published with; None where there is none."""
        weights, section = read_gate(folder, config, name), config.lesion_hub.gate
        return None if weights is None or section is None else cls(weights, section.refuse_below, section.accept_from)

    @property
    def reads_features(self) -> bool:
        return self.weights.reads == "features"

    def log_odds(self, outputs: Tensor) -> NDArray[np.float64]:
        """Compute the log-odds (N,) that each of N images is in scope, from the stem's output, or the logits (N, K)."""
        wanted = len(self.weights.outputs)
        values = pooled(outputs, wanted) if self.reads_features else _array(outputs)
        if values.shape[1] != wanted:
            raise StoreError(f"the input gate reads {wanted} values of a network that gives {values.shape[1]}; fit it again")
        return values.astype(np.float64) @ self.weights.outputs.numpy() + self.weights.bias


def pooled(features: Tensor, width: int | None = None) -> NDArray[np.float32]:
    """Reduce the stem's output to the mean and the standard deviation of each channel over the image: (N, 2 C) float32.

    Known are maps, (N, C, h, w) or (N, h, w, C), and (N, L, C) tokens; ``width``, 2 C, says which of two layouts it is.

    >>> import torch
    >>> pooled(torch.ones(2, 5, 3, 3)).shape, pooled(torch.ones(2, 9, 5)).shape, pooled(torch.ones(2, 3, 3, 5), 10).shape
    ((2, 10), (2, 10), (2, 10))
    """
    last = features.ndim == 3 or (width is not None and 2 * features.shape[1] != width == 2 * features.shape[-1])
    over = 1 if last else 2
    # In NumPy, whose calls cost a fraction of torch's where there is as little to compute as for one image.
    flat = _array(features.flatten(1, -2) if last else features.flatten(2))
    mean = flat.mean(axis=over, keepdims=True)
    deviation = np.sqrt(np.square(flat - mean).mean(axis=over))
    return np.concatenate([mean.squeeze(over), deviation], axis=1)


def _array(values: Tensor) -> NDArray[np.float32]:
    return values.detach().float().cpu().numpy()


def limits_of(gates: Sequence[Gate]) -> tuple[float, float]:
    """Return the score below which members together call an image out of scope, and the one from which on it is in scope."""
    limits = np.array([[gate.refuse_below, gate.accept_from] for gate in gates])
    refuse, accept = expit(logit(np.clip(limits, _FARTHEST, 1 - _FARTHEST)).mean(axis=0))
    return float(refuse), float(accept)


def scopes(gates: Sequence[Gate], log_odds: Sequence[NDArray[np.float64]]) -> list[Scope]:
    """Make one verdict of those of all members that have a gate: N scopes of their (N,) log-odds."""
    limits = limits_of(gates)
    return [Scope(float(score), *limits) for score in expit(np.mean(log_odds, axis=0))]
