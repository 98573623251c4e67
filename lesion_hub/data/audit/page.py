"""The audit as one HTML page that needs nothing else: styles, plots and thumbnails are inside it."""

from __future__ import annotations

import os
from base64 import b64encode
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from lesion_hub.data.audit import plots
from lesion_hub.data.audit.report import AuditReport
from lesion_hub.data.files import write_whole
from lesion_hub.data.images import ImageSource, load_rgb
from lesion_hub.data.scan import image_sources, whole
from lesion_hub.data.sources import ReadResult
from lesion_hub.errors import ImageError

_SHOWN = 24
_THUMB = (120, 120)


@dataclass(frozen=True)
class Plot:
    """A titled picture; ``uri`` holds it whole."""

    title: str
    uri: str


@dataclass(frozen=True)
class Gallery:
    """Rows of images under one heading: ``rows`` are captions with the (id, thumbnail) of each image."""

    title: str
    total: int
    rows: tuple[tuple[str, tuple[tuple[str, str], ...]], ...]


def write_page(report: AuditReport, result: ReadResult, path: str | os.PathLike[str]) -> Path:
    """Write the page of ``report`` on the data set ``result`` to ``path``, and return the path.

    result = read("data/ham10000")
    write_page(audit(result), result, "audit.html")
    """
    target = Path(path)
    write_whole(target, render_page(report, result))
    return target


def render_page(report: AuditReport, result: ReadResult) -> str:
    """The page as text. All names from the data are escaped."""
    environment = Environment(
        loader=PackageLoader("lesion_hub.data.audit", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    dataset = whole(result.dataset)
    thumbnails = _Thumbnails(list(dataset["image_id"]), image_sources(dataset))
    template = environment.get_template("page.html.jinja")
    return template.render(
        report=report,
        plots=_plots(report),
        baseline_plot=plots.baseline(report.source_only) if report.source_only is not None else "",
        galleries=_galleries(report, thumbnails),
        shown=_SHOWN,
    )


def _plots(report: AuditReport) -> list[Plot]:
    columns = report.columns
    found = [Plot("Classes", plots.bars(report.classes, "class"))]
    if report.ages:
        found.append(Plot("Age", plots.histogram(report.ages, "age (years)")))
    found += [
        Plot(name.capitalize(), plots.bars(dict(list(values.items())[:12]), name))
        for name, values in report.counts.items()
        if len(values) > 1
    ]
    if len(columns.rows):
        found += [
            Plot("Image size", plots.sizes(columns.width, columns.height)),
            Plot("Sharpness", plots.histogram(columns.sharpness, "variance of the Laplacian (log scale)", logarithmic=True)),
            Plot("Exposure", plots.histogram(columns.brightness, "mean brightness (0 to 255)")),
        ]
    return found


def _galleries(report: AuditReport, thumbnails: _Thumbnails) -> list[Gallery]:
    leaking = [*(report.leaks.exact if report.leaks else ()), *(report.leaks.near if report.leaks else ())]
    conflicts = [(f"{conflict.what}: {', '.join(conflict.labels)}", conflict.images[:6]) for conflict in report.conflicts]
    wanted: Iterable[tuple[str, int, Sequence[tuple[str, Sequence[str]]]]] = (
        ("Leaks across the split", len(leaking), [("", pair) for pair in leaking]),
        ("Exact duplicates", len(report.exact), [("", pair) for pair in report.exact]),
        (
            "Near duplicates in different groups",
            len(report.near_across_groups),
            [("", pair) for pair in report.near_across_groups],
        ),
        ("Label conflicts", len(conflicts), conflicts),
        ("Least sharp images", len(report.blurred), [("", report.blurred)] if report.blurred else []),
    )
    return [
        Gallery(title, total, tuple((caption, thumbnails.of(ids)) for caption, ids in rows[:_SHOWN]))
        for title, total, rows in wanted
        if rows
    ]


class _Thumbnails:
    """Thumbnails by image id, as data URIs; an unreadable image has an empty one."""

    def __init__(self, ids: Sequence[str], sources: Sequence[ImageSource]) -> None:
        self._rows: Mapping[str, int] = {image_id: row for row, image_id in enumerate(ids)}
        self._sources = sources

    def of(self, ids: Sequence[str]) -> tuple[tuple[str, str], ...]:
        return tuple((image_id, self._uri(image_id)) for image_id in ids)

    def _uri(self, image_id: str) -> str:
        try:
            image = load_rgb(self._sources[self._rows[image_id]], at_least=_THUMB)
        except ImageError:
            return ""
        image.thumbnail(_THUMB)
        stream = BytesIO()
        image.save(stream, "JPEG", quality=80)
        return "data:image/jpeg;base64," + b64encode(stream.getvalue()).decode()
