"""What a model card is filled with: everything from the files of one folder, nothing typed by hand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from lesion_hub.config import REPO_ID, DataSource, EnsembleConfig, ModelConfig, Training, read_json
from lesion_hub.errors import ConfigError, StoreError
from lesion_hub.hub.citations import citations
from lesion_hub.hub.layout import CHANGELOG_NAME, METRICS_NAME, SPLIT_NAME, load_config
from lesion_hub.hub.licences import strictest
from lesion_hub.hub.release import card_licence
from lesion_hub.hub.versions import changelog_notes
from lesion_hub.taxonomy import LabelSpace

RECIPE_NAME = "recipe.yaml"
RESULTS = ("test", "validation")
FEW_EXAMPLES = 30
_RECIPE_LINES = {
    "model.backbone": "Network",
    "model.image_size": "Image size",
    "model.drop_rate": "Dropout",
    "epochs": "Epochs",
    "batch_size": "Batch size",
    "loss.name": "Loss",
    "loss.class_weights": "Class weights",
    "loss.label_smoothing": "Label smoothing",
    "sampler.kind": "Sampling",
    "optimiser.name": "Optimiser",
    "optimiser.lr": "Learning rate",
    "optimiser.weight_decay": "Weight decay",
    "schedule.name": "Schedule",
    "mixing.mixup": "Mixup",
    "ema.decay": "Average of weights, decay",
    "precision": "Precision",
}


@dataclass(frozen=True)
class CardFacts:
    """All that the template needs. ``results`` is the section of metrics.json that the card shows, ``part`` its name."""

    name: str
    licence: str
    config: ModelConfig | EnsembleConfig
    metrics: Mapping[str, Any] = field(repr=False)
    split: Mapping[str, Any] = field(repr=False)
    recipe: Mapping[str, Any] = field(repr=False)
    notes: Mapping[str, str] = field(repr=False)
    part: str

    @property
    def space(self) -> LabelSpace:
        return self.config.space

    @property
    def model(self) -> ModelConfig | None:
        """The config of a single model, None for an ensemble."""
        return self.config if isinstance(self.config, ModelConfig) else None

    @property
    def ensemble(self) -> EnsembleConfig | None:
        return self.config if isinstance(self.config, EnsembleConfig) else None

    @property
    def training(self) -> Training | None:
        return training_of(self.config)

    @property
    def sources(self) -> Sequence[DataSource]:
        return self.training.data if self.training else ()

    @property
    def results(self) -> Mapping[str, Any]:
        section: Mapping[str, Any] = self.metrics[self.part]
        return section

    @property
    def data_name(self) -> str:
        """The data that the results are of: the training data's own part, unless the evaluation says otherwise."""
        named = self.results.get("data", {}).get("name")
        return named or ", ".join(source.name for source in self.sources if source.through is None) or "unnamed data"

    @property
    def temperature(self) -> float | None:
        return self.model.lesion_hub.temperature if self.model else self.ensemble.temperature if self.ensemble else None

    @property
    def calibrations(self) -> dict[str, Mapping[str, Any]]:
        """ECE and NLL before and after the temperature, of each part they were measured on."""
        return {
            part: self.metrics[part]["calibration"] for part in RESULTS[::-1] if "calibration" in self.metrics.get(part, {})
        }

    @property
    def on_the_hub(self) -> bool:
        return bool(REPO_ID.fullmatch(self.name))

    @property
    def citations(self) -> list[str]:
        return citations([source.name for source in self.sources])

    @property
    def recipe_lines(self) -> list[tuple[str, str]]:
        """(what, value) of the recipe's main choices; what it leaves out is not shown."""
        return list(_recipe_lines(self.recipe))

    @property
    def rare_labels(self) -> list[tuple[str, int]]:
        """Labels with too few examples in the results for their numbers to tell much."""
        return [
            (label, found["support"]) for label, found in self.results["per_class"].items() if found["support"] < FEW_EXAMPLES
        ]


def collect(folder: Path, name: str | None = None, licence: str | None = None) -> CardFacts:
    """Read the facts in ``folder``; a file or a number that is missing is one line."""
    config = load_config(folder)
    measured = read_json(folder / METRICS_NAME)
    part = next((part for part in RESULTS if "intervals" in (measured.get(part) or {})), None)
    if part is None:
        fix = f"measure with lesion-hub evaluate --model {folder} --record"
        raise ConfigError(f"{folder / METRICS_NAME}: holds no results with intervals; {fix}")
    changelog = folder / CHANGELOG_NAME
    return CardFacts(
        name=name or _own_name(folder, config),
        licence=licence or _licence(folder, config),
        config=config,
        metrics=measured,
        split=read_json(folder / SPLIT_NAME) if (folder / SPLIT_NAME).is_file() else {},
        recipe=_recipe(folder, measured),
        notes=changelog_notes(changelog.read_text(encoding="utf-8")) if changelog.is_file() else {},
        part=part,
    )


def training_of(config: ModelConfig | EnsembleConfig) -> Training | None:
    """Where the weights come from."""
    return config.lesion_hub.training if isinstance(config, ModelConfig) else config.training


def _own_name(folder: Path, config: ModelConfig | EnsembleConfig) -> str:
    training = training_of(config)
    return training.recipe if training else folder.resolve().name


def _licence(folder: Path, config: ModelConfig | EnsembleConfig) -> str:
    """What the data ask for; where they are not named, what the card said so far."""
    training = training_of(config)
    if training:
        return strictest(source.license for source in training.data)
    stated = card_licence(folder)
    if stated is None:
        raise StoreError(f"{folder}: its training data are not named, so its licence is not known; give it with --licence")
    return stated


def _recipe(folder: Path, measured: Mapping[str, Any]) -> Mapping[str, Any]:
    """The recipe as metrics.json keeps it, or as the run folder does."""
    kept = (measured.get("training") or {}).get("recipe")
    if isinstance(kept, dict):
        return kept
    path = folder / RECIPE_NAME
    if not path.is_file():
        return {}
    try:
        loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: cannot be read ({' '.join(str(error).split())}); restore the run's recipe") from None
    return loaded if isinstance(loaded, dict) else {}


def _recipe_lines(recipe: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for dotted, what in _RECIPE_LINES.items():
        value: Any = recipe
        for key in dotted.split("."):
            value = value.get(key) if isinstance(value, Mapping) else None
        if value not in (None, False, "", 0.0):
            yield what, _plain(value)


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
