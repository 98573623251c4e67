"""`read`: which layout a place is taken for, and what every reader does with the files of the bad-file corpus."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from lesion_hub.data import image_paths, load_rgb, read, summarise, undecoded
from lesion_hub.data.sources import SOURCES
from lesion_hub.errors import DataError, ImageError

from . import layouts
from .bad_files import BROKEN, ODD, SIZE, write_broken, write_odd


def _table(root: Path) -> Path:
    layouts.images(root / "images", ["a.jpg", "b.jpg", "c.jpg", "d.jpg"])
    layouts.text(root / "labels.csv", "image_id,label", "a,mel", "b,mel", "c,nv", "d,nv")
    return root


LAYOUTS: dict[str, Callable[[Path], Path]] = {
    "ham10000": layouts.ham10000,
    "isic2016": layouts.isic2016,
    "isic2017": layouts.isic2017,
    "isic2018": layouts.isic2018,
    "isic2019": layouts.isic2019,
    "isic2020": layouts.isic2020,
    "folders": lambda root: layouts.tree(root, ("benign", "malignant"), ("train", "test")),
    "table": _table,
}


def test_every_source_has_a_layout_here() -> None:
    assert {*LAYOUTS, "hub"} == set(SOURCES)


@pytest.mark.parametrize("name", LAYOUTS)
def test_a_layout_is_recognised_and_can_be_named(name: str, tmp_path: Path) -> None:
    root = LAYOUTS[name](tmp_path)
    found, named = read(root), read(root, source=name)
    assert found.report.source == named.report.source == name
    assert found.dataset["image_id"][:] == named.dataset["image_id"][:]


@pytest.mark.parametrize("name", LAYOUTS)
def test_naming_a_layout_that_is_not_there_says_what_was_looked_for(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        read(tmp_path, source=name)
    assert str(error.value).startswith(f"{tmp_path}: ")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("name", LAYOUTS)
def test_broken_images_read_and_then_raise_image_errors_alone(name: str, tmp_path: Path) -> None:
    root = LAYOUTS[name](tmp_path / "set")
    broken = write_broken(tmp_path / "broken")
    paths = image_paths(read(root).dataset)
    for start in range(0, len(broken), len(paths)):
        for path, bad in zip(paths, broken[start:], strict=False):
            shutil.copyfile(bad, path)
        for row in undecoded(read(root).dataset).select(range(min(len(paths), len(broken) - start))):
            with pytest.raises(ImageError) as error:
                load_rgb(row["image"])
            assert str(error.value).startswith(row["image"]["path"])


@pytest.mark.parametrize("name", LAYOUTS)
def test_odd_images_read_and_decode(name: str, tmp_path: Path) -> None:
    root = LAYOUTS[name](tmp_path / "set")
    paths = image_paths(read(root).dataset)
    odd = write_odd(tmp_path / "odd")
    for start in range(0, len(odd), len(paths)):
        for path, file in zip(paths, odd[start:], strict=False):
            shutil.copyfile(file, path)
        assert {load_rgb(path).size for path in image_paths(read(root).dataset)} == {SIZE}


def test_a_class_tree_of_the_whole_corpus_reads_without_decoding(tmp_path: Path) -> None:
    write_broken(tmp_path / "nv")
    write_odd(tmp_path / "mel")
    assert len(read(tmp_path).dataset) == len(BROKEN) + len(ODD)


def test_two_data_sets_in_one_folder_ask_which(tmp_path: Path) -> None:
    layouts.ham10000(tmp_path / "ham")
    layouts.isic2019(tmp_path / "isic")
    with pytest.raises(DataError, match=r"holds several data sets \(ham10000, isic2019\)"):
        read(tmp_path)
    assert len(read(tmp_path / "ham").dataset) == 6


@pytest.mark.parametrize("place", ["/no/such/place", "./gone", "a/b/c", "what is this"])
def test_a_place_that_is_neither_folder_nor_hub_id(place: str) -> None:
    with pytest.raises(DataError, match="no such folder or file, and no Hub id"):
        read(place)


def test_a_missing_folder_of_a_named_layout_is_not_sought_on_the_hub() -> None:
    with pytest.raises(DataError, match="no such folder or file"):
        read("data/gone", source="ham10000")


def test_an_empty_folder_names_all_that_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no known layout; looked for HAM10000_metadata.csv;.*; name one with --source"):
        read(tmp_path)


def test_an_unknown_source_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"unknown source 'ham1000'; did you mean 'ham10000'\?"):
        read(tmp_path, source="ham1000")


def test_extra_image_folders_must_exist(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder of images"):
        read(tmp_path, images=[tmp_path / "gone"])


def test_a_local_source_streams_the_same_rows(tmp_path: Path) -> None:
    root = layouts.ham10000(tmp_path)
    streamed = [row["image_id"] for row in undecoded(read(root, streaming=True).dataset)]
    assert streamed == list(read(root).dataset["image_id"])


def test_reading_twice_gives_equal_fingerprints(tmp_path: Path) -> None:
    root = layouts.ham10000(tmp_path)
    assert read(root).dataset._fingerprint == read(root).dataset._fingerprint


def test_a_summary_counts_classes_groups_splits_and_gaps(tmp_path: Path) -> None:
    summary = summarise(read(layouts.isic2017(tmp_path / "a")))
    assert summary["classes"] == {"mel": 2, "sk": 2, "nv": 2}
    assert summary["splits"] == {"test": 2, "train": 3, "val": 1}
    assert summary["missing"] == {"age": 5, "sex": 5, "site": 6}
    ham = summarise(read(layouts.ham10000(tmp_path / "b")))
    assert ham["groups"] == {"count": 4, "largest": 2, "with_several_images": 2}
    assert ham["age"] == {"min": 0.0, "median": 62.5, "max": 80.0}
    assert json.loads(json.dumps(ham)) == ham


def test_a_streamed_source_has_a_summary_without_counts(tmp_path: Path) -> None:
    summary = summarise(read(layouts.ham10000(tmp_path), streaming=True))
    assert "classes" not in summary
    assert summary["labels"][0] == "mel"
