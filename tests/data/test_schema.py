"""The schema: the same eight columns and types for every label space, and a check that says what differs."""

from __future__ import annotations

import subprocess
import sys

import pytest
from datasets import ClassLabel, Dataset, Features, Image

from lesion_hub.data import image_paths, undecoded
from lesion_hub.data.schema import COLUMNS, check_schema, features
from lesion_hub.errors import DataError
from lesion_hub.taxonomy import LABEL_SPACES, label_space

ROW = {"image": "a.jpg", "label": 1, "image_id": "a", "group": "g", "age": 40, "sex": None, "site": None, "source": "s"}


def one_row(space_name: str = "ham7") -> Dataset:
    return Dataset.from_dict({name: [value] for name, value in ROW.items()}, features=features(label_space(space_name)))


@pytest.mark.parametrize("name", LABEL_SPACES)
def test_labels_are_numbered_as_in_the_space(name: str) -> None:
    space = label_space(name)
    schema = features(space)
    assert tuple(schema) == COLUMNS
    assert tuple(schema["label"].names) == space.labels


def test_check_accepts_the_schema_decoded_or_not() -> None:
    check_schema(one_row(), label_space("ham7"))
    check_schema(undecoded(one_row()), label_space("ham7"))


def test_check_refuses_other_labels_and_other_columns() -> None:
    with pytest.raises(DataError, match="not those of 'isic8' in order"):
        check_schema(one_row(), label_space("isic8"))
    with pytest.raises(DataError, match="lacks the column 'group'"):
        check_schema(one_row().remove_columns("group"), label_space("ham7"))
    reordered = one_row().cast_column("label", ClassLabel(names=list(reversed(label_space("ham7").labels))))
    with pytest.raises(DataError, match="in order"):
        check_schema(reordered, label_space("ham7"))


def test_paths_come_without_decoding() -> None:
    assert image_paths(one_row()) == ["a.jpg"]
    assert image_paths(undecoded(one_row())) == ["a.jpg"]
    assert image_paths(one_row().select([])) == []


def test_paths_follow_the_selected_rows() -> None:
    three = Dataset.from_dict({"image": ["a", "b", "c"]}, features=Features({"image": Image()}))
    assert image_paths(three.select([2, 0])) == ["c", "a"]


def test_the_package_is_light_to_import() -> None:
    code = "import sys, lesion_hub.data, lesion_hub.data.schema; print({'torch', 'datasets', 'pandas'} & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"


def test_every_public_name_is_there() -> None:
    import lesion_hub.data

    assert all(getattr(lesion_hub.data, name) is not None for name in lesion_hub.data.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = lesion_hub.data.nothing
