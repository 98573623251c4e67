"""A network in two parts, cut where its activations still lie on the image: a stem run once, and a tail to differentiate.

Each cut has a tap of its own, an ``nn.Identity`` that sees (N, C, h, w) activations whatever layout the network uses.
Captum hooks the tap and nothing else, so no hook is ever on a shared module, and threads do not disturb each other.
"""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from timm.models.cait import Cait
from timm.models.pit import PoolingVisionTransformer
from timm.models.tnt import TNT
from timm.models.vision_transformer import VisionTransformer
from timm.models.volo import VOLO
from timm.models.xcit import Xcit
from torch import Tensor, nn

from lesion_hub.errors import ConfigError
from lesion_hub.models import LesionClassifier

ALWAYS_FITTING = ("integrated_gradients", "gradient_shap", "occlusion")
"""The attribution methods that ask about the input alone, and need no cut."""


@dataclass(frozen=True)
class InnerTap:
    """A layer to tap, by its path in the trunk (``-1`` is the last of a sequence).

    ``prefix`` counts those of its tokens that stand for no place on the image. ``resumes`` tells whether the trunk's ``blocks``
    hand on one tensor, so that the last one can be run alone.
    """

    layer: str = "blocks.-1.norm1"
    prefix: Callable[[Any], int] = lambda trunk: trunk.num_prefix_tokens
    resumes: bool = True


INNER_TAPS: dict[type[nn.Module], InnerTap] = {
    VisionTransformer: InnerTap(),
    # Their class token has blocks of its own, which read the patches' last output.
    Cait: InnerTap("blocks.-1", prefix=lambda trunk: 0),
    Xcit: InnerTap("blocks.-1", prefix=lambda trunk: 0),
    VOLO: InnerTap("network.-1", prefix=lambda trunk: 0, resumes=False),
    TNT: InnerTap("blocks.-1.norm_out", resumes=False),
    PoolingVisionTransformer: InnerTap(
        "transformers.-1.blocks.-1.norm1", prefix=lambda trunk: trunk.cls_token.shape[1], resumes=False
    ),
}
"""Where to tap networks at whose end nothing reads the patches; others with a class token are tapped as vision transformers."""


class Cut(nn.Module):
    """One network in two parts: ``cut(cut.stem(images))`` equals its logits. Made anew for every call, for the tap's sake."""

    def __init__(self, classifier: LesionClassifier) -> None:
        super().__init__()
        self.tap = nn.Identity()
        # In a tuple, so that the shared network is no submodule of this one.
        self._shared = (classifier, cast(Any, classifier.network), trunk_of(classifier))

    @property
    def network(self) -> Any:
        return self._shared[1]

    @property
    def trunk(self) -> Any:
        return self._shared[2]

    @abstractmethod
    def stem(self, batch: Tensor) -> Tensor:
        """Run (N, 3, H, W) prepared images up to what the tail takes."""

    @abstractmethod
    def features(self, state: Tensor) -> Tensor:
        """Run the stem's output, through the tap, up to what the network's ``forward_head`` takes."""

    def forward(self, state: Tensor, metadata: Tensor | None = None) -> Tensor:
        """Run the tail: the stem's output to (N, C) float32 logits."""
        features = self.features(state)
        if metadata is not None and self._shared[0].takes_metadata:
            return self.network.forward_head(features, metadata=metadata).float()
        return self.network.forward_head(features).float()

    def tapped(self, activations: Tensor, prefix: int) -> Tensor:
        """Pass activations through the tap as an (N, C, h, w) map, and return them in the layout that they came in.

        Known are maps, (N, C, h, w) or, as Swin's are, (N, h, w, C), and (N, L, C) tokens, of which the first ``prefix``
        (class token, registers) stand for no place and the rest for the image's patches, row by row.
        """
        if activations.ndim == 4:
            if activations.shape[3] == self.trunk.num_features != activations.shape[1]:
                return self.tap(activations.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
            return self.tap(activations)
        patches = activations[:, prefix:].transpose(1, 2)
        grid = token_grid(int(patches.shape[2]), self._shared[0].input_config.input_size[1:])
        if grid is None:
            raise self.unknown(f"its {patches.shape[2]} tokens are no grid over the image")
        mapped = self.tap(patches.unflatten(2, grid)).flatten(2).transpose(1, 2)
        return torch.cat([activations[:, :prefix], mapped], dim=1)

    def unknown(self, why: str) -> ConfigError:
        """Say in one line that no map can be had of this network, and what to use instead."""
        others = f"{', '.join(ALWAYS_FITTING[:-1])} or {ALWAYS_FITTING[-1]}"
        return ConfigError(f"{self._shared[0].architecture}: layer-wise maps do not fit it ({why}); explain it with {others}")


class WholeCut(Cut):
    """No cut at all, for methods that only ask about the input: the stem passes the images on."""

    def stem(self, batch: Tensor) -> Tensor:
        return batch

    def features(self, state: Tensor) -> Tensor:
        return cast(Tensor, self.network.forward_features(state))


class EndCut(Cut):
    """Networks whose head pools what lies on the image, a feature map or patch tokens: the tap is on their last features."""

    def stem(self, batch: Tensor) -> Tensor:
        if not hasattr(self.network, "forward_features"):
            raise self.unknown("it has no forward_features")
        state = self.network.forward_features(batch)
        if not isinstance(state, Tensor):
            raise self.unknown(f"its features are {len(state)} tensors")
        if state.ndim not in (3, 4):
            raise self.unknown(f"its features have shape {tuple(state.shape)}")
        return state

    def features(self, state: Tensor) -> Tensor:
        return self.tapped(state, getattr(self.trunk, "num_prefix_tokens", 0))


class InnerCut(Cut):
    """Networks whose class token gathers the patches: the tap is on the output of a layer inside, before they are mixed.

    Behind the last block it would be too late: with class-token pooling nothing reads the patches any more, and their
    gradient is exactly zero.

    Where blocks hand on one tensor, the stem's output is what the last block takes, and the tail runs that block alone.
    Elsewhere there is no stem, and a map costs a second forward pass.
    """

    def __init__(self, classifier: LesionClassifier, place: InnerTap) -> None:
        super().__init__(classifier)
        if layer_at(self.trunk, place.layer) is None:
            raise self.unknown(f"it has no layer {place.layer}")
        self.place = place

    def stem(self, batch: Tensor) -> Tensor:
        if not self.place.resumes:
            return batch
        last = _Recorded()
        with_layer(self.trunk, "blocks.-1", last).forward_features(batch)
        return last.taken

    def features(self, state: Tensor) -> Tensor:
        layer = cast(nn.Module, layer_at(self.trunk, self.place.layer))
        trunk = with_layer(self.trunk, self.place.layer, _Tapped(self.tapped, layer, self.place.prefix(self.trunk)))
        if not self.place.resumes:
            return cast(Tensor, trunk.forward_features(state))
        # All blocks keep their places, since some networks hand each a position embedding of its own.
        blocks = copy.copy(trunk.blocks)
        *passed, last = trunk.blocks._modules
        blocks._modules = {**{name: _Passed() for name in passed}, last: _Resumed(trunk.blocks[-1], state)}
        blank = state.new_zeros(state.shape[0], *self._shared[0].input_config.input_size)
        return cast(Tensor, with_layer(trunk, "blocks", blocks).forward_features(blank))


class _Recorded(nn.Module):
    """Stands where the last block was, and keeps what it would have taken."""

    taken: Tensor

    def forward(self, tokens: Tensor, *_: Any, **__: Any) -> Tensor:
        self.taken = tokens
        return tokens


class _Passed(nn.Module):
    """Stands where a block was that need not run again."""

    def forward(self, tokens: Tensor, *_: Any, **__: Any) -> Tensor:
        return tokens


class _Resumed(nn.Module):
    """A block that takes a recorded tensor instead of the one it is given."""

    def __init__(self, block: nn.Module, state: Tensor) -> None:
        super().__init__()
        self.block, self.state = block, state

    def forward(self, _: Tensor, *arguments: Any, **options: Any) -> Tensor:
        return cast(Tensor, self.block(self.state, *arguments, **options))


class _Tapped(nn.Module):
    """A layer whose output passes the tap."""

    def __init__(self, tapped: Callable[[Tensor, int], Tensor], layer: nn.Module, prefix: int) -> None:
        super().__init__()
        self.tapped, self.layer, self.prefix = tapped, layer, prefix

    def forward(self, *arguments: Any, **options: Any) -> Tensor:
        return self.tapped(self.layer(*arguments, **options), self.prefix)


def layer_at(module: nn.Module, path: str) -> nn.Module | None:
    """Find a layer by its path, in which ``-1`` is the last of a sequence; None where there is none."""
    found: Any = module
    for name in path.split("."):
        if name == "-1":
            found = found[-1] if isinstance(found, (nn.Sequential, nn.ModuleList)) and len(found) else None
        else:
            found = getattr(found, name, None)
    return found if isinstance(found, nn.Module) else None


def with_layer(module: Any, path: str, replacement: nn.Module) -> Any:
    """Copy a network, sharing its weights, with another layer at ``path``; the original is left alone."""
    name, _, rest = path.partition(".")
    key = list(module._modules)[-1] if name == "-1" else name
    twin = copy.copy(module)
    twin._modules = {**module._modules, key: with_layer(module._modules[key], rest, replacement) if rest else replacement}
    return twin


def token_grid(tokens: int, size: tuple[int, int]) -> tuple[int, int] | None:
    """Work out the rows and columns that ``tokens`` make of an input of (height, width) ``size``; None where they make none.

    >>> token_grid(196, (224, 224)), token_grid(24, (64, 96)), token_grid(17, (64, 64))
    ((14, 14), (4, 6), None)
    """
    height, width = size
    rows = round((tokens * height / width) ** 0.5)
    if rows == 0 or tokens % rows:
        return None
    columns = tokens // rows
    # A patch is square; where the last one of a side reaches over the border, its own side is a little longer.
    return (rows, columns) if abs(rows * width - columns * height) < max(height, width) else None


def trunk_of(classifier: LesionClassifier) -> Any:
    """Return the timm network that makes the features: the backbone of a LesionNet, else the network itself."""
    network = cast(Any, classifier.network)
    return getattr(network, "backbone", network)


def cut(classifier: LesionClassifier) -> Cut:
    """Cut a classifier's network anew; one line, here or from the stem, where its layout is not known.

    >>> classifier = LesionClassifier.create("lesion_cnn_shallow", "ham7", image_size=32).eval()
    >>> parts = cut(classifier)
    >>> parts(parts.stem(torch.zeros(2, 3, 32, 32))).shape
    torch.Size([2, 7])
    """
    trunk = trunk_of(classifier)
    for network, place in INNER_TAPS.items():
        if isinstance(trunk, network):
            return InnerCut(classifier, place)
    return InnerCut(classifier, InnerTap()) if getattr(trunk, "num_prefix_tokens", 0) else EndCut(classifier)
