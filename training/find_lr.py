"""Find a learning rate: ``lesion-hub find-lr --recipe melanoma10k_resnet34 --data data/``.

The recipe's own network, data, augmentation, loss and optimiser take some steps under a rate that rises exponentially (Smith
2017, arXiv 1506.01186), until the loss is far above its best. The rate proposed is where the smoothed loss fell most steeply.
Nothing is written but a picture.
"""

from __future__ import annotations

import argparse
import json
import math
import shlex
import sys
import tempfile
from collections.abc import Sequence
from contextlib import nullcontext, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray
from rich.console import Console
from scipy.ndimage import gaussian_filter1d

from lesion_hub.config import Count, Options, Positive, validated
from lesion_hub.errors import ConfigError
from lesion_hub.progress import progress_bar
from lesion_hub.training.data import read_run_data
from lesion_hub.training.launch import LaunchOptions, exit_status, make_accelerator, recipe_parser
from lesion_hub.training.loop import Loop
from lesion_hub.training.optimisers import set_train_mode
from lesion_hub.training.recipe import Phase, Recipe
from lesion_hub.training.recipe_files import load_trained_recipe
from lesion_hub.training.reporting import Report, save_figure
from lesion_hub.training.run import build_feeds, choose_execution
from lesion_hub.training.run_folder import RunFolder
from lesion_hub.training.schedules import Exponential
from lesion_hub.training.start import build_classifier, start_of
from lesion_hub.training.stopping import TrainingDiverged
from lesion_hub.training.teacher import teacher_for

PICTURE_NAME = "find-lr.png"
SMOOTHING = 0.9  # of the running mean of the losses, which tells when to stop
FAR_ABOVE = 4.0  # times the best mean: no rate beyond will do
WIDTH = 0.04  # of the smoothing of the curve that is read, as a share of its steps
FALL = 0.98  # of the first loss: what is less of a fall is none
FEWEST = 10  # steps; with fewer there is no slope to see


class RampOptions(Options):
    """The rates of the ramp, from ``low`` to ``high``, in how many optimiser steps."""

    low: Positive = 1e-7
    high: Positive = 10.0
    steps: Count = 100


@dataclass(frozen=True)
class Ramp:
    """The rates and losses of the steps taken, (N,) each, the losses smoothed too; ``best`` and ``steepest`` index them."""

    rates: NDArray[np.float64]
    losses: NDArray[np.float64]
    smoothed: NDArray[np.float64]
    best: int
    steepest: int


def main(argv: Sequence[str] | None = None, prog: str = "find_lr.py") -> int:
    """Run the command and return its exit status (see `exit_status`)."""
    parser = recipe_parser(
        prog,
        "Find a learning rate for a recipe: raise it step by step and see where the loss falls.",
        "--recipe melanoma10k_resnet34 --data data",
    )
    defaults = RampOptions()
    parser.add_argument("--low", type=float, default=defaults.low, help=f"first rate (default: {defaults.low:g})")
    parser.add_argument("--high", type=float, default=defaults.high, help=f"last rate (default: {defaults.high:g})")
    parser.add_argument("--steps", type=int, default=defaults.steps, help=f"optimiser steps (default: {defaults.steps})")
    parser.add_argument("--picture", type=Path, default=Path(PICTURE_NAME), help=f"where to (default: {PICTURE_NAME})")
    parser.add_argument("--json", action="store_true", help="print one JSON object on standard output and nothing else")
    arguments = parser.parse_args(argv)
    return exit_status(lambda: find_and_print(arguments))


def find_and_print(arguments: argparse.Namespace) -> None:
    """Find the rate; draw the picture, and print the rate and the line that trains with it."""
    recipe = load_trained_recipe(arguments.recipe, arguments.set, "find the rates of its members", "find-lr")
    ramp = validated(RampOptions, {name: getattr(arguments, name) for name in RampOptions.model_fields}, "command line")
    if not ramp.low < ramp.high or ramp.steps < FEWEST:
        raise ConfigError(f"--low must be below --high, and --steps at least {FEWEST}")
    key, phase = phase_searched(recipe)
    with redirect_stdout(sys.stderr) if arguments.json else nullcontext():
        found = run_ramp(recipe, phase, ramp, Path(arguments.data), arguments.cache and Path(arguments.cache), arguments.cpu)
    rate = float(f"{found.rates[found.steepest]:.2g}")
    draw_ramp(found, rate, arguments.picture)
    words = ["lesion-hub", "train", "--recipe", arguments.recipe, "--data", arguments.data, "--out", f"runs/{recipe.name}"]
    words += [*(["--cache", arguments.cache] if arguments.cache else []), *(["--cpu"] if arguments.cpu else [])]
    command = shlex.join([*words, "--set", *arguments.set, f"{key}={rate!r}"])
    if arguments.json:
        curve = {name: getattr(found, name).tolist() for name in ("rates", "losses", "smoothed")}
        lowest = float(f"{found.rates[found.best]:.2g}")
        facts = {"key": key, "lr": rate, "lowest_loss_at": lowest, "picture": str(arguments.picture), "command": command}
        print(json.dumps({**facts, **curve}, indent=2, allow_nan=False))
        return
    console = Console()
    own = recipe.optimiser.lr if phase.lr is None else phase.lr
    lowest = found.rates[found.best]
    for line in (
        f"{key}: {rate:g} (the loss falls most steeply there, and is lowest at {lowest:.2g}; the recipe has {own:g})",
        f"picture: {arguments.picture}",
        command,
    ):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def phase_searched(recipe: Recipe) -> tuple[str, Phase]:
    """Return the phase whose rate is found, and the key that sets it: the first that takes the optimiser's, else the first.

    >>> from lesion_hub.training.recipe_files import load_run_recipe
    >>> phase_searched(load_run_recipe("demo", ["phases=[{train: head, epochs: 2, lr: 0.01}, {train: all}]"], ""))[0]
    'optimiser.lr'
    """
    for phase in recipe.phases:
        if phase.lr is None:
            return "optimiser.lr", phase
    return "phases.0.lr", recipe.phases[0]


def run_ramp(recipe: Recipe, phase: Phase, ramp: RampOptions, data: Path, cache: Path | None, cpu: bool) -> Ramp:
    """Take the steps of the ramp as a run of ``recipe`` in ``phase`` does; what such a run writes goes into a folder aside."""
    # The moving average changes no step, and a run of one phase has no other to wait for.
    alone = recipe.model_copy(update={"phases": (phase.model_copy(update={"epochs": None}),), "ema": None})
    with tempfile.TemporaryDirectory() as aside:
        options = LaunchOptions(data=data, out=Path(aside), cache=cache, cpu=cpu, measure_test=False)
        accelerator = make_accelerator(alone, options)
        if accelerator.num_processes > 1:
            raise ConfigError("find-lr takes one process; start it without a launcher")
        folder = RunFolder(options.out)
        read_data = read_run_data(alone, options, folder, accelerator)
        classifier = build_classifier(alone, read_data.space, start_of(alone.model))
        teacher = teacher_for(alone, classifier, accelerator.device)
        memory_format = torch.channels_last if alone.channels_last else torch.contiguous_format
        classifier.network.to(accelerator.device, memory_format=memory_format)
        batches = ramp.steps * alone.accumulation
        execution = choose_execution(folder, alone, classifier, read_data.parts["train"], accelerator, batches)
        alone = execution.applied_to(alone)
        accelerator = make_accelerator(alone, options)
        feed, validation = build_feeds(alone, classifier, read_data.parts, accelerator, options, folder)
        report = Report(alone, folder, feed.steps_per_epoch, accelerator)
        loop = Loop(alone, classifier.network, feed, validation, accelerator, folder.checkpoints(1), report, teacher)
        losses = ramp_losses(loop, ramp)
    return read_ramp(Exponential(ramp.low, ramp.steps, final=ramp.high / ramp.low), losses)


def ramp_losses(loop: Loop, ramp: RampOptions) -> list[float]:
    """Take optimiser steps under the rising rate until the loss is far above its best; return each step's mean loss."""
    loop.enter_epoch(None)
    set_train_mode(loop.network, loop.phase)
    loop.schedule = Exponential(ramp.low, ramp.steps, final=ramp.high / ramp.low)
    losses: list[float] = []
    mean, best = 0.0, math.inf
    with progress_bar("ramp") as progress:
        while len(losses) < ramp.steps:
            loop.observer.begin_epoch(loop.epoch, 0)
            for batch in loop.feed.epoch(loop.epoch):
                try:
                    loop.backward(batch)
                    if not batch.closes_step:
                        continue
                    loop.update()
                except TrainingDiverged:
                    return losses
                total, _, images = loop.sums.tolist()
                loop.sums.zero_()
                losses.append(total / images)
                progress(len(losses), ramp.steps)
                mean = SMOOTHING * mean + (1 - SMOOTHING) * losses[-1]
                smoothed = mean / (1 - SMOOTHING ** len(losses))
                best = min(best, smoothed)
                if len(losses) >= ramp.steps or (len(losses) >= FEWEST and smoothed > FAR_ABOVE * best):
                    return losses
            loop.epoch, loop.step = loop.epoch + 1, 0
    return losses


def read_ramp(schedule: Exponential, losses: Sequence[float]) -> Ramp:
    """Smooth the losses (N,) and find where they are lowest and, before that, where they fall most steeply over log(rate).

    >>> losses = [2.0] * 40 + [2.0 - 0.05 * step for step in range(20)] + [1.0 + step for step in range(9)]
    >>> ramp = read_ramp(Exponential(1e-6, 100, final=1e6), losses)
    >>> 40 < ramp.steepest < ramp.best <= 60
    True
    """
    if len(losses) < FEWEST:
        raise ConfigError(f"the loss was no number after {len(losses)} steps; lower --low")
    rates = np.array([schedule.lr_at(step) for step in range(len(losses))])
    # A running mean lags behind, and would put the fall at too high a rate; a few huge losses would drown it.
    usual = float(np.median(losses[: max(FEWEST // 2, len(losses) // 10)]))
    smoothed = gaussian_filter1d(np.minimum(losses, 2 * usual), sigma=WIDTH * len(losses), mode="nearest")
    best = int(smoothed.argmin())
    if smoothed[best] > FALL * smoothed[0]:
        raise ConfigError(f"the loss does not fall between {rates[0]:.2g} and {rates[-1]:.2g}; lower --low, or raise --steps")
    return Ramp(rates, np.asarray(losses), smoothed, best, int(np.gradient(smoothed)[: best + 1].argmin()))


def draw_ramp(ramp: Ramp, rate: float, path: Path) -> None:
    """Draw the losses over the rates, smoothed too, with the rate proposed and that of the lowest loss."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    axis: Any = figure.subplots()
    axis.plot(ramp.rates, ramp.losses, color="0.8", label="loss of a step")
    axis.plot(ramp.rates, ramp.smoothed, color="C0", label="smoothed")
    axis.axvline(rate, color="C2", label=f"steepest fall: {rate:g}")
    axis.axvline(ramp.rates[ramp.best], color="0.5", linestyle=":", label=f"lowest: {ramp.rates[ramp.best]:.2g}")
    low, high = ramp.smoothed.min(), ramp.smoothed[: ramp.best + 1].max()
    axis.set_ylim(low - 0.3 * (high - low), high + (high - low))
    axis.set(xscale="log", xlabel="learning rate", ylabel="training loss", title="Learning-rate range test")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    save_figure(figure, path)


if __name__ == "__main__":
    sys.exit(main())
