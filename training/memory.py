"""Batches that fit: what to say when memory runs out, and finding the largest micro-batch that does not."""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from accelerate import Accelerator
from accelerate.utils.memory import clear_device_cache, should_reduce_batch_size

from lesion_hub.errors import LesionHubError
from lesion_hub.models import LesionClassifier
from training.measure import call
from training.recipe import Recipe


class OutOfMemory(LesionHubError):
    """A batch did not fit into the device's memory."""


@contextmanager
def explained(recipe: Recipe) -> Iterator[None]:
    """Turn running out of memory into a line that says how to go on."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not isinstance(error, MemoryError) and not should_reduce_batch_size(error):
            raise
        batch, accumulation = recipe.batch_size, recipe.accumulation
        smaller = f"--set batch_size={batch // 2} accumulation={accumulation * 2}" if batch > 1 else "a smaller image_size"
        raise OutOfMemory(
            f"out of memory with batch_size {batch}; try {smaller} (the same step in smaller parts), or --find-batch-size"
        ) from None


def with_fitting_batch(recipe: Recipe, classifier: LesionClassifier, accelerator: Accelerator) -> Recipe:
    """The recipe with the largest micro-batch that fits and as many images per optimiser step as before."""
    batch = largest_fitting(recipe.batch_size, lambda size: _try(size, recipe, classifier, accelerator))
    if accelerator.num_processes > 1:
        batch = int(accelerator.gather(torch.tensor([batch], device=accelerator.device)).min())
    return recipe.model_copy(update={"batch_size": batch, "accumulation": recipe.accumulation * recipe.batch_size // batch})


def largest_fitting(batch_size: int, attempt: Callable[[int], None]) -> int:
    """The largest divisor of ``batch_size`` that ``attempt`` does not run out of memory with.

    >>> largest_fitting(64, lambda size: None)
    64
    """
    for size in (size for size in range(batch_size, 0, -1) if batch_size % size == 0):
        try:
            attempt(size)
        except (RuntimeError, MemoryError) as error:
            if not isinstance(error, MemoryError) and not should_reduce_batch_size(error):
                raise
            gc.collect()
            clear_device_cache()
            continue
        return size
    raise OutOfMemory("out of memory even with one image at a time; lower model.image_size, or choose a smaller backbone")


def _try(size: int, recipe: Recipe, classifier: LesionClassifier, accelerator: Accelerator) -> None:
    """A training step on a copy of the network, its optimiser's memory included."""
    network = copy.deepcopy(classifier.network).to(accelerator.device).train()
    optimiser = torch.optim.Adam(network.parameters())
    images = torch.zeros(max(size, 2), *classifier.input_config.input_size, device=accelerator.device)
    with accelerator.autocast():
        call(network, images, None).float().square().mean().backward()
    optimiser.step()
