"""Version numbers order as numbers do, and the changelog keeps every entry."""

from __future__ import annotations

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lesion_hub.errors import StoreError
from lesion_hub.hub.versions import Version, add_entry, changelog_notes, checked_notes, split_revision, version_tags
from tests.hub.publishable import refused

numbers = st.integers(min_value=0, max_value=10**6)
some_versions = st.builds(Version, numbers, numbers, numbers)
DAY = date(2026, 1, 2)


def valid(notes: str) -> bool:
    try:
        checked_notes(notes)
    except StoreError:
        return False
    return True


notes_texts = st.text().filter(valid).map(checked_notes)
histories = st.lists(st.tuples(some_versions, notes_texts), unique_by=lambda entry: entry[0], max_size=6)


def changelog_of(history: list[tuple[Version, str]]) -> str | None:
    text = None
    for version, notes in history:
        text = add_entry(text, version, notes, DAY)
    return text


@given(some_versions)
def test_a_version_reads_back_from_its_tag_with_or_without_v(version):
    assert Version.parse(str(version)) == Version.parse(str(version)[1:]) == version


@given(st.lists(some_versions, unique=True))
def test_tags_are_ordered_by_number_and_all_else_is_left_out(some):
    names = [*map(str, some), "main", "1.0.0", "v1.0", "v01.0.0", "v1.0.0-rc1", "latest"]
    assert version_tags(names) == [str(version) for version in sorted(some)]


def test_ten_comes_after_nine():
    assert version_tags(["v1.10.0", "v1.9.9", "v2.0.0", "v1.2.10"]) == ["v1.2.10", "v1.9.9", "v1.10.0", "v2.0.0"]


@pytest.mark.parametrize("text", ["1.0", "1.0.0.0", "01.0.0", "1.0.0-rc1", "latest", "", "v1.0.٣", "1.0.0\n2.0.0", "-1.0.0"])
def test_other_spellings_are_refused(text):
    with refused("X.Y.Z"):
        Version.parse(text)


@given(some_versions)
def test_a_version_in_the_name_is_the_one_beside_it(version):
    tag, number = str(version), str(version)[1:]
    for said in ((f"m@{tag}",), (f"m@{number}",), ("m", tag), ("m", number), (f"m@{tag}", number)):
        assert split_revision(*said) == ("m", tag)


def test_branches_commits_and_paths_with_an_at_stay_as_they_are(tmp_path):
    assert split_revision("org/m@refs/pr/1") == ("org/m", "refs/pr/1")
    assert split_revision("m", "") == ("m", None)
    (tmp_path / "run@2").mkdir()
    assert split_revision(str(tmp_path / "run@2"), "main") == (str(tmp_path / "run@2"), "main")


@pytest.mark.parametrize(
    ("said", "words"),
    [
        (("m@v1.0.0", "v2.0.0"), "says v1.0.0 and the revision beside it v2.0.0"),
        (("m@",), "NAME@VERSION"),
        (("@v1.0.0",), "NAME@VERSION"),
        (("m@v1\x1b[2J",), "holds what no version"),
        (("m", "main\n"), "holds what no version"),
        (("m", "my branch"), "holds what no version"),
    ],
)
def test_what_is_no_revision_is_one_line(said, words):
    with refused(words):
        split_revision(*said)


@given(histories, some_versions, notes_texts)
def test_an_entry_goes_on_top_and_all_others_stay(history, version, notes):
    before = changelog_notes(changelog_of(history) or "")
    after = changelog_notes(add_entry(changelog_of(history), version, notes, DAY))
    assert next(iter(after.items())) == (str(version), notes)
    others = {tag: text for tag, text in before.items() if tag != str(version)}
    assert list(after.items())[1:] == list(others.items())


@given(histories, some_versions, notes_texts)
def test_adding_an_entry_twice_is_adding_it_once(history, version, notes):
    once = add_entry(changelog_of(history), version, notes, DAY)
    assert add_entry(once, version, notes, DAY) == once


def test_text_above_the_first_version_stays_there():
    log = add_entry("# What changed\n\nWritten by hand.\n", Version(0, 1, 0), "First.", DAY)
    log = add_entry(log, Version(0, 2, 0), "Second.", DAY)
    assert log.startswith("# What changed\n\nWritten by hand.\n\n## v0.2.0 - 2026-01-02\n\nSecond.\n\n## v0.1.0")
    assert changelog_notes(log) == {"v0.2.0": "Second.", "v0.1.0": "First."}


@given(notes_texts)
def test_notes_survive_being_written_and_read(notes):
    raw = add_entry(None, Version(1, 0, 0), notes, DAY).encode("utf-8")
    text = raw.decode("utf-8").replace("\r\n", "\n").replace("\r", "\n")  # what reading a text file does
    assert changelog_notes(text) == {"v1.0.0": notes}


@pytest.mark.parametrize("notes", [None, "", "  \n\t "])
def test_a_version_needs_notes(notes):
    with refused("notes"):
        checked_notes(notes)


@pytest.mark.parametrize("notes", ["x\n## v9.9.9 - 2026-01-01\ny", "x\r## v9.9.9 - 2026-01-01\ry", "\udcff"])
def test_notes_that_would_corrupt_the_changelog_are_refused(notes):
    with refused("notes"):
        checked_notes(notes)
