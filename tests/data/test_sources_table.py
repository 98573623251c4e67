"""Tables with a column map: PAD-UFES-20, Fitzpatrick17k and whatever else comes as csv or Parquet."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from lesion_hub.data import image_paths, read
from lesion_hub.errors import DataError

from . import layouts

PAD_COLUMNS = {"image_id": "img_id", "label": "diagnostic", "group": "patient_id", "site": "region", "sex": "gender"}
PAD_LABELS = {"ACK": "ak", "NEV": "nv", "SEK": "sk"}


def pad_ufes(root: Path) -> Path:
    layouts.images(root / "imgs_part_1", ["PAT_8_15.820.png", "PAT_8_15.821.png"])
    layouts.images(root / "imgs_part_2", ["PAT_9_1.1.png", "PAT_9_1.2.png"])
    return layouts.text(
        root / "metadata.csv",
        "patient_id,age,gender,region,diagnostic,img_id",
        "PAT_8,55,FEMALE,NECK,NEV,PAT_8_15.820.png",
        "PAT_8,55,FEMALE,NECK,NEV,PAT_8_15.821.png",
        "PAT_9,77,,FACE,ACK,PAT_9_1.1.png",
        "PAT_9,77,,FACE,ACK,PAT_9_1.2.png",
    )


def test_columns_and_labels_are_mapped(tmp_path: Path) -> None:
    path = pad_ufes(tmp_path)
    for place in (path, tmp_path):
        result = read(place, source="table", columns=PAD_COLUMNS, labels=PAD_LABELS, space="binary")
        assert list(result.dataset["label"]) == [0, 0, 1, 1]
    row = result.dataset.remove_columns("image")[0]
    expected = {"image_id": "PAT_8_15.820", "group": "PAT_8", "age": 55.0, "sex": "female", "site": "head/neck"}
    assert {name: row[name] for name in expected} == expected


def test_a_lone_table_is_recognised(tmp_path: Path) -> None:
    layouts.images(tmp_path / "images", ["a.jpg", "b.jpg", "c.jpg", "d.jpg"])
    layouts.text(tmp_path / "labels.csv", "image_id,label,split", "a,mel,train", "b,nv,train", "c,mel,test", "d,nv,test")
    result = read(tmp_path)
    assert result.report.source == "table"
    assert result.official_split == {"a": "train", "b": "train", "c": "test", "d": "test"}


@pytest.mark.parametrize("suffix", ["csv", "tsv", "parquet"])
def test_images_are_found_by_path(suffix: str, tmp_path: Path) -> None:
    layouts.images(tmp_path / "one", ["x.jpg", "y.jpg"])
    layouts.images(tmp_path / "two", ["x.jpg", "y.jpg"])
    places = ["one/x.jpg", "one/y.jpg", "two/x.jpg", "two/y.jpg"]
    table = pd.DataFrame({"key": list("abcd"), "file_name": places, "label": ["mel", "mel", "nv", "nv"]})
    path = tmp_path / f"table.{suffix}"
    if suffix == "parquet":
        table.to_parquet(path)
    else:
        table.to_csv(path, index=False, sep="\t" if suffix == "tsv" else ",")
    result = read(path, columns={"image_id": "key"})
    assert [str(Path(place).relative_to(tmp_path)) for place in image_paths(result.dataset)] == places
    assert list(result.dataset["image_id"]) == list("abcd")


def test_every_defect_is_counted_and_left_out_on_request(tmp_path: Path) -> None:
    names = ["a.jpg", "b.jpg", "c.jpg", "d.jpg", "stray.jpg", "lone.jpg", "blank.jpg", "twin.jpg"]
    layouts.images(tmp_path / "images", names)
    path = layouts.text(
        tmp_path / "labels.csv",
        "image_id,label",
        "a,mel",
        "b,mel",
        "c,nv",
        "d,nv",
        "d,nv",
        "gone,nv",
        "blank,",
        "lone,df",
        "twin,mel",
        "twin,nv",
        ",nv",
    )
    with pytest.raises(DataError) as error:
        read(path)
    assert str(error.value) == (
        f"{tmp_path}: 2 rows without an image (first: gone); 1 image without a row (first: images/stray.jpg); "
        "1 row with an unknown label (first: blank: no label); 1 row that repeats an image id (first: d); "
        "2 rows whose image id carries two labels (first: twin); 1 class with one sample (first: df); "
        "name their folder with --images, mend them, or leave them out with --allow-missing"
    )
    result = read(path, allow_missing=True)
    assert list(result.dataset["image_id"]) == ["a", "b", "c", "d"]
    assert (result.report.rows, result.report.kept) == (11, 4)
    counts = {kind: found["count"] for kind, found in result.report.to_dict()["problems"].items()}
    assert counts == {
        "missing_images": 2,
        "images_without_row": 1,
        "unknown_labels": 1,
        "duplicate_ids": 1,
        "conflicting_labels": 2,
        "single_sample_classes": 1,
    }


def test_nothing_left_is_an_error_even_then(tmp_path: Path) -> None:
    path = layouts.text(tmp_path / "labels.csv", "image_id,label", "a,mel", "b,nv")
    with pytest.raises(DataError, match="no image with a label is left"):
        read(path, allow_missing=True)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "the file is empty"),
        (b"image_id,label\n", "the table has no rows"),
        (b"image_id,label\n\xff\xfe\xfa,nv\n", "cannot be read as a table"),
        (b'image_id,label\n"a,nv\nb,nv\n', "cannot be read as a table"),
        (b"image_id,labels\na,nv\n", r"no column 'label'; did you mean 'labels'\?"),
        (b"what,label\na,nv\n", "no column of image ids or paths"),
        (b"image_id,label,split\na,nv,holdout\n", "split 'holdout' is none of train, val, test"),
        (b"\x00\x01\x02\x03", "labels.csv"),
    ],
)
def test_a_damaged_table_is_one_line(content: bytes, why: str, tmp_path: Path) -> None:
    path = tmp_path / "labels.csv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=why) as error:
        read(path)
    assert "\n" not in str(error.value)


def test_a_map_to_no_column_of_the_schema_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"'labl' is no column of the schema; did you mean 'label'\?"):
        read(pad_ufes(tmp_path), columns={"labl": "diagnostic"})
