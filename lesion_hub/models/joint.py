"""Several classifiers as one network (``networks.LesionEnsemble``): what it needs to be told, and the image that it takes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from lesion_hub.config import InputConfig
from lesion_hub.errors import ConfigError
from lesion_hub.models.classifier import LesionClassifier
from lesion_hub.models.zoo import build_network
from lesion_hub.taxonomy import LabelMap, LabelSpace

JOINT_ARCHITECTURE = "lesion_ensemble"
_INPUT_KEYS = ("input_size", "crop_pct", "crop_mode", "interpolation", "mean", "std")


def join(
    members: Sequence[LesionClassifier],
    space: LabelSpace,
    maps: Sequence[LabelMap],
    *,
    weights: Sequence[float],
    combine: str = "probabilities",
    temperature: float = 1.0,
) -> LesionClassifier:
    """Make one classifier of several, which shares their networks; ``maps`` lead from their label spaces into ``space``.

    >>> one = LesionClassifier.create("lesion_cnn_shallow", "ham7", image_size=32).eval()
    >>> both = join([one, one], one.space, [one.space.map_to("ham7")] * 2, weights=[0.5, 0.5])
    >>> both.architecture, both.input_config.input_size
    ('lesion_ensemble', (3, 32, 32))
    """
    specs = [
        {"architecture": m.architecture, "model_args": m.model_args, "pretrained_cfg": m.input_config.model_dump(mode="json")}
        for m in members
    ]
    given = shared_input([member.input_config for member in members], len(space))
    args = joint_arguments(specs, given, maps, weights=weights, combine=combine, temperature=temperature)
    network = build_network(JOINT_ARCHITECTURE, len(space), args)
    network.members = nn.ModuleList(member.network for member in members)
    return LesionClassifier(network, space, JOINT_ARCHITECTURE, given, args).eval()


def joint_arguments(
    members: Sequence[Mapping[str, Any]],
    given: InputConfig,
    maps: Sequence[LabelMap],
    *,
    weights: Sequence[float],
    combine: str,
    temperature: float,
) -> dict[str, Any]:
    """Return the arguments of a ``LesionEnsemble`` as plain JSON values; ``members`` are ``config.json``'s content."""
    return {
        "members": [dict(member) for member in members],
        "maps": [list(mapping.indices) for mapping in maps],
        "weights": list(weights),
        "input": {key: value for key, value in given.model_dump(mode="json").items() if key in _INPUT_KEYS},
        "combine": combine,
        "temperature": temperature,
    }


def shared_input(configs: Sequence[InputConfig], num_classes: int) -> InputConfig:
    """Return the image that all members' inputs can be made of.

    Members that resize and crop alike take theirs, and lose nothing. Otherwise it is all that any of them sees of an image,
    as large as the largest member scales it; the others resize a second time. Those that see images of another shape, or
    that crop, squash or pad where others do not, have none in common: that is one line.
    """
    first = configs[0]
    largest = max(configs, key=lambda config: math.prod(_scale(config)))
    alike = {(config.input_size, config.crop_pct, config.crop_mode, config.interpolation) for config in configs}
    if len(alike) == 1 and (first.crop_mode != "border" or len({config.mean for config in configs}) == 1):
        size, crop_pct = first.input_size[1:], first.crop_pct
    else:
        size, crop_pct = _scale(largest), 1.0
        if {config.crop_mode for config in configs} not in ({"center"}, {"squash"}):
            modes = " and ".join(sorted({config.crop_mode for config in configs}))
            raise ConfigError(f"members that frame images differently ({modes}) cannot share one input; use them one by one")
        shapes = [_scale(config)[0] / _scale(config)[1] for config in configs]
        if not math.isclose(min(shapes), max(shapes), rel_tol=0.01):
            raise ConfigError("members that see images of different shapes cannot share one input; use them one by one")
    changes = {
        "architecture": JOINT_ARCHITECTURE,
        "num_classes": num_classes,
        "input_size": (3, *size),
        "crop_pct": crop_pct,
        "fixed_input_size": False,
        **dict.fromkeys(("pool_size", "first_conv", "classifier")),
    }
    return largest.model_copy(update=changes)


def _scale(config: InputConfig) -> tuple[int, int]:
    """Return the (height, width) that the image is scaled to before the crop."""
    return math.floor(config.input_size[1] / config.crop_pct), math.floor(config.input_size[2] / config.crop_pct)
