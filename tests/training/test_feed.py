from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lesion_hub.data.cache import CacheSpec, ImageStream
from training.feed import Plan, ReadAhead, Resident, TrainingFeed, open_pixels, usual_aspect
from training.parts import Part
from training.samplers import natural_order

plans = st.builds(dict, batch_size=st.integers(1, 5), accumulation=st.integers(1, 3), world=st.integers(1, 3))


@given(plans, st.integers(1, 60))
def test_processes_and_micro_batches_do_not_change_what_a_step_sees(shape: dict[str, int], images: int) -> None:
    """Over all processes a step's weights sum to their number, and its images are those of one process with one large batch."""
    order = natural_order(images, seed=0, epoch=0)
    size = shape["batch_size"] * shape["accumulation"] * shape["world"]
    steps: dict[int, list[int]] = {}
    weights: dict[int, float] = {}
    for rank in range(shape["world"]):
        slots = list(Plan(**shape, rank=rank).slots(order))
        assert [slot.closes_step for slot in slots].count(True) == Plan(**shape).steps(images) == -(-images // size)
        for slot in slots:
            step = slot.number // shape["accumulation"]
            steps.setdefault(step, []).extend(slot.part.indices[slot.part.valid].tolist())
            weights[step] = weights.get(step, 0.0) + slot.part.valid.sum() * shape["world"] / slot.images_in_step
    for step, seen in steps.items():
        assert sorted(seen) == sorted(order[step * size : (step + 1) * size].tolist())
        assert weights[step] == pytest.approx(shape["world"])


@given(plans, st.integers(1, 60), st.integers(0, 5))
def test_an_epoch_can_be_entered_at_any_step(shape: dict[str, int], images: int, start: int) -> None:
    order, plan = natural_order(images, seed=0, epoch=0), Plan(**shape)
    whole = [slot for slot in plan.slots(order) if slot.number >= start * plan.accumulation]
    rest = list(plan.slots(order, start))
    assert [slot.number for slot in rest] == [slot.number for slot in whole]
    assert all((a.part.positions == b.part.positions).all() for a, b in zip(rest, whole, strict=True))


def test_a_last_micro_batch_of_one_is_left_out_for_batch_norm() -> None:
    plan = Plan(batch_size=4, smallest=2)
    assert [len(slot.part) for slot in plan.slots(np.arange(9))] == [4, 4]
    assert [len(slot.part) for slot in plan.slots(np.arange(10))] == [4, 4, 2]
    assert [len(slot.part) for slot in plan.slots(np.arange(1))] == [1]


def test_every_way_of_reading_gives_the_same_pixels(part: Part, tmp_path: Path) -> None:
    spec, device = CacheSpec(24, 32), torch.device("cpu")
    mapped = open_pixels(part, spec, tmp_path, device)
    assert isinstance(mapped, ReadAhead)
    stream = ImageStream(part.images, spec)
    rows = [np.array([3, 0, 3]), np.array([12])]
    for source in (Resident(mapped.reader, device), ReadAhead(stream, device)):
        for one, other in zip(mapped.batches(rows), source.batches(rows), strict=True):
            assert torch.equal(one, other)


def test_a_batch_carries_what_belongs_together(part: Part, tmp_path: Path) -> None:
    pixels = open_pixels(part, CacheSpec(24, 32), tmp_path, torch.device("cpu"))
    feed = TrainingFeed(part, pixels, Plan(4), lambda epoch: natural_order(13, 0, epoch), _as_it_is, torch.device("cpu"))
    seen = []
    for batch in feed.epoch(1):
        assert batch.targets.tolist() == [int(part.labels[row]) for row in batch.indices]
        assert feed.names(batch.indices) == [f"image{row}" for row in batch.indices]
        for image, row in zip(batch.images, batch.indices, strict=True):
            assert (image.numpy() == pixels.reader.read([row])[0]).all()
        seen += batch.indices.tolist()
    assert sorted(seen) == list(range(13)) and feed.steps_per_epoch == 4


def test_the_cache_takes_the_aspect_of_the_images(part: Part) -> None:
    assert usual_aspect(part.images) == pytest.approx(32 / 24)


def _as_it_is(pixels: torch.Tensor, *_: object) -> torch.Tensor:
    return pixels
