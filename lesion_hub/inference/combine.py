"""How members' probabilities become one answer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lesion_hub.errors import ConfigError
from lesion_hub.taxonomy import LabelMap, LabelSpace, finest_common

Array = NDArray[np.float64]
_TINY = 1e-12


@dataclass(frozen=True)
class Combination:
    """The weighted mean of members' probabilities in their finest common space, then tempered.

    ``combine="logits"`` takes the weighted mean of log-probabilities instead. The temperature divides the log of the mean.
    """

    space: LabelSpace
    maps: tuple[LabelMap, ...]
    weights: tuple[float, ...]
    combine: str = "probabilities"
    temperature: float = 1.0

    @classmethod
    def single(cls, space: LabelSpace) -> Combination:
        return cls(space, (space.map_to(space),), (1.0,))

    @classmethod
    def of(
        cls,
        spaces: Sequence[LabelSpace],
        weights: Sequence[float],
        *,
        space: LabelSpace | None = None,
        combine: str = "probabilities",
        temperature: float = 1.0,
    ) -> Combination:
        """Check the weights and find the space; raises one line where either is wrong."""
        if len(weights) != len(spaces) or any(w < 0 for w in weights) or not math.isclose(sum(weights), 1.0, abs_tol=1e-6):
            raise ConfigError(f"weights {list(weights)} must be {len(spaces)} numbers from 0 up that sum to 1")
        target = space or finest_common(spaces)
        return cls(target, tuple(s.map_to(target) for s in spaces), tuple(weights), combine, temperature)

    def __call__(self, by_member: Sequence[Array]) -> Array:
        """Members' (N, C_m) probabilities to the ensemble's (N, C)."""
        mapped = [m.probabilities(p) for m, p in zip(self.maps, by_member, strict=True)]
        if self.combine == "logits":
            logs = sum(w * np.log(np.maximum(p, _TINY)) for w, p in zip(self.weights, mapped, strict=True))
            return _softmax(np.asarray(logs) / self.temperature)
        mean = np.asarray(sum(w * p for w, p in zip(self.weights, mapped, strict=True)))
        if self.temperature == 1.0:
            return mean
        return _softmax(np.log(np.maximum(mean, _TINY)) / self.temperature)

    def disagreement(self, by_member: Sequence[Array]) -> Array | None:
        """(N,) how far apart the members are, in [0, 1]; None for a single one.

        The Jensen-Shannon divergence of the members' mapped probabilities under their weights, as a share of the largest
        value it could take (the entropy of the weights): 0 where all say the same, 1 where each is certain of another label.
        """
        if len(self.weights) == 1:
            return None
        weights = np.asarray(self.weights)
        mapped = np.stack([m.probabilities(p) for m, p in zip(self.maps, by_member, strict=True)])
        mean = np.einsum("m,mnc->nc", weights, mapped)
        spread = _entropy(mean) - np.einsum("m,mn->n", weights, _entropy(mapped))
        largest = float(_entropy(weights))
        return np.clip(spread / largest, 0.0, 1.0) if largest > _TINY else np.zeros(len(mean))


def _softmax(logits: Array) -> Array:
    shifted = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return shifted / shifted.sum(axis=-1, keepdims=True)


def _entropy(probabilities: Array) -> Array:
    return np.asarray(-(probabilities * np.log(np.maximum(probabilities, _TINY))).sum(axis=-1))
