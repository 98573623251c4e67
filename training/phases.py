"""Which layers train when: the head alone, then some blocks of the backbone, then all of it.

Frozen layers keep their batch-norm statistics too; otherwise features would drift under a head that trusts them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from torch import nn

from training.optimisers import layer_depths
from training.recipe import Phase


def phase_at(phases: Sequence[Phase], epoch: int, epochs: int) -> tuple[Phase, range]:
    """The phase that ``epoch`` belongs to and the epochs of it; the last one takes what is left of ``epochs``.

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
    """All that stands on the backbone: a custom head and metadata branch, or timm's own classifier."""
    if hasattr(network, "backbone"):
        return [p for name, p in network.named_parameters() if not name.startswith("backbone.")]
    return list(cast(Any, network).get_classifier().parameters())


def blocks(network: nn.Module) -> list[list[nn.Parameter]]:
    """The parameters below the head, block by block from the input on."""
    head = set(map(id, head_parameters(network)))
    depths = layer_depths(network)
    grouped: dict[int, list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if id(parameter) not in head:
            grouped.setdefault(depths[name], []).append(parameter)
    return [grouped[depth] for depth in sorted(grouped)]


def set_trainable(network: nn.Module, phase: Phase) -> None:
    """Let the phase's layers train and freeze the rest."""
    body = blocks(network)
    trained = {"head": 0, "all": len(body)}[phase.train] if isinstance(phase.train, str) else phase.train
    first = max(0, len(body) - trained)
    for i, block in enumerate(body):
        for parameter in block:
            parameter.requires_grad_(i >= first)
    for parameter in head_parameters(network):
        parameter.requires_grad_(True)


def set_train_mode(network: nn.Module, phase: Phase) -> None:
    """Training mode, but for the batch norms of frozen layers, and under ``freeze_norm`` all of the backbone's."""
    network.train()
    head = set(map(id, head_parameters(network)))
    for layer in network.modules():
        own = list(layer.parameters(recurse=False))
        if not isinstance(layer, nn.modules.batchnorm._BatchNorm) or not own or id(own[0]) in head:
            continue
        if phase.freeze_norm or not own[0].requires_grad:
            layer.eval()
