from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lesion_hub.data.duplicates import Duplicates
from lesion_hub.data.splits import Images
from lesion_hub.errors import DataError
from lesion_hub.taxonomy import label_space
from training.division import divide
from training.recipe import Split


def images(count: int, per_group: int = 2) -> Images:
    labels = [(i // per_group) % 2 for i in range(count)]
    return Images(
        [f"i{i:03}" for i in range(count)], labels, [f"g{i // per_group}" for i in range(count)], label_space("binary")
    )


@given(st.integers(24, 60), st.sets(st.integers(0, 19), max_size=6), st.integers(0, 5))
def test_no_group_is_on_two_sides(count: int, tested: set[int], seed: int) -> None:
    """Whatever images come as a test set, and whatever lesions they share with the others."""
    some = images(count)
    given_parts = {some.ids[i]: "test" for i in tested}
    manifest = divide(some, given_parts, Split(validation=0.3, allow_absent=True, seed=seed))
    homes: dict[str, set[str]] = {}
    for image_id, group in zip(some.ids, some.groups, strict=True):
        if image_id in manifest.part_of:
            homes.setdefault(group, set()).add(manifest.part_of[image_id])
    assert all(len(parts) == 1 for parts in homes.values())
    assert all(manifest.part_of[image_id] == "test" for image_id in given_parts)
    assert set(manifest.part_of.values()) >= {"train", "val"}
    dropped = count - len(manifest.ids)
    assert dropped == sum(1 for i in range(count) if i not in tested and i ^ 1 in tested)


def test_training_pictures_that_the_test_set_holds_too_are_left_out() -> None:
    some = images(24, per_group=1)
    clusters = np.arange(24)
    clusters[5] = clusters[0]
    manifest = divide(some, {"i000": "test", "i001": "test"}, Split(validation=0.25), Duplicates((), ((0, 5),), clusters))
    assert "i005" not in manifest.part_of and manifest.part_of["i000"] == "test"
    assert manifest.leaks == {"dropped": 1}


def test_what_a_recipe_cuts_from_one_set_is_what_the_split_command_cuts() -> None:
    manifest = divide(images(40), {}, Split(validation=0.25, test=0.25))
    counts = {part: sum(found.values()) for part, found in manifest.counts().items()}
    assert counts == {"train": 20, "val": 10, "test": 10}


def test_an_official_split_without_validation_gets_one() -> None:
    some = images(40)
    official = {image_id: "test" if i >= 30 else "train" for i, image_id in enumerate(some.ids)}
    manifest = divide(some, official, Split(kind="official", validation=0.2))
    assert {part: sum(found.values()) for part, found in manifest.counts().items()} == {"train": 24, "val": 6, "test": 10}


def test_an_official_validation_part_is_kept() -> None:
    some = images(40)
    parts = ["train"] * 20 + ["val"] * 10 + ["test"] * 10
    manifest = divide(some, dict(zip(some.ids, parts, strict=True)), Split(kind="official"))
    assert [manifest.part_of[image_id] for image_id in some.ids] == parts


def test_a_run_without_validation_is_refused() -> None:
    with pytest.raises(DataError, match="every run needs one to choose by"):
        divide(images(8), dict.fromkeys(images(8).ids, "train"), Split(kind="official", validation=0.0))
