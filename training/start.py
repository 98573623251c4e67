"""The weights that a run starts from: fresh ones, what timm downloads, a file, or a published model.

A published model brings the data that it saw, with their licences, and the images that must not be measured on.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from datasets import Dataset

from lesion_hub.config import REGISTRY_NAME, REPO_ID, DataSource, load_model_config
from lesion_hub.errors import ConfigError, DataError
from lesion_hub.evaluation.overlap import find_overlap, training_records
from lesion_hub.hub.layout import WEIGHTS_NAME, is_ensemble, verify_weights
from lesion_hub.hub.store import Resolved, resolve
from lesion_hub.hub.versions import split_revision
from lesion_hub.models import LesionClassifier
from lesion_hub.taxonomy import LabelSpace
from lesion_hub.training.recipe import ModelOptions, Recipe


@dataclass(frozen=True)
class Start:
    """``weights`` as ``LesionClassifier.create`` takes them, the name of their model, and the data that it saw."""

    weights: bool | str | Path
    base_model: str | None = None
    data: tuple[DataSource, ...] = ()
    published: Resolved | None = None

    def refuse_seen(self, held_out: Dataset) -> None:
        """Refuse to measure on images that the published model saw: they must be new to it, not to the training part alone."""
        if self.published is None:
            return
        seen = find_overlap(held_out, training_records(self.published), "test")
        if seen:
            raise DataError(
                f"{self.base_model} was made with images of this run's validation or test part: {seen}; "
                "start from another model, or divide the data by its split (data.split.manifest)"
            )


def start_of(model: ModelOptions) -> Start:
    """Resolve ``model.pretrained``; a published model (``name``, ``org/name``, with ``@revision``) brings its data along.

    >>> start_of(ModelOptions(backbone="resnet18", pretrained=True)).base_model
    'timm/resnet18'
    """
    given = model.pretrained
    if given is False:
        return Start(False)
    if given is True or not _is_published(given):
        return Start(given, f"timm/{model.backbone}")
    name, revision = split_revision(given)
    found = resolve(name, revision)
    if is_ensemble(found.folder):
        raise ConfigError(f"model.pretrained: {name} is an ensemble; start from one of its members")
    config = load_model_config(found.folder)
    if config.architecture != model.backbone:
        raise ConfigError(f"model.pretrained: {name} is a {config.architecture}, the recipe's backbone {model.backbone}")
    verify_weights(found.folder, config)
    before = config.lesion_hub.training.data if config.lesion_hub.training else ()
    title = f"{found.name}@{found.revision}" if found.revision else found.display_name
    data = tuple(source.model_copy(update={"through": title}) for source in before)
    return Start(found.folder / WEIGHTS_NAME, title, data, found)


def _is_published(given: str) -> bool:
    """Tell whether ``given`` is a published model, by name or folder, and not a file of weights, present or missing."""
    if Path(given).suffix == ".safetensors" or Path(given).is_file():
        return False
    name = split_revision(given)[0]
    return Path(given).is_dir() or bool(REGISTRY_NAME.fullmatch(name) or REPO_ID.fullmatch(name))


def build_classifier(recipe: Recipe, space: LabelSpace, start: Start) -> LesionClassifier:
    """Build the recipe's network with the weights of its start, fresh ones being a function of the seed."""
    torch.manual_seed(recipe.seed)
    model = recipe.model
    classifier = LesionClassifier.create(
        model.backbone,
        space,
        head=model.head,
        metadata=model.metadata,
        pretrained=start.weights,
        image_size=model.image_size,
        crop_pct=model.crop_pct,
        drop_rate=model.drop_rate,
    )
    classifier.require_trainable()
    return classifier
