"""Which layers learn, and how fast: phases of frozen layers, weight decay and learning rate by layer, the optimisers.

Frozen layers keep their batch-norm statistics too; otherwise features would drift under a head that trusts them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, cast

import torch
from timm.models import group_parameters
from torch import nn

from lesion_hub.config import ProperShare, Switch
from lesion_hub.errors import ConfigError
from lesion_hub.models.last_layers import head_modules
from lesion_hub.taxonomy import nearest
from lesion_hub.training.components import Component

if TYPE_CHECKING:
    from lesion_hub.training.recipe import Phase

_BETAS = {"betas": (tuple[ProperShare, ProperShare] | None, None)}

OPTIMISERS = {
    "sgd": Component(
        partial(torch.optim.SGD, momentum=0.9), {"momentum": (ProperShare | None, None), "nesterov": (Switch, False)}
    ),
    "adam": Component(torch.optim.Adam, _BETAS),
    "adamw": Component(torch.optim.AdamW, _BETAS),
}


def make_optimiser(
    name: str, model: nn.Module, *, lr: float, weight_decay: float = 0.0, layer_decay: float = 1.0, **options: Any
) -> torch.optim.Optimizer:
    """Make the optimiser called ``name``, a row of `OPTIMISERS`, over all parameters of ``model``.

    Biases, norms and other vectors are never decayed. Frozen parameters are included, so that unfreezing them needs no
    new optimiser: one without a gradient is not touched. Every group has an ``lr_scale`` (see `set_learning_rate`). On a CPU
    the step is one fused pass over memory; a run that was begun without goes on without, for a
    saved state says which it was.
    ``options`` are those of the row: ``momentum`` (0.9 where it is not given) and ``nesterov``, or ``betas``.

    >>> optimiser = make_optimiser("sgd", nn.Linear(3, 2), lr=0.1, weight_decay=1e-4)
    >>> sorted(group["weight_decay"] for group in optimiser.param_groups)
    [0.0, 0.0001]
    """
    if name not in OPTIMISERS:
        raise ConfigError(f"unknown optimiser {name!r}; {nearest(name, OPTIMISERS)}")
    groups = parameter_groups(model, weight_decay=weight_decay, layer_decay=layer_decay)
    for group in groups:
        group["lr"] = lr * group["lr_scale"]
    fused = all(parameter.device.type == "cpu" and parameter.is_floating_point() for parameter in model.parameters())
    return OPTIMISERS[name].make(groups, lr=lr, **options, **({"fused": True} if fused else {}))


def set_learning_rate(optimiser: torch.optim.Optimizer, lr: float) -> None:
    """Give every group ``lr`` times its own ``lr_scale``."""
    for group in optimiser.param_groups:
        group["lr"] = lr * group["lr_scale"]


def parameter_groups(model: nn.Module, *, weight_decay: float, layer_decay: float = 1.0) -> list[dict[str, Any]]:
    """Group parameters by learning rate and decay: ``{"params", "names", "weight_decay", "lr_scale"}``, input layers first.

    ``lr_scale`` is ``layer_decay`` to the power of a layer's distance from the head. Why not timm's
    ``param_groups_layer_decay``: it leaves frozen parameters out, whose phase may come, and knows no head that stands on
    a backbone of its own.
    """
    depths = layer_depths(model) if layer_decay != 1 else {}
    deepest = max(depths.values(), default=0)
    # What networks such as ViTs exempt themselves, position embeddings for one.
    exempt = {
        f"{prefix}.{name}" if prefix else name
        for prefix, module in model.named_modules()
        if callable(of_module := getattr(module, "no_weight_decay", None))
        for name in of_module()
    }
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
    """Map each parameter's name to its depth, 0 at the input; whatever is not the backbone's (head, metadata) is deepest.

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
        matched = group_parameters(model, cast(Any, model).group_matcher(coarse=False), reverse=True)
        return {name: matched[name] for name, _ in model.named_parameters()}
    layers = list(dict.fromkeys(name.rpartition(".")[0] for name, _ in model.named_parameters()))
    return {name: layers.index(name.rpartition(".")[0]) for name, _ in model.named_parameters()}


# ------------------------------------------------------------------------------------------------ phases


def phase_at(phases: Sequence[Phase], epoch: int, epochs: int) -> tuple[Phase, range]:
    """Return the phase that ``epoch`` belongs to and the epochs of it; the last one takes what is left of ``epochs``.

    >>> from lesion_hub.training.recipe import Phase
    >>> phase_at([Phase(train="head", epochs=3), Phase()], epoch=5, epochs=10)[1]
    range(3, 10)
    """
    start = 0
    for phase in phases:
        stop = epochs if phase.epochs is None else min(start + phase.epochs, epochs)
        if epoch < stop:
            return phase, range(start, stop)
        start = stop
    raise ValueError(f"epoch {epoch} is not one of {epochs}")


def head_parameters(network: nn.Module) -> list[nn.Parameter]:
    """List the parameters above the backbone: a custom head and metadata branch, or timm's own classifier."""
    if hasattr(network, "backbone"):
        return [parameter for name, parameter in network.named_parameters() if not name.startswith("backbone.")]
    return [parameter for head in head_modules(network) for parameter in head.parameters()]


def blocks(network: nn.Module) -> list[list[nn.Parameter]]:
    """List the parameters below the head, block by block from the input on."""
    head = set(map(id, head_parameters(network)))
    depths = layer_depths(network)
    grouped: dict[int, list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if id(parameter) not in head:
            grouped.setdefault(depths[name], []).append(parameter)
    return [grouped[depth] for depth in sorted(grouped)]


def set_trainable(network: nn.Module, phase: Phase) -> None:
    """Make the phase's layers trainable and freeze the rest."""
    body = blocks(network)
    trained = {"head": 0, "all": len(body)}[phase.train] if isinstance(phase.train, str) else phase.train
    first = max(0, len(body) - trained)
    for i, block in enumerate(body):
        for parameter in block:
            parameter.requires_grad_(i >= first)
    for parameter in head_parameters(network):
        parameter.requires_grad_(True)


def set_train_mode(network: nn.Module, phase: Phase) -> None:
    """Set training mode, but for the batch norms of frozen layers, and under ``freeze_norm`` all of the backbone's."""
    network.train()
    head = set(map(id, head_parameters(network)))
    for layer in network.modules():
        own = list(layer.parameters(recurse=False))
        if not isinstance(layer, nn.modules.batchnorm._BatchNorm) or not own or id(own[0]) in head:
            continue
        if phase.freeze_norm or not own[0].requires_grad:
            layer.eval()
