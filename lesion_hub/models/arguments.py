"""What a published model may tell timm: the arguments in ``config.json``'s ``model_args``, by kind of network.

``timm.create_model`` takes more than a network's shape. It can be told to read a checkpoint, which may be a pickle, to
download, or to fetch another repo; a config that somebody else wrote says none of that. What is not listed here needs a
network of its own, registered with timm, which states its defaults itself.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import timm
from pydantic import BaseModel, Field, model_validator
from timm.models import build_model_with_cfg, model_entrypoint

from lesion_hub.config import MOST_LABELS, MOST_MEMBERS, InputConfig, Options, Share, Side, Switch, Temperature, validated
from lesion_hub.errors import ConfigError
from lesion_hub.models import networks

Word = Annotated[str, Field(pattern=r"^[A-Za-z0-9_.]{1,64}$")]
Repeats = Annotated[int, Field(strict=True, ge=0, le=256)]
Width = Annotated[int, Field(strict=True, ge=1, le=65_536)]
Ratio = Annotated[float, Field(gt=0, le=64)]
Stages = Annotated[tuple[Repeats, ...], Field(max_length=16)]
Widths = Annotated[tuple[Width, ...], Field(max_length=16)]
Square = Side | tuple[Side, Side]

_LARGEST_NUMBER, _LONGEST, _DEEPEST = 65_536, 256, 4


class TimmArguments(Options):
    """What one of timm's own networks may be told; each family takes some of these."""

    img_size: Square | None = None
    patch_size: Square | None = None
    window_size: Square | None = None
    output_stride: Literal[8, 16, 32] = 32
    global_pool: Word | None = None
    dynamic_img_size: Switch = False
    dynamic_img_pad: Switch = False
    strict_img_size: Switch = True
    # dropout
    drop_rate: Share = 0.0
    drop_path_rate: Share = 0.0
    drop_block_rate: Share = 0.0
    pos_drop_rate: Share = 0.0
    proj_drop_rate: Share = 0.0
    attn_drop_rate: Share = 0.0
    patch_drop_rate: Share = 0.0
    # layers by timm's names of them
    act_layer: Word | None = None
    norm_layer: Word | None = None
    aa_layer: Word | None = None
    stem_type: Word | None = None
    pos_embed: Word | None = None
    # switches
    avg_down: Switch = False
    class_token: Switch = True
    no_embed_class: Switch = False
    qkv_bias: Switch = True
    qk_norm: Switch = False
    fc_norm: Switch | None = None
    final_norm: Switch = True
    pre_norm: Switch = False
    replace_stem_pool: Switch = False
    conv_mlp: Switch = False
    use_grn: Switch = False
    head_norm_first: Switch = False
    # widths and depths
    depth: Repeats | None = None
    depths: Stages | None = None
    layers: Stages | None = None
    dims: Widths | None = None
    embed_dim: Width | Widths | None = None
    num_heads: Width | Widths | None = None
    stem_width: Width | None = None
    cardinality: Width | None = None
    base_width: Width | None = None
    mlp_ratio: Ratio = 4.0
    init_values: Annotated[float, Field(ge=0, le=1)] | None = None
    reg_tokens: Repeats = 0


class Metadata(Options):
    """The patient's facts that a network takes beside the image."""

    inputs: Annotated[int, Field(strict=True, ge=1, le=1024)]
    width: Annotated[int, Field(strict=True, ge=1, le=4096)]


class HeadedArguments(TimmArguments):
    """``lesion_net``: a backbone of a registered name, its arguments, and the head on top."""

    backbone: Word
    head: Annotated[tuple[Width | Annotated[str, Field(max_length=32)], ...], Field(min_length=1, max_length=64)] | None = None
    metadata: Metadata | None = None


class ConvStackArguments(Options):
    """Our small networks, whose names say all of their shape."""

    drop_rate: Share = 0.5
    global_pool: Literal["avg"] = "avg"


class JointMember(BaseModel):
    """The part of a member's ``config.json`` that a joint network is built by."""

    architecture: Word
    model_args: dict[str, Any] = Field(default_factory=dict)
    pretrained_cfg: InputConfig


class JointArguments(Options):
    """``lesion_ensemble``: see ``networks.LesionEnsemble``."""

    members: Annotated[tuple[JointMember, ...], Field(min_length=1, max_length=MOST_MEMBERS)]
    maps: tuple[tuple[Annotated[int, Field(strict=True, ge=-1, lt=MOST_LABELS)], ...], ...]
    weights: tuple[Share, ...]
    input: dict[str, Any]
    combine: Literal["probabilities", "logits"] = "probabilities"
    temperature: Temperature = 1.0

    @model_validator(mode="after")
    def _one_each(self) -> JointArguments:
        if not len(self.members) == len(self.maps) == len(self.weights):
            raise ValueError("members, maps and weights must be as many")
        if any(len(own) != member.pretrained_cfg.num_classes for own, member in zip(self.maps, self.members, strict=True)):
            raise ValueError("maps must have a place for each of a member's labels")
        if any(member.architecture == networks.lesion_ensemble.__name__ for member in self.members):
            raise ValueError("a member cannot be an ensemble itself")
        return self


_KINDS: dict[str, type[Options]] = {
    **{entrypoint.__name__: ConvStackArguments for entrypoint in networks.ENTRYPOINTS},
    networks.lesion_net.__name__: HeadedArguments,
    networks.lesion_ensemble.__name__: JointArguments,
}

# What timm does with a network rather than what the network is.
_LOADING = {
    name
    for function in (timm.create_model, build_model_with_cfg)
    for name, parameter in inspect.signature(function).parameters.items()
    if parameter.kind is not parameter.VAR_KEYWORD
}


def check_arguments(architecture: str, model_args: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """Raise one line unless a network of a registered name may be told ``model_args``.

    Returns what the network is made of in its turn, as (name, arguments), for the caller to look up and check.

    >>> check_arguments("resnet18", {"checkpoint_path": "weights.pth"})
    Traceback (most recent call last):
    lesion_hub.errors.ConfigError: resnet18: model_args may not set 'checkpoint_path'; register a network of your own with timm
    >>> check_arguments("lesion_net", {"backbone": "resnet18", "head": [64, "relu", "out"]})
    [('resnet18', {})]
    """
    kind = _KINDS.get(architecture)
    if kind is None and model_entrypoint(architecture).__module__.partition(".")[0] == "timm":
        kind = TimmArguments
    # A network of somebody's own takes what it takes: its module was imported on purpose.
    refused = _LOADING & set(model_args) if kind is None else set(model_args) - set(kind.model_fields)
    if refused:
        name = sorted(refused)[0]
        raise ConfigError(f"{architecture}: model_args may not set {name!r}; register a network of your own with timm")
    if kind is None:
        if not _is_plain(dict(model_args)):
            raise ConfigError(f"{architecture}: model_args must be plain values, numbers up to {_LARGEST_NUMBER} among them")
        return []
    given = validated(kind, model_args, f"{architecture}: model_args")
    if isinstance(given, HeadedArguments):
        return [(given.backbone, {})]
    if isinstance(given, JointArguments):
        frame = {"architecture": architecture, "num_classes": 2, **given.input}
        validated(InputConfig, frame, f"{architecture}: model_args.input")
        return [(member.architecture, member.model_args) for member in given.members]
    return []


def _is_plain(value: Any, depth: int = 0) -> bool:
    """Tell whether a value is small and made of JSON's types."""
    if isinstance(value, (list, tuple, dict)):
        parts = [*value.keys(), *value.values()] if isinstance(value, dict) else value
        return len(parts) <= _LONGEST and depth < _DEEPEST and all(_is_plain(part, depth + 1) for part in parts)
    if isinstance(value, str):
        return len(value) <= _LONGEST
    return value is None or (isinstance(value, (int, float)) and math.isfinite(value) and abs(value) <= _LARGEST_NUMBER)
