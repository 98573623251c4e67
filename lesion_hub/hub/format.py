"""What a model folder holds: written by training, published as it is, and read back strictly.

The layout is timm's native one plus the single root key ``lesion_hub``, so one folder loads through ``from_pretrained``,
``timm.create_model`` and transformers alike. Nothing in it can run code when we load it: ``modeling_lesion.py`` is there
for transformers users who ask for it with ``trust_remote_code=True``, and we never import it.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from lesion_hub.config import (
    CONFIG_NAME,
    ENSEMBLE_NAME,
    EnsembleConfig,
    LesionHubSection,
    ModelConfig,
    OperatingPoint,
    Training,
    dump_json,
    load_ensemble_config,
    load_model_config,
)
from lesion_hub.errors import ConfigError, StoreError
from lesion_hub.hub.atomic import write_bytes, write_text
from lesion_hub.models import LesionClassifier, networks

WEIGHTS_NAME = "model.safetensors"
CARD_NAME = "README.md"
METRICS_NAME = "metrics.json"
SPLIT_NAME = "split.json"
CHANGELOG_NAME = "CHANGELOG.md"
MODELING_NAME = "modeling_lesion.py"
PLOTS_PATTERN = "plots/*.png"

TRANSFORMERS_CLASS = "LesionForImageClassification"
_TRANSFORMERS_FOOTER = f'''

# ---------------------------------------------------------------------------------------------- transformers
from transformers import TimmWrapperForImageClassification  # noqa: E402


class {TRANSFORMERS_CLASS}(TimmWrapperForImageClassification):
    """What ``AutoModelForImageClassification`` builds with ``trust_remote_code=True``: the networks above are registered."""
'''

StorageType = Literal["float16", "float32"]


def modeling_source() -> str:
    """Text of ``modeling_lesion.py``: our networks, and the class by which transformers reaches them."""
    return inspect.getsource(networks) + _TRANSFORMERS_FOOTER


def write_model(
    folder: Path,
    classifier: LesionClassifier,
    *,
    training: Training | None = None,
    temperature: float | None = None,
    operating_points: dict[str, OperatingPoint] | None = None,
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
        auto_map={"AutoModelForImageClassification": f"modeling_lesion.{TRANSFORMERS_CLASS}"} if classifier.is_custom else None,
        lesion_hub=LesionHubSection(
            label_space=classifier.space.name,
            temperature=temperature,
            operating_points=operating_points or {},
            training=training,
            weights_sha256=hashlib.sha256(blob).hexdigest(),
        ),
    )
    if classifier.is_custom:
        write_text(folder / MODELING_NAME, modeling_source())
    write_bytes(folder / WEIGHTS_NAME, blob)
    write_text(folder / CONFIG_NAME, dump_json(config))
    return config


def stored_weights(classifier: LesionClassifier, storage: StorageType) -> dict[str, Tensor]:
    """Bare timm keys. Half precision is for weight matrices alone: biases and normalisation statistics stay float32."""
    weights: dict[str, Tensor] = {}
    for key, value in classifier.network.state_dict().items():
        tensor = value.detach().cpu().contiguous()
        if storage == "float16" and tensor.is_floating_point() and tensor.ndim > 1:
            tensor = tensor.to(torch.float16)
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise ConfigError(f"{key}: not finite as {tensor.dtype}; the training diverged, or store it as float32")
        weights[key] = tensor
    return weights


def fold_temperature(classifier: LesionClassifier, temperature: float) -> None:
    """Divide the logits by ``temperature`` for good, inside the last Linear, so that every loader sees calibrated ones."""
    if not 0 < temperature < float("inf"):
        raise ConfigError(f"temperature {temperature} must be positive and finite; calibrate again")
    with torch.no_grad():
        layer = classifier.last_layer
        layer.weight.div_(temperature)
        if layer.bias is not None:
            layer.bias.div_(temperature)


def read_model(folder: Path) -> tuple[LesionClassifier, ModelConfig]:
    """The classifier in a model folder, in evaluation mode, and its config; the weights' sha256 is checked first."""
    config = load_model_config(folder)
    verify_weights(folder, config)
    classifier = LesionClassifier.from_config(config)
    weights = _load_weights(folder / WEIGHTS_NAME)
    try:
        classifier.network.load_state_dict(weights, strict=True)
    except RuntimeError as error:
        first = str(error).splitlines()[1].strip() if "\n" in str(error) else str(error)
        raise StoreError(f"{folder / WEIGHTS_NAME}: does not fit {config.architecture} ({first}); publish it again") from None
    return classifier.eval(), config


def _load_weights(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise StoreError(f"{path}: not a safetensors file ({error}); pickles are never loaded, fetch it again") from None


def verify_weights(folder: Path, config: ModelConfig) -> None:
    """Refuse weights that are not the ones the config was written for."""
    path = folder / WEIGHTS_NAME
    actual = sha256_of(path)
    if actual != config.lesion_hub.weights_sha256:
        raise WeightsMismatch(
            f"{path}: sha256 {actual[:12]}… is not the config's {config.lesion_hub.weights_sha256[:12]}…; "
            "the file was damaged or exchanged, fetch or publish it again"
        )


class WeightsMismatch(StoreError):
    """The weights file is not the one whose sha256 the config holds."""


def sha256_of(path: Path) -> str:
    """Hex sha256 of a file."""
    try:
        digest = hashlib.sha256()
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
        return digest.hexdigest()
    except OSError as error:
        raise StoreError(f"{path}: cannot be read ({error.strerror}); fetch the model again") from None


def is_ensemble(folder: Path) -> bool:
    return (folder / ENSEMBLE_NAME).is_file()


def is_model_folder(folder: Path) -> bool:
    return (folder / CONFIG_NAME).is_file() or is_ensemble(folder)


def load_config(folder: Path) -> ModelConfig | EnsembleConfig:
    """The config of either kind of folder."""
    return load_ensemble_config(folder) if is_ensemble(folder) else load_model_config(folder)


def publishable_files(folder: Path) -> list[str]:
    """The files of ``folder`` that a repo holds, by relative name; raises one line when a required one is missing.

    A run folder may hold more (checkpoints, logs): that stays at home. CHANGELOG.md is the publisher's to write.
    """
    config = load_config(folder)
    required = [CARD_NAME, METRICS_NAME, SPLIT_NAME]
    if isinstance(config, ModelConfig):
        required = [CONFIG_NAME, WEIGHTS_NAME, *required, *([MODELING_NAME] if config.auto_map else [])]
        _check_model(folder, config)
    else:
        required = [ENSEMBLE_NAME, *required]
    for name in required:
        if not (folder / name).is_file():
            raise StoreError(f"{folder / name}: missing; a published repo holds {', '.join(required)}")
    for name in (METRICS_NAME, SPLIT_NAME):
        _check_json(folder / name)
    return [*required, *sorted(str(path.relative_to(folder)) for path in folder.glob(PLOTS_PATTERN))]


def _check_model(folder: Path, config: ModelConfig) -> None:
    verify_weights(folder, config)
    try:
        with safe_open(folder / WEIGHTS_NAME, framework="pt"):
            pass
    except (OSError, SafetensorError) as error:
        raise StoreError(f"{folder / WEIGHTS_NAME}: not a safetensors file ({error}); write it with save_file") from None
    if config.auto_map and (folder / MODELING_NAME).is_file():
        text = (folder / MODELING_NAME).read_text(encoding="utf-8")
        if text != modeling_source():
            raise StoreError(f"{folder / MODELING_NAME}: is not this version's network code; write the model again")


def _check_json(path: Path) -> None:
    try:
        json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise StoreError(f"{path}: not valid JSON ({error}); write it again") from None
