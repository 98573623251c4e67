"""Write the report: one HTML file without external parts, for screen, paper and dark mode, with the worst mistakes."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jinja2 import Environment, StrictUndefined
from numpy.typing import NDArray

from lesion_hub import __version__
from lesion_hub.data.images import load_rgb
from lesion_hub.data.scan import image_sources
from lesion_hub.evaluation import robustness
from lesion_hub.evaluation.assessment import TRAITS
from lesion_hub.evaluation.plots import GROUP_FIGURE, PlotFile
from lesion_hub.evaluation.scoring import Scored
from lesion_hub.files import write_text
from lesion_hub.hub.measures import CARD_HEADLINES, interval, shown, words

if TYPE_CHECKING:
    from datasets import Dataset

TEMPLATE = "report.html.jinja"
LABEL_COLUMNS = ("sensitivity", "ppv", "specificity", "auroc", "f1")
_WORST = 12
_SIDE = 150


@dataclass(frozen=True)
class Mistake:
    """A thumbnail (JPEG) with what the model said of it."""

    image_id: str
    thumbnail: bytes = field(repr=False)
    truth: str
    predicted: str
    note: str


def write_report(
    path: Path,
    model: Mapping[str, Any],
    section: Mapping[str, Any],
    figures: Sequence[PlotFile],
    scored: Scored,
    dataset: Dataset,
) -> None:
    """Write the report of one evaluation; ``dataset`` holds the images that were scored."""
    write_text(path, render_report(model, section, figures, dict(worst_mistakes(scored, dataset))))


def render_report(
    model: Mapping[str, Any],
    section: Mapping[str, Any],
    figures: Sequence[PlotFile],
    mistakes: Mapping[str, Sequence[Mistake]],
) -> str:
    """Fill the template and return the HTML."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"interval": interval, "words": words, "shown": shown}
    environment.filters["base64"] = lambda content: base64.b64encode(content).decode()
    template = environment.from_string((files("lesion_hub.evaluation") / TEMPLATE).read_text(encoding="utf-8"))
    return template.render(
        model=model,
        section=section,
        overall=[figure for figure in figures if not figure.name.startswith((GROUP_FIGURE, "robustness"))],
        by_name={figure.name: figure for figure in figures},
        headlines=[name for name in CARD_HEADLINES if name in section["intervals"]],
        per_class=LABEL_COLUMNS,
        traits=TRAITS,
        stressed=list(robustness.result_rows(section["robustness"])) if "robustness" in section else [],
        mistakes=mistakes,
        version=__version__,
    )


def worst_mistakes(scored: Scored, dataset: Dataset) -> Iterator[tuple[str, list[Mistake]]]:
    """Yield titled lists of the worst errors: the most confident wrong answers, and the malignant lesions that score lowest."""
    predictions = scored.predictions
    sure = scored.probabilities.max(axis=1)
    wrong = np.flatnonzero(predictions.predicted != scored.labels)
    yield "The surest wrong answers", _mistakes(scored, dataset, wrong[np.argsort(-sure[wrong], kind="stable")], sure, "sure")
    malignancy = predictions.malignancy()
    if malignancy is not None:
        kept = np.flatnonzero(malignancy.kept)
        scores = np.zeros(len(scored))
        scores[kept] = malignancy.scores
        missed = kept[malignancy.truth & (malignancy.scores < 0.5)]
        order = missed[np.argsort(scores[missed], kind="stable")]
        yield "Malignant lesions with the lowest malignant score", _mistakes(scored, dataset, order, scores, "malignant score")


def _mistakes(
    scored: Scored, dataset: Dataset, rows: NDArray[np.int64], values: NDArray[np.float64], what: str
) -> list[Mistake]:
    places = {image_id: place for place, image_id in enumerate(dataset["image_id"][:])}
    sources, labels = image_sources(dataset), scored.space.labels
    found = []
    for row in rows[:_WORST]:
        image_id = str(scored.facts["image_id"].iloc[row])
        small = load_rgb(sources[places[image_id]], at_least=(_SIDE, _SIDE)).copy()
        small.thumbnail((_SIDE, _SIDE))
        file = BytesIO()
        small.save(file, "JPEG", quality=80)
        truth, predicted = labels[scored.labels[row]], labels[int(scored.probabilities[row].argmax())]
        found.append(Mistake(image_id, file.getvalue(), truth, predicted, f"{what} {values[row]:.2f}"))
    return found
