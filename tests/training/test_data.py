from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from accelerate import Accelerator
from huggingface_hub import create_repo, upload_folder
from hypothesis import given
from hypothesis import strategies as st

from lesion_hub.data import read
from lesion_hub.data.draw import load_draw
from lesion_hub.data.duplicates import Duplicates
from lesion_hub.data.schema import COLUMNS, image_paths
from lesion_hub.data.splits import SplitImages
from lesion_hub.data.synthetic import SampleSpec, write_sample_set
from lesion_hub.data.write_shards import write_shards
from lesion_hub.errors import DataError
from lesion_hub.taxonomy import label_space
from lesion_hub.training import data
from lesion_hub.training.data import RunData, read_run_data, split_for_recipe
from lesion_hub.training.launch import LaunchOptions
from lesion_hub.training.recipe import PartitionOptions, Recipe
from lesion_hub.training.recipe_files import load_recipe
from lesion_hub.training.run_folder import RunFolder
from tests.hub_server import HubServer
from tests.training.conftest import STREAMED

Read = Callable[..., RunData]


@pytest.fixture
def run_data(cpu_accelerator: Accelerator) -> Read:
    """Reads the data of a recipe with overrides."""

    def read(options: LaunchOptions, *overrides: str, recipe: str = "demo") -> RunData:
        chosen = load_recipe(recipe, ["model.pretrained=false", "data.split.near_duplicates=false", *overrides])
        assert isinstance(chosen, Recipe)
        options.out.mkdir(exist_ok=True)
        return read_run_data(chosen, options, RunFolder(options.out), cpu_accelerator)

    return read


def ids(found: RunData, name: str) -> set[str]:
    return set(found.parts[name].ids)


def test_a_source_is_found_below_the_root_or_is_the_root(run_data: Read, options: LaunchOptions, tmp_path: Path) -> None:
    inside = run_data(options, recipe="ham10000_default")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "ham10000").symlink_to(options.data)
    below = options.model_copy(update={"data": tmp_path / "data", "out": tmp_path / "other"})
    assert ids(run_data(below, recipe="ham10000_default"), "train") == ids(inside, "train")
    assert inside.sources[0].name == "HAM10000" and inside.sources[0].license == "cc-by-nc-4.0"


def test_a_missing_test_source_is_named(run_data: Read, options: LaunchOptions, sample_set: Callable[[str], Path]) -> None:
    binary = options.model_copy(update={"data": sample_set("binary")})
    with pytest.raises(DataError, match=r"isic2017: no such folder for data\.test"):
        run_data(binary, "data.draw.per_class=3", recipe="isic_binary_resnet50")


def test_images_of_the_test_source_are_kept_out_of_training(run_data: Read, options: LaunchOptions, tmp_path: Path) -> None:
    """The test set overlaps with the training set: the same images, and one picture under another name."""
    root = tmp_path / "root"
    write_sample_set(root / "a", SampleSpec(space="ham7", count=60, size=48, balanced=True, seed=1))
    write_sample_set(root / "b", SampleSpec(space="ham7", count=20, size=48, balanced=True, seed=1))
    sources = ["data.train={folder: a}", "data.test={folder: b}", "data.split={validation: 0.3}"]
    found = run_data(options.model_copy(update={"data": root}), *sources)
    assert len(ids(found, "test")) == 20
    assert not ids(found, "test") & (ids(found, "train") | ids(found, "validation"))
    groups = {name: set(part.groups) for name, part in found.parts.items()}
    assert not groups["test"] & groups["train"] and not groups["validation"] & groups["train"]


def test_the_draw_is_made_once_and_kept(run_data: Read, options: LaunchOptions, sample_set: Callable[[str], Path]) -> None:
    binary = options.model_copy(update={"data": sample_set("binary")})
    overrides = ["data.draw.per_class=9", "data.test=[]"]
    first = run_data(binary, *overrides, recipe="isic_binary_resnet50")
    again = run_data(binary, *overrides, recipe="isic_binary_densenet121")
    draw = load_draw(binary.out / "draw.json")
    assert draw.per_class == 9 and first.parts["train"].class_counts.tolist() == [9, 9]
    assert first.parts["train"].draw.tolist() == again.parts["train"].draw.tolist()
    drawn = {image_id for chosen in draw.ids.values() for image_id in chosen}
    assert drawn <= ids(first, "train")


def test_a_search_does_not_even_hold_the_test_part(run_data: Read, options: LaunchOptions) -> None:
    assert "test" not in run_data(options.model_copy(update={"measure_test": False})).parts


def test_metadata_goes_with_its_image(run_data: Read, options: LaunchOptions) -> None:
    part = run_data(options, "model.metadata=true").parts["train"]
    assert part.metadata is not None and part.metadata.shape[0] == len(part)


def test_near_duplicates_stay_on_one_side(run_data: Read, options: LaunchOptions, tmp_path: Path) -> None:
    root = tmp_path / "planted"
    write_sample_set(root, SampleSpec(space="ham7", count=70, size=64, balanced=True, leaks=6, seed=2))
    found = run_data(options.model_copy(update={"data": root}), "data.split.near_duplicates=true")
    assert found.manifest.method.endswith("near duplicate")
    units = dict(zip(found.manifest.ids, found.manifest.units, strict=True))
    sides = {name: {units[image_id] for image_id in part.ids} for name, part in found.parts.items()}
    assert not sides["train"] & sides["validation"] and not sides["train"] & sides["test"]
    assert len(set(units.values())) < len(set(found.dataset["group"][:]))


def test_an_image_that_cannot_be_read_is_left_out_where_that_is_allowed(
    run_data: Read, options: LaunchOptions, tmp_path: Path
) -> None:
    root = tmp_path / "set"
    write_sample_set(root, SampleSpec(space="ham7", count=70, size=48, balanced=True, seed=3))
    broken = sorted(root.rglob("ISIC_*.jpg"))[5]
    broken.write_bytes(b"no image")
    place = options.model_copy(update={"data": root, "cache": tmp_path / "cache" / "images"})
    kept = run_data(place, "data.train={folder: set, allow_missing: true}")
    assert not any(broken.stem in ids(kept, name) for name in kept.parts)
    assert sum(len(part) for part in kept.parts.values()) == 69 and broken.stem in kept.manifest.ids
    again = run_data(place, "data.train={folder: set, allow_missing: true}")
    assert {name: part.ids for name, part in again.parts.items()} == {name: part.ids for name, part in kept.parts.items()}
    whole = run_data(place.model_copy(update={"out": tmp_path / "other"}))
    assert sum(len(part) for part in whole.parts.values()) == 70


def test_an_official_split_is_taken(run_data: Read, options: LaunchOptions, sample_set: Callable[[str], Path]) -> None:
    binary = options.model_copy(update={"data": sample_set("binary")})
    found = run_data(binary, recipe="melanoma10k_resnet34")
    folders = {name: {Path(path).parts[-3] for path in image_paths(part.dataset)} for name, part in found.parts.items()}
    assert folders == {"train": {"train"}, "validation": {"val"}, "test": {"test"}}


# ------------------------------------------------------------------------------------------------ streams


def test_a_stream_is_split_as_its_images_would_be(run_data: Read, options: LaunchOptions, shards: Path, tmp_path: Path) -> None:
    streamed = options.model_copy(update={"data": shards, "out": tmp_path / "streamed"})
    found, whole = run_data(streamed, *STREAMED, "data.split.near_duplicates=true"), run_data(options)
    assert found.manifest.part_of == whole.manifest.part_of
    assert found.parts["train"].class_counts.tolist() == whole.parts["train"].class_counts.tolist()
    assert "near duplicate" not in found.manifest.method
    assert found.manifest.warnings[-1] == "near duplicates were not looked for, for the images were streamed"


def test_a_stream_is_indexed_once_and_must_stay_as_it_was(
    run_data: Read, options: LaunchOptions, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = Path(shutil.copytree(shards, tmp_path / "copy"))
    streamed = options.model_copy(update={"data": copy})
    first = run_data(streamed, *STREAMED)
    with monkeypatch.context() as patched:
        patched.setattr(data, "read_index", lambda *_: pytest.fail("read again"))
        assert run_data(streamed, *STREAMED).parts["train"].ids == first.parts["train"].ids
    os.utime(copy / "train-00001-of-00008.tar")
    with pytest.raises(DataError, match=r"train-00001-of-00008\.tar: the shard has changed since this run began"):
        run_data(streamed, *STREAMED)


def test_a_stream_without_groups_says_that_it_is_split_by_image(
    run_data: Read, options: LaunchOptions, sample_set: Callable[[str], Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = read(sample_set("ham7"))
    alone = whole.dataset.remove_columns("group").add_column("group", list(whole.dataset["image_id"]))
    write_shards(replace(whole, dataset=alone.select_columns(list(COLUMNS))), tmp_path / "alone")
    found = run_data(options.model_copy(update={"data": tmp_path / "alone"}), *STREAMED)
    assert ", by image" in found.manifest.method and "grouped" not in found.manifest.method
    assert "no column named lesions or patients" in found.manifest.warnings[-1]
    assert "no column names lesions or patients; the split is by image" in caplog.text


@pytest.mark.slow
def test_a_data_set_on_the_hub_is_the_root(run_data: Read, options: LaunchOptions, shards: Path, hub: HubServer) -> None:
    create_repo("user/skin", repo_type="dataset", exist_ok=True)
    commit = upload_folder(repo_id="user/skin", folder_path=shards, repo_type="dataset").oid
    found = run_data(options.model_copy(update={"data": Path(f"hub:user/skin@{commit}")}), *STREAMED)
    (source,) = found.sources
    assert (source.name, source.revision, source.images) == ("synthetic lesions", commit, 71)
    assert image_paths(found.dataset)[0].startswith(f"shard:hf://datasets/user/skin@{commit}/train-00000-of-00008.tar#")


# ------------------------------------------------------------------------------------------------ splits


def images(count: int, per_group: int = 2) -> SplitImages:
    labels = [(i // per_group) % 2 for i in range(count)]
    return SplitImages(
        [f"i{i:03}" for i in range(count)], labels, [f"g{i // per_group}" for i in range(count)], label_space("binary")
    )


@given(st.integers(24, 60), st.sets(st.integers(0, 19), max_size=6), st.integers(0, 5))
def test_no_group_is_on_two_sides(count: int, tested: set[int], seed: int) -> None:
    """Whatever images come as a test set, and whatever lesions they share with the others."""
    some = images(count)
    given_parts = {some.ids[i]: "test" for i in tested}
    manifest = split_for_recipe(some, given_parts, PartitionOptions(validation=0.3, allow_absent=True, seed=seed))
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
    manifest = split_for_recipe(
        some, {"i000": "test", "i001": "test"}, PartitionOptions(validation=0.25), Duplicates((), ((0, 5),), clusters)
    )
    assert "i005" not in manifest.part_of and manifest.part_of["i000"] == "test"
    assert manifest.leaks == {"dropped": 1}


def test_what_a_recipe_cuts_from_one_set_is_what_the_split_command_cuts() -> None:
    manifest = split_for_recipe(images(40), {}, PartitionOptions(validation=0.25, test=0.25))
    counts = {part: sum(found.values()) for part, found in manifest.counts().items()}
    assert counts == {"train": 20, "val": 10, "test": 10}


def test_an_official_split_without_validation_gets_one() -> None:
    some = images(40)
    official = {image_id: "test" if i >= 30 else "train" for i, image_id in enumerate(some.ids)}
    manifest = split_for_recipe(some, official, PartitionOptions(kind="official", validation=0.2))
    assert {part: sum(found.values()) for part, found in manifest.counts().items()} == {"train": 24, "val": 6, "test": 10}


def test_an_official_validation_part_is_kept() -> None:
    some = images(40)
    parts = ["train"] * 20 + ["val"] * 10 + ["test"] * 10
    manifest = split_for_recipe(some, dict(zip(some.ids, parts, strict=True)), PartitionOptions(kind="official"))
    assert [manifest.part_of[image_id] for image_id in some.ids] == parts


def test_a_run_without_validation_is_refused() -> None:
    with pytest.raises(DataError, match="every run needs one to choose by"):
        split_for_recipe(images(8), dict.fromkeys(images(8).ids, "train"), PartitionOptions(kind="official", validation=0.0))
