"""The command line that all commands that train share, the accelerator that it asks for, and the exit status."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import torch
import torch.distributed
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import (
    DistributedType,
    InitProcessGroupKwargs,
    is_tensorboard_available,
    is_trackio_available,
    is_wandb_available,
)

from lesion_hub.config import Count, Options, validated
from lesion_hub.errors import ConfigError, LesionHubError, ShardError, one_line
from lesion_hub.files import CACHE_VARIABLE, cache_root
from lesion_hub.training.device import keep_freed_memory
from lesion_hub.training.recipe import Recipe
from lesion_hub.training.stopping import RunInterrupted, TrainingDiverged

# The others wait while one process decodes the images, and while it measures at the end.
PROCESS_TIMEOUT = timedelta(hours=6)

Tracker = Literal["tensorboard", "wandb", "trackio"]
TRACKER_INSTALLED = {
    "tensorboard": is_tensorboard_available,
    "wandb": is_wandb_available,
    "trackio": is_trackio_available,
}


class LaunchOptions(Options):
    """The options of the command line, the recipe apart. A search turns ``measure_test`` off: it must not use the test part."""

    data: Path
    out: Path
    cache: Path | None = None
    restart: bool = False
    find_batch_size: bool = False
    track: Tracker | None = None
    cpu: bool = False
    measure_test: bool = True
    workers: Count = 1

    @property
    def cache_root(self) -> Path:
        """The folder in which all runs keep decoded images."""
        return self.cache or cache_root() / "images"


def recipe_parser(prog: str, about: str, example: str) -> argparse.ArgumentParser:
    """Make a parser with the arguments that name a recipe and its data; ``prog`` is the script's name, or the command."""
    command = f"python training/{prog}" if prog.endswith(".py") else prog
    parser = argparse.ArgumentParser(prog=prog, description=about, epilog=f"Example: {command} {example}")
    parser.add_argument("--recipe", required=True, help="a recipe file, or the name of a shipped one")
    parser.add_argument(
        "--data", default="data", help="data root, below which the recipe's sources lie, or hub:org/name (default: data)"
    )
    parser.add_argument(
        "--set", nargs="+", action="extend", default=[], metavar="KEY=VALUE", help="change the recipe: optimiser.lr=0.01"
    )
    parser.add_argument("--cache", help=f"decoded images (default: ${CACHE_VARIABLE}/images, else ~/.cache/lesion-hub/images)")
    parser.add_argument("--cpu", action="store_true", help="train on the CPU even where there is an accelerator")
    return parser


def run_parser(prog: str, about: str, example: str) -> argparse.ArgumentParser:
    """Make a parser with the arguments that every command that trains has."""
    parser = recipe_parser(prog, about, example)
    parser.add_argument("--out", help="folder of the run; where it holds one of this recipe, that is resumed")
    parser.add_argument("--restart", action="store_true", help="forget the run that --out holds")
    parser.add_argument("--find-batch-size", action="store_true", help="take smaller parts of a batch until they fit")
    parser.add_argument("--track", choices=tuple(TRACKER_INSTALLED), help="also log to a tracker")
    parser.add_argument(
        "--workers", type=int, default=1, metavar="N", help="processes that share out members, folds or trials (default: 1)"
    )
    return parser


def launch_options(arguments: argparse.Namespace) -> LaunchOptions:
    """Make the options from the arguments that `run_parser` adds, the recipe apart."""
    if arguments.out is None:
        raise ConfigError("--out is missing; name the folder of the run, such as runs/NAME")
    given = {name: getattr(arguments, name) for name in LaunchOptions.model_fields if hasattr(arguments, name)}
    return validated(LaunchOptions, given, "command line")


def exit_status(command: Callable[[], None]) -> int:
    """Run a command: 0 when done, 1 for an error that one line explains, 128 + n stopped by signal n with everything saved."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s")
    try:
        command()
    except LesionHubError as error:
        # Only the first process prints, unless the error may have happened in another one alone.
        if isinstance(error, TrainingDiverged | ShardError) or os.environ.get("RANK", "0") == "0":
            print(f"error: {error}", file=sys.stderr)
        return 128 + error.signum if isinstance(error, RunInterrupted) else 1
    finally:
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
    return 0


def make_accelerator(recipe: Recipe, options: LaunchOptions) -> Accelerator:
    """Make the accelerator that the launcher's environment and the recipe describe.

    One that is left to choose its precision computes in fp32 until that is known (see ``lesion_hub.training.execution``).
    """
    if options.track is not None and not TRACKER_INSTALLED[options.track]():
        raise ConfigError(f"--track {options.track}: it is not installed; pip install {options.track}")
    cpu = options.cpu or not (torch.cuda.is_available() or torch.backends.mps.is_available())
    plain = recipe.precision in ("fp32", "auto") or (cpu and recipe.precision == "fp16")
    # One process trains several recipes in turn (an ensemble, folds, a grid), each with its own precision.
    AcceleratorState._reset_state()
    made = Accelerator(
        cpu=cpu,
        mixed_precision="no" if plain else recipe.precision,
        log_with=options.track,
        project_dir=str(options.out),
        kwargs_handlers=[InitProcessGroupKwargs(timeout=PROCESS_TIMEOUT)],
    )
    if made.device.type == "cpu":
        keep_freed_memory()
    if made.distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED, DistributedType.MEGATRON_LM):
        # The moving average, phases and checkpoints need the whole network in every process; all of ours fit into one.
        raise ConfigError(f"{made.distributed_type.value.lower()} is not supported; use distributed_type: MULTI_GPU")
    return made


def start_tracker(accelerator: Accelerator, recipe: Recipe, options: LaunchOptions) -> None:
    """Start the tracker that the command line asks for, if any; what it says when it cannot start is one line.

    tensorboard and wandb write into the run's folder, trackio where it keeps all its runs.
    """
    if options.track is None:
        return
    own = {"wandb": {"dir": str(options.out)}}
    try:
        accelerator.init_trackers("lesion-hub", flattened(recipe.model_dump(mode="json")), own)
    except Exception as error:  # noqa: BLE001 - each tracker has errors of its own
        why = one_line(error) or type(error).__name__
        raise ConfigError(f"--track {options.track}: cannot start ({why}); set it up, or drop --track") from None


def flattened(values: dict[str, Any], prefix: str = "") -> dict[str, str | int | float | bool]:
    """Put nested options under dotted names, as trackers take them."""
    flat: dict[str, str | int | float | bool] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= flattened(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value if isinstance(value, str | int | float | bool) else str(value)
    return flat
