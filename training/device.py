"""The device that trains: small tensors moved to it without a wait, and memory that batches fit into and that is kept."""

from __future__ import annotations

import copy
import ctypes
import gc
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from accelerate import Accelerator
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size
from torch import Tensor

from lesion_hub.errors import LesionHubError

if TYPE_CHECKING:
    from lesion_hub.models import LesionClassifier
    from lesion_hub.training.recipe import Recipe

# Of glibc's malloc.h: give memory back only beyond so much of it, ask for so much at once, and map so many blocks on their own.
MALLOC_OPTIONS = {"M_TRIM_THRESHOLD": (-1, 2**31 - 1), "M_TOP_PAD": (-2, 2**28), "M_MMAP_MAX": (-4, 0)}


class OutOfMemory(LesionHubError):
    """A batch did not fit into the device's memory."""


def keep_freed_memory() -> bool:
    """Have this process keep the memory that it frees for what it allocates next; return whether it can be told so.

    A step on a CPU frees and allocates hundreds of megabytes. Left alone, glibc gives them back to the system each time, which
    clears every page again before it is used: a third of a MobileNet's step. Other C libraries are left as they are.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and all(mallopt(option, value) for option, value in MALLOC_OPTIONS.values())


def to_device(values: Tensor, device: torch.device) -> Tensor:
    """Return ``values`` on ``device``; the copy to a GPU goes from pinned memory, asynchronously."""
    if device.type == "cuda" and values.device.type == "cpu":
        return values.pin_memory().to(device, non_blocking=True)
    return values.to(device)


@contextmanager
def out_of_memory_explained(recipe: Recipe) -> Iterator[None]:
    """Turn running out of memory into a line that says how to go on."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not _is_lack_of_memory(error):
            raise
        batch, accumulation = recipe.batch_size, recipe.accumulation
        smaller = f"--set batch_size={batch // 2} accumulation={accumulation * 2}" if batch > 1 else "a smaller image_size"
        raise OutOfMemory(
            f"out of memory with batch_size {batch}; try {smaller} (the same step in smaller parts), or --find-batch-size"
        ) from None


def with_fitting_batch(recipe: Recipe, classifier: LesionClassifier, accelerator: Accelerator) -> Recipe:
    """Return the recipe with the largest micro-batch that fits and as many images per optimiser step as before."""
    batch = largest_fitting(recipe.batch_size, lambda size: try_step(size, classifier, accelerator))
    if accelerator.num_processes > 1:
        batch = int(accelerator.gather(torch.tensor([batch], device=accelerator.device)).min())
    return recipe.model_copy(update={"batch_size": batch, "accumulation": recipe.accumulation * recipe.batch_size // batch})


def largest_fitting(batch_size: int, attempt: Callable[[int], None]) -> int:
    """Find the largest divisor of ``batch_size`` with which ``attempt`` does not run out of memory.

    >>> largest_fitting(64, lambda size: None)
    64
    """
    for size in (size for size in range(batch_size, 0, -1) if batch_size % size == 0):
        try:
            attempt(size)
        except (RuntimeError, MemoryError) as error:
            if not _is_lack_of_memory(error):
                raise
            gc.collect()
            clear_device_cache()
            continue
        return size
    raise OutOfMemory("out of memory even with one image at a time; lower model.image_size, or choose a smaller backbone")


def _is_lack_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError) or should_reduce_batch_size(error)


def try_step(size: int, classifier: LesionClassifier, accelerator: Accelerator) -> None:
    """Do a training step on a copy of the network, its optimiser's memory included."""
    network = copy.deepcopy(classifier.network).to(accelerator.device).train()
    optimiser = torch.optim.Adam(network.parameters())
    images = torch.zeros(max(size, 2), *classifier.input_config.input_size, device=accelerator.device)
    with accelerator.autocast():
        network(images).float().square().mean().backward()
    optimiser.step()
