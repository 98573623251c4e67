"""Splits never cut a group or a duplicate, give every part its share of each class, and cannot be tampered with."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lesion_hub.data import read
from lesion_hub.data.duplicates import Duplicates
from lesion_hub.data.splits import (
    Images,
    SplitManifest,
    SplitOptions,
    find_leaks,
    load_manifest,
    split_images,
    split_source,
)
from lesion_hub.errors import ConfigError, DataError
from lesion_hub.taxonomy import label_space
from tests.data.pictures import spot, write_tree

HAM7 = label_space("ham7")


def _skewed(count: int = 2000, seed: int = 0) -> Images:
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
    return Images(ids, labels, groups, HAM7)


def _pairs(*near: tuple[int, int], count: int) -> Duplicates:
    from lesion_hub.data.duplicates.clusters import components

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
    images = Images([f"i{row}" for row in range(count)], [labels[group] for group in groups], groups, HAM7)
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
    shuffled = Images(*([column[row] for row in order] for column in (images.ids, images.labels, images.groups)), HAM7)
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
    images = Images(list("abcdefg"), [0, 0, 0, 0, 0, 1, 1], list("pqrstuu"), HAM7)
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
        Images(["a", "a"], [0, 0], ["p", "q"], HAM7)
    with pytest.raises(DataError, match="image b has no label of 'ham7'"):
        Images(["a", "b"], [0, -1], ["p", "q"], HAM7)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    rows = {f"{('mel', 'nv')[seed % 2]}/ISIC_{seed:07d}.jpg": spot(seed, (96, 72)) for seed in range(12)}
    rows["nv/ISIC_0000099.jpg"] = spot(1, (96, 72)).transpose(Image.Transpose.ROTATE_90)
    return write_tree(tmp_path / "tree", rows)


def test_a_saved_split_is_read_back_and_agrees_with_its_data(tree: Path, tmp_path: Path) -> None:
    result = read(tree)
    manifest = split_source(result, SplitOptions(folds=2), store=tmp_path / "prints.npz", workers=1)
    manifest.save(tmp_path / "split.json")
    loaded = load_manifest(tmp_path / "split.json", result.dataset)
    assert loaded == manifest and loaded.hash == manifest.hash
    assert manifest.part_of["ISIC_0000001"] == manifest.part_of["ISIC_0000099"]
    assert (tmp_path / "prints.npz").exists()
    assert manifest.describe()["hash"] == manifest.hash and manifest.describe()["units"] == 12


def _saved(tmp_path: Path) -> tuple[SplitManifest, Path]:
    manifest = split_images(_skewed(200), SplitOptions(folds=2, allow_absent=True))
    manifest.save(tmp_path / "split.json")
    return manifest, tmp_path / "split.json"


def test_an_edited_manifest_is_refused(tmp_path: Path) -> None:
    _, path = _saved(tmp_path)
    content = json.loads(path.read_text())
    content["images"][0][3] = 1 - content["images"][0][3]
    path.write_text(json.dumps(content))
    with pytest.raises(DataError, match="its hash does not match its content"):
        load_manifest(path)


def test_a_manifest_that_cuts_a_unit_is_refused(tmp_path: Path) -> None:
    manifest, path = _saved(tmp_path)
    units = list(manifest.units)
    units[manifest.places.index(0)] = units[manifest.places.index(1)]
    cut = replace(manifest, units=tuple(units))
    cut.save(path)
    with pytest.raises(DataError, match="lie in both fold"):
        load_manifest(path)
    assert load_manifest(path, allow_leaks=True).units == cut.units


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"version": 99}'])
def test_what_is_no_manifest_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "split.json"
    path.write_text(text)
    with pytest.raises(DataError, match=r"split\.json: not"):
        load_manifest(path)


def test_data_that_differ_from_the_split_are_named(tree: Path, tmp_path: Path) -> None:
    result = read(tree)
    images = Images.of(result)
    manifest = split_images(images, SplitOptions(folds=2))
    path = tmp_path / "split.json"
    manifest.save(path)
    with pytest.raises(DataError, match="image ISIC_0000011 of the split is not in the data set"):
        load_manifest(path, result.dataset.filter(lambda row: row["image_id"] != "ISIC_0000011"))
    wrong = Images(images.ids, [1 - label for label in images.labels], images.groups, images.space)
    split_images(wrong, SplitOptions(folds=2)).save(path)
    with pytest.raises(DataError, match="is 'nv' in the split but 'mel' in the data set"):
        load_manifest(path, result.dataset)


def _official() -> tuple[Images, dict[str, str]]:
    images = Images(list("abcdef"), [0, 1, 0, 1, 0, 1], ["p", "q", "p", "r", "s", "t"], HAM7)
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


def test_a_source_without_a_split_says_so() -> None:
    images, _ = _official()
    with pytest.raises(DataError, match="the source ships no split"):
        split_images(images, SplitOptions(respect_official=True))


def test_images_in_no_part_leak_nothing() -> None:
    leaks = find_leaks(["a", "b", "c"], ["train", None, "test"], ["p", "p", "q"], exact=[(0, 1)], near=[(0, 2)])
    assert leaks.groups == {} and leaks.exact == () and leaks.near == (("a", "c"),)


def test_a_class_with_just_enough_groups_reaches_even_the_small_parts() -> None:
    images = Images(list("abcdefgh"), [0, 0, 0, 1, 1, 1, 1, 1], list("pqrstuvw"), HAM7)
    counts = split_images(images, SplitOptions(fractions=(0.8, 0.1, 0.1))).counts()
    assert [part["mel"] for part in counts.values()] == [1, 1, 1]
    assert all(part["nv"] >= 1 for part in counts.values())
