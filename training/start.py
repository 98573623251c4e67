"""What a run's network comes from: the weights that it starts from, and the published model that teaches it, where one does.

A published model brings the data that it saw, with their licences, and the images that must not be measured on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from lesion_hub.config import REGISTRY_NAME, REPO_ID, DataSource, ModelConfig, load_model_config
from lesion_hub.errors import ConfigError, DataError
from lesion_hub.evaluation.overlap import find_overlap, training_records
from lesion_hub.hub.layout import WEIGHTS_NAME, is_ensemble, load_config, verify_weights
from lesion_hub.hub.store import Resolved, resolve
from lesion_hub.hub.versions import split_revision
from lesion_hub.models import LesionClassifier
from lesion_hub.taxonomy import LabelSpace
from lesion_hub.training.data import Part
from lesion_hub.training.recipe import ModelOptions, Recipe


@dataclass(frozen=True)
class Ancestor:
    """A published model, or ensemble, that new weights come from, as ``name@version``, and the data that it saw."""

    title: str
    data: tuple[DataSource, ...]
    found: Resolved

    @classmethod
    def of(cls, given: str) -> Ancestor:
        """Resolve ``name`` or ``org/name``, with ``@revision`` or without, or a model folder."""
        found = resolve(*split_revision(given))
        config = load_config(found.folder)
        training = config.lesion_hub.training if isinstance(config, ModelConfig) else config.training
        title = f"{found.name}@{found.revision}" if found.revision else found.display_name
        data = tuple(source.model_copy(update={"through": title}) for source in (training.data if training else ()))
        return cls(title, data, found)

    def refuse_seen(self, parts: Mapping[str, Part]) -> None:
        """Refuse to measure on images that it was made with: they must be new to it, not to the training part alone.

        Those of its validation may be validated on again: here as there they choose an epoch and a temperature, no weight.
        """
        records = training_records(self.found)
        for name, as_there in (("validation", "val"), ("test", "test")):
            held_out = parts[name].dataset if name in parts else None
            seen = None if held_out is None else find_overlap(held_out, records, as_there)
            if seen:
                raise DataError(
                    f"{self.title} was made with images of this run's {name} part: {seen}; "
                    "take another model, or divide the data by its split (data.split.manifest)"
                )


@dataclass(frozen=True)
class Start:
    """``weights`` as ``LesionClassifier.create`` takes them, the name of their model, and it itself where it was published."""

    weights: bool | str | Path
    base_model: str | None = None
    published: Ancestor | None = None


@dataclass(frozen=True)
class Lineage:
    """The start of a run and, where it is distilled, its teacher."""

    start: Start
    teacher: Ancestor | None = None

    @classmethod
    def of(cls, recipe: Recipe) -> Lineage:
        """Resolve what the recipe names."""
        return cls(start_of(recipe.model), None if recipe.distill is None else Ancestor.of(recipe.distill.teacher))

    @property
    def ancestors(self) -> tuple[Ancestor, ...]:
        """The published models among them."""
        return tuple(ancestor for ancestor in (self.start.published, self.teacher) if ancestor is not None)

    @property
    def data(self) -> tuple[DataSource, ...]:
        """What the published models saw, whose licences follow into the new weights; each but once."""
        return tuple(dict.fromkeys(source for ancestor in self.ancestors for source in ancestor.data))

    def refuse_seen(self, parts: Mapping[str, Part]) -> None:
        """Refuse to measure on images that a published model was made with (see `Ancestor.refuse_seen`)."""
        for ancestor in self.ancestors:
            ancestor.refuse_seen(parts)


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
    ancestor = Ancestor.of(given)
    name, folder = split_revision(given)[0], ancestor.found.folder
    if is_ensemble(folder):
        raise ConfigError(f"model.pretrained: {name} is an ensemble; start from one of its members")
    config = load_model_config(folder)
    if config.architecture != model.backbone:
        raise ConfigError(f"model.pretrained: {name} is a {config.architecture}, the recipe's backbone {model.backbone}")
    verify_weights(folder, config)
    return Start(folder / WEIGHTS_NAME, ancestor.title, ancestor)


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
