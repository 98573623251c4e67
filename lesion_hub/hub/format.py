"""Writing a model folder and reading it back.

The layout is timm's native one plus the single root key ``lesion_hub``, so one folder loads through ``from_pretrained``,
``timm.create_model`` and transformers alike.
"""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import save
from torch import Tensor, nn

from lesion_hub.config import (
    CONFIG_NAME,
    AnswerRules,
    LesionHubSection,
    ModelConfig,
    OperatingPoint,
    Training,
    dump_json,
    load_model_config,
)
from lesion_hub.errors import ConfigError, StoreError, one_line
from lesion_hub.files import write_bytes, write_text
from lesion_hub.hub.layout import AUTO_MAP, MODELING_NAME, WEIGHTS_NAME, modeling_source, verify_weights
from lesion_hub.models import LesionClassifier
from lesion_hub.models.last_layers import divide_logits
from lesion_hub.models.zoo import network_source, read_weights

StorageType = Literal["float16", "float32"]


def write_model(
    folder: Path,
    classifier: LesionClassifier,
    *,
    training: Training | None = None,
    temperature: float | None = None,
    operating_points: dict[str, OperatingPoint] | None = None,
    rules: AnswerRules | None = None,
    storage: StorageType = "float16",
) -> ModelConfig:
    """Write weights, ``config.json`` and, for custom code, ``modeling_lesion.py`` into ``folder``.

    ``temperature`` records what was already folded into the last layer (see ``fold_temperature``); None says uncalibrated.
    The config is written last: it holds the weights' sha256, so a folder that was interrupted is refused, never misread.
    """
    folder.mkdir(parents=True, exist_ok=True)
    blob = save(stored_weights(classifier, storage), metadata={"format": "pt"})
    config = ModelConfig(
        architecture=classifier.architecture,
        num_classes=len(classifier.space),
        num_features=classifier.num_features,
        label_names=classifier.labels,
        label_descriptions=dict(zip(classifier.labels, classifier.space.descriptions, strict=True)),
        model_args=classifier.model_args,
        pretrained_cfg=classifier.input_config,
        auto_map=AUTO_MAP if classifier.is_custom else None,
        lesion_hub=LesionHubSection(
            label_space=classifier.space.name,
            temperature=temperature,
            operating_points=operating_points or {},
            rules=rules,
            training=training,
            weights_sha256=hashlib.sha256(blob).hexdigest(),
        ),
    )
    if classifier.is_custom:
        write_text(folder / MODELING_NAME, modeling_source(network_source(classifier.architecture)))
    write_bytes(folder / WEIGHTS_NAME, blob)
    write_text(folder / CONFIG_NAME, dump_json(config))
    return config


def stored_weights(classifier: LesionClassifier, storage: StorageType) -> dict[str, Tensor]:
    """Return the weights as they are stored, under bare timm keys.

    Half precision is for weight matrices alone: biases and normalisation statistics stay float32. What two modules share is
    stored under both names.
    """
    weights: dict[str, Tensor] = {}
    stored: set[int] = set()
    learned = {key for key, _ in classifier.network.named_parameters()}
    for key, value in classifier.network.state_dict().items():
        tensor = value.detach().cpu().contiguous()
        if storage == "float16" and tensor.is_floating_point() and tensor.ndim > 1:
            tensor = tensor.to(torch.float16)
        if not holds_numbers(tensor, bounds=key not in learned and bool(torch.isinf(value).any())):
            raise ConfigError(f"{key}: not finite as {tensor.dtype}; the training diverged, or store it as float32")
        if tensor.data_ptr() in stored:
            tensor = tensor.clone()
        stored.add(tensor.data_ptr())
        weights[key] = tensor
    return weights


def holds_numbers(tensor: Tensor, *, bounds: bool) -> bool:
    """Tell whether all of a tensor's values are finite, in one pass over it.

    With ``bounds`` infinite ones pass: a buffer may hold them, as Gemma's do until they are set. A weight may not, and
    nothing may be NaN.

    >>> holds_numbers(torch.tensor([1.0, torch.inf]), bounds=True), holds_numbers(torch.tensor([torch.nan]), bounds=True)
    (True, False)
    """
    if not tensor.is_floating_point() or not tensor.numel():
        return True
    low, high = map(float, tensor.aminmax())
    return low == low if bounds else math.isfinite(low) and math.isfinite(high)


def fold_temperature(classifier: LesionClassifier, temperature: float) -> None:
    """Divide the logits by ``temperature`` for good, inside the last layers, so that every loader sees calibrated ones."""
    if not 0 < temperature < float("inf"):
        raise ConfigError(f"temperature {temperature} must be positive and finite; calibrate again")
    divide_logits(classifier.last_layers, temperature)


def read_model(folder: Path) -> tuple[LesionClassifier, ModelConfig]:
    """Read the classifier in a model folder, in evaluation mode, and its config.

    The weights' sha256 is checked first; every tensor must be there, in the network's shape, and none be left over; every
    value must be a number.
    """
    config = load_model_config(folder)
    path = folder / WEIGHTS_NAME
    verify_weights(folder, config)
    return load_strictly(config, read_weights(path), path), config


def load_strictly(config: ModelConfig, weights: dict[str, Tensor], path: Path) -> LesionClassifier:
    """Build a classifier with the weights in ``path``, every tensor of its network and no other, in evaluation mode."""
    classifier = LesionClassifier.from_config(config, weights=sum(tensor.numel() for tensor in weights.values()))
    try:
        classifier.network.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise StoreError(f"{path}: does not fit {classifier.architecture} ({first}); publish it again") from None
    for key, value in classifier.network.state_dict(keep_vars=True).items():
        if not holds_numbers(value.detach(), bounds=not isinstance(value, nn.Parameter)):
            raise StoreError(f"{path}: {key} holds values that are no numbers; the training diverged, publish another version")
    return classifier.eval()


@torch.no_grad()
def require_scores(classifier: LesionClassifier, folder: Path) -> None:
    """Raise one line unless the network in ``folder`` maps an image of noise to a finite logit per label."""
    images = torch.rand(1, *classifier.input_config.input_size, generator=torch.Generator().manual_seed(0))
    try:
        logits = classifier(images.to(classifier.dtype))
    except (ArithmeticError, AssertionError, LookupError, RuntimeError, TypeError, ValueError) as error:
        reason = one_line(error)[:200]
        raise StoreError(f"{folder}: {classifier.architecture} does not run on its input_size ({reason}); mend that") from None
    if logits.shape != (1, len(classifier.space)) or not holds_numbers(logits, bounds=False):
        raise StoreError(f"{folder}: {classifier.architecture} gives no finite score per label; train it again")
