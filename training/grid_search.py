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

import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.table import Table

from lesion_hub.config import Options, validated
from lesion_hub.files import read_json
from lesion_hub.hub.layout import METRICS_NAME
from lesion_hub.training.components import options_of
from lesion_hub.training.launch import LaunchOptions, exit_status, launch_options, make_accelerator, run_parser
from lesion_hub.training.optimisers import OPTIMISERS
from lesion_hub.training.recipe_files import load_run_recipe
from lesion_hub.training.reporting import save_figure
from lesion_hub.training.run import claim_folder, frees_its_folder, train_recipe

GRID_SEARCH_NAME = "grid_search.json"
HEAT_MAPS_NAME = "grid_search.png"


class Grid(Options):
    """The values of each axis of a search."""

    lr: tuple[float, ...] = (1e-3, 1e-2, 1e-1)
    batch_size: tuple[int, ...] = (16, 32, 64)
    optimiser: tuple[str, ...] = ("adam", "sgd")

    def points(self) -> list[Point]:
        """List every combination.

        >>> len(Grid().points())
        18
        """
        return [Point(*values) for values in itertools.product(self.optimiser, self.lr, self.batch_size)]


@dataclass(frozen=True)
class Point:
    """One combination of a grid."""

    optimiser: str
    lr: float
    batch_size: int

    @property
    def name(self) -> str:
        return f"{self.optimiser}_lr-{self.lr:g}_batch-{self.batch_size}"

    @property
    def overrides(self) -> list[str]:
        """The ``key=value`` overrides that make a recipe this point's; options that only other optimisers have are unset."""
        chosen = [f"optimiser.name={self.optimiser}", f"optimiser.lr={self.lr!r}", f"batch_size={self.batch_size}"]
        own = OPTIMISERS[self.optimiser].options if self.optimiser in OPTIMISERS else {}
        foreign = {key: default for key, (_, default) in options_of(OPTIMISERS).items() if key not in own}
        return [*chosen, *(f"optimiser.{key}={json.dumps(default)}" for key, default in foreign.items())]


def main(argv: Sequence[str] | None = None, prog: str = "grid_search.py") -> int:
    """Run the command and return its exit status (see `exit_status`)."""
    parser = run_parser(
        prog,
        "Search learning rate, batch size and optimiser of a recipe by validation, or go on where this was interrupted.",
        "--recipe melanoma10k_resnet34 --data data --out runs/grid --lr 1e-3 1e-2",
    )
    defaults = Grid()
    parser.add_argument("--lr", nargs="+", type=float, default=defaults.lr)
    parser.add_argument("--batch-size", nargs="+", type=int, default=defaults.batch_size)
    parser.add_argument("--optimiser", nargs="+", default=defaults.optimiser)
    arguments = parser.parse_args(argv)
    return exit_status(lambda: search_and_print(arguments))


def search_and_print(arguments: argparse.Namespace) -> None:
    """Search the grid; print the points by rank and the line that trains the winner."""
    grid = validated(Grid, {name: tuple(getattr(arguments, name)) for name in Grid.model_fields}, "grid")
    ranked = search(arguments.recipe, arguments.set, grid, launch_options(arguments))
    console = Console()
    console.print(ranking_table(ranked))
    best = Point(**{name: ranked[0][name] for name in Grid.model_fields})
    changes = " ".join([*arguments.set, *best.overrides])
    line = f"now train the winner: training/train.py --recipe {arguments.recipe} --set {changes}"
    console.print(line, highlight=False, soft_wrap=True)


@frees_its_folder
def search(recipe: str, overrides: Sequence[str], grid: Grid, options: LaunchOptions) -> list[dict[str, Any]]:
    """Train every point; return a record of each, the best first, and save them with a picture under ``options.out``."""
    instead = "search its members"
    base = load_run_recipe(recipe, overrides, instead)
    accelerator = make_accelerator(base, options)
    folder = claim_folder(base, options, accelerator)
    # The recipes of all points are made before the first is trained, so that a wrong one is refused at once.
    recipes = {point: load_run_recipe(recipe, [*overrides, *point.overrides], instead) for point in grid.points()}
    records = []
    for point, changed in recipes.items():
        update = {"out": options.out / "points" / point.name, "measure_test": False}
        path = train_recipe(changed, options.model_copy(update=update)).path
        accelerator.wait_for_everyone()
        measured = read_json(path / METRICS_NAME)["validation"]
        scores = {name: measured[name] for name in ("balanced_accuracy", "accuracy", "macro_auroc")}
        records.append({**asdict(point), **scores, "run": f"points/{point.name}"})
    records.sort(key=lambda record: record["balanced_accuracy"], reverse=True)
    if accelerator.is_main_process:
        folder.write_json(GRID_SEARCH_NAME, records)
        draw_heat_maps(records, grid, options.out / HEAT_MAPS_NAME)
    return records


def draw_heat_maps(records: Sequence[dict[str, Any]], grid: Grid, path: Path) -> None:
    """Draw validation balanced accuracy over learning rate and batch size, one map per optimiser, on one scale."""
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
    save_figure(figure, path)


def ranking_table(ranked: Sequence[dict[str, Any]]) -> Table:
    """Make the table of the points, the best first."""
    table = Table("rank", "optimiser", "lr", "batch", "balanced accuracy", "accuracy", "macro AUROC", header_style="bold")
    for rank, record in enumerate(ranked, start=1):
        scores = (record[name] for name in ("balanced_accuracy", "accuracy", "macro_auroc"))
        shown = ("-" if score is None else f"{score:.3f}" for score in scores)
        table.add_row(str(rank), record["optimiser"], f"{record['lr']:g}", str(record["batch_size"]), *shown)
    return table


if __name__ == "__main__":
    sys.exit(main())
