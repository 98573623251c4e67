"""The facts that the models tab and the ``/models`` endpoint show of a model, read from the files of its folder alone."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markdown_it.utils import EnvType, OptionsDict
from markupsafe import Markup

from lesion_hub.app import pictures
from lesion_hub.app.service import ServedModel
from lesion_hub.app.words import point_title, share
from lesion_hub.config import EnsembleConfig
from lesion_hub.data.images import load_rgb
from lesion_hub.errors import ImageError, LesionHubError
from lesion_hub.hub.card import PARTS, read_card_facts, readable_facts
from lesion_hub.hub.layout import CARD_NAME, load_config
from lesion_hub.hub.licences import card_licence
from lesion_hub.hub.measures import CARD_HEADLINES, interval, rules_in_words, words

_PLOT_SIDE = 900
_FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)


@dataclass(frozen=True)
class ModelFacts:
    """The values of the template.

    ``members`` are rows of (name, version, weight, label space), none for a single model; ``metrics`` are pairs of a measure's
    name and its value with the interval; ``card`` is HTML made from the card's Markdown, raw HTML in it escaped.
    """

    title: str
    lines: list[tuple[str, str]]
    card_url: str | None
    members: list[tuple[str, str, str, str]]
    metrics: list[tuple[str, str]]
    measured_on: str
    reliability: str | None
    card: Markup = field(repr=False)


def model_facts(served: ServedModel) -> ModelFacts:
    """Read the facts of a served model; what its folder does not hold is left out."""
    measured = _measured(served.folder)
    space, points = served.predictor.space, served.predictor.operating_points.values()
    labels = ", ".join(f"{name} ({code})" for code, name in zip(space.labels, space.descriptions, strict=True))
    config = load_config(served.folder)
    members = []
    if isinstance(config, EnsembleConfig):
        members = [
            (pinned.name, pinned.revision, f"{weight:.2f}", member.space.name)
            for pinned, weight, member in zip(config.members, config.weights, served.predictor.members, strict=True)
        ]
    plots = (_image_uri(served.folder, f"plots/reliability_{part}.png") for part in PARTS)
    return ModelFacts(
        title=served.title,
        lines=[
            ("Version", served.version or "a folder, without a version"),
            ("Labels", labels),
            ("Licence of the weights", card_licence(served.folder) or "not stated"),
            ("Operating points", ", ".join(f"{point_title(p)} at {share(p.threshold)}" for p in points) or "none stored"),
            *((name.capitalize(), value) for name, value in rules_in_words(served.predictor.rules).items()),
            ("Input gate", "fitted" if served.predictor.gates else "not fitted"),
            ("Age, sex and site", "used" if served.takes_metadata else "not used"),
        ],
        card_url=served.card_url,
        members=members,
        metrics=measured.in_words,
        measured_on=measured.data,
        reliability=next((uri for uri in plots if uri), None),
        card=card_html(served.folder),
    )


def model_summary(served: ServedModel) -> dict[str, Any]:
    """Describe a model as the ``/models`` endpoint gives it."""
    predictor, measured = served.predictor, _measured(served.folder)
    space = predictor.space
    return {
        "name": served.key,
        "version": served.version,
        "label_space": space.name,
        "labels": dict(zip(space.labels, space.descriptions, strict=True)),
        "targets": list(served.targets),
        "members": [member.name for member in predictor.members],
        "operating_points": {name: point.model_dump() for name, point in predictor.operating_points.items()},
        "takes_metadata": served.takes_metadata,
        "licence": card_licence(served.folder),
        "card_url": served.card_url,
        "measured_on": measured.data or None,
        "metrics": measured.headlines,
    }


@dataclass(frozen=True)
class _Measured:
    """The headline measures that have an interval, in the card's order, by name and in words; and the data they are of."""

    headlines: dict[str, dict[str, Any]] = field(default_factory=dict)
    in_words: list[tuple[str, str]] = field(default_factory=list)
    data: str = ""


def _measured(folder: Path) -> _Measured:
    """Read the results in a folder; none where it holds none that can be read."""
    try:
        with readable_facts(folder):
            facts = read_card_facts(folder)
            results, intervals = facts.results, facts.results["intervals"]
            headlines = {name: dict(intervals[name]) for name in CARD_HEADLINES if intervals.get(name)}
            count, groups = results.get("examples"), results.get("groups_count")
            size = f", {count} images of {groups} lesions or patients" if count and groups else ""
            return _Measured(
                headlines,
                [(words(name), interval(value)) for name, value in headlines.items()],
                f"On {facts.data_name}, {facts.part} part{size}.",
            )
    except LesionHubError:
        return _Measured()


def card_html(folder: Path) -> Markup:
    """Render the card as HTML: no raw HTML of its own, pictures of the folder inside the page, no others."""
    path = folder / CARD_NAME
    if not path.is_file():
        return Markup("")
    text = _FRONT_MATTER.sub("", path.read_text(encoding="utf-8", errors="replace"))
    reader = MarkdownIt("commonmark", {"html": False}, renderer_cls=_CardRenderer).enable("table")
    return Markup(reader.render(text, {"folder": folder}))


class _CardRenderer(RendererHTML):
    """Markdown-it's renderer, which looks its rules up by name: pictures come from the folder, headings fit the page."""

    def image(self, tokens: Sequence[Token], index: int, options: OptionsDict, env: EnvType) -> str:
        token = tokens[index]
        alt = Markup.escape(self.renderInlineAsText(token.children or [], options, env))
        uri = _image_uri(env["folder"], str(token.attrGet("src") or ""))
        return f"<em>{alt}</em>" if uri is None else f'<img src="{uri}" alt="{alt}" loading="lazy">'

    def heading_open(self, tokens: Sequence[Token], index: int, options: OptionsDict, env: EnvType) -> str:
        return f"<{_lowered(tokens[index].tag)}>"

    def heading_close(self, tokens: Sequence[Token], index: int, options: OptionsDict, env: EnvType) -> str:
        return f"</{_lowered(tokens[index].tag)}>\n"


def _lowered(tag: str) -> str:
    """Put a card's heading two levels down: the page has the first and second."""
    return f"h{min(6, int(tag[1]) + 2)}"


def _image_uri(folder: Path, source: str) -> str | None:
    """Read a picture that lies inside ``folder``, shrink it and encode it anew; None for anything else."""
    try:
        # The Hub's cache is made of links, so a plot may resolve to elsewhere; the path as written must not lead out.
        path = folder.resolve() / source
        if ".." in Path(source).parts or Path(source).is_absolute() or not path.is_file():
            return None
        image = load_rgb(path.read_bytes(), name=path.name)
    except (ImageError, OSError, ValueError):
        return None
    # Plots are lines on white: a palette keeps them sharp and small.
    stream = BytesIO()
    pictures.shrunk(image, _PLOT_SIDE).quantize(64).save(stream, "PNG", optimize=True)
    return pictures.data_uri(stream.getvalue(), "image/png")
