from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lesion_hub.data.cache import CacheSpec, ImageStream, ShardStream
from lesion_hub.data.scan import image_sources
from lesion_hub.data.shards import ShardedImages
from lesion_hub.data.sources.rows import ReadOptions
from lesion_hub.data.sources.sharded import read_index
from lesion_hub.errors import ConfigError, DataError
from lesion_hub.taxonomy import label_space
from lesion_hub.training.data import Part
from lesion_hub.training.feed import (
    EpochPlan,
    ReadAhead,
    Resident,
    TrainingFeed,
    balanced_order,
    batches,
    epoch_order,
    natural_order,
    open_pixels,
    streamed_order,
    usual_aspect,
    weighted_order,
)

plans = st.builds(dict, batch_size=st.integers(1, 5), accumulation=st.integers(1, 3), world=st.integers(1, 3))


@given(plans, st.integers(1, 60))
def test_processes_and_micro_batches_do_not_change_what_a_step_sees(shape: dict[str, int], images: int) -> None:
    """Over all processes a step's weights sum to their number, and its images are those of one process with one large batch."""
    order = natural_order(images, seed=0, epoch=0)
    size = shape["batch_size"] * shape["accumulation"] * shape["world"]
    steps: dict[int, list[int]] = {}
    weights: dict[int, float] = {}
    for rank in range(shape["world"]):
        planned = list(EpochPlan(**shape, rank=rank).batches(order))
        assert [one.closes_step for one in planned].count(True) == EpochPlan(**shape).steps(images) == -(-images // size)
        for one in planned:
            step = one.number // shape["accumulation"]
            steps.setdefault(step, []).extend(one.share.indices[one.share.valid].tolist())
            weights[step] = weights.get(step, 0.0) + one.share.valid.sum() * shape["world"] / one.images_in_step
    for step, seen in steps.items():
        assert sorted(seen) == sorted(order[step * size : (step + 1) * size].tolist())
        assert weights[step] == pytest.approx(shape["world"])


@given(plans, st.integers(1, 60), st.integers(0, 5))
def test_an_epoch_can_be_entered_at_any_step(shape: dict[str, int], images: int, start: int) -> None:
    order, plan = natural_order(images, seed=0, epoch=0), EpochPlan(**shape)
    whole = [one for one in plan.batches(order) if one.number >= start * plan.accumulation]
    rest = list(plan.batches(order, start))
    assert [one.number for one in rest] == [one.number for one in whole]
    assert all((a.share.positions == b.share.positions).all() for a, b in zip(rest, whole, strict=True))


def test_a_last_micro_batch_of_one_is_left_out_for_batch_norm() -> None:
    plan = EpochPlan(batch_size=4, smallest=2)
    assert [len(one.share) for one in plan.batches(np.arange(9))] == [4, 4]
    assert [len(one.share) for one in plan.batches(np.arange(10))] == [4, 4, 2]
    assert [len(one.share) for one in plan.batches(np.arange(1))] == [1]


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
    feed = TrainingFeed(part, pixels, EpochPlan(4), lambda epoch: natural_order(13, 0, epoch), _as_it_is, torch.device("cpu"))
    seen = []
    for batch in feed.epoch(1):
        assert batch.targets.tolist() == [int(part.labels[row]) for row in batch.indices]
        assert feed.names(batch.indices) == [f"image{row}" for row in batch.indices]
        for image, row in zip(batch.images, batch.indices, strict=True):
            assert (image.numpy() == pixels.reader.read([row])[0]).all()
        seen += batch.indices.tolist()
    assert sorted(seen) == list(range(13)) and feed.steps_per_epoch == 4


def test_images_in_shards_are_the_same_pixels(tmp_path: Path, shards: Path) -> None:
    index = read_index(str(shards), ReadOptions()).dataset
    images = image_sources(index)
    assert isinstance(images, ShardedImages)
    rows, device = np.arange(len(index)), torch.device("cpu")
    part = Part("train", images, rows, tuple(index["image_id"]), tuple(index["group"]), label_space("ham7"))
    pixels = open_pixels(part, CacheSpec(24, 32), tmp_path / "none", device)
    assert isinstance(pixels.reader, ShardStream) and not (tmp_path / "none").exists()
    whole = ImageStream([image["bytes"] for image in images], CacheSpec(24, 32))
    order = streamed_order(images.shards, 7, seed=0, epoch=0)
    asked = [order[:10], order[10:11], order[11:40], order[:2], np.empty(0, np.int64)]
    for one, other in zip(pixels.batches(asked), whole.batches(asked), strict=True):
        assert (one.numpy() == other).all()
    assert (pixels.stretch(order[:40]) == whole.spec.stretch(whole.sizes[order[:40]])).all()
    assert usual_aspect(images) == pytest.approx(1.0)


def test_the_cache_takes_the_aspect_of_the_images(part: Part) -> None:
    assert usual_aspect(part.images) == pytest.approx(32 / 24)


def _as_it_is(pixels: torch.Tensor, *_: object) -> torch.Tensor:
    return pixels


# ------------------------------------------------------------------------------------------------ orders and shares

SPLITS = st.tuples(st.integers(1, 60), st.integers(1, 4), st.integers(1, 5), st.integers(0, 3))


def _parts(order, batch_size, world, **options):
    return [list(batches(order, batch_size, rank=rank, world=world, **options)) for rank in range(world)]


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6), st.integers(1, 12), st.integers(1, 4), st.integers(0, 9))
def test_a_streamed_epoch_is_a_walk_with_a_buffer(sizes, buffer, world, seed):
    """Every process has a stretch of the shards to itself, and no image is shown before a walk with its buffer reaches it."""
    shards = np.repeat(np.arange(len(sizes)), sizes)
    order = streamed_order(shards, buffer, seed, 0, world=world)
    np.testing.assert_array_equal(np.sort(order), np.arange(len(shards)))
    np.testing.assert_array_equal(order, streamed_order(shards, buffer, seed, 0, world=world))
    visited = []
    for rank in range(world):
        own = order[rank::world]
        stretch = [row for shard in dict.fromkeys(shards[own]) for row in np.sort(own[shards[own] == shard])]
        in_turn = sorted(range(len(own)), key=lambda place: (_turn(order, shards, seed, own[place]), own[place]))
        for place_in_walk, place in enumerate(in_turn):
            assert place >= place_in_walk - buffer + 1
        assert sorted(stretch) == sorted(own.tolist())
        visited.append({int(shard) for shard in shards[own]})
    assert sum(len(own) for own in visited) <= len(sizes) + world - 1


def _turn(order, shards, seed, row):
    """The turn of a row's shard in the epoch's walk."""
    turns = np.random.default_rng((seed, 0)).permutation(np.unique(shards)).tolist()
    return turns.index(shards[row])


def test_a_streamed_order_differs_between_epochs():
    shards = np.repeat(np.arange(10), 10)
    assert not np.array_equal(streamed_order(shards, 5, 0, 0), streamed_order(shards, 5, 0, 1))


@given(images=st.integers(1, 80), seed=st.integers(0, 9), epoch=st.integers(0, 9))
def test_a_natural_epoch_shows_every_image_once(images, seed, epoch):
    order = natural_order(images, seed, epoch)
    np.testing.assert_array_equal(np.sort(order), np.arange(images))
    np.testing.assert_array_equal(order, natural_order(images, seed, epoch))


@pytest.mark.parametrize("make", [lambda s, e: natural_order(100, s, e), lambda s, e: weighted_order(np.arange(100) % 3, s, e)])
def test_orders_differ_between_epochs_and_seeds(make):
    assert not np.array_equal(make(0, 0), make(0, 1))
    assert not np.array_equal(make(0, 0), make(1, 0))


def test_a_weighted_epoch_shows_every_class_equally_often():
    labels = np.repeat([0, 2, 5], [900, 90, 10])
    drawn = labels[weighted_order(labels, seed=0, epoch=0, images=6000)]
    assert [(drawn == label).mean() for label in (0, 2, 5)] == pytest.approx([1 / 3] * 3, abs=0.02)


def test_images_of_one_class_are_equally_likely_in_a_weighted_epoch():
    counts = np.bincount(weighted_order(np.repeat([0, 1], [20, 5]), 0, 0, images=20_000), minlength=25)
    assert counts[:20] == pytest.approx(500, rel=0.2)
    assert counts[20:] == pytest.approx(2000, rel=0.1)


def test_a_weighted_epoch_is_as_long_as_the_natural_one():
    assert len(weighted_order([0, 0, 0, 1], 0, 0)) == 4
    with pytest.raises(DataError, match="no training image"):
        weighted_order([], 0, 0)


def test_a_balanced_epoch_is_the_draw_itself_repeats_and_all():
    draw = [5, 5, 2, 9, 9, 9]
    order = balanced_order(draw, seed=0, epoch=4)
    assert sorted(order.tolist()) == sorted(draw)
    assert order.dtype == np.int64


def test_epoch_order_knows_the_kinds_by_name():
    labels = [0, 0, 1]
    np.testing.assert_array_equal(epoch_order("natural", labels, 3, 1), natural_order(3, 3, 1))
    np.testing.assert_array_equal(epoch_order("weighted", labels, 3, 1), weighted_order(labels, 3, 1))
    np.testing.assert_array_equal(epoch_order("balanced", labels, 3, 1, draw=[0, 2]), balanced_order([0, 2], 3, 1))
    with pytest.raises(ConfigError, match="did you mean 'balanced'"):
        epoch_order("balance", labels, 0, 0)
    with pytest.raises(ConfigError, match="takes a balanced draw"):
        epoch_order("balanced", labels, 0, 0)


@given(SPLITS)
def test_the_valid_samples_of_all_ranks_are_the_order(split):
    images, world, each, seed = split
    order = natural_order(images, seed, 0)
    shown = [batch for part in _parts(order, each * world, world) for batch in part]
    positions = np.concatenate([batch.positions[batch.valid] for batch in shown])
    indices = np.concatenate([batch.indices[batch.valid] for batch in shown])
    np.testing.assert_array_equal(np.sort(positions), np.arange(images))
    np.testing.assert_array_equal(indices[np.argsort(positions)], order)


@given(SPLITS)
def test_padding_is_short_and_in_the_last_batch_alone(split):
    images, world, each, seed = split
    parts = _parts(natural_order(images, seed, 0), each * world, world)
    assert {len(part) for part in parts} == {-(-images // (each * world))}
    for same_batch in zip(*parts, strict=True):
        assert len({len(batch) for batch in same_batch}) == 1
    padding = [(~batch.valid).sum() for part in parts for batch in part]
    assert sum(padding) <= world - 1
    assert all(batch.valid.all() for part in parts for batch in part[:-1])
    positions = np.concatenate([batch.positions for part in parts for batch in part])
    assert len(np.unique(positions)) == len(positions)


@given(SPLITS)
def test_every_step_shows_the_same_images_however_many_processes(split):
    images, world, each, seed = split
    order = natural_order(images, seed, 0)
    whole = list(batches(order, each * world))
    for alone, together in zip(whole, zip(*_parts(order, each * world, world), strict=True), strict=True):
        shared = np.concatenate([batch.positions[batch.valid] for batch in together])
        np.testing.assert_array_equal(np.sort(shared), alone.positions)


@given(SPLITS, st.integers(0, 70))
def test_an_epoch_resumes_where_it_stopped(split, start):
    images, world, each, seed = split
    order = natural_order(images, seed, 0)
    options = {"rank": world - 1, "world": world}
    rest = [batch.indices.tolist() for batch in batches(order, each * world, start_batch=start, **options)]
    assert rest == [batch.indices.tolist() for batch in batches(order, each * world, **options)][start:]


@settings(max_examples=5)
@given(st.integers(1, 7))
def test_fewer_images_than_processes_still_give_every_process_one(images):
    parts = _parts(np.arange(images), 8, 8)
    assert [len(part[0]) for part in parts] == [1] * 8
    assert sum(int(part[0].valid.sum()) for part in parts) == images


def test_mistakes_are_one_line():
    with pytest.raises(ConfigError, match="use a multiple of 2"):
        next(batches(np.arange(4), 3, world=2))
    with pytest.raises(ConfigError, match="rank 2"):
        next(batches(np.arange(4), 2, rank=2, world=2))
