"""What a person sees of a run: where it stands, a line per epoch, a table at the end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from accelerate import Accelerator
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from training.finish import Outcome
from training.recipe import Recipe
from training.run_folder import RunFolder

HEADLINES = ("accuracy", "balanced_accuracy", "macro_f1", "macro_auroc", "ece")


class Report:
    """Follows a run on the terminal, in ``log.jsonl`` and in the trackers; only the first process speaks.

    The bar counts optimiser steps of the whole run, so that its remaining time is that of the run.
    """

    def __init__(self, recipe: Recipe, folder: RunFolder, steps_per_epoch: int, accelerator: Accelerator) -> None:
        self.recipe = recipe
        self.folder = folder
        self.steps_per_epoch = steps_per_epoch
        self.accelerator = accelerator
        self.console = Console(quiet=not accelerator.is_main_process)
        self.history: list[dict[str, Any]] = []
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("loss {task.fields[loss]:.4f}  lr {task.fields[lr]:.2e}  best {task.fields[best]:.3f}"),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )
        total = recipe.epochs * steps_per_epoch
        self.task = self.progress.add_task("starting", total=total, loss=float("nan"), lr=0.0, best=float("nan"))

    def __enter__(self) -> Report:
        self.progress.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.progress.stop()

    def say(self, line: str) -> None:
        self.console.print(line, highlight=False, soft_wrap=True)

    def resume(self, history: Sequence[dict[str, Any]]) -> None:
        """Take over the epochs of an interrupted run."""
        self.history = list(history)

    def begin_epoch(self, epoch: int, step: int) -> None:
        self.epoch = epoch
        done = epoch * self.steps_per_epoch + step
        self.progress.update(self.task, description=f"epoch {epoch + 1}/{self.recipe.epochs}", completed=done)

    def step(self, step: int, loss: float, lr: float) -> None:
        done = self.epoch * self.steps_per_epoch + step
        self.progress.update(self.task, completed=done, loss=loss, lr=lr)

    def end_epoch(self, record: dict[str, Any], best: bool) -> None:
        self.history.append(record)
        if self.accelerator.is_main_process:
            self.folder.write_log(self.history)
        self.accelerator.log({key: value for key, value in record.items() if key != "phase"}, step=record["epoch"])
        if best:
            self.progress.update(self.task, best=record["balanced_accuracy"])
        self.say(epoch_line(record, self.recipe.epochs, best))

    def summary(self, outcome: Outcome) -> None:
        """The table at the end: headline measures of each part, and what else is worth knowing."""
        parts = {name: outcome.metrics[name] for name in ("validation", "test") if name in outcome.metrics}
        table = Table("measure", title=self.recipe.name, show_header=True, header_style="bold")
        for part in parts:
            table.add_column(part, justify="right")
        for name in HEADLINES:
            values = [part.get(name) for part in parts.values()]
            table.add_row(name.replace("_", " "), *("-" if value is None else f"{value:.3f}" for value in values))
        self.console.print(table)
        best = outcome.metrics["training"]["best"]["epoch"]
        self.say(f"published epoch {best} of {len(self.history)}, temperature {outcome.temperature:.3f}")
        for name, point in outcome.operating_points.items():
            self.say(f"operating point {name}: suspicious from {point.threshold:.3f}")
        self.say(f"model folder: {self.folder.path}")


def epoch_line(record: Mapping[str, Any], epochs: int, best: bool) -> str:
    """One epoch on one line.

    >>> record = {"epoch": 2, "phase": "all", "lr": 0.1, "train_loss": 1.0, "validation_loss": 1.5, "accuracy": 0.5}
    >>> record |= {"balanced_accuracy": 0.4, "images_per_second": 100.0, "seconds": 1.0}
    >>> epoch_line(record, 10, best=False)
    'epoch  2/10  train loss 1.0000  val loss 1.5000  acc 0.500  bal acc 0.400  lr 1.00e-01  100 img/s  1 s'
    """
    return (
        f"epoch {record['epoch']:>{len(str(epochs))}}/{epochs}  train loss {record['train_loss']:.4f}  "
        f"val loss {record['validation_loss']:.4f}  acc {record['accuracy']:.3f}  bal acc {record['balanced_accuracy']:.3f}  "
        f"lr {record['lr']:.2e}  {record['images_per_second']:.0f} img/s  {record['seconds']:.0f} s{'  best' if best else ''}"
    )
