"""The audit as one HTML page that needs nothing else: styles, plots and thumbnails are inside it."""

from __future__ import annotations

import os
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from pathlib import Path

import matplotlib
import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lesion_hub.data.audit.report import AuditReport
from lesion_hub.data.audit.source_only import SourceOnly
from lesion_hub.data.images import load_rgb
from lesion_hub.data.scan import image_sources
from lesion_hub.data.schema import not_streamed
from lesion_hub.data.sources import ReadResult
from lesion_hub.errors import ImageError
from lesion_hub.files import write_text

# Rows of a list or a gallery, and bars of a chart, that the page shows.
_SHOWN = 24
_MOST_BARS = 12
_THUMB = (120, 120)

# Okabe and Ito's blue and vermilion.
_BLUE, _VERMILION = "#0072B2", "#D55E00"
_STYLE = {"svg.hashsalt": "lesion-hub", "font.size": 9.0, "axes.spines.top": False, "axes.spines.right": False}

Gallery = tuple[str, int, list[tuple[str, list[tuple[str, str]]]]]
"""A heading, how many rows there are, and those shown: a caption with the (id, data URI) of each image."""


def write_page(report: AuditReport, result: ReadResult, path: str | os.PathLike[str]) -> Path:
    """Write the page of ``report`` on the data set ``result`` to ``path``, and return the path.

    result = read("data/ham10000")
    write_page(audit(result), result, "audit.html")
    """
    target = Path(path)
    write_text(target, render_page(report, result))
    return target


def render_page(report: AuditReport, result: ReadResult) -> str:
    """Return the page as text. All names from the data are escaped."""
    environment = Environment(
        loader=PackageLoader("lesion_hub.data.audit", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    dataset = not_streamed(result.dataset)
    rows, sources = {image_id: row for row, image_id in enumerate(dataset["image_id"])}, image_sources(dataset)

    def thumbnail(image_id: str) -> str:
        """Return a data URI, empty for an unreadable image."""
        try:
            image = load_rgb(sources[rows[image_id]], at_least=_THUMB)
        except ImageError:
            return ""
        image.thumbnail(_THUMB)
        stream = BytesIO()
        image.save(stream, "JPEG", quality=80)
        return "data:image/jpeg;base64," + b64encode(stream.getvalue()).decode()

    return environment.get_template("page.html.jinja").render(
        report=report,
        plots=_plots(report),
        baseline_plot=baseline_chart(report.source_only) if report.source_only is not None else "",
        galleries=_galleries(report, thumbnail),
        shown=_SHOWN,
    )


def _plots(report: AuditReport) -> dict[str, str]:
    """Return the plots by title, each as a data URI."""
    plots = {"Classes": bar_chart(report.classes, "class")}
    if report.ages:
        plots["Age"] = histogram(report.ages, "age (years)")
    for name, values in report.counts.items():
        if len(values) > 1:
            plots[name.capitalize()] = bar_chart(dict(list(values.items())[:_MOST_BARS]), name)
    columns = report.columns
    if len(columns["width"]):
        plots["Image size"] = size_chart(columns["width"], columns["height"])
        plots["Sharpness"] = histogram(columns["sharpness"], "detail relative to contrast (log scale)", logarithmic=True)
        plots["Exposure"] = histogram(columns["brightness"], "mean brightness (0 to 255)")
    return plots


def _galleries(report: AuditReport, thumbnail: Callable[[str], str]) -> list[Gallery]:
    """Return the galleries of the page, those without any image left out."""
    leaking = (*report.leaks.exact, *report.leaks.near) if report.leaks else ()
    conflicts = [(f"{conflict.what}: {', '.join(conflict.labels)}", conflict.images[:6]) for conflict in report.conflicts]
    captioned: dict[str, Sequence[tuple[str, Sequence[str]]]] = {
        "Leaks across the split": [("", pair) for pair in leaking],
        "Exact duplicates": [("", pair) for pair in report.exact],
        "Near duplicates in different groups": [("", pair) for pair in report.near_across_groups],
        "Label conflicts": conflicts,
        "Least sharp images": [("", report.blurred)] if report.blurred else [],
    }
    return [
        (title, len(rows), [(caption, [(image_id, thumbnail(image_id)) for image_id in ids]) for caption, ids in rows[:_SHOWN]])
        for title, rows in captioned.items()
        if rows
    ]


# ------------------------------------------------------------------------------------------------ plots, as data URIs


def bar_chart(counts: Mapping[str, int], axis: str) -> str:
    """Draw horizontal bars of images per value, the first on top."""
    figure, axes = _blank(height=0.9 + 0.24 * len(counts))
    drawn = axes.barh(list(counts), list(counts.values()), color=_BLUE)
    axes.bar_label(drawn, [f"{count:,}" for count in counts.values()], padding=3)
    axes.invert_yaxis()
    axes.set(xlabel="images", ylabel=axis)
    axes.margins(x=0.15)
    return _data_uri(figure)


def histogram(values: Sequence[float] | NDArray[np.floating], axis: str, *, logarithmic: bool = False) -> str:
    """Draw how many images have which value."""
    numbers = np.asarray(values, float)
    figure, axes = _blank()
    if logarithmic:
        numbers = np.maximum(numbers, 1e-4)
        axes.set_xscale("log")
        edges = np.geomspace(numbers.min(), max(numbers.max(), numbers.min() * 1.01), 31)
    else:
        edges = np.histogram_bin_edges(numbers, 30)
    axes.hist(numbers, edges.tolist(), color=_BLUE)
    axes.set(xlabel=axis, ylabel="images")
    return _data_uri(figure)


def size_chart(width: NDArray[np.number], height: NDArray[np.number]) -> str:
    """Draw width against height, each size once, the larger the more images have it."""
    pairs, counts = np.unique(np.stack([width, height], 1), axis=0, return_counts=True)
    figure, axes = _blank()
    axes.scatter(pairs[:, 0], pairs[:, 1], s=8 + 60 * counts / counts.max(), color=_BLUE, alpha=0.7, linewidths=0)
    axes.set(xlabel="width (pixels)", ylabel="height (pixels)")
    axes.set(xlim=(0, 1.08 * int(width.max())), ylim=(0, 1.08 * int(height.max())))
    return _data_uri(figure)


def baseline_chart(result: SourceOnly) -> str:
    """Draw the AUROC from all technical traits, from each kind alone, and with shuffled labels, beside chance."""
    values = {"all traits": result.auroc, **result.by_trait, "labels shuffled": result.permuted}
    figure, axes = _blank(height=0.9 + 0.24 * len(values))
    drawn = axes.barh(list(values), list(values.values()), color=_BLUE)
    axes.bar_label(drawn, [f"{value:.2f}" for value in values.values()], padding=3, backgroundcolor="white")
    axes.axvline(result.chance, color=_VERMILION, linestyle="--", label="chance")
    axes.invert_yaxis()
    axes.set(xlabel="macro one-vs-rest AUROC", xlim=(0, 1.1))
    axes.legend(loc="lower right", frameon=False)
    return _data_uri(figure)


def _blank(height: float = 2.4) -> tuple[Figure, Axes]:
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(4.6, height), layout="constrained")
        return figure, figure.add_subplot()


def _data_uri(figure: Figure) -> str:
    stream = BytesIO()
    with matplotlib.rc_context(_STYLE):
        # Without the date the same data give the same page, byte for byte.
        figure.savefig(stream, format="svg", metadata={"Date": None})
    return "data:image/svg+xml;base64," + b64encode(stream.getvalue()).decode()
