"""The architectures, timm's and ours: list them, build one, and load pretrained weights into it.

What was found when one member of each family was tried is in ``families.json``, which ``benchmarks/families.py`` writes.
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from threading import get_ident
from types import MappingProxyType
from typing import Any, cast

import timm
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.models import PretrainedCfg, get_pretrained_cfg, is_model, model_entrypoint
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from lesion_hub.errors import ConfigError, StoreError, one_line
from lesion_hub.files import read_json
from lesion_hub.models import networks
from lesion_hub.models.arguments import check_arguments
from lesion_hub.models.last_layers import last_layers
from lesion_hub.taxonomy import nearest

CUSTOM_ARCHITECTURES = frozenset(entrypoint.__name__ for entrypoint in networks.ENTRYPOINTS)

# What a published network's file may import: what everybody has who can load it.
_COMMON_PACKAGES = ("numpy", "timm", "torch", "torchvision", "transformers")
_CONVENTIONS = ("forward_features", "forward_head", "get_classifier", "num_features")

# What networks raise of arguments that do not go together.
_BUILD_ERRORS = (
    *(ArithmeticError, AssertionError, AttributeError, LookupError, MemoryError),
    *(RecursionError, RuntimeError, TypeError, ValueError),
)
_SPARE_WEIGHTS = 1 << 22

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


def name_pattern(search: str) -> str:
    """Return the glob that names are matched with: ``search`` if it is one, else whatever contains that word.

    >>> name_pattern("resnet"), name_pattern("resnet?0")
    ('*resnet*', 'resnet?0')
    """
    return search if any(c in search for c in "*?[") else f"*{search}*"


def list_architectures(search: str = "*") -> list[Architecture]:
    """List architectures whose name matches a glob, or contains a plain word; our own come first.

    >>> [a.name for a in list_architectures("lesion_cnn")]
    ['lesion_cnn_deep', 'lesion_cnn_shallow']
    """
    found = []
    made_of_trained_models = {networks.lesion_ensemble.__name__}
    names = set(timm.list_models(name_pattern(search))) - made_of_trained_models
    for name in sorted(names, key=lambda name: (name not in CUSTOM_ARCHITECTURES, name)):
        cfg = default_cfg_of(name)
        tried = families().get(family_of(name))
        trains = tried.trains and name not in tried.refused if tried else None
        layer_maps = tried.layer_maps if tried and trains else None
        size = (cfg.input_size[1], cfg.input_size[2])
        found.append(Architecture(name, family_of(name), size, bool(cfg.has_weights), trains, layer_maps))
    return found


def default_cfg_of(name: str) -> PretrainedCfg:
    """Return what timm says of an architecture's input; of one that is registered without that, timm's defaults."""
    return get_pretrained_cfg(name) or PretrainedCfg()


def require_architecture(name: str) -> None:
    """Raise one line when neither timm nor the zoo knows ``name``."""
    if not is_model(name):
        name = name[:100]
        own = "one of your own is known once the module that registers it with timm is imported"
        raise ConfigError(f"unknown architecture {name!r}; {nearest(name, timm.list_models())[:200]} ({own})")


def build_network(architecture: str, num_classes: int, model_args: dict[str, Any], *, weights: int | None = None) -> nn.Module:
    """Build a fresh network; an argument that it does not take, or must not be told, is one ConfigError line.

    ``weights`` is how many numbers there are to fill it with: a network that needs far more is refused before its memory is
    touched.
    """
    require_buildable(architecture, model_args)
    try:
        with nullcontext() if weights is None else _at_most(2 * weights + _SPARE_WEIGHTS):
            return timm.create_model(architecture, pretrained=False, num_classes=num_classes, **model_args)
    except _BUILD_ERRORS as error:
        reason = one_line(f"{model_args}: {error}")
        raise ConfigError(f"{architecture}: cannot be built with {reason[:400]}") from None


def require_buildable(architecture: str, model_args: Mapping[str, Any]) -> None:
    """Raise one line unless timm or the zoo knows ``architecture``, what it is made of, and the arguments of both."""
    require_architecture(architecture)
    for inner, arguments in check_arguments(architecture, model_args):
        require_buildable(inner, arguments)


@contextmanager
def _at_most(limit: int) -> Iterator[None]:
    """Refuse modules that this thread makes in the block once they have more than ``limit`` parameters together."""
    made, builder = 0, get_ident()

    def count(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        nonlocal made
        if parameter is not None and get_ident() == builder:  # other threads build models of their own
            made += parameter.numel()
            if made > limit:
                raise ValueError("it is far larger than the weights that are there; fetch or publish the model again")

    handle = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        handle.remove()


# ------------------------------------------------------------------------------------------------ trained elsewhere


def architecture_of(network: nn.Module) -> str:
    """Return the name that timm made a network under; one that nobody else could make again is one line."""
    cfg = getattr(network, "pretrained_cfg", None)
    name = cfg.get("architecture") if isinstance(cfg, Mapping) else None
    if not name or not is_model(name):
        raise ConfigError(
            f"{type(network).__name__}: was not made by timm.create_model, so without a pickle nobody could build it again; "
            "register a function that makes it with timm, and make it by that name"
        )
    missing = [word for word in _CONVENTIONS if not hasattr(network, word)]
    if missing:
        raise ConfigError(f"{name}: has no {missing[0]}; a network that is published has timm's {', '.join(_CONVENTIONS)}")
    network_source(name)
    return str(name)


def rebuilt(network: nn.Module, architecture: str, model_args: dict[str, Any]) -> nn.Module:
    """Build ``network`` again from its name and arguments, as whoever loads it will, and copy its weights; strictly."""
    twin = build_network(architecture, cast(int, network.num_classes), model_args)
    try:
        twin.load_state_dict(network.state_dict(), strict=True)
    except RuntimeError as error:
        first = " ".join(str(error).splitlines()[1:2]).strip()
        raise ConfigError(
            f"{architecture}: is not what timm builds under that name with {model_args} ({first}); give the model_args that "
            "it was made with or, where its layers were exchanged, register it with timm under a name of its own"
        ) from None
    return twin


def network_source(architecture: str) -> Path | None:
    """Find the file whose code travels with a published network; None for timm's own, which everybody has.

    It must stand on timm and what comes with it; one that does not, or cannot be read, is one line.
    """
    entrypoint = model_entrypoint(architecture)
    if entrypoint.__module__.partition(".")[0] == "timm":
        return None
    if hasattr(timm.models, architecture):
        raise ConfigError(f"{architecture}: is the name of a network of timm's; register yours under another")
    if entrypoint.__module__ == "__main__":
        raise ConfigError(f"{architecture}: is defined in the script that runs; move it into a module of its own and import it")
    file = Path(inspect.getsourcefile(entrypoint) or "")
    try:
        tree = ast.parse(file.read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError):
        raise ConfigError(f"{architecture}: its source cannot be read ({file}); define it in a Python file") from None
    for name in _imports(tree):
        if name.partition(".")[0] not in {*_COMMON_PACKAGES, *sys.stdlib_module_names}:
            common = ", ".join(_COMMON_PACKAGES)
            raise ConfigError(f"{file}: imports {name}, which others may lack; a published network imports {common} alone")
    return file


def _imports(tree: ast.AST) -> Iterator[str]:
    """Give the name of every module that is imported; relative ones begin with a dot."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or "")


# ------------------------------------------------------------------------------------------------ starting weights


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read a safetensors file; anything else is one line."""
    try:
        return load_file(path)
    except (OSError, SafetensorError, LookupError, OverflowError, RuntimeError, TypeError, ValueError) as error:
        reason = one_line(error)[:200]
        raise StoreError(f"{path}: not a safetensors file ({reason}); pickles are never loaded, fetch it again") from None


def load_backbone_file(network: nn.Module, path: Path) -> None:
    """Load timm-keyed weights into all of ``network`` but its classifier; a file of another network is refused."""
    if path.suffix != ".safetensors":
        raise ConfigError(f"{path}: starting weights must be a .safetensors file; convert it, pickles are not loaded")
    _load_all_but_classifier(network, read_weights(path), str(path))


def pretrained_from_hub(network: nn.Module, backbone: str) -> None:
    """Load the weights that ``timm.create_model(backbone, pretrained=True)`` downloads."""
    cfg = default_cfg_of(backbone)
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
