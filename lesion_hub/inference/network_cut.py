"""A network in two parts, cut at its last feature map: a stem that is run once, and a tail that can be differentiated.

Each cut has a tap of its own, an ``nn.Identity`` that sees (N, C, h, w) activations whatever layout the network uses.
Captum hooks the tap and nothing else, so no hook is ever on a shared module, and threads do not disturb each other.
"""

from __future__ import annotations

import copy
from abc import abstractmethod
from typing import Any, cast

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from lesion_hub.errors import ConfigError
from lesion_hub.models import LesionClassifier


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


class WholeCut(Cut):
    """No cut at all, for methods that only ask about the input: the stem passes the images on."""

    def stem(self, batch: Tensor) -> Tensor:
        return batch

    def features(self, state: Tensor) -> Tensor:
        return cast(Tensor, self.network.forward_features(state))


class MapCut(Cut):
    """Networks that end in a feature map, (N, C, h, w) or, as Swin's does, (N, h, w, C): the tap is on that map."""

    def stem(self, batch: Tensor) -> Tensor:
        state = cast(Tensor, self.network.forward_features(batch))
        if state.ndim != 4:
            raise _unknown_layout(self._shared[0], f"its features have shape {tuple(state.shape)}")
        return state

    def features(self, state: Tensor) -> Tensor:
        channels = self.trunk.num_features
        if state.shape[3] == channels != state.shape[1]:
            return self.tap(state.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        return self.tap(state)


class TokenCut(Cut):
    """Vision transformers: the tap is on the patch tokens behind ``blocks[-1].norm1``.

    Behind the last block it would be too late: with class-token pooling nothing reads the patches any more, and their
    gradient is exactly zero.
    """

    def stem(self, batch: Tensor) -> Tensor:
        taken = self.trunk.forward_intermediates(
            batch,
            indices=[len(self.trunk.blocks) - 2],
            return_prefix_tokens=True,
            stop_early=True,
            output_fmt="NLC",
            intermediates_only=True,
        )[0]
        return torch.cat(taken[::-1], dim=1) if isinstance(taken, tuple) else taken

    def features(self, state: Tensor) -> Tensor:
        grid = self.trunk.patch_embed.dynamic_feat_size(self._shared[0].input_config.input_size[1:])
        last = self.trunk.blocks[-1]
        tapped = _TappedNorm(self.tap, last.norm1, int(self.trunk.num_prefix_tokens), grid)
        return cast(Tensor, self.trunk.norm(_with_norm1(last, tapped)(state)))


class _TappedNorm(nn.Module):
    """A norm over (N, L, C) tokens whose patches then pass the tap as an (N, C, h, w) map."""

    def __init__(self, tap: nn.Module, norm: nn.Module, prefix: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.tap, self.norm, self.prefix, self.grid = tap, norm, prefix, grid

    def forward(self, tokens: Tensor) -> Tensor:
        normed = self.norm(tokens)
        patches = normed[:, self.prefix :].transpose(1, 2).unflatten(2, self.grid)
        return torch.cat([normed[:, : self.prefix], self.tap(patches).flatten(2).transpose(1, 2)], dim=1)


def _with_norm1(block: nn.Module, norm1: nn.Module) -> nn.Module:
    """Copy a block, sharing its weights, and give the copy another ``norm1``; the original is left alone."""
    twin = copy.copy(block)
    twin._modules = {**block._modules, "norm1": norm1}
    return twin


def trunk_of(classifier: LesionClassifier) -> Any:
    """Return the timm network that makes the features: the backbone of a LesionNet, else the network itself."""
    network = cast(Any, classifier.network)
    return getattr(network, "backbone", network)


def cut(classifier: LesionClassifier) -> Cut:
    """Cut a classifier's network anew; one line where its layout is not known.

    >>> classifier = LesionClassifier.create("lesion_cnn_shallow", "ham7", image_size=32).eval()
    >>> parts = cut(classifier)
    >>> parts(parts.stem(torch.zeros(2, 3, 32, 32))).shape
    torch.Size([2, 7])
    """
    trunk = trunk_of(classifier)
    if not isinstance(trunk, VisionTransformer):
        return MapCut(classifier)
    if len(trunk.blocks) < 2 or not hasattr(trunk.blocks[-1], "norm1"):
        raise _unknown_layout(classifier, "its last block has no norm1 to look behind")
    return TokenCut(classifier)


def _unknown_layout(classifier: LesionClassifier, why: str) -> ConfigError:
    return ConfigError(
        f"{classifier.architecture}: layer-wise maps do not fit it ({why}); explain it with integrated_gradients or occlusion"
    )
