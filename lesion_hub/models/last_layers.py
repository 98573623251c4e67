"""The layers whose outputs are a network's logits.

Most networks end in one Linear; some end in a convolution over the pooled 1 x 1 map, and some in several heads whose outputs
are averaged, or added up with fixed weights. The logits are proportional to all of them together, so a temperature is divided
out of every one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, TypeAlias, cast

import torch
from torch import nn

LastLayer: TypeAlias = nn.Linear | nn.Conv2d


def head_modules(network: nn.Module) -> list[nn.Module]:
    """List the modules that make a timm network's classifier: what it returns as such, and what its config names beside.

    >>> import timm
    >>> [type(head).__name__ for head in head_modules(timm.create_model("levit_128s", num_classes=7))]
    ['NormLinear', 'NormLinear']
    """
    found = list(_flattened(cast(Any, network).get_classifier())) if hasattr(network, "get_classifier") else []
    named = (getattr(network, "pretrained_cfg", None) or {}).get("classifier") or ()
    modules = dict(network.named_modules())
    for name in (named,) if isinstance(named, str) else named:
        inside = {id(module) for head in found for module in head.modules()}
        if name in modules and id(modules[name]) not in inside:  # VOLO's second head
            found.append(modules[name])
    return found


def _flattened(heads: Any) -> Iterator[nn.Module]:
    if isinstance(heads, (tuple, list, nn.ModuleList)):
        for head in heads:
            yield from _flattened(head)
    elif isinstance(heads, nn.Module):
        yield heads


def last_layers(network: nn.Module) -> tuple[LastLayer, ...]:
    """Return the layers that end in the network's logits; none where it has no classifier.

    >>> import timm
    >>> last_layers(timm.create_model("dla46x_c", num_classes=7))
    (Conv2d(256, 7, kernel_size=(1, 1), stride=(1, 1)),)
    """
    width = getattr(network, "num_classes", None)
    inside = (module for head in head_modules(network) for module in head.modules())
    layers = (module for module in inside if isinstance(module, (nn.Linear, nn.Conv2d)) and len(module.weight) == width)
    return tuple(dict.fromkeys(layers))


@torch.no_grad()
def divide_logits(layers: Iterable[LastLayer], divisor: float) -> None:
    """Divide a network's logits by ``divisor`` for good, inside its last layers."""
    for layer in layers:
        for parameter in layer.parameters():
            parameter.div_(divisor)
