from __future__ import annotations

import platform
import subprocess
import sys

import pytest
import torch
from accelerate import Accelerator

from lesion_hub.models import LesionClassifier
from lesion_hub.training import device
from lesion_hub.training.device import OutOfMemory, largest_fitting, out_of_memory_explained, with_fitting_batch
from lesion_hub.training.launch import LaunchOptions
from lesion_hub.training.recipe import Recipe
from lesion_hub.training.run import train_recipe

pytestmark = pytest.mark.slow


def hungry_above(limit: int, tried: list[int]):  # type: ignore[no-untyped-def]
    def attempt(size: int, *_: object) -> None:
        tried.append(size)
        if size > limit:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")

    return attempt


def test_the_largest_divisor_that_fits_is_found() -> None:
    tried: list[int] = []
    assert largest_fitting(24, hungry_above(7, tried)) == 6
    assert tried == [24, 12, 8, 6]


def test_not_even_one_image_is_one_line() -> None:
    with pytest.raises(OutOfMemory, match=r"lower model\.image_size"):
        largest_fitting(4, hungry_above(0, []))


def test_other_errors_are_not_taken_for_hunger(tiny: Recipe) -> None:
    with pytest.raises(RuntimeError, match="shapes"), out_of_memory_explained(tiny):
        raise RuntimeError("shapes do not fit")


def test_a_step_stays_a_step(tiny: Recipe, cpu_accelerator: Accelerator, monkeypatch: pytest.MonkeyPatch) -> None:
    classifier = LesionClassifier.create("lesion_cnn_shallow", "ham7", image_size=32)
    before = {name: value.clone() for name, value in classifier.network.state_dict().items()}
    fitting = with_fitting_batch(tiny, classifier, cpu_accelerator)
    assert (fitting.batch_size, fitting.accumulation) == (8, 2)
    assert all(torch.equal(value, before[name]) for name, value in classifier.network.state_dict().items())
    monkeypatch.setattr(device, "try_step", hungry_above(2, []))
    fitting = with_fitting_batch(tiny, classifier, cpu_accelerator)
    assert (fitting.batch_size, fitting.accumulation) == (2, 8)


def test_the_batch_that_was_found_is_kept_for_resuming(
    tiny: Recipe, options: LaunchOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(device, "try_step", hungry_above(4, []))
    monkeypatch.setattr("lesion_hub.training.run.finish", lambda *_: None)
    monkeypatch.setattr("lesion_hub.training.reporting.Report.summary", lambda *_: None)
    place = options.model_copy(update={"find_batch_size": True})
    short = tiny.model_copy(update={"epochs": 1, "phases": tiny.phases[1:]})
    train_recipe(short, place)
    assert "batch_size: 4\naccumulation: 4\n" in (place.out / "recipe.yaml").read_text()
    monkeypatch.setattr(device, "try_step", lambda *_: pytest.fail("searched again"))
    train_recipe(short, place)


COUNT_FAULTS = """
import resource, sys, torch
from lesion_hub.training.device import keep_freed_memory

if sys.argv[1] == "kept":
    assert keep_freed_memory()
for _ in range(3):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(20_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc can be told to keep memory")
def test_memory_that_was_freed_is_used_again_without_asking_the_system_for_it():
    def faults(how: str) -> int:
        return int(subprocess.run([sys.executable, "-c", COUNT_FAULTS, how], capture_output=True, text=True, check=True).stdout)

    limit = faults("given back") / 10
    assert any(faults("kept") < limit for _ in range(3))  # a system that reclaims memory meanwhile adds faults
