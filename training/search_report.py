"""The results of a search: a table by rank, the same as csv, and a picture of the trials and of what mattered."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from rich.table import Table

from lesion_hub.files import write_text
from lesion_hub.training.reporting import save_figure
from lesion_hub.training.search_space import Choices, Space, shown

CSV_NAME = "search.csv"
PICTURE_NAME = "search.png"
SLICES = 6
MEASURES = ("balanced_accuracy", "accuracy", "macro_auroc")
COLOURS = {"finished": "C0", "pruned": "0.6", "failed": "C3", "unfinished": "C1"}


def ranking_table(records: Sequence[Mapping[str, Any]]) -> Table:
    """Make the table of the trials, the best first."""
    keys = list(records[0]["values"])
    headings = ["rank", "trial", *keys, "bal acc", "acc", "AUROC", "epochs", "state"]
    table = Table(*headings, box=None, pad_edge=False, header_style="bold")
    for rank, record in enumerate(records, start=1):
        measures = ("-" if record[name] is None else f"{record[name]:.3f}" for name in MEASURES)
        values = (shown(value) for value in record["values"].values())
        state = record["why"] or record["state"]
        table.add_row(str(rank), str(record["trial"]), *values, *measures, str(record["epochs"]), state)
    return table


def write_csv(records: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write the ranking as csv, a column per key."""
    keys = list(records[0]["values"])
    text = io.StringIO()
    rows = csv.writer(text, lineterminator="\n")
    rows.writerow(["rank", "trial", "state", *keys, *MEASURES, "epochs", "run", "why"])
    for rank, record in enumerate(records, start=1):
        values = [repr(value) if isinstance(value, float) else shown(value) for value in record["values"].values()]
        measures = [record[name] for name in MEASURES]
        rows.writerow(
            [rank, record["trial"], record["state"], *values, *measures, record["epochs"], record["run"], record["why"]]
        )
    write_text(path, text.getvalue())


def draw_search(records: Sequence[Mapping[str, Any]], importances: Mapping[str, float], space: Space, path: Path) -> None:
    """Draw the trials in their order with the best so far, each key's importance, and the trials along the keys that matter."""
    keys = sorted(space.axes, key=lambda key: -importances.get(key, 0.0))[:SLICES]
    columns = min(3, max(2, len(keys)))
    rows = -(-len(keys) // columns)
    figure = Figure(figsize=(4.2 * columns, 3.4 * (1 + rows)), layout="constrained")
    grid = figure.add_gridspec(1 + rows, columns)
    draw_trials(figure.add_subplot(grid[0, : columns - 1]), records)
    draw_importances(figure.add_subplot(grid[0, columns - 1]), importances)
    for place, key in enumerate(keys):
        draw_slice(figure.add_subplot(grid[1 + place // columns, place % columns]), key, records, space)
    save_figure(figure, path)


def draw_trials(axis: Axes, records: Sequence[Mapping[str, Any]]) -> None:
    """Draw every trial's measure by its number, and the best of the finished ones so far."""
    measured = [record for record in records if record["balanced_accuracy"] is not None]
    for state in dict.fromkeys(record["state"] for record in measured):
        of_state = [record for record in measured if record["state"] == state]
        label = "ended early (best epoch)" if state == "pruned" else state
        _scatter(axis, [r["trial"] for r in of_state], of_state, label)
    finished = sorted((r["trial"], r["balanced_accuracy"]) for r in measured if r["state"] == "finished")
    if finished:
        numbers, values = zip(*finished, strict=True)
        axis.step(numbers, np.maximum.accumulate(values), where="post", color="C2", label="best so far")
    axis.set(title="Trials", xlabel="trial (0: the recipe as it is)", ylabel="validation balanced accuracy")
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)


def draw_importances(axis: Axes, importances: Mapping[str, float]) -> None:
    """Draw each key's share of the differences between trials."""
    axis.set(title="Importance (fANOVA)")
    if not importances:
        axis.text(0.5, 0.5, "too few finished trials", ha="center", va="center")
        axis.set_axis_off()
        return
    ranked = sorted(importances.items(), key=lambda pair: pair[1])
    bars = axis.barh([key for key, _ in ranked], [share for _, share in ranked])
    axis.bar_label(bars, fmt="%.2f", padding=2, fontsize=8)
    axis.set_xlim(0, 1.15)
    axis.tick_params(axis="y", labelsize=8)


def draw_slice(axis: Axes, key: str, records: Sequence[Mapping[str, Any]], space: Space) -> None:
    """Draw the trials' measures along one key; those whose value the axis cannot show are left out."""
    along = space.axes[key]
    measured = [record for record in records if record["balanced_accuracy"] is not None]
    if isinstance(along, Choices):
        labels = [shown(value) for value in along.listed]
        labels += [name for name in dict.fromkeys(shown(r["values"][key]) for r in measured) if name not in labels]
        places: list[float] = [labels.index(shown(record["values"][key])) for record in measured]
        axis.set_xticks(range(len(labels)), [label if len(label) < 16 else f"{label[:14]}…" for label in labels])
        axis.set_xlim(-0.5, len(labels) - 0.5)
    else:
        numeric = [r for r in measured if isinstance(r["values"][key], int | float)]
        measured, places = numeric, [record["values"][key] for record in numeric]
        if along.log:
            axis.set_xscale("log")
            axis.xaxis.set_minor_formatter(NullFormatter())
        axis.set_xlim(min([along.low, *places]) * 0.9, max([along.high, *places]) * 1.1)
    for state in dict.fromkeys(record["state"] for record in measured):
        chosen = [(place, r) for place, r in zip(places, measured, strict=True) if r["state"] == state]
        _scatter(axis, [place for place, _ in chosen], [record for _, record in chosen], None)
    axis.set(xlabel=key, ylabel="balanced accuracy")
    axis.grid(alpha=0.3)


def _scatter(axis: Axes, places: Sequence[float], records: Sequence[Mapping[str, Any]], label: str | None) -> None:
    colour = COLOURS[records[0]["state"]]
    hollow = "none" if records[0]["state"] == "pruned" else colour
    values = [record["balanced_accuracy"] for record in records]
    axis.scatter(places, values, s=24, edgecolors=colour, facecolors=hollow, label=label, zorder=3)
