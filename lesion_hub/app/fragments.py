"""The parts of the page as HTML, each made by the Jinja template of its name with every value escaped."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from lesion_hub import __version__
from lesion_hub.app import pictures, words
from lesion_hub.app.model_facts import model_facts
from lesion_hub.app.options import MEGABYTE, AppOptions
from lesion_hub.app.service import Answer, BatchItem, BatchResults, ServedModel
from lesion_hub.errors import TaxonomyError
from lesion_hub.inference.attribution import METHODS

_HERE = Path(__file__).parent


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(words=words, version=__version__, mb=lambda count: f"{count / MEGABYTE:.3g}")
    environment.filters["percent"] = words.percent
    return environment


def render(name: str, **values: Any) -> str:
    """Fill a template of this package."""
    return _environment().get_template(f"{name}.html.jinja").render(**values)


def script(options: AppOptions) -> str:
    """Return the page's JavaScript with the limits that it checks before anything is sent."""
    limits = (
        f"window.lesionLimits = {{bytes: {options.max_bytes}, files: {options.max_files}, batch: {options.max_batch_bytes}}};"
    )
    return f"<script>{limits}\n{(_HERE / 'page.js').read_text(encoding='utf-8')}</script>"


def full_name(served: ServedModel, label: str) -> str:
    """Return a label's full name; the label itself where it is not one of the model's own space."""
    space = served.predictor.space
    try:
        return space.descriptions[space.index(label)]
    except TaxonomyError:
        return label.capitalize()


def bars_html(answer: Answer) -> str:
    """Render the label set, and below it the probabilities of all labels, the most probable first."""
    prediction = answer.prediction
    found = prediction.label_set() if prediction.has_sets else None
    above = render("label_set", found=found, abstains=prediction.abstains, error=answer.abstain)
    rows = [(full_name(answer.served, label), label, value) for label, value in prediction.top(len(prediction.probabilities))]
    return above + render("bars", rows=rows, title=answer.served.title)


def malignancy_html(answer: Answer) -> str:
    """Render the malignancy score against the stored operating points."""
    score = answer.prediction.malignancy
    points = answer.served.predictor.operating_points
    shown = [] if score is None else [(name, point, score >= point.threshold) for name, point in points.items()]
    return render("malignancy", score=score, points=shown)


def members_html(answer: Answer) -> str:
    """Render how much the members disagree, and each one's own probabilities."""
    prediction = answer.prediction
    views = []
    for member in answer.served.predictor.members:
        ranked = sorted(prediction.members[member.name].items(), key=lambda item: -item[1])
        names = dict(zip(member.space.labels, member.space.descriptions, strict=True))
        views.append((member.name, [(names[label], label, value) for label, value in ranked]))
    return render("members", value=prediction.disagreement, views=views)


def warnings_html(answer: Answer) -> str:
    """Render what is wrong with the picture; nothing for a good one."""
    return render("warnings", found=[(flag, *words.warning(flag)) for flag in answer.prediction.flags])


def scope_html(answer: Answer) -> str:
    """Render the input gate's verdict and why; nothing for an image in scope, or where no gate was fitted."""
    scope = answer.prediction.scope
    if scope is None or scope.verdict == "in scope":
        return ""
    refused = scope.verdict == "out of scope"
    title, why = (words.OUT_OF_SCOPE, words.REFUSED_BECAUSE) if refused else (words.UNSURE, words.UNSURE_BECAUSE)
    return render("scope", scope=scope, title=title, why=why)


def held_back_html(parts: Sequence[str]) -> str:
    """Render finished parts of the page so that they are shown only to those who ask for them."""
    return render("held_back", parts=parts)


def heat_maps_html(answer: Answer, options: AppOptions) -> str:
    """Render the original beside all its heat maps, so that the slider and the choice of a member need no request."""
    explained = answer.prediction.explanation
    if explained is None:
        return ""
    maps = {"": explained.heat, **(explained.members if len(explained.members) > 1 else {})}
    layers = [(name, pictures.data_uri(pictures.heat_webp(heat), "image/webp"), not heat.any()) for name, heat in maps.items()]
    return render(
        "heat_maps",
        original=pictures.data_uri(pictures.jpeg(explained.image, options.display_side), "image/jpeg"),
        layers=layers,
        method=METHODS[explained.method].title,
        label=full_name(answer.served, explained.label),
        code=explained.label,
    )


def batch_table_html(items: Sequence[BatchItem]) -> str:
    """Render a row for every file of a batch so far."""
    rows = [(item, full_name(item.answer.served, item.answer.prediction.label) if item.answer else "") for item in items]
    return render("batch_table", rows=rows)


def downloads_html(results: BatchResults, note: str = "") -> str:
    """Render links that hold the files themselves, below a note: the server keeps none."""
    kinds = (
        (results.csv(), "Table as CSV", "text/csv"),
        (results.parquet(), "Table as Parquet", "application/vnd.apache.parquet"),
        (results.zip(), "Overlays as zip", "application/zip"),
    )
    files = [(file.name, title, pictures.data_uri(file.content, kind)) for file, title, kind in kinds]
    return render("downloads", files=files, note=note)


def examples_html(options: AppOptions) -> str:
    """Render the pictures to try as buttons."""
    shown = [(one.title, pictures.data_uri(one.content, "image/jpeg")) for one in pictures.examples(options.examples)]
    return render("examples", examples=shown)


def model_html(served: ServedModel) -> str:
    """Render a model's facts and card."""
    return render("model", facts=model_facts(served))
