"""Splits never cut a group or a duplicate, give every part its share of each class, and cannot be tampered with."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from datasets import ClassLabel, Dataset, Features, Value
from hypothesis import given, settings
from hypothesis import strategies as st

from lesion_hub.data.duplicates import Duplicates
from lesion_hub.data.splits import (
    SplitImages,
    SplitOptions,
    find_leaks,
    load_manifest,
    split_images,
)
from lesion_hub.errors import ConfigError, DataError
from lesion_hub.taxonomy import label_space

HAM7 = label_space("ham7")


def _skewed(count: int = 2000, seed: int = 0) -> SplitImages:
    """Lesions of one to six images, classes as rare as in HAM10000."""
    rng = np.random.default_rng(seed)
    ids, labels, groups = [], [], []
    while len(ids) < count:
        label = int(rng.choice(7, p=[0.11, 0.67, 0.05, 0.032, 0.11, 0.012, 0.016]))
        lesion = f"HAM_{len(ids):06d}"
        for _ in range(int(rng.choice([1, 1, 1, 2, 3, 6]))):
            ids.append(f"ISIC_{len(ids):07d}")
            labels.append(label)
            groups.append(lesion)
    return SplitImages(ids, labels, groups, HAM7)


def _pairs(*near: tuple[int, int], count: int) -> Duplicates:
    from lesion_hub.data.duplicates.search import components

    return Duplicates((), near, components(count, np.array(near, int).reshape(-1, 2)))


def test_every_class_reaches_every_part_in_its_share() -> None:
    images = _skewed()
    counts = split_images(images, SplitOptions()).counts()
    totals = {label: images.labels.count(number) for number, label in enumerate(HAM7.labels)}
    for part, share in SplitOptions().shares().items():
        for label, total in totals.items():
            assert counts[part][label] >= 1
            assert abs(counts[part][label] - share * total) <= 4


def test_folds_hold_every_class_and_no_group_twice() -> None:
    images = _skewed()
    manifest = split_images(images, SplitOptions(folds=5))
    assert manifest.parts == ("fold0", "fold1", "fold2", "fold3", "fold4")
    assert all(count >= 1 for fold in manifest.counts().values() for count in fold.values())
    assert not find_leaks(images.ids, [manifest.part_of[image_id] for image_id in images.ids], images.groups)
    held_out = manifest.rows(images.ids, "fold2")
    trained_on = manifest.rows(images.ids, *manifest.without("fold2"))
    assert sorted([*held_out, *trained_on]) == list(range(len(images.ids)))


@settings(max_examples=30)
@given(st.data())
def test_no_unit_is_cut_and_classes_reach_all_parts_where_they_can(data: st.DataObject) -> None:
    count = data.draw(st.integers(12, 60))
    groups = [f"g{data.draw(st.integers(0, 25))}" for _ in range(count)]
    labels = {group: data.draw(st.integers(0, 2)) for group in sorted(set(groups))}
    images = SplitImages([f"i{row}" for row in range(count)], [labels[group] for group in groups], groups, HAM7)
    parts = data.draw(st.integers(2, 4))
    manifest = split_images(images, SplitOptions(folds=parts, allow_absent=True))
    assert not find_leaks(images.ids, [manifest.part_of[image_id] for image_id in images.ids], groups)
    for label in set(labels.values()):
        holders = {manifest.part_of[image_id] for image_id, own in zip(images.ids, images.labels, strict=True) if own == label}
        assert len(holders) == min(parts, sum(own == label for own in labels.values()))


def test_the_split_depends_on_the_data_and_the_seed_not_on_the_order_of_rows() -> None:
    images = _skewed(400)
    order = list(range(len(images.ids)))
    random.Random(1).shuffle(order)
    shuffled = SplitImages(*([column[row] for row in order] for column in (images.ids, images.labels, images.groups)), HAM7)
    near = (3, 200)
    moved = tuple(sorted((order.index(near[0]), order.index(near[1]))))
    options = SplitOptions(folds=3, allow_absent=True)
    one = split_images(images, options, duplicates=_pairs(near, count=len(order)))
    two = split_images(shuffled, options, duplicates=_pairs(moved, count=len(order)))
    assert one == two and one.hash == two.hash
    assert split_images(images, replace(options, seed=1)).part_of != split_images(images, options).part_of


def test_near_duplicates_of_two_lesions_stay_together() -> None:
    images = _skewed(1000)
    apart = split_images(images, SplitOptions())
    test_row = int(apart.rows(images.ids, "test")[0])
    train_rows = apart.rows(images.ids, "train").tolist()
    near = tuple(tuple(sorted((test_row, row))) for row in train_rows[:3])
    manifest = split_images(images, SplitOptions(), duplicates=_pairs(*near, count=len(images.ids)))
    assert all(manifest.part_of[images.ids[a]] == manifest.part_of[images.ids[b]] for a, b in near)


def test_a_class_with_fewer_groups_than_parts_is_an_error_unless_allowed() -> None:
    images = SplitImages(list("abcdefg"), [0, 0, 0, 0, 0, 1, 1], list("pqrstuu"), HAM7)
    with pytest.raises(DataError, match=r"class 'nv' has 1 group for 3 parts; use fewer parts"):
        split_images(images, SplitOptions())
    manifest = split_images(images, SplitOptions(allow_absent=True))
    assert manifest.warnings == ("class 'nv' has 1 group for 3 parts",)


@pytest.mark.parametrize(
    "options", [{"fractions": (0.5, 0.2, 0.2)}, {"folds": 1}, {"fractions": (1.0, 0.0, 0.0)}, {"fractions": (1.2, -0.1, -0.1)}]
)
def test_impossible_options_are_refused(options: dict) -> None:
    with pytest.raises(ConfigError):
        SplitOptions(**options)


def test_repeated_ids_and_missing_labels_are_named() -> None:
    with pytest.raises(DataError, match="image id a occurs 2 times"):
        SplitImages(["a", "a"], [0, 0], ["p", "q"], HAM7)
    with pytest.raises(DataError, match="image b has no label of 'ham7'"):
        SplitImages(["a", "b"], [0, -1], ["p", "q"], HAM7)


def _official() -> tuple[SplitImages, dict[str, str]]:
    images = SplitImages(list("abcdef"), [0, 1, 0, 1, 0, 1], ["p", "q", "p", "r", "s", "t"], HAM7)
    return images, dict(zip(images.ids, ["train", "train", "test", "test", "train", "val"], strict=True))


def test_an_official_split_is_kept_and_its_leaks_are_counted(tmp_path: Path) -> None:
    images, official = _official()
    found = _pairs((1, 3), (0, 4), count=6)
    manifest = split_images(images, SplitOptions(respect_official=True), duplicates=found, official=official)
    assert manifest.part_of == official
    assert manifest.leaks == {"groups": 1, "exact": 0, "near": 1}
    manifest.save(tmp_path / "split.json")
    with pytest.raises(DataError, match="allow the leaks of an official split knowingly"):
        load_manifest(tmp_path / "split.json")


def test_leaking_images_can_be_dropped_from_the_earlier_part(tmp_path: Path) -> None:
    images, official = _official()
    options = SplitOptions(respect_official=True, drop_leaks=True)
    manifest = split_images(images, options, duplicates=_pairs((1, 3), count=6), official=official)
    assert set(manifest.ids) == {"c", "d", "e", "f"} and manifest.leaks == {"dropped": 2}
    manifest.save(tmp_path / "split.json")
    assert load_manifest(tmp_path / "split.json") == manifest


def _dataset(images: SplitImages, groups: str) -> Dataset:
    features = Features(image_id=Value("string"), label=ClassLabel(names=list(HAM7.labels)), group=Value("string"))
    return Dataset.from_dict({"image_id": images.ids, "label": images.labels, "group": list(groups)}, features)


def test_images_that_an_official_split_leaves_out_are_in_no_part_and_the_data_set_is_still_its_own(tmp_path: Path) -> None:
    images, official = _official()
    images = replace(images, groups=list("uvwxyz"))
    del official["f"]
    manifest = split_images(images, SplitOptions(respect_official=True), official=official)
    assert manifest.part_of == official and manifest.leaks == {"unassigned": 1}
    manifest.save(tmp_path / "split.json")
    assert load_manifest(tmp_path / "split.json", _dataset(images, "uvwxyz")) == manifest
    with pytest.raises(DataError, match="group u has a and c in two parts"):
        load_manifest(tmp_path / "split.json", _dataset(images, "uvuxyz"))


def test_a_source_without_a_split_says_so() -> None:
    images, _ = _official()
    with pytest.raises(DataError, match="the source ships no split"):
        split_images(images, SplitOptions(respect_official=True))


def test_images_in_no_part_leak_nothing() -> None:
    leaks = find_leaks(
        ["a", "b", "c"], ["train", None, "test"], ["p", "p", "q"], Duplicates(((0, 1),), ((0, 2),), np.zeros(3, int))
    )
    assert leaks.groups == {} and leaks.exact == () and leaks.near == (("a", "c"),)


def test_a_class_with_just_enough_groups_reaches_even_the_small_parts() -> None:
    images = SplitImages(list("abcdefgh"), [0, 0, 0, 1, 1, 1, 1, 1], list("pqrstuvw"), HAM7)
    counts = split_images(images, SplitOptions(fractions=(0.8, 0.1, 0.1))).counts()
    assert [part["mel"] for part in counts.values()] == [1, 1, 1]
    assert all(part["nv"] >= 1 for part in counts.values())
