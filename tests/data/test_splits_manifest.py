"""A split's file cannot be changed unnoticed or used with other data; a published record recognises images and lesions."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lesion_hub.data import read
from lesion_hub.data.splits import SplitImages, SplitManifest, SplitOptions, load_manifest, split_images, split_source
from lesion_hub.data.splits.manifest import PartRecord, describe_parts, group_digest, image_digest, read_parts
from lesion_hub.errors import DataError
from lesion_hub.taxonomy import label_space
from tests.data.pictures import spot, write_tree


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
    ids = [f"i{number:02d}" for number in range(12)]
    images = SplitImages(ids, [number % 2 for number in range(12)], ids, label_space("ham7"))
    manifest = split_images(images, SplitOptions(folds=2))
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
    images = SplitImages.of(result)
    manifest = split_images(images, SplitOptions(folds=2))
    path = tmp_path / "split.json"
    manifest.save(path)
    with pytest.raises(DataError, match="image ISIC_0000011 of the split is not in the data set"):
        load_manifest(path, result.dataset.filter(lambda row: row["image_id"] != "ISIC_0000011"))
    wrong = SplitImages(images.ids, [1 - label for label in images.labels], images.groups, images.space)
    split_images(wrong, SplitOptions(folds=2)).save(path)
    with pytest.raises(DataError, match="is 'nv' in the split but 'mel' in the data set"):
        load_manifest(path, result.dataset)


NAMES = st.lists(st.text(min_size=1), max_size=20, unique=True)


@given(NAMES, NAMES)
def test_what_is_written_is_read(images, groups):
    record = PartRecord.of(images, groups)
    again = read_parts(json.loads(json.dumps(describe_parts({"train": record}))))
    assert again == {"train": record}
    assert {image_digest(name) for name in images} == again["train"].images


def test_an_image_and_a_lesion_of_one_name_are_two_things():
    assert image_digest("a") != group_digest("a")


def test_the_record_does_not_depend_on_order():
    one, two = (PartRecord.of(names, names).to_dict() for names in (["a", "b", "c"], ["c", "a", "b"]))
    assert one == two


def test_a_split_without_a_record_says_nothing():
    assert read_parts({"hash": "0" * 64}) == {}


@pytest.mark.parametrize("damaged", [{"train": {"images": "abc", "groups": ""}}, {"train": 3}, ["train"], {"train": {}}])
def test_a_damaged_record_is_one_line(damaged):
    with pytest.raises(DataError, match=r"split\.json: its list of images is damaged"):
        read_parts({"digests": damaged})
