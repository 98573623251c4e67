"""The plots of the audit page, as SVG: readable in black and white, in colours that colour-blind people tell apart."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from io import BytesIO

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from lesion_hub.data.audit.source_only import SourceOnly

# Okabe and Ito's blue and vermilion.
_BLUE, _VERMILION = "#0072B2", "#D55E00"
_STYLE = {"svg.hashsalt": "lesion-hub", "font.size": 9.0, "axes.spines.top": False, "axes.spines.right": False}


def bars(counts: Mapping[str, int], axis: str) -> str:
    """Horizontal bars of images per value, the first on top, as a data URI."""
    figure, axes = _blank(height=0.9 + 0.24 * len(counts))
    drawn = axes.barh(list(counts), list(counts.values()), color=_BLUE)
    axes.bar_label(drawn, [f"{count:,}" for count in counts.values()], padding=3)
    axes.invert_yaxis()
    axes.set(xlabel="images", ylabel=axis)
    axes.margins(x=0.15)
    return _uri(figure)


def histogram(values: Sequence[float] | NDArray[np.floating], axis: str, *, logarithmic: bool = False) -> str:
    """How many images have which value, as a data URI."""
    numbers = np.asarray(values, float)
    figure, axes = _blank()
    if logarithmic:
        numbers = np.maximum(numbers, 1e-1)
        axes.set_xscale("log")
        edges = np.geomspace(numbers.min(), max(numbers.max(), numbers.min() * 1.01), 31)
    else:
        edges = np.histogram_bin_edges(numbers, 30)
    axes.hist(numbers, edges.tolist(), color=_BLUE)
    axes.set(xlabel=axis, ylabel="images")
    return _uri(figure)


def sizes(width: NDArray[np.integer], height: NDArray[np.integer]) -> str:
    """Width against height, each size once, the larger the more images have it, as a data URI."""
    pairs, counts = np.unique(np.stack([width, height], 1), axis=0, return_counts=True)
    figure, axes = _blank()
    axes.scatter(pairs[:, 0], pairs[:, 1], s=8 + 60 * counts / counts.max(), color=_BLUE, alpha=0.7, linewidths=0)
    axes.set(xlabel="width (pixels)", ylabel="height (pixels)")
    axes.set(xlim=(0, 1.08 * int(width.max())), ylim=(0, 1.08 * int(height.max())))
    return _uri(figure)


def baseline(result: SourceOnly) -> str:
    """AUROC from all technical traits, from each kind alone, and with shuffled labels, beside chance; a data URI."""
    values = {"all traits": result.auroc, **result.by_trait, "labels shuffled": result.permuted}
    figure, axes = _blank(height=0.9 + 0.24 * len(values))
    drawn = axes.barh(list(values), list(values.values()), color=_BLUE)
    axes.bar_label(drawn, [f"{value:.2f}" for value in values.values()], padding=3, backgroundcolor="white")
    axes.axvline(result.chance, color=_VERMILION, linestyle="--", label="chance")
    axes.invert_yaxis()
    axes.set(xlabel="macro one-vs-rest AUROC", xlim=(0, 1.1))
    axes.legend(loc="lower right", frameon=False)
    return _uri(figure)


def _blank(height: float = 2.4) -> tuple[Figure, Axes]:
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(4.6, height), layout="constrained")
        return figure, figure.add_subplot()


def _uri(figure: Figure) -> str:
    stream = BytesIO()
    with matplotlib.rc_context(_STYLE):
        # Without the date the same data give the same page, byte for byte.
        figure.savefig(stream, format="svg", metadata={"Date": None})
    return "data:image/svg+xml;base64," + b64encode(stream.getvalue()).decode()
