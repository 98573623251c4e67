"""Grad-CAM as an ONNX graph: from the output of a network's stem to a map for every label, its gradients written out.

Where the head is one linear layer behind average pooling, that layer applied at every place is the map, exactly. Elsewhere
torch writes the tail's gradients out as operations, which can be exported like any others. Grad-CAM is linear in the gradient
of what it explains, so the map of several labels together is the sum of theirs, each weighted by its share of their
probability; only then the negative part is dropped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch._decomp import get_decompositions
from torch.fx.experimental.proxy_tensor import make_fx
from torch.nn.attention import SDPBackend, sdpa_kernel

from lesion_hub.errors import ConfigError, one_line
from lesion_hub.hub.graph import traced
from lesion_hub.hub.onnx_file import FEATURES, cpu_session
from lesion_hub.inference.attribution import Evidence, grad_cam
from lesion_hub.models import LesionClassifier
from lesion_hub.models.last_layers import last_layers
from lesion_hub.models.network_cut import Cut, InnerCut, cut

MAPS, POOLED = "maps", "pooled"
"""Of C labels and F channels: (C, h, w) maps whose negative part is still there, and (3, F) pooled features."""

LARGEST_DIFFERENCE = 0.01
"""How far a map of the graph may be from Captum's, as a share of the map's maximum."""

# Of torch's own decompositions those that lead to what the exporter knows; others lead to strided views and the like.
_WRITTEN_OUT = (
    *(
        "_softmax",
        "_softmax_backward_data",
        "_unsafe_view",
        "addmm",
        "detach",
        "linalg_vector_norm",
        "new_zeros",
        "t",
        "zeros_like",
    ),
    *("gelu_backward", "hardsigmoid_backward", "hardswish_backward", "sigmoid_backward", "silu_backward", "tanh_backward"),
    *("native_batch_norm_backward", "native_group_norm_backward", "native_layer_norm_backward", "threshold_backward"),
)


def map_graph(classifier: LesionClassifier, images: Tensor) -> Any:
    """Write the ONNX model from the stem's output (``features``) to ``maps`` and ``pooled``; (1, 3, H, W) images to try it on.

    One line where the network has no layer-wise map, its gradients cannot be written out, or the maps are not Captum's.
    """
    parts = cut(classifier)
    with torch.no_grad():
        state = parts.stem(images)
    model = traced(classifier, _explanation(classifier, parts, state), state, FEATURES, [MAPS, POOLED])
    _require_same_maps(classifier, model, images, state)
    return model


def _require_same_maps(classifier: LesionClassifier, model: Any, images: Tensor, state: Tensor) -> None:
    """Raise one line unless the graph's map of every label is that of `attribution.grad_cam`."""
    try:
        session = cpu_session(model.SerializeToString())
        found = session.run([MAPS], {FEATURES: state.contiguous().numpy()})[0]
    except Exception as error:  # noqa: BLE001 - ONNX Runtime's errors share no class of their own
        raise ConfigError(f"{classifier.architecture}: its maps do not run as a graph ({one_line(error)[:200]})") from None
    for label in range(len(classifier.space)):
        selected = torch.zeros(1, len(classifier.space), dtype=torch.bool)
        selected[0, label] = True
        with torch.enable_grad():
            own = grad_cam(Evidence(cut(classifier), images, state), selected)[0].numpy()
        scale = max(float(own.max()), float(np.abs(found[label]).max()))
        if not np.abs(own - np.maximum(found[label], 0)).max() <= LARGEST_DIFFERENCE * scale:
            raise ConfigError(f"{classifier.architecture}: its maps as a graph are not those of Grad-CAM")


class _Tap(nn.Identity):
    """A tap that keeps what passes through it, and adds ``shift`` to it."""

    seen: Tensor
    shift: Tensor | None = None

    def forward(self, activations: Tensor) -> Tensor:
        self.seen = activations
        # Contiguous, since pooling would else turn strides round in place, which no graph can show.
        return activations if self.shift is None else (activations + self.shift).contiguous()


class _LinearHead(nn.Module):
    """Maps of a network whose head is one linear layer behind average pooling: the layer itself, applied at every place."""

    def __init__(self, activations: Callable[[Tensor], Tensor], weight: Tensor) -> None:
        super().__init__()
        self.activations, self.weight = activations, nn.Parameter(weight, requires_grad=False)

    def forward(self, state: Tensor) -> tuple[Tensor, Tensor]:
        seen = self.activations(state)[0]
        maps = (self.weight @ seen.flatten(1)).unflatten(1, seen.shape[1:])
        return maps / (seen.shape[1] * seen.shape[2]), _pooled(seen)


def _explanation(classifier: LesionClassifier, parts: Cut, example: Tensor) -> nn.Module:
    """Make the module that maps the stem's output to the labels' maps and the pooled features."""
    parts.tap = _Tap()

    def activations(state: Tensor) -> Tensor:
        parts.features(state)
        return cast(Tensor, parts.tap.seen)

    layers = last_layers(classifier.network)
    if len(layers) == 1 and not isinstance(parts, InnerCut):
        weight = layers[0].weight.detach().flatten(1)
        if _is_linear(parts, activations, weight, example):
            return _LinearHead(activations, weight)
    return _gradients_as_graph(parts, len(classifier.space), example)


@torch.no_grad()
def _is_linear(parts: Cut, activations: Callable[[Tensor], Tensor], weight: Tensor, example: Tensor) -> bool:
    """Tell whether the tail is this layer behind average pooling: tried on two states, whose difference has no bias."""
    other = example + torch.randn(example.shape, generator=torch.Generator().manual_seed(1)) * example.std()
    seen, seen_other = activations(example), activations(other)
    if seen.shape[1] != weight.shape[1]:
        return False
    expected = weight @ (seen - seen_other).mean(dim=(0, 2, 3))
    found = (parts(example) - parts(other))[0]
    return bool((expected - found).abs().max() <= 1e-4 * max(1.0, float(found.abs().max())))


def _gradients_as_graph(parts: Cut, labels: int, example: Tensor) -> nn.Module:
    """Write a tail's gradients out as a graph of their own, which an exporter can trace: every label's in one pass."""
    tap = cast(_Tap, parts.tap)

    def explain(state: Tensor) -> tuple[Tensor, Tensor]:
        tap.shift = None
        parts.features(state)
        seen = tap.seen

        def own_logits(shift: Tensor) -> Tensor:
            tap.shift = shift
            return (parts(state.expand(labels, *state.shape[1:])) * torch.eye(labels)).sum()

        slopes = torch.func.grad(own_logits)(torch.zeros(labels, *seen.shape[1:]))
        maps = (slopes.mean(dim=(2, 3), keepdim=True) * seen).sum(dim=1)
        return maps, _pooled(seen[0])

    try:
        with sdpa_kernel(SDPBackend.MATH):  # fused attention is one operation, whose gradient no exporter knows
            return make_fx(explain, decomposition_table=_decompositions())(example)
    except Exception as error:  # noqa: BLE001 - whatever torch meets in a network that it cannot trace
        raise ConfigError(f"its gradients cannot be written out ({one_line(error)[:200]})") from None


def _decompositions() -> dict[Any, Callable[..., Any]]:
    """Return what an operation is written out as, where the exporter does not know it or its gradient."""
    operations = torch.ops.aten
    table: dict[Any, Callable[..., Any]] = dict(get_decompositions([getattr(operations, name) for name in _WRITTEN_OUT]))
    table[operations._adaptive_avg_pool2d.default] = _average_pool
    table[operations.select_backward.default] = _slope_of_select
    table[operations.slice_backward.default] = _slope_of_slice
    table[operations._adaptive_avg_pool2d_backward.default] = _slope_of_average_pool
    if hasattr(operations, "_safe_softmax"):  # torch 2.4 has none, and attends by a plain one
        table[operations._safe_softmax.default] = _softmax_with_a_winner
    table[operations.convolution_backward.default] = _slope_of_convolution
    table[operations.native_layer_norm.default] = _layer_norm
    return table


def _average_pool(seen: Tensor, size: Sequence[int]) -> Any:
    """Average (N, C, H, W) over ``size`` equal parts; where the sides cannot be cut into them, say so."""
    if seen.shape[2] % size[0] or seen.shape[3] % size[1]:
        return NotImplemented
    return seen.unflatten(3, (size[1], -1)).unflatten(2, (size[0], -1)).mean(dim=(3, 5))


def _slope_of_average_pool(slope: Tensor, taken: Tensor) -> Any:
    parts = slope.shape[2:]
    if taken.shape[2] % parts[0] or taken.shape[3] % parts[1]:
        return NotImplemented
    rows, columns = taken.shape[2] // parts[0], taken.shape[3] // parts[1]
    spread = slope[:, :, :, None, :, None].expand(*slope.shape[:3], rows, parts[1], columns)
    return spread.reshape(taken.shape) / (rows * columns)


def _slope_of_select(slope: Tensor, sizes: Sequence[int], dim: int, index: int) -> Tensor:
    chosen = torch.arange(sizes[dim]) == index % sizes[dim]
    return slope.unsqueeze(dim) * chosen.to(slope).view(-1, *[1] * (len(sizes) - 1 - dim % len(sizes)))


def _slope_of_slice(slope: Tensor, sizes: Sequence[int], dim: int, start: int, end: int, step: int) -> Any:
    if step != 1:
        return NotImplemented
    end = min(end, sizes[dim])
    return nn.functional.pad(slope, [0, 0] * (len(sizes) - 1 - dim % len(sizes)) + [start, sizes[dim] - end])


def _softmax_with_a_winner(scores: Tensor, dim: int, dtype: torch.dtype | None = None) -> Tensor:
    """Torch's softmax that gives zeros where everything is masked, which nothing is here."""
    return scores.softmax(dim, dtype)


def _slope_of_convolution(slope: Tensor, taken: Tensor, weight: Tensor, *rest: Any) -> Any:
    """Compute the gradient towards a convolution's input, the only one that a map needs."""
    _, stride, padding, dilation, transposed, _, groups, wanted = rest
    if transposed or wanted[1] or wanted[2] or taken.ndim != 4:
        return NotImplemented
    lengths = zip(taken.shape[2:], slope.shape[2:], weight.shape[2:], stride, padding, dilation, strict=True)
    beyond = [length - ((n - 1) * s - 2 * p + d * (k - 1) + 1) for length, n, k, s, p, d in lengths]
    return nn.functional.conv_transpose2d(slope, weight, None, stride, padding, beyond, groups, dilation), None, None


def _layer_norm(taken: Tensor, shape: Sequence[int], weight: Tensor | None, bias: Tensor | None, eps: float) -> Any:
    """Normalise over the last dimensions; the gradient needs the mean and the inverse deviation too."""
    places = tuple(range(-len(shape), 0))
    mean = taken.mean(dim=places, keepdim=True)
    inverse = 1 / ((taken - mean).square().mean(dim=places, keepdim=True) + eps).sqrt()
    normal = (taken - mean) * inverse
    scaled = normal if weight is None else normal * weight
    return scaled if bias is None else scaled + bias, mean, inverse


def _pooled(seen: Tensor) -> Tensor:
    """Compute the (3, F) mean, maximum and standard deviation of (F, h, w) activations over the places."""
    places = seen.flatten(1)
    mean = places.mean(dim=1)
    deviation = (places - mean[:, None]).square().mean(dim=1).sqrt()
    return torch.stack([mean, places.amax(dim=1), deviation])
