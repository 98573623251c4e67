"""The architectures, timm's and ours: list them, build one, and load pretrained weights into it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import timm
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.models import get_pretrained_cfg, is_model
from torch import Tensor, nn

from lesion_hub.errors import ConfigError
from lesion_hub.models import networks
from lesion_hub.taxonomy import nearest

CUSTOM_ARCHITECTURES = frozenset(entrypoint.__name__ for entrypoint in networks.ENTRYPOINTS)


@dataclass(frozen=True)
class Architecture:
    """An architecture that can be trained. ``image_size`` is (height, width) of its default input."""

    name: str
    family: str
    image_size: tuple[int, int]
    pretrained: bool

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def list_architectures(search: str = "*") -> list[Architecture]:
    """List architectures whose name matches a glob, or contains a plain word; our own come first.

    >>> [a.name for a in list_architectures("lesion_cnn")]
    ['lesion_cnn_deep', 'lesion_cnn_shallow']
    """
    pattern = search if any(c in search for c in "*?[") else f"*{search}*"
    found = []
    names = set(timm.list_models(pattern)) - {networks.lesion_ensemble.__name__}  # made of trained models, never trained
    for name in sorted(names, key=lambda name: (name not in CUSTOM_ARCHITECTURES, name)):
        cfg = get_pretrained_cfg(name)
        family = "lesion_hub" if name in CUSTOM_ARCHITECTURES else timm.models._registry._model_to_module[name]
        found.append(Architecture(name, family, (cfg.input_size[1], cfg.input_size[2]), bool(cfg.has_weights)))
    return found


def require_architecture(name: str) -> None:
    """Raise one line when neither timm nor the zoo knows ``name``."""
    if not is_model(name):
        raise ConfigError(f"unknown architecture {name!r}; {nearest(name, timm.list_models())[:200]}")


def build_network(architecture: str, num_classes: int, model_args: dict[str, Any]) -> nn.Module:
    """Build a fresh network; an argument that it does not take is one ConfigError line."""
    try:
        return timm.create_model(architecture, pretrained=False, num_classes=num_classes, **model_args)
    except (TypeError, ValueError, RuntimeError, AssertionError, KeyError) as error:
        raise ConfigError(f"{architecture}: cannot be built with {model_args}: {error}") from None


def load_backbone_file(network: nn.Module, path: Path) -> None:
    """Load timm-keyed weights into all of ``network`` but its classifier; a file of another network is refused."""
    if path.suffix != ".safetensors":
        raise ConfigError(f"{path}: starting weights must be a .safetensors file; convert it, pickles are not loaded")
    try:
        weights = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"{path}: not readable as safetensors ({error}); check the path and the download") from None
    _load_all_but_classifier(network, weights, str(path))


def pretrained_from_hub(network: nn.Module, backbone: str) -> None:
    """Load the weights that ``timm.create_model(backbone, pretrained=True)`` downloads."""
    cfg = get_pretrained_cfg(backbone)
    if not cfg.has_weights:
        raise ConfigError(f"{backbone}: timm has no pretrained weights for it; use pretrained: false or a file")
    try:
        source = timm.create_model(backbone, pretrained=True)
    except Exception as error:  # noqa: BLE001 - the transport library behind the download differs by version
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ConfigError(
            f"{backbone}: pretrained weights could not be downloaded ({reason}); "
            "go online, or give pretrained: the path of a .safetensors file"
        ) from None
    _load_all_but_classifier(network, source.state_dict(), f"{backbone} (timm)")


def _load_all_but_classifier(network: nn.Module, weights: dict[str, Tensor], origin: str) -> None:
    named = cast(dict[str, str | tuple[str, ...] | None], network.pretrained_cfg).get("classifier") or ()
    classifiers = (named,) if isinstance(named, str) else named
    kept = {key: value for key, value in weights.items() if key.rpartition(".")[0] not in classifiers}
    expected = {key: value.shape for key, value in network.state_dict().items() if key.rpartition(".")[0] not in classifiers}
    wrong = sorted(key for key, shape in expected.items() if key not in kept or kept[key].shape != shape)
    wrong += sorted(set(kept) - set(expected))
    if wrong:
        raise ConfigError(f"{origin}: not the weights of this backbone ({len(wrong)} tensors differ, first {wrong[0]!r})")
    network.load_state_dict(kept, strict=False)
