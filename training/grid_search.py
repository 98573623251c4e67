"""Search rate, batch and optimiser: ``python training/grid_search.py --recipe melanoma10k_resnet34 --out runs/grid``.

Every point is a run of its own under ``OUT/points``, so an interrupted search goes on where it stopped. Points are ranked by
validation balanced accuracy, and the test part is left alone: train the winner afterwards, with the line that is printed.
"""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

if not __package__:
    # Started as a file: Python looks for modules beside it, where the package is not.
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from lesion_hub.config import Options, validated
from lesion_hub.errors import ConfigError
from lesion_hub.hub.layout import METRICS_NAME
from training.curves import save
from training.launch import LaunchOptions, add_run_arguments, exit_status, launch_options, make_accelerator
from training.recipe import Recipe
from training.recipe_files import load_recipe
from training.run import train_recipe
from training.run_folder import RunFolder

RESULT_NAME = "grid_search.json"
PICTURE_NAME = "grid_search.png"


class Grid(Options):
    """The values of each axis."""

    lr: tuple[float, ...] = (1e-3, 1e-2, 1e-1)
    batch_size: tuple[int, ...] = (16, 32, 64)
    optimiser: tuple[str, ...] = ("adam", "sgd")

    def points(self) -> list[Point]:
        """Every combination.

        >>> len(Grid().points())
        18
        """
        return [Point(*values) for values in itertools.product(self.optimiser, self.lr, self.batch_size)]


@dataclass(frozen=True)
class Point:
    """One combination."""

    optimiser: str
    lr: float
    batch_size: int

    @property
    def name(self) -> str:
        return f"{self.optimiser}_lr-{self.lr:g}_batch-{self.batch_size}"

    @property
    def overrides(self) -> list[str]:
        """What it changes in a recipe: options of the other optimiser go."""
        chosen = [f"optimiser.name={self.optimiser}", f"optimiser.lr={self.lr!r}", f"batch_size={self.batch_size}"]
        foreign = (
            ["optimiser.betas=null"] if self.optimiser == "sgd" else ["optimiser.momentum=null", "optimiser.nesterov=false"]
        )
        return [*chosen, *foreign]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="grid_search.py", description=__doc__.splitlines()[0])
    add_run_arguments(parser)
    defaults = Grid()
    parser.add_argument("--lr", nargs="+", type=float, default=defaults.lr)
    parser.add_argument("--batch-size", nargs="+", type=int, default=defaults.batch_size)
    parser.add_argument("--optimiser", nargs="+", default=defaults.optimiser)
    arguments = parser.parse_args(argv)
    return exit_status(lambda: run(arguments))


def run(arguments: argparse.Namespace) -> None:
    grid = validated(Grid, {name: tuple(getattr(arguments, name)) for name in Grid.model_fields}, "grid")
    ranked = search(arguments.recipe, arguments.set, grid, launch_options(arguments))
    console = Console()
    console.print(as_table(ranked))
    best = Point(**{name: ranked[0][name] for name in Grid.model_fields})
    changes = " ".join([*arguments.set, *best.overrides])
    line = f"now train the winner: training/train.py --recipe {arguments.recipe} --set {changes}"
    console.print(line, highlight=False, soft_wrap=True)


def search(recipe: str, overrides: Sequence[str], grid: Grid, options: LaunchOptions) -> list[dict[str, Any]]:
    """Train every point; one record each, the best first, saved with a picture under ``OUT``."""
    base = load_recipe(recipe, overrides)
    if not isinstance(base, Recipe):
        raise ConfigError(f"{base.name} is an ensemble; search its members")
    folder = RunFolder(options.out)
    accelerator = make_accelerator(base, options)
    with accelerator.main_process_first():
        folder.claim(base, restart=options.restart and accelerator.is_main_process)
    # All points are read before the first is trained: a wrong one shows at once.
    chosen = {point: load_recipe(recipe, [*overrides, *point.overrides]) for point in grid.points()}
    records = []
    for point, one in chosen.items():
        assert isinstance(one, Recipe)
        update = {"out": options.out / "points" / point.name, "measure_test": False}
        path = train_recipe(one, options.model_copy(update=update)).path
        accelerator.wait_for_everyone()
        found = json.loads((path / METRICS_NAME).read_text(encoding="utf-8"))["validation"]
        scores = {name: found[name] for name in ("balanced_accuracy", "accuracy", "macro_auroc")}
        records.append({**asdict(point), **scores, "run": f"points/{point.name}"})
    records.sort(key=lambda record: record["balanced_accuracy"], reverse=True)
    if accelerator.is_main_process:
        folder.write_json(RESULT_NAME, records)
        draw_heat_maps(records, grid, options.out / PICTURE_NAME)
    return records


def draw_heat_maps(records: Sequence[dict[str, Any]], grid: Grid, path: Path) -> None:
    """Validation balanced accuracy over learning rate and batch size, one map per optimiser, on one scale."""
    figure = Figure(figsize=(1.5 + 3.5 * len(grid.optimiser), 1.5 + 0.9 * len(grid.lr)), layout="constrained")
    axes = figure.subplots(1, len(grid.optimiser), squeeze=False)[0]
    scores = {(r["optimiser"], r["lr"], r["batch_size"]): r["balanced_accuracy"] for r in records}
    low, high = min(scores.values()), max(scores.values())
    for axis, optimiser in zip(axes, grid.optimiser, strict=True):
        table = np.array([[scores[optimiser, lr, batch] for batch in grid.batch_size] for lr in grid.lr])
        image = axis.imshow(table, cmap="viridis", vmin=low, vmax=high, aspect="auto")
        for (row, column), score in np.ndenumerate(table):
            colour = "black" if score > (low + high) / 2 else "white"
            axis.text(column, row, f"{score:.3f}", ha="center", va="center", color=colour)
        axis.set_xticks(range(len(grid.batch_size)), [str(batch) for batch in grid.batch_size])
        axis.set_yticks(range(len(grid.lr)), [f"{lr:g}" for lr in grid.lr])
        axis.set(title=optimiser, xlabel="batch size", ylabel="learning rate")
    figure.colorbar(image, ax=list(axes), label="validation balanced accuracy")
    save(figure, path)


def as_table(ranked: Sequence[dict[str, Any]]) -> Table:
    """The points, the best first."""
    table = Table("rank", "optimiser", "lr", "batch", "balanced accuracy", "accuracy", "macro AUROC", header_style="bold")
    for rank, record in enumerate(ranked, start=1):
        scores = (record[name] for name in ("balanced_accuracy", "accuracy", "macro_auroc"))
        shown = ("-" if score is None else f"{score:.3f}" for score in scores)
        table.add_row(str(rank), record["optimiser"], f"{record['lr']:g}", str(record["batch_size"]), *shown)
    return table


if __name__ == "__main__":
    sys.exit(main())
