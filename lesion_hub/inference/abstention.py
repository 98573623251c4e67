"""Abstention: when a model should rather keep silent, by how much speaks against its answer.

Each signal of doubt is a number in [0, 1]: how far the most probable label is from certain, how many labels the label set
names, how much the members of an ensemble disagree and, where it is known, how far the image is from what the model was
trained on. Their weighted mean is the doubt. `evaluation.abstention` chooses weights and limits on validation.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from lesion_hub.config import Abstention, Signal
from lesion_hub.errors import ConfigError

Values = NDArray[np.float64]


def signals_of(
    probabilities: Values, set_sizes: NDArray[np.int64] | None, disagreement: Values | None, scope: Values | None = None
) -> dict[Signal, Values]:
    """Return the (N,) signals of doubt that are known of (N, C) probabilities, each in [0, 1].

    ``scope`` are the gate's scores, from 0 to 1: the higher, the more an image is like those of the training data.

    >>> found = signals_of(np.array([[0.5, 0.5], [1.0, 0.0]]), np.array([2, 1]), None, np.array([0.25, 1.0]))
    >>> {name: values.tolist() for name, values in found.items()}
    {'confidence': [1.0, 0.0], 'set_size': [1.0, 0.0], 'scope': [0.75, 0.0]}
    """
    labels = probabilities.shape[1]
    found: dict[Signal, Values] = {
        "confidence": np.clip((1 - probabilities.max(axis=1)) * labels / (labels - 1), 0, 1),
    }
    if set_sizes is not None:
        found["set_size"] = np.clip((set_sizes - 1) / (labels - 1), 0, 1)
    if disagreement is not None:
        found["disagreement"] = np.asarray(disagreement)
    if scope is not None:
        found["scope"] = np.clip(1 - scope, 0, 1)
    return found


def doubt_of(signals: Mapping[Signal, Values], weights: Mapping[Signal, float]) -> Values:
    """Return the (N,) weighted mean of the signals; one that is not known of these images does not count."""
    used = [name for name, weight in weights.items() if name in signals and weight > 0]
    if not used:
        raise ConfigError(f"abstention goes by {', '.join(weights)}, none of which is known here; fit it anew")
    total = sum(weights[name] for name in used)
    return np.asarray(sum(weights[name] * signals[name] for name in used) / total)


def fitted_error(error: float | None, fitted: Abstention | None) -> float | None:
    """Return ``error`` where a limit was chosen for it, else None."""
    return error if error is not None and fitted is not None and _chosen(error, fitted) is not None else None


def limit_for(error: float, fitted: Abstention) -> float:
    """Return the doubt above which a model whose answers shall have at most this error keeps silent."""
    limit = _chosen(error, fitted)
    if limit is None:
        shown = ", ".join(f"{one:g}" for one in sorted(map(float, fitted.limits))) or "none"
        raise ConfigError(f"abstain {error:g}: no threshold was chosen for that error; those that were: {shown}")
    return limit


def _chosen(error: float, fitted: Abstention) -> float | None:
    return next((limit for known, limit in fitted.limits.items() if abs(float(known) - error) < 1e-9), None)
