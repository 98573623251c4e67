"""Pieces of the page, filled by Jinja with every value escaped."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from lesion_hub.app import pictures, words
from lesion_hub.app.batch import Results
from lesion_hub.app.cards import model_facts
from lesion_hub.app.examples import Example
from lesion_hub.app.options import MEGABYTE, AppOptions
from lesion_hub.app.service import BatchItem, Reading, Served
from lesion_hub.errors import TaxonomyError
from lesion_hub.inference.attribution.methods import METHODS
from lesion_hub.version import __version__

HERE = Path(__file__).parent


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["words"] = words
    environment.globals["mb"] = _megabytes
    environment.filters["percent"] = words.percent
    return environment


def render(name: str, **values: Any) -> str:
    """A template of this package, filled."""
    return _environment().get_template(f"{name}.html.jinja").render(**values)


def script(options: AppOptions) -> str:
    """The page's own JavaScript with the limits that it checks before anything is sent."""
    limits = (
        f"window.lesionLimits = {{bytes: {options.max_bytes}, files: {options.max_files}, batch: {options.max_batch_bytes}}};"
    )
    return f"<script>{limits}\n{(HERE / 'page.js').read_text(encoding='utf-8')}</script>"


def full_name(served: Served, label: str) -> str:
    """A label's full name; the label itself where it is of another space."""
    space = served.predictor.space
    try:
        return space.descriptions[space.index(label)]
    except TaxonomyError:
        return label.capitalize()


def header(models: Sequence[Served]) -> str:
    return render("header", models=models)


def bars(reading: Reading) -> str:
    """The differential, most probable first."""
    prediction = reading.prediction
    rows = [(full_name(reading.served, label), label, value) for label, value in prediction.top(len(prediction.probabilities))]
    return render("bars", rows=rows, title=reading.served.title)


def malignancy(reading: Reading) -> str:
    """The malignancy score against the stored operating points."""
    score = reading.prediction.malignancy
    points = reading.served.predictor.operating_points
    shown = [] if score is None else [(name, point, score >= point.threshold) for name, point in points.items()]
    return render("malignancy", score=score, points=shown)


def members(reading: Reading) -> str:
    """How much the members disagree, and each one's own view."""
    prediction = reading.prediction
    views = []
    for member in reading.served.predictor.members:
        ranked = sorted(prediction.members[member.name].items(), key=lambda item: -item[1])
        names = dict(zip(member.space.labels, member.space.descriptions, strict=True))
        views.append((member.name, [(names[label], label, value) for label, value in ranked]))
    return render("members", value=prediction.disagreement, views=views)


def warnings(reading: Reading) -> str:
    """What is wrong with the picture; nothing for a good one."""
    return render("warnings", found=[words.warning(flag) for flag in reading.prediction.flags], flags=reading.prediction.flags)


def trouble(text: str) -> str:
    """One clear message."""
    return render("trouble", text=text)


def look(reading: Reading, options: AppOptions) -> str:
    """The original beside its heat maps, all of them in the page, so that slider and choice of member compute nothing."""
    explained = reading.prediction.explanation
    if explained is None:
        return ""
    single = len(explained.members) == 1
    maps = [("", explained.heat)] if single else [("", explained.heat), *explained.members.items()]
    layers = [(name, pictures.data_uri(pictures.layer(heat), "image/webp"), not heat.any()) for name, heat in maps]
    return render(
        "look",
        original=pictures.data_uri(pictures.jpeg(explained.image, options.display_side), "image/jpeg"),
        layers=layers,
        method=METHODS[explained.method].title,
        label=full_name(reading.served, explained.label),
        code=explained.label,
    )


def batch_table(items: Sequence[BatchItem]) -> str:
    rows = [(item, full_name(item.reading.served, item.reading.prediction.label) if item.reading else "") for item in items]
    return render("batch_table", rows=rows)


def cancelled() -> str:
    return render("cancelled")


def downloads(results: Results) -> str:
    """Links that hold the files themselves: the server keeps none."""
    kinds = (
        (results.csv(), "Table as CSV", "text/csv"),
        (results.parquet(), "Table as Parquet", "application/vnd.apache.parquet"),
        (results.zip(), "Overlays as zip", "application/zip"),
    )
    return render("downloads", files=[(file.name, title, pictures.data_uri(file.content, kind)) for file, title, kind in kinds])


def picker() -> str:
    return render("picker")


def file_picker(options: AppOptions) -> str:
    return render("files", options=options)


def example_row(examples: Sequence[Example]) -> str:
    return render("examples", examples=[(one.title, pictures.data_uri(one.content, "image/jpeg")) for one in examples])


def model(served: Served) -> str:
    """A model's facts and card."""
    return render("model", facts=model_facts(served))


def about(options: AppOptions) -> str:
    return render("about", options=options, version=__version__)


def batch_progress(done: int, total: int, word: str = "analysed") -> str:
    return render("batch_progress", done=done, total=total, word=word)


def _megabytes(count: int) -> str:
    return f"{count / MEGABYTE:.3g}"
