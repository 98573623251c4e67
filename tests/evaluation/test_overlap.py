"""The part that is asked for is taken from the right split, and images that the model has seen are found."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from datasets import Dataset

from lesion_hub.config import DataSource, Training
from lesion_hub.data.sources import read
from lesion_hub.data.splits.manifest import PartRecord
from lesion_hub.errors import DataError
from lesion_hub.evaluation.overlap import (
    TrainingRecord,
    choose_rows,
    completed_from_manifest,
    find_near_duplicates,
    find_overlap,
    sources_of,
    training_records,
)
from lesion_hub.hub.store import Resolved, publish
from lesion_hub.inference.ensemble import create_ensemble
from tests.evaluation.conftest import parts_of


@pytest.fixture
def record(data, manifest):
    return TrainingRecord("model", manifest.hash, parts_of(data, manifest))


def rows_of(data, manifest, part):
    return manifest.rows(list(data.dataset["image_id"][:]), part)


def test_the_models_own_split_says_which_images_are_test(data, manifest, record):
    choice = choose_rows(data, "test", [record])
    assert choice.rows.tolist() == rows_of(data, manifest, "test").tolist()
    assert choice.own and "the model was made with" in choice.how


def test_of_an_ensemble_only_what_is_test_for_all_members(data, manifest, record):
    ids = list(data.dataset["image_id"][:])
    test = [ids[row] for row in rows_of(data, manifest, "test")]
    other = TrainingRecord("other", None, {**record.parts, "test": PartRecord.of(test[:5], ())})
    assert [ids[row] for row in choose_rows(data, "test", [record, other]).rows] == test[:5]


def test_other_data_without_a_split_are_taken_whole(data, record):
    elsewhere = TrainingRecord("model", None, {part: PartRecord.of(["x"], ["y"]) for part in record.parts})
    choice = choose_rows(data, "test", [elsewhere])
    assert len(choice.rows) == len(data.dataset) and not choice.own


def test_other_data_with_a_split_of_their_own(data):
    ids = list(data.dataset["image_id"][:])
    official = {image_id: "test" if row < 7 else "train" for row, image_id in enumerate(ids)}
    assert choose_rows(replace(data, official_split=official), "test").rows.tolist() == list(range(7))
    with pytest.raises(DataError, match="has no image"):
        choose_rows(replace(data, official_split=official), "val")


def test_a_split_file_decides_before_all_else(data, manifest, record, tmp_path):
    manifest.save(tmp_path / "split.json")
    choice = choose_rows(data, "val", [record], tmp_path / "split.json")
    assert choice.rows.tolist() == rows_of(data, manifest, "val").tolist()
    assert manifest.hash[:12] in choice.how


def test_images_that_cannot_be_decoded_are_left_out_where_missing_ones_are(samples, tmp_path):
    shutil.copytree(samples, tmp_path / "set")
    broken = next((tmp_path / "set").rglob("*.jpg"))
    broken.write_bytes(broken.read_bytes()[:300])
    whole, forgiving = (read(tmp_path / "set", allow_missing=allowed) for allowed in (False, True))
    assert len(choose_rows(whole, "all").rows) == len(whole.dataset)
    choice = choose_rows(forgiving, "all")
    ids = [whole.dataset["image_id"][row] for row in choice.rows]
    assert broken.stem not in ids and len(ids) == len(whole.dataset) - 1
    assert choice.how == "all images of the data set, but 1 that cannot be decoded"


def test_clean_test_images_do_not_overlap(data, manifest, record):
    overlap = find_overlap(data.dataset.select(rows_of(data, manifest, "test")), [record], "test")
    assert not overlap and overlap.known


@pytest.mark.parametrize("part", ["train", "val"])
def test_a_planted_image_is_found_by_its_id(data, manifest, record, part):
    rows = [*rows_of(data, manifest, "test"), rows_of(data, manifest, part)[0]]
    overlap = find_overlap(data.dataset.select(rows), [record], "test")
    assert overlap.images == (data.dataset["image_id"][:][rows[-1]],)


def test_a_planted_lesion_is_found_under_another_image_id(data, manifest, record):
    row = rows_of(data, manifest, "train")[0]
    planted = data.dataset.select([row]).map(lambda _: {"image_id": "renamed"})
    overlap = find_overlap(planted, [record], "test")
    assert overlap.images == () and overlap.groups == tuple(planted["group"][:])
    assert "1 lesion or patient" in str(overlap)


def test_a_planted_copy_under_other_names_is_found_by_its_picture(data, manifest, record):
    row = rows_of(data, manifest, "train")[0]
    renamed = {"image_id": "renamed", "group": "renamed"}
    planted = data.dataset.select([*rows_of(data, manifest, "test")[:3], row]).map(
        lambda row, i: renamed if i == 3 else row, with_indices=True
    )
    assert not find_overlap(planted, [record], "test")
    near = find_near_duplicates(planted, data.dataset, [record])
    assert ("renamed", data.dataset["image_id"][:][row]) in near
    assert {a for a, _ in near} == {"renamed"}


def test_near_duplicates_need_the_training_images(data, record):
    elsewhere = TrainingRecord("model", None, {"train": PartRecord.of(["x"], ["y"])})
    with pytest.raises(DataError, match="--training-data"):
        find_near_duplicates(data.dataset.select([0]), data.dataset, [elsewhere])


def test_validation_may_be_looked_at_when_it_is_asked_for(data, manifest, record):
    dataset = data.dataset.select(rows_of(data, manifest, "val"))
    assert find_overlap(dataset, [record], "test").images
    assert not find_overlap(dataset, [record], "val").images


def test_a_folder_says_which_images_it_was_made_with(make_model, data, manifest):
    folder = make_model()
    (found,) = training_records(Resolved("model", folder, None))
    assert found.split_hash == manifest.hash
    assert found.parts == parts_of(data, manifest)


def test_a_bundle_of_two_versions_of_a_model_says_what_each_was_made_with(make_model, registry, data, manifest, tmp_path):
    second = make_model("a", seed=3)
    for name, text in {"README.md": "---\nlicense: cc0-1.0\n---\n", "metrics.json": "{}"}.items():
        (second / name).write_text(text)
    split = json.loads((second / "split.json").read_text())
    (second / "split.json").write_text(json.dumps({**split, "hash": "0" * 64}))
    publish(second, "a", version="2.0.0", notes="Second.", registry=registry)
    create_ensemble(tmp_path / "both", ["a@v1.0.0", "a@v2.0.0"], weights=[0.5, 0.5], bundle=True, registry=registry)
    records = training_records(Resolved("both", tmp_path / "both", None))
    assert [(record.model, record.split_hash) for record in records] == [("a@v1.0.0", manifest.hash), ("a@v2.0.0", "0" * 64)]
    assert all(record.parts == parts_of(data, manifest) for record in records)


def test_a_run_without_a_record_is_known_by_its_manifest(make_model, manifest):
    folder = make_model(records=False)
    (nothing,) = training_records(Resolved("model", folder, None))
    assert nothing.parts == {}
    manifest.save(folder / "manifest.json")
    (found,) = training_records(Resolved("model", folder, None))
    assert {name: len(part.images) for name, part in found.parts.items()} == {
        part: sum(counts.values()) for part, counts in manifest.counts().items()
    }


def test_a_split_file_of_the_models_hash_completes_its_record(manifest, tmp_path):
    manifest.save(tmp_path / "split.json")
    same, other = TrainingRecord("a", manifest.hash, {}), TrainingRecord("b", "0" * 64, {})
    assert [set(model.parts) for model in completed_from_manifest([same, other], tmp_path / "split.json")] == [
        set(manifest.parts),
        set(),
    ]
    assert completed_from_manifest([same], None) == [same]


def test_a_model_without_a_record_is_not_called_clean(data):
    assert not find_overlap(data.dataset, [TrainingRecord("model", None, {})], "test").known


def test_a_damaged_split_file_is_one_line(make_model):
    folder = make_model()
    (folder / "split.json").write_text("{")
    with pytest.raises(DataError, match=r"split\.json: not JSON"):
        training_records(Resolved("model", folder, None))


def test_what_is_told_of_an_overlap_is_plain_json(data, record):
    told = find_overlap(data.dataset, [record], "test").to_dict()
    assert json.loads(json.dumps(told)) == told
    assert told["images"] > 0 and len(told["first"]) <= 9
    assert np.isscalar(told["groups"])


@pytest.mark.parametrize(
    ("layouts", "named"),
    [
        (["isic2017", "isic2017"], ["ISIC 2017"]),
        (["ham10000", "isic2017"], ["HAM10000", "ISIC 2017"]),
        (["table"], ["HAM10000", "ISIC 2017"]),
        (["ham10000", "table"], ["HAM10000", "ISIC 2017"]),  # the table's data set may be any of them
    ],
)
def test_a_part_is_named_by_the_data_sets_that_its_images_are_of(layouts: list[str], named: list[str]) -> None:
    data = (("HAM10000", None), ("ISIC 2017", None), ("HAM10000", "org/first@v1.0.0"))
    training = Training(data=tuple(DataSource(name=name, license="cc0-1.0", through=through) for name, through in data))
    assert sources_of(training.data_names, Dataset.from_dict({"source": layouts})) == named
