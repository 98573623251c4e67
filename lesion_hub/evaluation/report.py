"""The report: one HTML file that needs no network, reads well on paper and in the dark, and hides nothing."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jinja2 import Environment, StrictUndefined
from numpy.typing import NDArray
from PIL import Image

from lesion_hub.data.images import load_rgb
from lesion_hub.data.scan import image_sources
from lesion_hub.evaluation import robustness
from lesion_hub.evaluation.figures import GROUP_FIGURE, Figure
from lesion_hub.evaluation.predictions import Predictions
from lesion_hub.evaluation.scoring import Scored
from lesion_hub.evaluation.traits import TRAITS
from lesion_hub.hub.atomic import write_text
from lesion_hub.hub.card import HEADLINES
from lesion_hub.hub.phrasing import interval, shown, words
from lesion_hub.version import __version__

if TYPE_CHECKING:
    from datasets import Dataset

TEMPLATE = "report.html.jinja"
PER_CLASS = ("sensitivity", "ppv", "specificity", "auroc", "f1")
_WORST = 12
_SIDE = 150


@dataclass(frozen=True)
class Mistake:
    """A thumbnail (data URI) with what the model said of it."""

    image_id: str
    thumbnail: str
    truth: str
    predicted: str
    note: str


def write_report(
    path: Path,
    model: Mapping[str, Any],
    section: Mapping[str, Any],
    figures: Sequence[Figure],
    scored: Scored,
    dataset: Dataset,
) -> None:
    """Write the report of one evaluation; ``dataset`` holds the images that were scored."""
    text = render(model, section, figures, dict(worst_mistakes(scored, dataset)))
    write_text(path, text)


def render(
    model: Mapping[str, Any],
    section: Mapping[str, Any],
    figures: Sequence[Figure],
    mistakes: Mapping[str, Sequence[Mistake]],
) -> str:
    """The report's HTML."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"interval": interval, "words": words, "uri": data_uri, "shown": shown}
    template = environment.from_string((files("lesion_hub.evaluation") / TEMPLATE).read_text(encoding="utf-8"))
    return template.render(
        model=model,
        section=section,
        overall=[figure for figure in figures if not figure.name.startswith((GROUP_FIGURE, "robustness"))],
        by_name={figure.name: figure for figure in figures},
        headlines=[name for name in HEADLINES if name in section["intervals"]],
        per_class=PER_CLASS,
        traits=TRAITS,
        stressed=list(robustness.rows_of(section["robustness"])) if "robustness" in section else [],
        mistakes=mistakes,
        version=__version__,
    )


def worst_mistakes(scored: Scored, dataset: Dataset) -> Iterator[tuple[str, list[Mistake]]]:
    """Titled lists of the most telling errors: the surest wrong answers, and the malignant lesions that score lowest."""
    predictions = Predictions(scored.probabilities, scored.labels, scored.space)
    sure = scored.probabilities.max(axis=1)
    wrong = np.flatnonzero(predictions.predicted != scored.labels)
    yield "The surest wrong answers", _mistakes(scored, dataset, wrong[np.argsort(-sure[wrong], kind="stable")], sure, "sure")
    question = predictions.malignancy()
    if question is not None:
        kept = np.flatnonzero(question.kept)
        scores = np.zeros(len(scored))
        scores[kept] = question.scores
        missed = kept[question.truth & (question.scores < 0.5)]
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
        image = load_rgb(sources[places[image_id]], at_least=(_SIDE, _SIDE))
        predicted = labels[int(scored.probabilities[row].argmax())]
        note = f"{what} {values[row]:.2f}"
        found.append(Mistake(image_id, _thumbnail(image), labels[scored.labels[row]], predicted, note))
    return found


def _thumbnail(image: Image.Image) -> str:
    small = image.copy()
    small.thumbnail((_SIDE, _SIDE))
    file = BytesIO()
    small.save(file, "JPEG", quality=80)
    return _uri("image/jpeg", file.getvalue())


def data_uri(figure: Figure) -> str:
    """The plot as text that stands in the page itself."""
    return _uri("image/png", figure.png)


def _uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
