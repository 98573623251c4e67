"""Model cards: written from a folder's files alone, with metadata that the Hub reads."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import EvalResult, ModelCardData
from jinja2 import Environment, StrictUndefined, UndefinedError

from lesion_hub.config import REGISTRY_NAME, REPO_ID, DataSource, EnsembleConfig, ModelConfig, Training
from lesion_hub.errors import ConfigError, StoreError, one_line
from lesion_hub.files import packaged_folder, read_json, write_text
from lesion_hub.hub.layout import CARD_NAME, METRICS_NAME, SPLIT_NAME, load_config, network_config, own_section
from lesion_hub.hub.licences import card_licence, citations, strictest
from lesion_hub.hub.measures import CARD_HEADLINES, interval, shown, words
from lesion_hub.hub.versions import notes_in
from lesion_hub.hub.wording import DISCLAIMER
from lesion_hub.taxonomy import LabelSpace

TEMPLATE_NAME = "card.md.jinja"
RECIPE_NAME = "recipe.yaml"
RECALIBRATION = "recalibration"
PARTS = ("test", RECALIBRATION, "validation")
"""The sections of metrics.json that may hold results, in the order in which the card prefers them."""
FEW_EXAMPLES = 30
# Our measure: the Hub's metric id, and the name beside it.
_HUB_METRICS = {
    "balanced_accuracy": ("balanced_accuracy", "Balanced accuracy"),
    "accuracy": ("accuracy", "Accuracy"),
    "macro_f1": ("f1", "Macro F1"),
    "macro_auroc": ("roc_auc", "Macro one-vs-rest AUROC"),
    "malignancy.auroc": ("roc_auc", "Malignancy AUROC"),
    "ece": ("ece", "Expected calibration error"),
}
_TAGS = ("dermatology", "dermoscopy", "skin-lesion", "medical-imaging", "calibrated", "lesion-hub")
_METADATA_DIGITS = 4
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
    "distill.teacher": "Teacher",
    "distill.weight": "Its share of the loss",
    "ema.decay": "Average of weights, decay",
    "precision": "Precision",
}


def render_card(folder: str | Path, *, name: str | None = None, licence: str | None = None) -> str:
    """Write the card of the model in ``folder`` as Markdown with front matter.

    ``name`` is what it will be loaded as (``org/name`` or a registry name), by default its recipe's. ``licence`` is only
    needed where the training data are not recorded.

        render_card("runs/ham10000_lite0", name="org/ham-lite0")
    """
    with readable_facts(Path(folder)):
        return render_facts(read_card_facts(Path(folder), name, licence))


def write_card(folder: str | Path, *, name: str | None = None, licence: str | None = None) -> Path:
    """Write the text of ``render_card`` into the folder's README.md, and return its path."""
    path = Path(folder) / CARD_NAME
    write_text(path, render_card(folder, name=name, licence=licence))
    return path


def card_title(folder: Path) -> str | None:
    """Return the name that the card in ``folder`` says the model is loaded as; None where there is no such card."""
    path = folder / CARD_NAME
    if not path.is_file():
        return None
    found = re.search(r"^model-index:\n- name: (\S+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return found[1] if found else None


def provisional_card(name: str, licence: str, library: str, words: str) -> str:
    """Write a card that claims nothing, until an evaluation fills in the real one."""
    return (
        f"---\nlicense: {licence}\nlibrary_name: {library}\n---\n\n# {name}\n\n**{DISCLAIMER}.** For research and "
        f"education; whoever worries about a lesion should see a doctor. {words}\n"
    )


# -------------------------------------------------------------------------------------------------- facts of the folder


@dataclass(frozen=True)
class CardFacts:
    """All that the template needs. ``part`` names the section of metrics.json whose results the card shows."""

    name: str
    licence: str
    config: ModelConfig | EnsembleConfig
    network: ModelConfig | None
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
        """The config of an ensemble, None for a single model."""
        return self.config if isinstance(self.config, EnsembleConfig) else None

    @property
    def inputs_differ(self) -> bool:
        """Whether the network of an ensemble has to make some member's input of another one."""
        if self.ensemble is None or self.network is None:
            return False
        args, keys = self.network.model_args, ("input_size", "crop_pct", "interpolation")
        return any(member["pretrained_cfg"][key] != args["input"][key] for member in args["members"] for key in keys)

    @property
    def training(self) -> Training | None:
        return own_section(self.config).training

    @property
    def own_code(self) -> bool:
        """Whether the network is neither timm's nor lesion-hub's."""
        return bool(self.network and self.network.auto_map and not self.network.architecture.startswith("lesion_"))

    @property
    def trained_elsewhere(self) -> bool:
        """Whether a single model has no recipe: what chose its epoch is not known."""
        return self.model is not None and (self.training is None or self.training.recipe is None)

    @property
    def overlap_unknown(self) -> bool:
        """Whether nobody can tell if the model was trained on images that the results are of."""
        checked = self.results.get("overlap", {}).get("checked")
        if checked is None:  # results of a training run or of a calibration
            return self.trained_elsewhere and "counts" not in self.split
        return not checked

    @property
    def temperature(self) -> float | None:
        return own_section(self.config).temperature

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
        return named or ", ".join(self.training.data_names if self.training else ()) or "unnamed data"

    @property
    def calibrations(self) -> dict[str, Mapping[str, Any]]:
        """ECE and NLL before and after the temperature, of each part they were measured on."""
        return {part: self.metrics[part]["calibration"] for part in PARTS[::-1] if "calibration" in self.metrics.get(part, {})}

    @property
    def recalibration(self) -> Mapping[str, Any] | None:
        """What the model was recalibrated on, None where it stands as it was trained or combined."""
        return self.metrics.get(RECALIBRATION)

    @property
    def on_the_hub(self) -> bool:
        return bool(REPO_ID.fullmatch(self.name))

    @property
    def citations(self) -> list[str]:
        return citations([source.name for source in self.sources])

    @property
    def is_probe(self) -> bool:
        """Whether the last layer alone was fitted, on a backbone that stayed as it was."""
        return self.recipe.get("probe") is not None

    @property
    def recipe_lines(self) -> list[tuple[str, str]]:
        """(what, value) of the recipe's main choices; what it leaves out is not shown."""
        lines = []
        for dotted, what in _RECIPE_LINES.items():
            value: Any = self.recipe
            for key in dotted.split("."):
                value = value.get(key) if isinstance(value, Mapping) else None
            if dotted == "epochs" and self.is_probe:
                what = "Views of every image"
            if value not in (None, False, "", 0.0):
                lines.append((what, f"{value:g}" if isinstance(value, float) else str(value)))
        return lines

    @property
    def rare_labels(self) -> list[tuple[str, int]]:
        """Labels with too few examples in the results for their numbers to tell much."""
        return [
            (label, found["support"]) for label, found in self.results["per_class"].items() if found["support"] < FEW_EXAMPLES
        ]


@contextmanager
def readable_facts(folder: Path) -> Iterator[None]:
    """Turn what goes wrong in the block for facts of another shape than ours into one line; their files are anybody's."""
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, TypeError, UndefinedError, ValueError) as error:
        reason = one_line(f"{type(error).__name__}: {error}")[:200]
        fix = f"measure with lesion-hub evaluate --model {folder} --record"
        raise ConfigError(f"{folder / METRICS_NAME}: does not hold what a card shows ({reason}); {fix}") from error


def read_card_facts(folder: Path, name: str | None = None, licence: str | None = None) -> CardFacts:
    """Read what the card says from the files in ``folder``; a file or a number that is missing is one line."""
    config = load_config(folder)
    measured = read_json(folder / METRICS_NAME)
    part = next((part for part in PARTS if "intervals" in (measured.get(part) or {})), None)
    if part is None:
        fix = f"measure with lesion-hub evaluate --model {folder} --record"
        raise ConfigError(f"{folder / METRICS_NAME}: holds no results with intervals; {fix}")
    training = own_section(config).training
    if not licence:  # what the data ask for; where they are not named, what the card said so far
        licence = strictest(source.license for source in training.data) if training else card_licence(folder)
    if licence is None:
        raise StoreError(f"{folder}: its training data are not named, so its licence is not known; give it with --licence")
    return CardFacts(
        name=name or (training.recipe if training else None) or folder.resolve().name,
        licence=licence,
        config=config,
        network=network_config(folder),
        metrics=measured,
        split=read_json(folder / SPLIT_NAME, missing_ok=True),
        recipe=_recipe(folder, measured),
        notes=notes_in(folder),
        part=part,
    )


def _recipe(folder: Path, measured: Mapping[str, Any]) -> Mapping[str, Any]:
    """Read the recipe as metrics.json keeps it, or as the run folder does."""
    kept = (measured.get("training") or {}).get("recipe")
    if isinstance(kept, dict):
        return kept
    path = folder / RECIPE_NAME
    if not path.is_file():
        return {}
    try:
        loaded = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"{path}: cannot be read ({one_line(error)}); restore the run's recipe") from None
    return loaded if isinstance(loaded, dict) else {}


# ---------------------------------------------------------------------------------------------------- text and metadata


def template_path() -> Path:
    """Find the card's template."""
    return packaged_folder("_model_cards", "model_cards") / TEMPLATE_NAME


def render_facts(facts: CardFacts) -> str:
    """Fill the template with the facts."""
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False)
    environment.filters |= {"shown": shown, "interval": interval, "words": words}
    template = environment.from_string(template_path().read_text(encoding="utf-8"))
    front = f"---\n{front_matter(facts).to_yaml()}\n---"
    text = template.render(facts=facts, front_matter=front, headlines=CARD_HEADLINES)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def front_matter(facts: CardFacts) -> ModelCardData:
    """Return the front matter: licence, library, base model, data sets, metrics, tags and the results as a model index."""
    training = facts.training
    members = [member.name for member in facts.ensemble.members if REPO_ID.fullmatch(member.name)] if facts.ensemble else []
    return ModelCardData(
        license=facts.licence,
        library_name="timm" if facts.model else "lesion-hub",
        pipeline_tag="image-classification",
        base_model=(training.base_model if training else None) or members or None,
        datasets=list(dict.fromkeys(slug for source in facts.sources if (slug := dataset_slug(source.name)))) or None,
        metrics=list(dict.fromkeys(hub_id for hub_id, _ in _HUB_METRICS.values())),
        tags=list(_TAGS),
        model_name=facts.name,
        eval_results=_evaluation_results(facts),
    )


def _evaluation_results(facts: CardFacts) -> list[EvalResult]:
    """List the headline results, each with the data set, its revision and the split that it is of."""
    revisions = [source.revision for source in facts.sources if source.revision]
    revision = revisions[0] if len(revisions) == 1 else None
    if revision is None and facts.training and facts.training.split_hash:
        # Data without versions are pinned by the hash of the split, which names every image.
        revision = f"split-{facts.training.split_hash[:12]}"
    found = []
    for name, (hub_id, title) in _HUB_METRICS.items():
        value = (facts.results["intervals"].get(name) or {}).get("value")
        if value is not None:
            found.append(
                EvalResult(
                    task_type="image-classification",
                    task_name="Image classification",
                    dataset_type=dataset_slug(facts.data_name) or "unnamed",
                    dataset_name=facts.data_name,
                    dataset_split=facts.part,
                    dataset_revision=revision,
                    metric_type=hub_id,
                    metric_name=title,
                    metric_value=round(value, _METADATA_DIGITS),
                )
            )
    return found


def dataset_slug(name: str) -> str | None:
    """Spell a data set's name as the Hub takes it; None where nothing is left of it.

    >>> dataset_slug("ISIC 2019"), dataset_slug("org/my-images"), dataset_slug(".")
    ('isic-2019', 'org/my-images', None)
    """
    if REPO_ID.fullmatch(name):
        return name
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    return slug if REGISTRY_NAME.fullmatch(slug) else None
