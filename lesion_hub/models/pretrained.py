"""Starting weights for a backbone: what timm would download, or a local safetensors file, loaded strictly."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import timm
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.models import get_pretrained_cfg
from torch import Tensor, nn

from lesion_hub.errors import ConfigError


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
