"""Balanced draws: exactly N of each class, the same for everybody, and nobody can change one unnoticed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st

from lesion_hub.data.draw import Draw, balanced_draw, load_draw
from lesion_hub.data.schema import features
from lesion_hub.errors import DataError, FileWriteError, TaxonomyError
from lesion_hub.taxonomy import LabelSpace, label_space, space_from_names

BINARY = label_space("binary")


def labelled(labels: list[int], space: LabelSpace = BINARY) -> Dataset:
    rows = {
        "image": [f"{number}.jpg" for number in range(len(labels))],
        "label": labels,
        "image_id": [f"id_{number}" for number in range(len(labels))],
        "group": [f"id_{number}" for number in range(len(labels))],
        "source": ["test"] * len(labels),
    }
    blanks = {name: [None] * len(labels) for name in ("age", "sex", "site")}
    return Dataset.from_dict({**rows, **blanks}, features=features(space))


@settings(max_examples=30, deadline=None)
@given(
    labels=st.lists(st.integers(0, 2), min_size=3, max_size=30).filter(lambda labels: set(labels) == {0, 1, 2}),
    per_class=st.integers(1, 40),
    seed=st.integers(0, 2**32),
    order=st.randoms(),
)
def test_a_draw_is_balanced_faithful_and_blind_to_row_order(labels, per_class, seed, order) -> None:  # type: ignore[no-untyped-def]
    space = label_space("isic2017")
    dataset = labelled(labels, space)
    draw = balanced_draw(dataset, space, per_class=per_class, seed=seed)
    chosen = dataset.select(draw.indices(dataset))
    assert np.bincount(chosen["label"][:], minlength=3).tolist() == [per_class] * 3
    assert list(chosen["image_id"]) == [image_id for ids in draw.ids.values() for image_id in ids]
    places = list(range(len(labels)))
    order.shuffle(places)
    assert balanced_draw(dataset.select(places), space, per_class=per_class, seed=seed) == draw


def test_one_class_does_not_change_what_is_drawn_from_another() -> None:
    few = balanced_draw(labelled([0, 0, 0, 1]), BINARY, per_class=9, seed=5)
    more = balanced_draw(labelled([0, 0, 0, 1, 1, 1]), BINARY, per_class=9, seed=5)
    assert few.ids["benign"] == more.ids["benign"]


def test_seeds_differ_and_repeats_are_allowed() -> None:
    dataset = labelled([0, 0, 0, 0, 1])
    first, second = (balanced_draw(dataset, BINARY, per_class=20, seed=seed) for seed in (0, 1))
    assert first.ids["benign"] != second.ids["benign"]
    assert first.ids["malignant"] == ("id_4",) * 20


def test_a_saved_draw_comes_back_equal(tmp_path: Path) -> None:
    draw = balanced_draw(labelled([0, 0, 1]), BINARY, per_class=4, seed=3)
    draw.save(tmp_path / "runs" / "draw.json")
    loaded = load_draw(tmp_path / "runs" / "draw.json")
    assert loaded == draw
    assert loaded.hash == draw.hash
    assert [file.name for file in (tmp_path / "runs").iterdir()] == ["draw.json"]


def test_a_custom_space_comes_back_in_its_order(tmp_path: Path) -> None:
    space = space_from_names(["vitiligo", "tinea"])
    draw = balanced_draw(labelled([0, 1], space), space, per_class=2, seed=0)
    draw.save(tmp_path / "draw.json")
    assert load_draw(tmp_path / "draw.json").space == space


def _changed(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 4},
        {"per_class": 1},
        {"ids": {"benign": ["id_1", "id_1"], "malignant": ["id_2", "id_2"]}},
        {"ids": {"benign": ["id_0"]}},
        {"ids": 5},
        {"hash": "0" * 64},
        {"format": 2},
        {"extra": 1},
    ],
)
def test_a_changed_draw_is_refused(changes: dict[str, object], tmp_path: Path) -> None:
    path = tmp_path / "draw.json"
    Draw(BINARY, 2, 0, {"benign": ("id_0", "id_1"), "malignant": ("id_2", "id_2")}).save(path)
    load_draw(path)
    _changed(path, **changes)
    with pytest.raises(DataError, match="draw anew"):
        load_draw(path)


def test_labels_in_another_order_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "draw.json"
    balanced_draw(labelled([0, 1]), BINARY, per_class=1, seed=0).save(path)
    _changed(path, labels=["malignant", "benign"])
    with pytest.raises(TaxonomyError, match="restore the order"):
        load_draw(path)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"a": 1}'])
def test_a_file_that_is_no_draw(content: str, tmp_path: Path) -> None:
    (tmp_path / "draw.json").write_text(content)
    with pytest.raises(DataError, match="not a draw"):
        load_draw(tmp_path / "draw.json")
    with pytest.raises(DataError, match="cannot be read"):
        load_draw(tmp_path / "gone.json")


def test_a_class_without_a_sample_is_named() -> None:
    with pytest.raises(DataError, match="class 'malignant' of 'binary' has no image to draw"):
        balanced_draw(labelled([0, 0]), BINARY, per_class=3, seed=0)


def test_a_draw_fits_only_the_data_it_was_drawn_from() -> None:
    draw = balanced_draw(labelled([0, 1]), BINARY, per_class=1, seed=0)
    with pytest.raises(DataError, match="'id_1' is not in the data set"):
        draw.indices(labelled([0]))
    with pytest.raises(DataError, match="drawn as 'benign'"):
        draw.indices(labelled([1, 1]))
    with pytest.raises(DataError, match="not those of 'binary' in order"):
        draw.indices(labelled([0, 1], label_space("isic2017")))


@pytest.mark.parametrize(("per_class", "seed"), [(0, 0), (-1, 0), (1, -1)])
def test_nonsense_sizes_and_seeds(per_class: int, seed: int) -> None:
    with pytest.raises(DataError):
        balanced_draw(labelled([0, 1]), BINARY, per_class=per_class, seed=seed)


def test_a_draw_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FileWriteError, match="cannot be written"):
        balanced_draw(labelled([0, 1]), BINARY, per_class=1, seed=0).save(tmp_path / "file" / "draw.json")
