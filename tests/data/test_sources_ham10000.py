"""The HAM10000 layout: both ways its images are shipped, lesions as groups, no leak of how the label was confirmed."""

from __future__ import annotations

from pathlib import Path

import pytest

from lesion_hub.data import COLUMNS, image_paths, read
from lesion_hub.errors import TaxonomyError

from . import layouts


def test_two_image_folders_become_the_schema(tmp_path: Path) -> None:
    result = read(layouts.ham10000(tmp_path))
    assert result.report.source == "ham10000"
    assert tuple(result.dataset.column_names) == COLUMNS
    assert result.space.name == "ham7"
    assert [result.space.labels[label] for label in result.dataset["label"]] == ["nv", "nv", "mel", "mel", "akiec", "akiec"]
    assert list(result.dataset["group"]) == ["HAM_1", "HAM_1", "HAM_2", "HAM_2", "HAM_3", "HAM_4"]
    assert list(result.dataset["age"]) == [80, 80, None, None, 45, 0]
    assert list(result.dataset["sex"]) == ["male", "male", None, None, "female", "female"]
    assert list(result.dataset["site"]) == ["head/neck", "head/neck", None, None, "torso", "lower extremity"]
    assert set(result.dataset["source"]) == {"ham10000"}
    assert result.official_split is None


def test_one_image_folder_reads_the_same(tmp_path: Path) -> None:
    two = layouts.ham10000(tmp_path / "two")
    one = layouts.ham10000(tmp_path / "one")
    (one / "HAM10000_images").mkdir()
    for part in ("HAM10000_images_part_1", "HAM10000_images_part_2"):
        for image in (one / part).iterdir():
            image.rename(one / "HAM10000_images" / image.name)
        (one / part).rmdir()
    assert read(one).dataset["image_id"][:] == read(two).dataset["image_id"][:]


def test_each_image_is_the_file_of_its_id(tmp_path: Path) -> None:
    result = read(layouts.ham10000(tmp_path))
    assert [Path(path).stem for path in image_paths(result.dataset)] == list(result.dataset["image_id"])


def test_how_the_diagnosis_was_confirmed_never_appears(tmp_path: Path) -> None:
    result = read(layouts.ham10000(tmp_path))
    words = {str(value) for row in result.dataset.remove_columns("image") for value in row.values()}
    assert not words & {"histo", "consensus", "follow_up", "confocal"}


def test_a_second_copy_of_the_folders_is_noted_not_counted(tmp_path: Path) -> None:
    root = layouts.ham10000(tmp_path)
    layouts.images(root / "copies" / "ham10000_images_part_1", layouts.isic(1, 2, 3))
    result = read(root)
    assert len(result.dataset) == 6
    assert [(note.kind, note.count) for note in result.report.notes] == [("repeated_files", 3)]


def test_images_of_other_sets_beside_the_image_folders_are_let_be(tmp_path: Path) -> None:
    root = layouts.ham10000(tmp_path)
    layouts.images(root / "ISIC2018_Task3_Test_Images", layouts.isic(77))
    assert read(root).report.problems == ()


def test_it_maps_to_binary_and_refuses_finer_labels(tmp_path: Path) -> None:
    root = layouts.ham10000(tmp_path)
    assert list(read(root, space="binary").dataset["label"]) == [0, 0, 1, 1, 1, 1]
    with pytest.raises(TaxonomyError, match="'ham7' does not map to 'isic8'"):
        read(root, space="isic8", allow_missing=True)
