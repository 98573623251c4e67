"""Model cards: written from a folder's files alone, with metadata that the Hub reads."""

from __future__ import annotations

import re
from pathlib import Path

from huggingface_hub import EvalResult, ModelCardData
from jinja2 import Environment, StrictUndefined

from lesion_hub.config import REGISTRY_NAME, REPO_ID
from lesion_hub.hub.atomic import write_text
from lesion_hub.hub.card_facts import CardFacts, collect
from lesion_hub.hub.layout import CARD_NAME
from lesion_hub.hub.packaged import packaged_folder
from lesion_hub.hub.phrasing import interval, shown, words

TEMPLATE_NAME = "card.md.jinja"
HEADLINES = (
    "balanced_accuracy",
    "accuracy",
    "macro_f1",
    "macro_auroc",
    "malignancy.auroc",
    "malignancy.sensitivity_at_90_specificity",
    "malignancy.sensitivity_at_95_specificity",
    "malignancy.specificity_at_95_sensitivity",
    "malignancy.pauc_80",
    "ece",
    "classwise_ece",
    "brier",
    "nll",
)
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


def template_path() -> Path:
    """The card's template."""
    return packaged_folder("_model_cards", "model_cards") / TEMPLATE_NAME


def render_card(folder: str | Path, *, name: str | None = None, licence: str | None = None) -> str:
    """The card of the model in ``folder``, Markdown with front matter.

    ``name`` is what it will be loaded as (``org/name`` or a registry name), by default its recipe's. ``licence`` is only
    needed where the training data are not recorded.

        render_card("runs/ham10000_lite0", name="org/ham-lite0")
    """
    return render(collect(Path(folder), name, licence))


def write_card(folder: str | Path, *, name: str | None = None, licence: str | None = None) -> Path:
    """``render_card`` into README.md."""
    path = Path(folder) / CARD_NAME
    write_text(path, render_card(folder, name=name, licence=licence))
    return path


def render(facts: CardFacts) -> str:
    """Fill the template."""
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False)
    environment.filters |= {"shown": shown, "interval": interval, "words": words}
    template = environment.from_string(template_path().read_text(encoding="utf-8"))
    front_matter = f"---\n{metadata(facts).to_yaml()}\n---"
    text = template.render(facts=facts, front_matter=front_matter, headlines=HEADLINES)
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def metadata(facts: CardFacts) -> ModelCardData:
    """The front matter: licence, library, base model, data sets, metrics, tags and the results as a model index."""
    training = facts.training
    members = [member.name for member in facts.ensemble.members if REPO_ID.fullmatch(member.name)] if facts.ensemble else []
    names = [source.name for source in facts.sources]
    return ModelCardData(
        license=facts.licence,
        library_name="timm" if facts.model else "lesion-hub",
        pipeline_tag="image-classification",
        base_model=(training.base_model if training else None) or members or None,
        datasets=[slug for slug in map(dataset_slug, names) if slug] or None,
        metrics=list(dict.fromkeys(hub_id for hub_id, _ in _HUB_METRICS.values())),
        tags=list(_TAGS),
        model_name=facts.name,
        eval_results=evaluation_results(facts),
    )


def evaluation_results(facts: CardFacts) -> list[EvalResult]:
    """The headline results, each with the data set, its revision and the split that it is of."""
    slug = dataset_slug(facts.data_name) or "unnamed"
    revision = _revision(facts)
    found = []
    for name, (hub_id, title) in _HUB_METRICS.items():
        value = (facts.results["intervals"].get(name) or {}).get("value")
        if value is not None:
            found.append(
                EvalResult(
                    task_type="image-classification",
                    task_name="Image classification",
                    dataset_type=slug,
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
    """A data set's name as the Hub takes it, None where nothing is left of it.

    >>> dataset_slug("ISIC 2019"), dataset_slug("org/my-images"), dataset_slug(".")
    ('isic-2019', 'org/my-images', None)
    """
    if REPO_ID.fullmatch(name):
        return name
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    return slug if REGISTRY_NAME.fullmatch(slug) else None


def _revision(facts: CardFacts) -> str | None:
    """The data's revision; data without versions are pinned by the hash of the split, which names every image."""
    revisions = [source.revision for source in facts.sources if source.revision]
    if len(revisions) == 1:
        return revisions[0]
    split_hash = facts.training.split_hash if facts.training else None
    return f"split-{split_hash[:12]}" if split_hash else None
