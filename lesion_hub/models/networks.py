"""The networks that timm does not have: AlexNet, two small CNNs, any backbone under a custom head, and several as one.

This one file is also what a published repo with custom code carries (as ``modeling_lesion.py``), so it stands on torch and
timm alone. Each network follows timm's conventions: ``forward_features``, ``forward_head``, ``get_classifier``,
``reset_classifier``, ``num_features`` and ``head_hidden_size``.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import timm
import torch
from timm.models import build_model_with_cfg, generate_default_cfgs, is_model, register_model
from torch import Tensor, nn

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU}


def build_head(spec: Sequence[str | int], in_features: int, num_classes: int) -> nn.Sequential:
    """Build a classifier head from a small spec, read in order.

    A number is a Linear of that width, ``drop P`` a Dropout, ``bn`` a BatchNorm1d, ``relu``/``gelu``/``silu`` an activation,
    and ``out``, once and last, the Linear to ``num_classes``. Maps (N, in_features) to (N, num_classes).

    >>> build_head(["drop 0.3", 512, "relu", "out"], 1280, 7).out.weight.shape
    torch.Size([7, 512])
    """
    if not spec or spec[-1] != "out" or list(spec).count("out") != 1:
        raise ValueError(f"head {list(spec)} must end in 'out', used once; for example ['drop 0.3', 512, 'relu', 'out']")
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    width = in_features
    for i, step in enumerate(spec[:-1]):
        layers[str(i)], width = _head_layer(step, width)
    layers["out"] = nn.Linear(width, num_classes) if num_classes else nn.Identity()
    return nn.Sequential(layers)


def _head_layer(step: str | int, width: int) -> tuple[nn.Module, int]:
    words = str(step).strip().lower().split()
    if len(words) == 1 and words[0].isdigit() and int(words[0]) > 0:
        return nn.Linear(width, int(words[0])), int(words[0])
    if words == ["bn"]:
        return nn.BatchNorm1d(width), width
    if len(words) == 1 and words[0] in ACTIVATIONS:
        return ACTIVATIONS[words[0]](), width
    if len(words) == 2 and words[0] == "drop" and words[1].replace(".", "", 1).isdigit() and float(words[1]) < 1:
        return nn.Dropout(float(words[1])), width
    raise ValueError(f"head step {step!r} is not one of: a width such as 512, 'drop 0.3', 'bn', 'out', {list(ACTIVATIONS)}")


class LesionNet(nn.Module):
    """Any timm backbone under a head from a spec, with optional patient metadata beside the image features.

    Args:
        backbone: a timm architecture name.
        head: spec for :func:`build_head`; None is a single Linear.
        metadata: None, or ``{"inputs": D, "width": W}``: ``forward`` then takes ``metadata`` of shape (N, D), where zeros
            mean missing, and leaving it out means that all of it is missing.
    """

    def __init__(
        self,
        backbone: str,
        num_classes: int = 1000,
        in_chans: int = 3,
        head: Sequence[str | int] | None = None,
        metadata: dict[str, int] | None = None,
        img_size: int | tuple[int, int] | None = None,
        global_pool: str | None = None,
        **backbone_args: Any,
    ) -> None:
        super().__init__()
        optional = {"img_size": img_size, "global_pool": global_pool}
        backbone_args |= {key: value for key, value in optional.items() if value is not None}
        self.backbone = timm.create_model(backbone, pretrained=False, num_classes=0, in_chans=in_chans, **backbone_args)
        self.num_classes = num_classes
        self.num_features = self.backbone.num_features
        self.head_hidden_size = getattr(self.backbone, "head_hidden_size", self.num_features)
        self.head_spec = tuple(head or ("out",))
        self.metadata_inputs = metadata["inputs"] if metadata else 0
        width = metadata["width"] if metadata else 0
        self.metadata = nn.Sequential(nn.Linear(self.metadata_inputs, width), nn.ReLU()) if metadata else None
        self.fused_width = self.head_hidden_size + width
        self.head = build_head(self.head_spec, self.fused_width, num_classes)

    def forward_features(self, x: Tensor) -> Tensor:
        """Map (N, 3, H, W) images to the backbone's unpooled features."""
        return self.backbone.forward_features(x)

    def forward_head(self, x: Tensor, pre_logits: bool = False, metadata: Tensor | None = None) -> Tensor:
        """Unpooled features to (N, num_classes) logits, or to the pooled (N, head_hidden_size) features."""
        pooled = self.backbone.forward_head(x, pre_logits=True)
        if pre_logits:
            return pooled
        if self.metadata is not None:
            known = pooled.new_zeros(pooled.shape[0], self.metadata_inputs) if metadata is None else metadata.to(pooled)
            pooled = torch.cat([pooled, self.metadata(known)], dim=1)
        return self.head(pooled)

    def forward(self, x: Tensor, metadata: Tensor | None = None) -> Tensor:
        """Map (N, 3, H, W) images, and (N, D) metadata where the network takes any, to (N, num_classes) logits."""
        return self.forward_head(self.forward_features(x), metadata=metadata)

    def get_classifier(self) -> nn.Module:
        return self.head[-1]

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        self.num_classes = num_classes
        self.head = build_head(self.head_spec, self.fused_width, num_classes)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        self.backbone.set_grad_checkpointing(enable)


class ConvStack(nn.Module):
    """A plain CNN: convolutions, a pooled grid, hidden Linear layers, a classifier."""

    def __init__(
        self,
        features: nn.Sequential,
        channels: int,
        grid: int,
        hidden: Sequence[int],
        num_classes: int,
        drop_rate: float,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.num_features = channels
        self.features = features
        self.pool = nn.AdaptiveAvgPool2d(grid)
        widths = [channels * grid * grid, *hidden]
        layers = [
            layer
            for before, after in pairwise(widths)
            for layer in (nn.Dropout(drop_rate), nn.Linear(before, after), nn.ReLU())
        ]
        self.hidden = nn.Sequential(*layers)
        self.head_hidden_size = widths[-1]
        self.reset_classifier(num_classes)

    def forward_features(self, x: Tensor) -> Tensor:
        """Map (N, 3, H, W) images to (N, C, h, w) features."""
        return self.features(x)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Map (N, C, h, w) features to (N, num_classes) logits, or to (N, head_hidden_size) before the classifier."""
        x = self.hidden(self.pool(x).flatten(1))
        return x if pre_logits else self.classifier(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(x))

    def get_classifier(self) -> nn.Module:
        return self.classifier

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        self.num_classes = num_classes
        self.classifier = nn.Linear(self.head_hidden_size, num_classes) if num_classes else nn.Identity()


def AlexNet(num_classes: int = 1000, in_chans: int = 3, drop_rate: float = 0.5, global_pool: str = "avg") -> ConvStack:
    """AlexNet in its one-column form (Krizhevsky 2014, arXiv 1404.5997), any input from 63 pixels up."""
    features = nn.Sequential(
        *(nn.Conv2d(in_chans, 64, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2)),
        *(nn.Conv2d(192, 384, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(384, 256, 3, padding=1), nn.ReLU()),
        *(nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2)),
    )
    return ConvStack(features, 256, 6, (4096, 4096), num_classes, drop_rate)


def LesionCNN(
    widths: Sequence[int] = (32, 64),
    grid: int = 8,
    hidden: Sequence[int] = (128,),
    norm: bool = False,
    num_classes: int = 1000,
    in_chans: int = 3,
    drop_rate: float = 0.5,
    global_pool: str = "avg",
) -> ConvStack:
    """Stack 3x3 convolutions, each followed by ReLU and a halving max-pool, for training from scratch."""
    layers: list[nn.Module] = []
    for before, after in zip((in_chans, *widths), widths, strict=False):
        layers += [nn.Conv2d(before, after, 3, padding=1, bias=not norm)]
        layers += [nn.BatchNorm2d(after)] if norm else []
        layers += [nn.ReLU(), nn.MaxPool2d(2)]
    return ConvStack(nn.Sequential(*layers), widths[-1], grid, hidden, num_classes, drop_rate)


# ------------------------------------------------------------------------------------------------ several as one


class LesionEnsemble(nn.Module):
    """Several networks as one: its logits are the log of the weighted mean of their probabilities, over a temperature.

    Args:
        members: what each one's ``config.json`` says: ``architecture``, ``model_args`` and ``pretrained_cfg``.
        maps: for each, the place of each of its labels among the ensemble's; -1 abstains.
        weights: one each, summing to 1.
        combine: the weighted mean of ``probabilities``, or of ``logits``.
        input: the keys of ``pretrained_cfg`` that say what image ``forward`` takes. A member that was trained on another
            size, crop or normalisation gets its own, made of that image.
    """

    def __init__(
        self,
        members: Sequence[Mapping[str, Any]],
        maps: Sequence[Sequence[int]],
        weights: Sequence[float],
        input: Mapping[str, Any],
        combine: str = "probabilities",
        temperature: float = 1.0,
        num_classes: int = 1000,
        in_chans: int = 3,
        global_pool: str = "avg",
    ) -> None:
        super().__init__()
        inputs = [dict(member["pretrained_cfg"]) for member in members]
        self.members = nn.ModuleList(
            timm.create_model(m["architecture"], num_classes=cfg["num_classes"], in_chans=in_chans, **m.get("model_args", {}))
            for m, cfg in zip(members, inputs, strict=True)
        )
        self.maps = [[[float(place == i) for i in range(num_classes)] for place in places] for places in maps]
        self.weights = list(weights)
        self.input = dict(input)
        self.inputs = inputs
        self.combine = combine
        self.temperature = temperature
        self.num_classes = num_classes
        widths: list[Any] = [member.num_features for member in self.members]
        self.num_features = sum(widths)

    def forward(self, x: Tensor, metadata: Tensor | None = None) -> Tensor:
        """Map (N, 3, H, W) images, and (N, D) metadata for the members that take any, to (N, num_classes) logits."""
        mean = x.new_zeros(x.shape[0], self.num_classes, dtype=torch.float32)
        for member, own, rows, weight in zip(self.members, self.inputs, self.maps, self.weights, strict=True):
            takes_metadata = isinstance(member, LesionNet) and member.metadata_inputs > 0
            known = {"metadata": metadata} if takes_metadata else {}
            logits = member(as_seen_by(own, x, self.input), **known)
            mapped = logits.float().softmax(dim=1) @ torch.tensor(rows, device=logits.device)
            kept = mapped.sum(dim=1, keepdim=True)
            # Labels that abstain leave their mass to the others; a row of nothing else says nothing.
            mapped = torch.where(kept > 1e-12, mapped / kept.clamp(min=1e-12), 1 / self.num_classes)
            mean = mean + weight * (_log(mapped) if self.combine == "logits" else mapped)
        return (mean if self.combine == "logits" else _log(mean)) / self.temperature

    def get_classifier(self) -> nn.Module:
        return nn.Identity()

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        if num_classes != self.num_classes:
            raise ValueError("the labels of an ensemble are those of its members; build another one")


def _log(probabilities: Tensor) -> Tensor:
    return probabilities.clamp(min=1e-12).log()


def as_seen_by(own: Mapping[str, Any], x: Tensor, given: Mapping[str, Any]) -> Tensor:
    """Make a network's own input of another one's: resized and cropped to its framing, then normalised as it was trained."""
    if [own[key] for key in ("input_size", "crop_pct")] != [given[key] for key in ("input_size", "crop_pct")]:
        (height, width), share = own["input_size"][1:], own["crop_pct"]
        whole = int(height / share), int(width / share)
        if whole != tuple(x.shape[2:]):
            rows, columns = (_resampling(x.shape[2 + i], whole[i], own["interpolation"]).to(x) for i in (0, 1))
            x = rows @ x @ columns.T
        top, left = round((whole[0] - height) / 2), round((whole[1] - width) / 2)
        x = x[:, :, top : top + height, left : left + width]
    if any(own[key] != given[key] for key in ("mean", "std")):
        mean, std, own_mean, own_std = (
            x.new_tensor(list(cfg[key])).view(3, 1, 1) for cfg in (given, own) for key in ("mean", "std")
        )
        x = (x * std + mean - own_mean) / own_std
    return x


def _resampling(before: int, after: int, interpolation: str) -> Tensor:
    """Compute the (after, before) float64 matrix by which Pillow resizes one side, antialiased."""
    stretch = max(before / after, 1.0)
    centres = (torch.arange(after, dtype=torch.float64) + 0.5) * before / after
    places = torch.arange(before, dtype=torch.float64) + 0.5
    distance = (places[None] - centres[:, None]).abs() / stretch
    if interpolation == "bilinear":
        weights = (1 - distance).clamp(min=0)
    else:  # Catmull-Rom, a = -0.5
        near = 1.5 * distance**3 - 2.5 * distance**2 + 1
        far = -0.5 * distance**3 + 2.5 * distance**2 - 4 * distance + 2
        weights = torch.where(distance < 1, near, torch.where(distance < 2, far, 0.0))
    return weights / weights.sum(dim=1, keepdim=True)


# ------------------------------------------------------------------------------------------------ timm's registry


_CFG = {
    "url": "",
    "num_classes": 1000,
    "input_size": (3, 224, 224),
    "crop_pct": 1.0,
    "interpolation": "bilinear",
    "mean": (0.485, 0.456, 0.406),
    "std": (0.229, 0.224, 0.225),
}
_PLAIN = {**_CFG, "first_conv": "features.0", "classifier": "classifier"}

default_cfgs = generate_default_cfgs(
    {
        "lesion_net.untrained": {**_CFG, "classifier": "head.out"},
        "lesion_ensemble.untrained": _CFG,
        "lesion_alexnet.untrained": _PLAIN,
        "lesion_cnn_shallow.untrained": _PLAIN,
        "lesion_cnn_deep.untrained": _PLAIN,
    }
)


def lesion_net(pretrained: bool = False, **kwargs: Any) -> LesionNet:
    """Any backbone under a custom head: ``timm.create_model("lesion_net", backbone="resnet34", head=[...])``."""
    return build_model_with_cfg(LesionNet, "lesion_net", pretrained, **kwargs)


def lesion_ensemble(pretrained: bool = False, **kwargs: Any) -> LesionEnsemble:
    """Several networks as one."""
    return build_model_with_cfg(LesionEnsemble, "lesion_ensemble", pretrained, **kwargs)


def lesion_alexnet(pretrained: bool = False, **kwargs: Any) -> ConvStack:
    """AlexNet."""
    return build_model_with_cfg(AlexNet, "lesion_alexnet", pretrained, **kwargs)


def lesion_cnn_shallow(pretrained: bool = False, **kwargs: Any) -> ConvStack:
    """Two convolutions and a dense layer."""
    return build_model_with_cfg(LesionCNN, "lesion_cnn_shallow", pretrained, **kwargs)


def lesion_cnn_deep(pretrained: bool = False, **kwargs: Any) -> ConvStack:
    """Five batch-normalised convolutions, global pooling and a dense layer."""
    args = {"widths": (32, 64, 128, 256, 256), "grid": 1, "hidden": (256,), "norm": True, **kwargs}
    return build_model_with_cfg(LesionCNN, "lesion_cnn_deep", pretrained, **args)


ENTRYPOINTS = (lesion_net, lesion_ensemble, lesion_alexnet, lesion_cnn_shallow, lesion_cnn_deep)

for _entrypoint in ENTRYPOINTS:
    if not is_model(_entrypoint.__name__):
        register_model(_entrypoint)
