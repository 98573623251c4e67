"""The picture of how a run went."""

from __future__ import annotations

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from lesion_hub.hub.atomic import write_bytes


def draw_history(history: Sequence[dict[str, Any]], path: Path) -> None:
    """Loss, accuracy, balanced accuracy and learning rate over the epochs, the published epoch marked."""
    figure = Figure(figsize=(11, 7), layout="constrained")
    axes = figure.subplots(2, 2)
    epochs = [record["epoch"] for record in history]
    panels = (
        ("Loss", (("train_loss", "training"), ("validation_loss", "validation"))),
        ("Accuracy", (("train_accuracy", "training"), ("accuracy", "validation"))),
        ("Balanced accuracy", (("balanced_accuracy", "validation"),)),
        ("Learning rate", (("lr", "end of epoch"),)),
    )
    best = max(history, key=lambda record: record["balanced_accuracy"])["epoch"]
    for axis, (title, lines) in zip(axes.flat, panels, strict=True):
        for key, label in lines:
            axis.plot(epochs, [record[key] for record in history], marker="o", markersize=3, label=label)
        axis.axvline(best, color="0.6", linestyle=":", label=f"published epoch {best}")
        axis.set(title=title, xlabel="epoch")
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    save(figure, path)


def save(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, whole or not at all."""
    picture = BytesIO()
    figure.savefig(picture, format="png", dpi=110)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, picture.getvalue())
