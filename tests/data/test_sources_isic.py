"""The ISIC challenge layouts, year by year: labels, official splits, groups, and images that lie elsewhere."""

from __future__ import annotations

from pathlib import Path

import pytest

from lesion_hub.data import image_paths, read
from lesion_hub.data.sources.report import ReadResult
from lesion_hub.errors import DataError

from . import layouts


def names_of(result: ReadResult) -> dict[str, str]:
    labels = [result.space.labels[label] for label in result.dataset["label"]]
    return dict(zip([image_id[-1] for image_id in result.dataset["image_id"]], labels, strict=True))


def test_2016_takes_words_and_numbers(tmp_path: Path) -> None:
    result = read(layouts.isic2016(tmp_path))
    assert result.report.source == "isic2016"
    expected = {"1": "benign", "2": "malignant", "3": "benign", "4": "malignant", "5": "benign"}
    assert names_of(result) == expected
    assert result.official_split is not None
    assert result.official_split["ISIC_0000004"] == "test"


def test_2017_reads_neither_mark_as_nevus_and_skips_superpixels(tmp_path: Path) -> None:
    result = read(layouts.isic2017(tmp_path))
    assert result.space.name == "isic2017"
    assert names_of(result) == {"1": "mel", "2": "sk", "3": "nv", "4": "nv", "5": "mel", "6": "sk"}
    assert result.official_split is not None
    assert sorted(result.official_split.values()) == ["test", "test", "train", "train", "train", "val"]
    facts = {row["image_id"][-1]: (row["age"], row["sex"]) for row in result.dataset.remove_columns("image")}
    assert (facts["1"], facts["2"]) == ((55.0, "female"), (None, None))
    assert result.report.problems == ()


def test_2017_with_both_marks_is_an_unknown_label(tmp_path: Path) -> None:
    root = layouts.isic2017(tmp_path)
    truth = root / "ISIC-2017_Training_Part3_GroundTruth.csv"
    truth.write_text(truth.read_text().replace("ISIC_0000003,0.0,0.0", "ISIC_0000003,1.0,1.0"))
    with pytest.raises(DataError, match=r"1 row with an unknown label \(first: ISIC_0000003: no label\)"):
        read(root)


def test_2018_groups_by_lesion_where_groupings_are_there(tmp_path: Path) -> None:
    result = read(layouts.isic2018(tmp_path))
    assert names_of(result) == {"1": "mel", "2": "nv", "3": "mel", "4": "nv"}
    groups = dict(zip(result.dataset["image_id"], result.dataset["group"], strict=True))
    assert groups == {
        "ISIC_0000001": "HAM_1",
        "ISIC_0000002": "ISIC_0000002",
        "ISIC_0000003": "HAM_1",
        "ISIC_0000004": "ISIC_0000004",
    }


def test_2019_strips_the_downsampled_suffix_from_ids_and_files(tmp_path: Path) -> None:
    result = read(layouts.isic2019(tmp_path))
    assert result.space.name == "isic8"
    assert result.dataset["image_id"][0] == "ISIC_0000001"
    assert image_paths(result.dataset)[0].endswith("ISIC_0000001_downsampled.jpg")
    assert list(result.dataset["group"])[:3] == ["HAM_1", "HAM_1", "ISIC_0000003"]
    assert result.dataset["site"][0] == "torso"


def test_2019_labels_the_images_of_another_folder(tmp_path: Path) -> None:
    ham = layouts.ham10000(tmp_path / "ham")
    root = layouts.isic2019(tmp_path / "isic", with_images=False)
    with pytest.raises(DataError, match=r"2 rows without an image \(first: ISIC_0000007\).*--images.*--allow-missing"):
        read(root, images=[ham])
    result = read(root, images=[ham], allow_missing=True)
    assert names_of(result) == {"1": "nv", "2": "nv", "3": "mel", "4": "mel", "5": "ak", "6": "ak"}
    assert (result.report.rows, result.report.kept) == (8, 6)
    assert str(ham) in image_paths(result.dataset)[0]


def test_2019_unknown_is_a_label_of_isic9_only(tmp_path: Path) -> None:
    root = layouts.isic2019(tmp_path)
    truth = root / "ISIC_2019_Training_GroundTruth.csv"
    unknown = ",".join(["0.0"] * 8 + ["1.0"])
    truth.write_text(truth.read_text() + f"ISIC_0000009,{unknown}\nISIC_0000010,{unknown}\n")
    layouts.images(root, layouts.isic(9, 10))
    assert read(root, space="isic9").dataset["label"][-1] == 8
    with pytest.raises(DataError, match=r"2 rows with an unknown label \(first: ISIC_0000009: 'UNK'\)"):
        read(root)
    assert len(read(root, allow_missing=True).dataset) == 8


@pytest.mark.parametrize("name", ["train.csv", "ISIC_2020_Training_GroundTruth.csv", "ISIC_2020_Training_GroundTruth_v2.csv"])
def test_2020_groups_by_patient_and_notes_its_unlabelled_test_images(name: str, tmp_path: Path) -> None:
    result = read(layouts.isic2020(tmp_path, name))
    assert result.report.source == "isic2020"
    assert names_of(result) == {"1": "benign", "2": "benign", "3": "malignant", "4": "malignant"}
    assert list(result.dataset["group"]) == ["IP_1", "IP_1", "IP_2", "IP_3"]
    assert list(result.dataset["site"]) == ["head/neck", "torso", "palms/soles", None]
    assert result.report.problems == ()
    assert [(note.kind, note.count) for note in result.report.notes] == [("unlabelled_images", 2)]


def test_anybodys_train_csv_is_not_2020(tmp_path: Path) -> None:
    layouts.text(tmp_path / "train.csv", "a,b", "1,2")
    layouts.text(tmp_path / "test.csv", "a,b", "1,2")
    with pytest.raises(DataError, match=r"no known layout; looked for HAM10000_metadata\.csv;"):
        read(tmp_path)


def test_a_missing_column_names_the_file_and_what_it_has(tmp_path: Path) -> None:
    root = layouts.isic2019(tmp_path)
    layouts.text(root / "ISIC_2019_Training_GroundTruth.csv", "image,MEL,NV", "ISIC_0000001,1,0")
    with pytest.raises(DataError, match=r"ISIC_2019_Training_GroundTruth.csv: no column 'BCC'"):
        read(root)


def test_one_split_can_be_read_alone(tmp_path: Path) -> None:
    result = read(layouts.isic2017(tmp_path), split="test")
    assert list(result.dataset["image_id"]) == ["ISIC_0000005", "ISIC_0000006"]
    with pytest.raises(DataError, match="no official split 'val'"):
        read(layouts.isic2016(tmp_path / "b"), split="val")
