"""Optimisers, with weight decay and learning rate by layer."""

from __future__ import annotations

from typing import Any, cast

import torch
from timm.models import group_parameters
from torch import nn

from lesion_hub.errors import ConfigError
from lesion_hub.taxonomy import nearest

OPTIMISERS = ("sgd", "adam", "adamw")


def make_optimiser(
    name: str,
    model: nn.Module,
    *,
    lr: float,
    weight_decay: float = 0.0,
    momentum: float = 0.9,
    nesterov: bool = False,
    betas: tuple[float, float] = (0.9, 0.999),
    layer_decay: float = 1.0,
) -> torch.optim.Optimizer:
    """The optimiser called ``name`` (sgd, adam or adamw) over all parameters of ``model``.

    Biases, norms and other vectors are never decayed. Frozen parameters are included, so that unfreezing them needs no
    new optimiser: one without a gradient is not touched. Every group has an ``lr_scale`` (see `set_learning_rate`).

    >>> optimiser = make_optimiser("sgd", nn.Linear(3, 2), lr=0.1, weight_decay=1e-4)
    >>> sorted(group["weight_decay"] for group in optimiser.param_groups)
    [0.0, 0.0001]
    """
    if name not in OPTIMISERS:
        raise ConfigError(f"unknown optimiser {name!r}; {nearest(name, OPTIMISERS)}")
    groups = parameter_groups(model, weight_decay=weight_decay, layer_decay=layer_decay)
    for group in groups:
        group["lr"] = lr * group["lr_scale"]
    if name == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=momentum, nesterov=nesterov)
    return (torch.optim.Adam if name == "adam" else torch.optim.AdamW)(groups, lr=lr, betas=betas)


def set_learning_rate(optimiser: torch.optim.Optimizer, lr: float) -> None:
    """Give every group ``lr`` times its own ``lr_scale``."""
    for group in optimiser.param_groups:
        group["lr"] = lr * group["lr_scale"]


def parameter_groups(model: nn.Module, *, weight_decay: float, layer_decay: float = 1.0) -> list[dict[str, Any]]:
    """Parameters by learning rate and decay: ``{"params", "names", "weight_decay", "lr_scale"}``, input layers first.

    ``lr_scale`` is ``layer_decay`` to the power of a layer's distance from the head.
    """
    depths = layer_depths(model) if layer_decay != 1 else {}
    deepest = max(depths.values(), default=0)
    exempt = _no_weight_decay(model)
    groups: dict[tuple[int, bool], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        depth = depths.get(name, deepest)
        decays = parameter.ndim > 1 and not name.endswith(".bias") and name not in exempt
        empty = {"params": [], "names": [], "weight_decay": weight_decay if decays else 0.0}
        group = groups.setdefault((depth, decays), {**empty, "lr_scale": layer_decay ** (deepest - depth)})
        group["params"].append(parameter)
        group["names"].append(name)
    return [groups[key] for key in sorted(groups)]


def layer_depths(model: nn.Module) -> dict[str, int]:
    """Parameter name to depth, 0 at the input; whatever is not the backbone's (head, metadata) is deepest.

    Knows timm's networks by their ``group_matcher``, a `LesionClassifier` by its network and a `LesionNet` by its
    backbone; any other network counts one depth per layer that has parameters.

    >>> layer_depths(nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1)))["2.bias"]
    1
    """
    for inner in ("network", "backbone"):
        if isinstance(part := getattr(model, inner, None), nn.Module):
            depths = {f"{inner}.{name}": depth for name, depth in layer_depths(part).items()}
            # A backbone without its classifier has no deepest group left for the head that stands on it.
            above = max(depths.values(), default=-1) + 1
            return {name: depths.get(name, above) for name, _ in model.named_parameters()}
    if hasattr(model, "group_matcher"):
        matcher = cast(Any, model).group_matcher(coarse=False)
        matched = group_parameters(model, matcher, reverse=True)
        return {name: matched[name] for name, _ in model.named_parameters()}
    layers = list(dict.fromkeys(name.rpartition(".")[0] for name, _ in model.named_parameters()))
    return {name: layers.index(name.rpartition(".")[0]) for name, _ in model.named_parameters()}


def _no_weight_decay(model: nn.Module) -> set[str]:
    """The names that networks such as ViTs exempt themselves, position embeddings for one."""
    return {
        f"{prefix}.{name}" if prefix else name
        for prefix, module in model.named_modules()
        if callable(exempt := getattr(module, "no_weight_decay", None))
        for name in exempt()
    }
