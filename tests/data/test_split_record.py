"""A model's record of its images answers whether an image or a lesion was there, and survives the way through JSON."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lesion_hub.data.splits.record import PartRecord, describe_parts, group_digest, image_digest, read_parts
from lesion_hub.errors import DataError

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
