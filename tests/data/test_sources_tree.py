"""Class-per-folder trees, flat or split, wrapped or not."""

from __future__ import annotations

from pathlib import Path

import pytest

from lesion_hub.data import read
from lesion_hub.errors import DataError, TaxonomyError

from . import layouts

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
