"""What a run starts from: fresh weights, what timm downloads, a file, or a published model with what follows from it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from datasets import Dataset

from lesion_hub.config import REGISTRY_NAME, REPO_ID, DataSource, load_model_config
from lesion_hub.errors import ConfigError, DataError
from lesion_hub.evaluation.selection import find_overlap, memories
from lesion_hub.hub.layout import WEIGHTS_NAME, is_ensemble, verify_weights
from lesion_hub.hub.store import Resolved, resolve
from training.recipe import Model


@dataclass(frozen=True)
class Start:
    """``weights`` as ``LesionClassifier.create`` takes them, the name of what they are, and data that they saw."""

    weights: bool | str | Path
    base_model: str | None = None
    data: tuple[DataSource, ...] = ()
    published: Resolved | None = None

    def refuse_seen(self, held_out: Dataset) -> None:
        """Images to be measured on must be new to the start too, not to the training part alone."""
        if self.published is None:
            return
        seen = find_overlap(held_out, memories(self.published), "test")
        if seen:
            raise DataError(
                f"{self.base_model} was made with images of this run's validation or test part: {seen}; "
                "start from another model, or divide the data by its split (data.split.manifest)"
            )


def start_of(model: Model) -> Start:
    """Resolve ``model.pretrained``; a published model (``name``, ``org/name``, with ``@revision``) brings its data along.

    >>> start_of(Model(backbone="resnet18", pretrained=True)).base_model
    'timm/resnet18'
    """
    given = model.pretrained
    if given is False:
        return Start(False)
    if given is True or not _is_published(str(given)):
        return Start(given, f"timm/{model.backbone}")
    name, _, revision = str(given).partition("@")
    found = resolve(name, revision or None)
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
    """A folder that is a model, or a name; a path of a file, there or not, is neither."""
    if Path(given).suffix == ".safetensors" or Path(given).is_file():
        return False
    name = given.partition("@")[0]
    return Path(given).is_dir() or bool(REGISTRY_NAME.fullmatch(name) or REPO_ID.fullmatch(name))
