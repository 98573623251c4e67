"""Readers of folders: HAM10000, the ISIC challenges, a folder per class, and tables with a column map."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from lesion_hub.data import COLUMNS, ReadResult, image_paths, read
from lesion_hub.errors import DataError, TaxonomyError

from . import layouts
from .bad_files import good_jpeg

# ------------------------------------------------------------------------------------------------ HAM10000


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


# ------------------------------------------------------------------------------------------------ ISIC challenges


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


# ------------------------------------------------------------------------------------------------ a folder per class


CLINICAL = ("Enfeksiyonel", "Ekzama", "Akne", "Pigment", "Benign", "Malign")


def test_benign_and_malignant_with_train_and_test(tmp_path: Path) -> None:
    layouts.tree(tmp_path / "melanoma_cancer_dataset", ("benign", "malignant"), ("train", "test"))
    for root in (tmp_path, tmp_path / "melanoma_cancer_dataset"):
        result = read(root)
        assert (result.report.source, result.space.name) == ("folders", "binary")
        assert sorted(result.dataset["label"]) == [0, 0, 0, 0, 1, 1, 1, 1]
        assert result.official_split is not None
        assert sorted(result.official_split.values()) == ["test"] * 4 + ["train"] * 4


@pytest.mark.parametrize("word", ["val", "valid", "Validation"])
def test_validation_by_any_of_its_names(word: str, tmp_path: Path) -> None:
    result = read(layouts.tree(tmp_path, ("nv", "mel"), ("Train", word)))
    assert result.official_split is not None
    assert sorted(set(result.official_split.values())) == ["train", "val"]


def test_the_clinical_six_by_their_turkish_names(tmp_path: Path) -> None:
    result = read(layouts.tree(tmp_path, CLINICAL))
    assert result.space.name == "clinical6"
    labels = {row["image_id"].split("/")[0]: result.space.labels[row["label"]] for row in result.dataset}
    assert labels["Enfeksiyonel"] == "infectious"
    assert labels["Malign"] == "malignant"
    assert result.official_split is None


def test_the_same_file_name_in_every_class_is_no_duplicate(tmp_path: Path) -> None:
    result = read(layouts.tree(tmp_path, ("a", "b")))
    assert sorted(result.dataset["image_id"]) == ["a/0.jpg", "a/1.jpg", "b/0.jpg", "b/1.jpg"]
    assert result.dataset["group"][:] == result.dataset["image_id"][:]


def test_an_archive_id_in_two_classes_is_a_conflict(tmp_path: Path) -> None:
    root = layouts.tree(tmp_path, ("nv", "mel"))
    layouts.images(root / "nv", layouts.isic(1))
    layouts.images(root / "mel", layouts.isic(1))
    with pytest.raises(DataError, match=r"2 rows whose image id carries two labels \(first: ISIC_0000001\)"):
        read(root)
    assert len(read(root, allow_missing=True).dataset) == 4


def test_unknown_folder_names_make_their_own_space(tmp_path: Path) -> None:
    result = read(layouts.tree(tmp_path, ("tinea", "vitiligo")))
    assert (result.space.name, result.space.labels) == ("custom", ("tinea", "vitiligo"))
    with pytest.raises(DataError, match=r"4 rows with an unknown label \(first: tinea/0.jpg: 'tinea'\)"):
        read(tmp_path, space="binary")


def test_some_classes_of_a_space_read_into_it(tmp_path: Path) -> None:
    root = layouts.tree(tmp_path, ("Melanoma", "nevus"))
    result = read(root, space="isic8")
    assert sorted({result.space.labels[label] for label in result.dataset["label"]}) == ["mel", "nv"]


def test_a_class_that_the_space_would_split_is_refused_not_dropped(tmp_path: Path) -> None:
    root = layouts.tree(tmp_path, ("akiec", "nv"))
    with pytest.raises(TaxonomyError, match="split between ak and scc"):
        read(root, space="isic8", allow_missing=True)


def test_images_outside_every_class_are_counted(tmp_path: Path) -> None:
    root = layouts.tree(tmp_path, ("nv", "mel"), ("train", "test"))
    layouts.images(root, ["stray.jpg"])
    with pytest.raises(DataError, match=r"1 image without a row \(first: stray.jpg\)"):
        read(root)


def test_image_folders_without_their_csv_are_not_taken_for_classes(tmp_path: Path) -> None:
    root = layouts.ham10000(tmp_path)
    (root / "HAM10000_metadata.csv").unlink()
    with pytest.raises(DataError, match="no known layout"):
        read(root)


def test_a_class_with_one_sample(tmp_path: Path) -> None:
    root = layouts.tree(tmp_path, ("nv", "mel"))
    layouts.images(root / "df", ["0.jpg"])
    with pytest.raises(DataError, match=r"1 class with one sample \(first: df\)"):
        read(root)
    assert len(read(root, allow_missing=True).dataset) == 4


def test_hidden_and_archive_debris_is_skipped(tmp_path: Path) -> None:
    root = layouts.tree(tmp_path, ("nv", "mel"))
    layouts.images(root / "__MACOSX" / "nv", ["0.jpg"])
    layouts.images(root / "nv", ["._0.jpg"])
    assert len(read(root).dataset) == 4


def test_a_link_in_a_circle_ends(tmp_path: Path) -> None:
    root = layouts.tree(tmp_path, ("nv", "mel"))
    (root / "nv" / "again").symlink_to(root)
    assert len(read(root).dataset) == 4


# ------------------------------------------------------------------------------------------------ a single table


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


# ------------------------------------------------------------------------------------------------ a table beside folders


def clinic(root: Path, *, table: str = "liste.csv") -> Path:
    """Images in two folders that are no classes, and a table in German that Excel wrote."""
    layouts.images(root / "Bilder 2023", ["IMG_1.JPG", "IMG_2.JPG", "IMG_3.JPG"])
    layouts.images(root / "nachtrag", ["IMG_4.JPG", "IMG_5.JPG", "IMG_6.JPG"])
    rows = ["Bild;Diagnose;PatientNr;Alter;Geschlecht;Kommentar"]
    for number, word in enumerate(("Melanom", "Nävus", "Melanom", "Nävus", "Basaliom", "Basaliom"), start=1):
        rows.append(f'IMG_{number};{word};P{number // 2};4{number},5;{"wm"[number % 2]};"a; b, c"')
    (root / table).write_text("\n".join(rows), encoding="utf-8-sig")
    return root


GERMAN = {"image_id": "Bild", "label": "Diagnose"}


def test_a_table_beside_image_folders_asks_which_of_them_labels(tmp_path: Path) -> None:
    root = clinic(tmp_path)
    for columns in ({}, GERMAN):
        with pytest.raises(DataError) as error:
            read(root, columns=columns)
        assert "liste.csv" in str(error.value) and "Bilder 2023, nachtrag" in str(error.value)
        assert "--source table" in str(error.value) and "--source folders" in str(error.value)
        assert "\n" not in str(error.value)
    assert read(root, source="folders").space.labels == ("Bilder 2023", "nachtrag")
    result = read(root, source="table", columns=GERMAN)
    assert result.space.labels == ("Basaliom", "Melanom", "Nävus")
    assert [Path(path).parent.name for path in image_paths(result.dataset)] == ["Bilder 2023"] * 3 + ["nachtrag"] * 3
    assert result.dataset[:] == read(root / "liste.csv", columns=GERMAN).dataset[:]


def test_several_tables_beside_image_folders_ask_for_one(tmp_path: Path) -> None:
    root = clinic(tmp_path)
    layouts.text(root / "alt.csv", "a,b", "1,2")
    with pytest.raises(DataError, match=r"tables \(alt.csv, liste.csv\).*give the path of one table.*or --source folders"):
        read(root)


def test_mapped_columns_that_a_layout_does_not_read_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"'folders' takes its labels from the names of its folders.*--source table reads liste"
    ):
        read(clinic(tmp_path / "a"), source="folders", columns=GERMAN)
    with pytest.raises(DataError, match=r"'ham10000' takes its labels from columns of their own; leave --column out"):
        read(layouts.ham10000(tmp_path / "b"), columns={"label": "dx_type"})
    with pytest.raises(DataError, match=r"leave --column out$"):
        read(layouts.tree(tmp_path / "c", ("mel", "nv")), columns={"label": "x"})


@pytest.mark.parametrize("separator", [";", "\t", ","])
@pytest.mark.parametrize("stated", [False, True])
def test_a_table_may_be_separated_otherwise(separator: str, stated: bool, tmp_path: Path) -> None:
    layouts.images(tmp_path / "images", ["a.jpg", "b.jpg", "c.jpg", "d.jpg"])
    lines = [
        ["image_id", "label", "age"],
        *([name, word, '"45,5"'] for name, word in zip("abcd", ("mel", "nv") * 2, strict=True)),
    ]
    text = "\n".join(separator.join(line) for line in lines)
    (tmp_path / "labels.csv").write_text((f"sep={separator}\n" if stated else "") + text, encoding="utf-8-sig")
    result = read(tmp_path)
    assert list(result.dataset["age"]) == [45.5] * 4
    assert result.space.labels == ("mel", "nv")


def test_columns_under_other_names_are_proposed_not_taken(tmp_path: Path) -> None:
    result = read(clinic(tmp_path), source="table", columns=GERMAN)
    assert result.dataset["group"][:] == result.dataset["image_id"][:]
    assert set(result.dataset["age"]) == set(result.dataset["sex"]) == {None}
    assert [str(proposal) for proposal in result.report.proposals] == [
        "6 groups; `--column group=PatientNr` would make 4",
        "age is known of 0 images; `--column age=Alter` would make that 6",
        "sex is known of 0 images; `--column sex=Geschlecht` would make that 6",
    ]
    taken = {**GERMAN, "group": "PatientNr", "age": "Alter", "sex": "Geschlecht"}
    mapped = read(tmp_path, source="table", columns=taken)
    assert mapped.report.proposals == ()
    assert (len(set(mapped.dataset["group"])), mapped.dataset["age"][0], mapped.dataset["sex"][0]) == (4, 41.5, "male")


def test_a_column_whose_content_says_otherwise_is_not_proposed(tmp_path: Path) -> None:
    layouts.images(tmp_path, ["a.jpg", "b.jpg", "c.jpg", "d.jpg"])
    rows = [f"{name},{word},{word},late,12" for name, word in zip("abcd", ("mel", "nv") * 2, strict=True)]
    layouts.text(tmp_path / "t.csv", "image_id,label,sexe,Alter,lesion_size", *rows)
    assert read(tmp_path).report.proposals == ()


# ------------------------------------------------------------------------------------------------ which file a cell names


def two_folders(root: Path, cells: list[str], *, same: bool = False) -> Path:
    """The names 1.jpg and 2.jpg in two folders; ``same`` makes the files of one name copies of each other."""
    for colour, folder in enumerate(("one", "two")):
        layouts.images(root / folder, ["1.jpg", "2.jpg"])
        if not same:
            for name in ("1.jpg", "2.jpg"):
                (root / folder / name).write_bytes(good_jpeg((90 * colour, 20, 20)))
    words = ("mel", "nv") * 2
    return layouts.text(root / "t.csv", "image_id,label", *(f"{cell},{word}" for cell, word in zip(cells, words, strict=False)))


@pytest.mark.parametrize("suffix", ["", ".jpg", ".JPG"])
@pytest.mark.parametrize("slash", ["/", "\\"])
def test_a_path_names_its_file_whatever_the_suffix(suffix: str, slash: str, tmp_path: Path) -> None:
    cells = [f"{folder}{slash}{number}{suffix}" for folder in ("two", "one") for number in (1, 2)]
    result = read(two_folders(tmp_path, cells))
    places = [str(Path(path).relative_to(tmp_path)) for path in image_paths(result.dataset)]
    assert places == ["two/1.jpg", "two/2.jpg", "one/1.jpg", "one/2.jpg"]
    assert list(result.dataset["image_id"]) == ["two/1", "two/2", "one/1", "one/2"]


def test_a_path_into_a_folder_that_is_there_is_not_found_in_another(tmp_path: Path) -> None:
    path = two_folders(tmp_path, ["one/1", "one/2", "two/1", "two/2"])
    (tmp_path / "two" / "2.jpg").unlink()
    with pytest.raises(DataError, match=r"1 row without an image \(first: two/2\)"):
        read(path)


def test_a_name_of_several_files_is_refused_unless_they_are_copies(tmp_path: Path) -> None:
    path = two_folders(tmp_path / "a", ["1", "2"])
    with pytest.raises(DataError, match=r"2 rows whose image may be one of several files \(first: 1: one/1.jpg, two/1.jpg\)"):
        read(path)
    with pytest.raises(DataError, match=r"b: 2 classes with one sample") as error:
        read(two_folders(tmp_path / "b", ["1", "2"], same=True))
    assert "several files" not in str(error.value)


# ------------------------------------------------------------------------------------------------ what labels are taken for


def test_full_names_are_read_into_any_space_and_told(tmp_path: Path) -> None:
    root = clinic(tmp_path)
    for space in (None, "binary"):
        result = read(root, source="table", columns=GERMAN, space=space)
        told = {label.word: (label.diagnosis, label.malignant, label.images) for label in result.report.labels}
        assert told == {"Melanom": ("mel", True, 2), "Nävus": ("nv", False, 2), "Basaliom": ("bcc", True, 2)}
    assert [result.space.labels[label] for label in result.dataset["label"]][:2] == ["malignant", "benign"]


def test_folders_and_label_maps_know_the_same_words(tmp_path: Path) -> None:
    result = read(layouts.tree(tmp_path, ("naevus", "Melanoma", "weird")), labels={"weird": "Spitz nevus"}, space="ham7")
    assert sorted(result.space.labels[label] for label in result.dataset["label"]) == ["mel"] * 2 + ["nv"] * 4
    how = {label.word: label.how for label in result.report.labels}
    assert how == {"Melanoma": "name", "naevus": "alias", "weird": "as 'Spitz nevus': a kind of nv"}


def test_labels_that_are_not_known_say_why(tmp_path: Path) -> None:
    result = read(layouts.tree(tmp_path, ("melanoma", "keratosis", "tinea")))
    assert result.space.labels == ("keratosis", "melanoma", "tinea")
    how = {label.word: (label.diagnosis, label.how) for label in result.report.labels}
    assert how["keratosis"] == (None, "ambiguous: it may be actinic or seborrheic")
    assert how["tinea"] == (None, "not in the table")
    assert result.space.malignancy_map is None


def test_the_public_sets_of_six_codes_map_without_a_label_map(tmp_path: Path) -> None:
    root = layouts.tree(tmp_path, ("ACK", "BCC", "MEL", "NEV", "SCC", "SEK"))
    assert read(root).space.map_to("binary").indices == (1, 1, 1, 0, 1, 0)
    assert sorted(read(root, space="binary").dataset["label"]) == [0] * 4 + [1] * 8
