"""LesionClassifier: a timm network together with its labels and the preprocessing it was trained with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from timm.data import create_transform, resolve_data_config
from timm.models import get_pretrained_cfg
from torch import Tensor, nn

from lesion_hub.config import InputConfig, ModelConfig, validated
from lesion_hub.errors import ConfigError, one_line
from lesion_hub.models.last_layers import LastLayer, divide_logits, last_layers
from lesion_hub.models.zoo import (
    architecture_of,
    build_network,
    default_cfg_of,
    instead_of,
    load_backbone_file,
    network_source,
    pretrained_from_hub,
    rebuilt,
    require_architecture,
)
from lesion_hub.taxonomy import SEXES, SITES, LabelSpace, canonical_sex, canonical_site, label_space, space_from_names

METADATA_FIELDS = ("age", "age_known", *SEXES, *SITES)
METADATA_INPUTS = len(METADATA_FIELDS)
METADATA_WIDTH = 32


class LesionClassifier(nn.Module):
    """A network that maps images to logits over a label space.

    >>> model = LesionClassifier.create("lesion_cnn_shallow", "ham7", image_size=32)
    >>> model(torch.zeros(2, 3, 32, 32)).shape
    torch.Size([2, 7])
    """

    def __init__(
        self,
        network: nn.Module,
        space: LabelSpace,
        architecture: str,
        input_config: InputConfig,
        model_args: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.space = space
        self.architecture = architecture
        self.input_config = input_config
        self.model_args = model_args or {}

    @classmethod
    def create(
        cls,
        backbone: str,
        space: LabelSpace | str,
        *,
        head: Sequence[str | int] | None = None,
        metadata: bool = False,
        pretrained: bool | str | Path = False,
        image_size: int | tuple[int, int] | None = None,
        crop_pct: float = 1.0,
        drop_rate: float | None = None,
        **input_options: Any,
    ) -> LesionClassifier:
        """Make a new classifier on any timm backbone, or on one of the zoo's.

        Args:
            backbone: timm architecture name (``lesion-hub models`` lists them).
            space: label space or its name.
            head: spec of a custom head (see ``networks.build_head``); None keeps timm's own classifier.
            metadata: also take age, sex and site (see ``encode_metadata``).
            pretrained: False, True (downloads what timm would), or a ``.safetensors`` file with timm keys.
            image_size: input height and width; None keeps the backbone's own.
            crop_pct: share of the resized image that the centre crop keeps.
            drop_rate: dropout before timm's own classifier, in training; None keeps the network's own, and a custom head
                states its own.
            **input_options: ``mean``, ``std``, ``interpolation``, ``crop_mode`` where they differ from the backbone's.
        """
        target = label_space(space) if isinstance(space, str) else space
        require_architecture(backbone)
        defaults = default_cfg_of(backbone).to_dict()
        own_size = (defaults["input_size"][1], defaults["input_size"][2])
        height, width = (image_size, image_size) if isinstance(image_size, int) else image_size or own_size
        size = (height, width)
        custom = head is not None or metadata
        # Networks built for one size must be told another; transformers learns it from ``model_args`` alone.
        model_args: dict[str, Any] = {"img_size": list(size)} if defaults.get("fixed_input_size") and size != own_size else {}
        if custom:
            model_args |= {"backbone": backbone, "head": list(head or ["out"])}
            if metadata:
                model_args["metadata"] = {"inputs": METADATA_INPUTS, "width": METADATA_WIDTH}
        architecture = "lesion_net" if custom else backbone
        dropout = {} if drop_rate is None or custom else {"drop_rate": drop_rate}
        network = build_network(architecture, len(target), {**model_args, **dropout})
        _last_layers(network, backbone)
        trunk = cast(nn.Module, network.backbone) if custom else network
        if pretrained is True:
            pretrained_from_hub(trunk, backbone)
        elif pretrained:
            load_backbone_file(trunk, Path(pretrained))
        overrides = {**input_options, "crop_pct": crop_pct, "input_size": (3, *size)}
        return cls(network, target, architecture, _input_config(architecture, network, defaults, overrides), model_args)

    @classmethod
    def from_config(cls, config: ModelConfig, *, weights: int | None = None) -> LesionClassifier:
        """Build the classifier that ``config.json`` describes, with fresh weights; ``weights`` as for ``build_network``."""
        network = build_network(config.architecture, config.num_classes, config.model_args, weights=weights)
        return cls(network, config.space, config.architecture, config.pretrained_cfg, config.model_args)

    @classmethod
    def from_network(
        cls,
        network: nn.Module,
        labels: LabelSpace | str | Sequence[str],
        *,
        model_args: dict[str, Any] | None = None,
        image_size: int | tuple[int, int] | None = None,
        crop_pct: float = 1.0,
        **input_options: Any,
    ) -> LesionClassifier:
        """Make a classifier of a copy of a trained network.

        It is built again from its name and arguments, as whoever loads it will build it; what then gives other logits is
        refused.

        Args:
            network: made by ``timm.create_model``: one of timm's, or one of your own that is registered with timm.
            labels: what its outputs stand for, in their order; or a label space, or its name. Where the words are those of a
                known space, the outputs are brought into its order; others make a space of their own, sorted by name.
            model_args: what ``timm.create_model`` was given beside ``num_classes`` (see ``lesion_hub.models.arguments``).
            image_size, crop_pct: the input that it was trained on, as for ``create``.
            **input_options: ``mean``, ``std``, ``interpolation``, ``crop_mode`` where they differ from timm's for this network.

        >>> import timm
        >>> LesionClassifier.from_network(timm.create_model("test_resnet", num_classes=2), ["malignant", "benign"]).labels
        ('benign', 'malignant')
        """
        network = getattr(network, "_orig_mod", network)  # what torch.compile wraps
        architecture = architecture_of(network)
        if isinstance(labels, (str, LabelSpace)):
            space = label_space(labels) if isinstance(labels, str) else labels
            order = list(range(len(space)))
        else:
            space = space_from_names(labels)
            order = sorted(range(len(space)), key=lambda place: space.index(labels[place]))
        if network.num_classes != len(space):
            raise ConfigError(f"{architecture}: has {network.num_classes} outputs, but there are {len(space)} labels")
        defaults = cast(dict[str, Any], network.pretrained_cfg)
        own_size = (defaults["input_size"][1], defaults["input_size"][2])
        size = (image_size, image_size) if isinstance(image_size, int) else image_size or own_size
        resized = {"img_size": list(size)} if defaults.get("fixed_input_size") and size != own_size else {}
        args = {**resized, **(model_args or {})}
        twin = rebuilt(network, architecture, args)
        overrides = {**input_options, "crop_pct": crop_pct, "input_size": (3, *size)}
        classifier = cls(twin, space, architecture, _input_config(architecture, twin, defaults, overrides), args)
        _check_same(network, classifier)
        if order != sorted(order):
            with torch.no_grad():
                for values in (values for layer in classifier.last_layers for values in layer.parameters()):
                    values.copy_(values[order].clone())
        return classifier

    @property
    def labels(self) -> tuple[str, ...]:
        return self.space.labels

    @property
    def num_features(self) -> int:
        return cast(int, self.network.num_features)

    @property
    def takes_metadata(self) -> bool:
        return getattr(self.network, "metadata_inputs", 0) > 0

    @property
    def is_custom(self) -> bool:
        """Whether timm alone cannot build the network."""
        return network_source(self.architecture) is not None

    @property
    def device(self) -> torch.device:
        return next(self.network.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.network.parameters()).dtype

    @property
    def last_layers(self) -> tuple[LastLayer, ...]:
        """The layers whose outputs are the logits, or are averaged into them (see ``lesion_hub.models.last_layers``)."""
        return _last_layers(self.network, self.model_args.get("backbone", self.architecture))

    @property
    def last_layer(self) -> LastLayer:
        """The layer whose outputs are the logits, of a network that has one such layer."""
        layers = self.last_layers
        if len(layers) != 1:
            raise ConfigError(f"{self.architecture}: ends in {len(layers)} layers, not in one; see its last_layers")
        return layers[0]

    @property
    def transform(self) -> Callable[[Any], Tensor]:
        """PIL image to a normalised (3, H, W) float32 tensor: timm's own evaluation transform, which all loaders share."""
        data_config = resolve_data_config({}, pretrained_cfg=self.input_config.model_dump(), verbose=False)
        return create_transform(**data_config, is_training=False)

    def forward(self, images: Tensor, metadata: Tensor | None = None) -> Tensor:
        """Map (N, 3, H, W) normalised images to (N, C) logits; ``metadata`` is ignored by networks that take none."""
        if metadata is not None and self.takes_metadata:
            return self.network(images, metadata=metadata)
        return self.network(images)

    def require_trainable(self) -> None:
        """Raise one line unless the network scores images of its input size, and a temperature can be folded into it.

        Two random images are scored in evaluation mode, before and after the last layers are halved. Weights, statistics and
        the process's random stream are left as they were, and the network in its mode.

        >>> LesionClassifier.create("lesion_cnn_shallow", "ham7", image_size=32).require_trainable()
        """
        size, backbone = self.input_config.input_size, self.model_args.get("backbone", self.architecture)
        images = torch.randn(2, *size, generator=torch.Generator().manual_seed(0)).to(self.device, self.dtype)
        kept = [(parameter, parameter.detach().clone()) for layer in self.last_layers for parameter in layer.parameters()]
        training = self.training
        self.eval()
        try:
            with torch.no_grad(), torch.random.fork_rng(devices=[]):
                logits = self(images)
                divide_logits(self.last_layers, 2.0)
                halved = self(images)
        except (AssertionError, IndexError, RuntimeError, TypeError, ValueError) as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else "it asserts another size"
            own = default_cfg_of(backbone).input_size[1]
            raise ConfigError(
                f"{backbone}: does not run on {size[1]} x {size[2]} pixels ({reason}); image_size: {own} is its own"
            ) from None
        finally:
            with torch.no_grad():
                for parameter, before in kept:
                    parameter.copy_(before)
            self.train(training)
        if not isinstance(logits, Tensor) or logits.shape != (2, len(self.space)):
            raise ConfigError(f"{backbone}: does not map an image to a logit per label; {instead_of(backbone)}")
        if not torch.allclose(2 * halved, logits, rtol=1e-3, atol=1e-3 * float(logits.abs().max())):
            raise ConfigError(
                f"{backbone}: its logits do not follow its last layers, so no temperature can be stored in them; "
                f"{instead_of(backbone)}"
            )

    def features(self, images: Tensor) -> Tensor:
        """Map (N, 3, H, W) normalised images to the (N, F) pooled features before the classifier."""
        network = cast(Any, self.network)
        return network.forward_head(network.forward_features(images), pre_logits=True)


def _last_layers(network: nn.Module, name: str) -> tuple[LastLayer, ...]:
    """Return the network's last layers; one line where it has none."""
    layers = last_layers(network)
    if not layers:
        raise ConfigError(f"{name}: has no classifier to train; {instead_of(name)}")
    return layers


def _check_same(network: nn.Module, classifier: LesionClassifier) -> None:
    """Raise one line unless both map two images of noise to the same (2, C) logits; the classifier goes to that device."""
    classifier.to(next(network.parameters()).device).eval()
    images = torch.randn(2, *classifier.input_config.input_size, generator=torch.Generator().manual_seed(0))
    images = images.to(classifier.device, classifier.dtype)
    name, was_training = classifier.architecture, network.training
    try:
        with torch.no_grad():
            theirs, ours = network.eval()(images), classifier(images)
    except (RuntimeError, AssertionError, TypeError, ValueError) as error:
        reason = one_line(error)[:200]
        raise ConfigError(f"{name}: does not take images of shape {tuple(images.shape[1:])} ({reason})") from None
    finally:
        network.train(was_training)
    if theirs.shape != ours.shape or ours.shape != (2, len(classifier.space)):
        raise ConfigError(f"{name}: maps two images to shape {tuple(theirs.shape)}, not to (2, {len(classifier.space)})")
    if not torch.allclose(theirs, ours, atol=1e-4, rtol=1e-4):
        raise ConfigError(
            f"{name}: gives other logits when it is built again from its name and {classifier.model_args}; "
            "give the model_args that it was made with"
        )


def _input_config(architecture: str, network: nn.Module, defaults: dict[str, Any], overrides: dict[str, Any]) -> InputConfig:
    """Take timm's facts about the backbone's input, with the trained size, normalisation and crop on top."""
    facts = {key: defaults[key] for key in InputConfig.model_fields if defaults.get(key) is not None}
    if architecture == "lesion_net":
        own = get_pretrained_cfg(architecture).to_dict()
        facts |= {"classifier": own["classifier"], "first_conv": None}
    facts |= overrides
    facts |= {"architecture": architecture, "num_classes": cast(int, network.num_classes), "pool_size": None}
    if facts.get("interpolation") not in ("bilinear", "bicubic"):
        facts["interpolation"] = "bicubic"
    return validated(InputConfig, facts, f"input of {architecture}")


def encode_metadata(age: Sequence[float | None], sex: Sequence[str | None], site: Sequence[str | None]) -> Tensor:
    """Encode N patients as (N, METADATA_INPUTS) float32: age in centuries with a known-flag, then sex and site one-hot.

    What is missing is zeros.

    >>> encode_metadata([50.0, None], ["female", None], ["back", None])[:, :4].tolist()
    [[0.5, 1.0, 1.0, 0.0], [0.0, 0.0, 0.0, 0.0]]
    """
    encoded = torch.zeros(len(age), METADATA_INPUTS)
    for row, years, sex_word, site_word in zip(encoded, age, sex, site, strict=True):
        if years is not None and years == years:  # NaN is missing too
            row[0], row[1] = years / 100.0, 1.0
        known_sex, known_site = canonical_sex(sex_word), canonical_site(site_word)
        if known_sex is not None:
            row[METADATA_FIELDS.index(known_sex)] = 1.0
        if known_site is not None:
            row[METADATA_FIELDS.index(known_site)] = 1.0
    return encoded
