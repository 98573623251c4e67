"""The reports of a run: a progress bar, a line per epoch, the log, a table at the end, and the curves of its epochs."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accelerate import Accelerator
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from lesion_hub.files import write_bytes
from lesion_hub.hub.measures import TRAINING_HEADLINES
from lesion_hub.training.recipe import Recipe
from lesion_hub.training.run_folder import RunFolder
from lesion_hub.training.stopping import stopped_early

if TYPE_CHECKING:
    from lesion_hub.training.finish import Outcome


class Report:
    """Reports a run's progress on the terminal, in ``log.jsonl`` and to the trackers; only the first process prints.

    The bar counts the steps of the whole run (a probe's are batches), so its remaining time is that of the run. ``after_epoch``
    is told the epochs so far at the end of each, and of an interrupted run's when it is resumed; what it raises ends the run.
    """

    def __init__(
        self,
        recipe: Recipe,
        folder: RunFolder,
        steps_per_epoch: int,
        accelerator: Accelerator,
        after_epoch: Callable[[list[dict[str, Any]]], None] | None = None,
    ) -> None:
        self.recipe = recipe
        self.folder = folder
        self.steps_per_epoch = steps_per_epoch
        self.accelerator = accelerator
        self.after_epoch = after_epoch
        self.unit = "epoch" if recipe.probe is None else "view"
        self.console = Console(quiet=not accelerator.is_main_process)
        self.history: list[dict[str, Any]] = []
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[figures]}"),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )
        total = recipe.epochs * steps_per_epoch
        self.task = self.progress.add_task("starting", total=total, figures="")

    def __enter__(self) -> Report:
        self.progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.progress.stop()

    def print_line(self, line: str) -> None:
        """Print one line, whatever the width of the terminal."""
        self.console.print(line, highlight=False, soft_wrap=True)

    def resume(self, history: Sequence[dict[str, Any]]) -> None:
        """Take over the epochs of an interrupted run, or of a shorter one: then say which schedule the rest has."""
        self.history = list(history)
        if not history:
            return
        done, epochs = len(history), self.recipe.epochs
        if history[-1].get("of", epochs) != epochs:
            if stopped_early(history, self.recipe.early_stopping):
                self.print_line(f"early stopping ended this run after epoch {done}: there is no epoch {done + 1}")
            elif done < epochs:
                rates = f"the learning rates that a run of {epochs} has there ({self.recipe.schedule.name})"
                self.print_line(f"going on after epoch {done}: epochs {done + 1} to {epochs} take {rates}")
        if self.after_epoch is not None:
            self.after_epoch(self.history)

    def begin_epoch(self, epoch: int, step: int) -> None:
        """Show that ``epoch`` begins, at ``step`` 0 unless it is resumed."""
        self.epoch = epoch
        done = epoch * self.steps_per_epoch + step
        self.progress.update(self.task, description=f"{self.unit} {epoch + 1}/{self.recipe.epochs}", completed=done)

    def step(self, step: int, loss: float | None = None, lr: float | None = None) -> None:
        """Show that the steps up to ``step`` of the epoch are done, with the latest loss."""
        done = self.epoch * self.steps_per_epoch + step
        best = max((record["balanced_accuracy"] for record in self.history), default=float("nan"))
        figures = "" if loss is None else f"loss {loss:.4f}  lr {lr:.2e}  best {best:.3f}"
        self.progress.update(self.task, completed=done, figures=figures)

    def log(self, record: dict[str, Any], best: bool) -> None:
        """Log and print the record of an epoch, or of a probe's strength."""
        self.history.append(record)
        if self.accelerator.is_main_process:
            self.folder.write_log(self.history)
        self.accelerator.log({key: record[key] for key in record if key not in ("phase", "of")}, step=len(self.history))
        self.print_line(record_line(record, best))
        if self.after_epoch is not None:
            self.after_epoch(self.history)

    def summary(self, outcome: Outcome) -> None:
        """Print the headline measures of each part, the published epoch, the operating points and the folder."""
        parts = {name: outcome.metrics[name] for name in ("validation", "test") if name in outcome.metrics}
        table = Table("measure", title=self.recipe.name, show_header=True, header_style="bold")
        for part in parts:
            table.add_column(part, justify="right")
        for name in TRAINING_HEADLINES:
            values = [part.get(name) for part in parts.values()]
            table.add_row(name.replace("_", " "), *("-" if value is None else f"{value:.3f}" for value in values))
        self.console.print(table)
        published = published_line(outcome.metrics["training"]["best"], len(self.history))
        self.print_line(f"{published}, temperature {outcome.temperature:.3f}")
        for name, point in outcome.operating_points.items():
            self.print_line(f"operating point {name}: suspicious from {point.threshold:.3f}")
        self.print_line(f"model folder: {self.folder.path}")


def record_line(record: Mapping[str, Any], best: bool) -> str:
    """Describe an epoch, or a strength of a probe's penalty, on one line.

    >>> record = {"epoch": 2, "of": 10, "lr": 0.1, "train_loss": 1.0, "validation_loss": 1.5, "accuracy": 0.5}
    >>> record |= {"balanced_accuracy": 0.4, "images_per_second": 100.0, "seconds": 1.0}
    >>> record_line(record, best=False)
    'epoch  2/10  train loss 1.0000  val loss 1.5000  acc 0.500  bal acc 0.400  lr 1.00e-01  100 img/s  1 s'
    """
    if "strength" in record:
        place, speed = f"strength {record['strength']:<6g}", ""
    else:
        place = f"epoch {record['epoch']:>{len(str(record['of']))}}/{record['of']}"
        speed = f"  lr {record['lr']:.2e}  {record['images_per_second']:.0f} img/s"
    return (
        f"{place}  train loss {record['train_loss']:.4f}  val loss {record['validation_loss']:.4f}  "
        f"acc {record['accuracy']:.3f}  bal acc {record['balanced_accuracy']:.3f}{speed}  "
        f"{record['seconds']:.0f} s{'  best' if best else ''}"
    )


def published_line(best: Mapping[str, Any], tried: int) -> str:
    """Say which of the records the published weights are those of.

    >>> published_line({"epoch": 7}, 10), published_line({"strength": 0.01}, 6)
    ('published epoch 7 of 10', 'published strength 0.01, of 6 tried')
    """
    if "strength" in best:
        return f"published strength {best['strength']:g}, of {tried} tried"
    return f"published epoch {best['epoch']} of {tried}"


def draw_history(history: Sequence[dict[str, Any]], path: Path) -> None:
    """Draw loss, accuracy, balanced accuracy and learning rate over the epochs, the published one marked.

    A probe has no learning rate, and strengths for epochs, the strongest at the left.
    """
    over = "strength" if "strength" in history[0] else "epoch"
    figure = Figure(figsize=(11, 7))  # placed by hand, which takes half the time of a layout that is searched for
    axes = figure.subplots(
        2, 2, gridspec_kw={"left": 0.07, "right": 0.98, "bottom": 0.08, "top": 0.95, "hspace": 0.32, "wspace": 0.18}
    )
    panels = (
        ("Loss", (("train_loss", "training"), ("validation_loss", "validation"))),
        ("Accuracy", (("train_accuracy", "training"), ("accuracy", "validation"))),
        ("Balanced accuracy", (("balanced_accuracy", "validation"),)),
        ("Learning rate", (("lr", "end of epoch"),)),
    )
    best = max(history, key=lambda record: record["balanced_accuracy"])[over]
    for axis, (title, lines) in zip(axes.flat, panels, strict=True):
        if lines[0][0] not in history[0]:
            axis.remove()
            continue
        for key, label in lines:
            values = [record[key] for record in history]
            axis.plot([record[over] for record in history], values, marker="o", markersize=3, label=label)
        axis.axvline(best, color="0.6", linestyle=":", label=f"published {over} {best:g}")
        axis.set(title=title, xlabel=over)
        if over == "strength":
            axis.set_xscale("log")
            axis.invert_xaxis()
        axis.grid(alpha=0.3)
        axis.legend(fontsize=8)
    save_figure(figure, path)


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as PNG, whole or not at all."""
    picture = BytesIO()
    figure.savefig(picture, format="png", dpi=110)
    write_bytes(path, picture.getvalue())
