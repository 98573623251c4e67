"""A card that was edited, cut short or made to promise something does not pass."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from lesion_hub.errors import StoreError
from lesion_hub.hub.card_check import CardError, check_card, problems
from lesion_hub.hub.wording import breaches, missing_statements
from tests.hub.test_card import GOLDEN, SECTIONS, change


@pytest.fixture
def folder(tmp_path):
    return Path(shutil.copytree(GOLDEN, tmp_path / "model"))


def edit(folder: Path, old: str, new: str) -> None:
    text = (folder / "README.md").read_text()
    assert old in text
    (folder / "README.md").write_text(text.replace(old, new, 1))


def found_in(folder: Path) -> str:
    with pytest.raises(CardError) as caught:
        check_card(folder)
    assert "\n" not in str(caught.value)
    return "; ".join(caught.value.problems)


def test_the_card_as_written_passes():
    assert list(problems(GOLDEN)) == []


RESULT = re.compile(r"(?<=[ (–])0\.\d{3}(?!\d)")
PLACES = [match.start() for match in RESULT.finditer((GOLDEN / "README.md").read_text()) if match.start() > 2000]


@pytest.mark.parametrize("place", PLACES[:: len(PLACES) // 12])
def test_a_result_changed_in_its_last_digit_is_found(folder, place):
    """Though some other measure may well have the new value."""
    text = (folder / "README.md").read_text()
    known = text[place : place + 5]
    edited = f"{float(known) + 0.001:.3f}"
    (folder / "README.md").write_text(text[:place] + edited + text[place + 5 :])
    assert f"{edited} stands where the files say {known}" in found_in(folder)


def test_a_result_changed_in_the_metadata_is_found(folder):
    edit(folder, "value: 0.7181", "value: 0.9181")
    assert "model-index does not fit the files" in found_in(folder)


def test_a_count_changed_by_hand_is_found(folder):
    edit(folder, "150 images of 75 lesions", "950 images of 75 lesions")
    assert "950 stands where the files say 150" in found_in(folder)


def test_files_that_changed_under_the_card_are_found(folder):
    change(folder, "metrics.json", "test", "intervals", "accuracy", "value", to=0.5)
    assert "0.720 stands where the files say 0.500" in found_in(folder)


@pytest.mark.parametrize("section", SECTIONS)
def test_a_missing_section_is_found(folder, section):
    edit(folder, f"## {section}\n", "")
    assert f"section {section!r} is missing" in found_in(folder)


@pytest.mark.parametrize("key", ["license", "library_name", "pipeline_tag", "base_model", "datasets", "metrics", "tags"])
def test_missing_metadata_are_found(folder, key):
    text = (folder / "README.md").read_text()
    (folder / "README.md").write_text(re.sub(rf"^{key}:.*\n(- .*\n)*", "", text, count=1, flags=re.MULTILINE))
    assert key in found_in(folder)


def test_a_licence_more_permissive_than_the_datas_is_found(folder):
    edit(folder, "license: cc-by-nc-4.0", "license: apache-2.0")
    assert "drops non-commercial use" in found_in(folder)


def test_own_words_may_quote_any_measured_number(folder):
    edit(folder, "## Limits\n", "## Limits\n\nAccuracy is 72.0 % and the temperature 1.4, on v1.1.0 of the HAM10000 data.\n")
    check_card(folder)


def test_own_words_may_not_make_numbers_up(folder):
    edit(folder, "## Limits\n", "## Limits\n\nIt reaches 0.98765 on our private data.\n")
    assert "0.98765 is in none of metrics.json" in found_in(folder)


@pytest.mark.parametrize(
    "promise",
    [
        "A score below that means that the lesion is benign.",
        "Your mole is most likely safe.",
        "This looks harmless to it.",
        "It rules out melanoma.",
        "The model diagnoses skin cancer.",
        "There is no need to see a doctor.",
        "It is FDA approved.",
        "It is better than dermatologists.",
    ],
)
def test_promises_are_found(folder, promise):
    edit(folder, "## Limits\n", f"## Limits\n\n{promise}\n")
    assert re.search(r"line \d+ (tells|claims|advises)", found_in(folder))


@pytest.mark.parametrize("words", ["Not a medical device", "see a doctor"])
def test_what_every_card_says_must_not_go(folder, words):
    text = (folder / "README.md").read_text()
    (folder / "README.md").write_text(text.replace(words, "…"))
    assert "does not say" in found_in(folder)


@pytest.mark.parametrize("text", ["| benign | 40 | 0.650 |", "labels: benign, malignant", "Benign keratosis-like lesion"])
def test_names_of_labels_are_no_promise(text):
    assert not list(breaches(text))


def test_an_empty_text_says_nothing():
    assert len(list(missing_statements(""))) == 2


@pytest.mark.parametrize("text", ["---\nlicense: [\n---\n", "\xff"])
def test_a_broken_card_is_one_line(folder, text):
    (folder / "README.md").write_text(text, encoding="latin-1")
    assert found_in(folder)


def test_no_card_is_one_line(folder):
    (folder / "README.md").unlink()
    assert "cannot be read" in found_in(folder)
    with pytest.raises(StoreError):
        check_card(folder)
