"""The architectures, timm's and ours: list them, build one, and load pretrained weights into it.

What was found when one member of each family was tried is in ``families.json``, which ``benchmarks/families.py`` writes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import timm
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.models import get_pretrained_cfg, is_model
from torch import Tensor, nn

from lesion_hub.errors import ConfigError
from lesion_hub.files import read_json
from lesion_hub.models import networks
from lesion_hub.models.last_layers import last_layers
from lesion_hub.taxonomy import nearest

CUSTOM_ARCHITECTURES = frozenset(entrypoint.__name__ for entrypoint in networks.ENTRYPOINTS)


FAMILIES_FILE = Path(__file__).with_name("families.json")


@dataclass(frozen=True)
class Family:
    """What one member of a family does, as tried: ``architecture``, at ``image_size`` pixels.

    ``layer_maps`` tells whether Grad-CAM and HiResCAM fit; the methods that ask about the input alone always do.
    ``without_gradient`` are parameters that a training step leaves alone, and ``refused`` members without a classifier.
    """

    name: str
    architecture: str
    image_size: int
    megaparameters: float
    trains: bool
    layer_maps: bool
    without_gradient: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@cache
def families() -> Mapping[str, Family]:
    """Return what was found of every family, by name: timm's modules, and ``lesion_hub`` for our own networks.

    >>> families()["xcit"].layer_maps, families()["crossvit"].layer_maps
    (True, False)
    """
    rows = read_json(FAMILIES_FILE)["families"]
    lists = ("without_gradient", "refused")
    return MappingProxyType({row["name"]: Family(**row | {key: tuple(row[key]) for key in lists}) for row in rows})


def family_of(architecture: str) -> str:
    """Name the family of an architecture: timm's module, or ``lesion_hub``."""
    return "lesion_hub" if architecture in CUSTOM_ARCHITECTURES else timm.models._registry._model_to_module[architecture]


def instead_of(architecture: str) -> str:
    """Word which architecture to take instead of one that does not work: the member of its family that was tried, or ours.

    >>> instead_of("deepseek_vit_412m_enc")
    'choose deepseek_vit_412m'
    """
    found = families().get(family_of(architecture))
    usable = found is not None and found.trains and found.architecture != architecture
    return f"choose {found.architecture if found and usable else 'resnet50'}"


@dataclass(frozen=True)
class Architecture:
    """An architecture. ``image_size`` is (height, width) of its default input; ``trains`` and ``layer_maps`` are its family's.

    Both are None in a family that was not tried, for timm gets new ones, and what does not train has no maps to speak of.
    """

    name: str
    family: str
    image_size: tuple[int, int]
    pretrained: bool
    trains: bool | None
    layer_maps: bool | None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def list_architectures(search: str = "*") -> list[Architecture]:
    """List architectures whose name matches a glob, or contains a plain word; our own come first.

    >>> [a.name for a in list_architectures("lesion_cnn")]
    ['lesion_cnn_deep', 'lesion_cnn_shallow']
    """
    pattern = search if any(c in search for c in "*?[") else f"*{search}*"
    found = []
    for name in sorted(timm.list_models(pattern), key=lambda name: (name not in CUSTOM_ARCHITECTURES, name)):
        cfg = get_pretrained_cfg(name)
        tried = families().get(family_of(name))
        trains = tried.trains and name not in tried.refused if tried else None
        layer_maps = tried.layer_maps if tried and trains else None
        size = (cfg.input_size[1], cfg.input_size[2])
        found.append(Architecture(name, family_of(name), size, bool(cfg.has_weights), trains, layer_maps))
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
    own = last_layers(network)
    classifiers = {named} if isinstance(named, str) else set(named)
    classifiers |= {name for name, module in network.named_modules() if module in own}
    kept = {key: value for key, value in weights.items() if key.rpartition(".")[0] not in classifiers}
    expected = {key: value.shape for key, value in network.state_dict().items() if key.rpartition(".")[0] not in classifiers}
    wrong = sorted(key for key, shape in expected.items() if key not in kept or kept[key].shape != shape)
    # A network without a classifier has no use for what belongs to one, such as a norm of its own.
    heads = {name.partition(".")[0] for name in classifiers} if not own else set()
    wrong += sorted(key for key in set(kept) - set(expected) if key.partition(".")[0] not in heads)
    if wrong:
        raise ConfigError(f"{origin}: not the weights of this backbone ({len(wrong)} tensors differ, first {wrong[0]!r})")
    network.load_state_dict({key: kept[key] for key in expected}, strict=False)
