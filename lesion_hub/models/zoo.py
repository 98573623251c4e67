"""What can be trained: timm's architectures and our own, with the facts that help to choose."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import timm
from timm.models import get_pretrained_cfg

from lesion_hub.models.classifier import CUSTOM_ARCHITECTURES


@dataclass(frozen=True)
class Architecture:
    """One line of the zoo. ``image_size`` is (height, width) of its default input."""

    name: str
    family: str
    image_size: tuple[int, int]
    pretrained: bool

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def list_architectures(search: str = "*") -> list[Architecture]:
    """Architectures whose name matches a glob, or contains a plain word; our own come first.

    >>> [a.name for a in list_architectures("lesion_cnn")]
    ['lesion_cnn_deep', 'lesion_cnn_shallow']
    """
    pattern = search if any(c in search for c in "*?[") else f"*{search}*"
    names = timm.list_models(pattern)
    return [_describe(name) for name in sorted(names, key=lambda name: (name not in CUSTOM_ARCHITECTURES, name))]


def _describe(name: str) -> Architecture:
    cfg = get_pretrained_cfg(name)
    family = "lesion_hub" if name in CUSTOM_ARCHITECTURES else timm.models._registry._model_to_module[name]
    return Architecture(name, family, (cfg.input_size[1], cfg.input_size[2]), bool(cfg.has_weights))
