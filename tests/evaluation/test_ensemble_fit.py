"""An ensemble is fitted on what is validation for its members, or new to them all, and is never measured on it afterwards."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from lesion_hub.config import load_ensemble_config, load_model_config
from lesion_hub.data.schema import image_paths
from lesion_hub.data.splits.manifest import PartRecord, group_digest, image_digest
from lesion_hub.errors import DataError
from lesion_hub.evaluation.ensemble_fit import choose_fitting_images, fit_on_validation
from lesion_hub.evaluation.overlap import TrainingRecord, choose_images, fitted_on, training_records
from lesion_hub.hub.gate_file import GateWeights, write_gate
from lesion_hub.hub.store import Resolved
from lesion_hub.inference import from_pretrained
from lesion_hub.inference.ensemble import PinnedModel, create_ensemble, pin_member
from lesion_hub.taxonomy import label_space
from tests.evaluation.conftest import parts_of


@pytest.fixture
def record(data, manifest):
    return TrainingRecord("a", manifest.hash, parts_of(data, manifest))


def ids_of(data, rows):
    return {data.dataset["image_id"][row] for row in rows}


def part(manifest, name):
    return {image_id for image_id, place in manifest.part_of.items() if place == name}


def test_only_the_validation_part_of_the_members_is_fitted_on(data, manifest, record):
    chosen = choose_fitting_images(data, [record, replace(record, model="b")])
    assert ids_of(data, chosen.rows) == part(manifest, "val")
    assert "validation part of the members' splits" in chosen.how


def test_where_splits_differ_no_image_that_another_member_was_trained_or_tested_on(data, manifest, record):
    validation = sorted(part(manifest, "val"))
    taken = PartRecord.of(validation[:2], ())
    for other in ("train", "test"):
        second = TrainingRecord("b", None, {other: taken})
        assert ids_of(data, choose_fitting_images(data, [record, second]).rows) == set(validation[2:])
    all_of_it = TrainingRecord("b", None, {"train": PartRecord.of(validation, ())})
    with pytest.raises(DataError, match=r"tested on by a member \(first: ISIC_\d+, by (a|b)\).*--fit NEW --split all"):
        choose_fitting_images(data, [record, all_of_it])


def test_a_lesion_that_another_member_was_trained_on_is_left_out(data, manifest, record):
    row = manifest.rows(list(data.dataset["image_id"][:]), "val")[0]
    lesion = data.dataset["group"][row]
    second = TrainingRecord("b", None, {"train": PartRecord(frozenset(), frozenset([group_digest(lesion)]))})
    chosen = choose_fitting_images(data, [record, second])
    assert row not in chosen.rows and lesion not in [data.dataset["group"][other] for other in chosen.rows]


@pytest.mark.parametrize("split", ["all", "train", "test"])
def test_other_parts_are_refused_in_one_line(data, manifest, record, split, tmp_path):
    manifest.save(tmp_path / "split.json")
    given = None if split == "all" else tmp_path / "split.json"
    with pytest.raises(DataError, match="were trained or tested on by a member") as caught:
        choose_fitting_images(data, [record], split=split, manifest=given)
    assert "\n" not in str(caught.value)


def test_new_images_are_taken_whole(data):
    elsewhere = TrainingRecord("a", None, {name: PartRecord.of([name], [name]) for name in ("train", "val", "test")})
    for split in ("val", "all"):
        assert len(choose_fitting_images(data, [elsewhere], split=split).rows) == len(data.dataset)


def test_what_was_fitted_on_before_is_not_fitted_on_again(data, manifest, record):
    first = sorted(part(manifest, "val"))[0]
    fitted = replace(record, parts={**record.parts, "fitted": PartRecord.of([first], ())})
    assert first not in ids_of(data, choose_fitting_images(data, [fitted]).rows)


@pytest.fixture(scope="module")
def clinic(data):
    """The same pictures under names that no model knows."""
    renamed = data.dataset.map(lambda row: {"image_id": f"new_{row['image_id']}", "group": f"new_{row['group']}"})
    return replace(data, dataset=renamed, official_split=None)


def test_labels_are_mapped_into_the_ensembles_space(registry, clinic):
    binary = label_space("binary")
    found = fit_on_validation([pin_member("b", registry=registry)], clinic, space=binary)
    assert found.fit.labels.tolist() == clinic.space.map_to(binary).labels(clinic.dataset["label"][:]).tolist()


def half_right(clinic, model):
    """Return ``clinic`` with every other label as ``model`` answers, so that a temperature fits."""
    answers = model.predict(image_paths(clinic.dataset))
    ids = [clinic.space.labels.index(answer.label) for answer in answers]
    labels = [own if row % 2 else ids[row] for row, own in enumerate(clinic.dataset["label"][:])]
    changed = clinic.dataset.map(lambda _, row: {"label": labels[row]}, with_indices=True)
    return replace(clinic, dataset=changed)


def test_a_fitted_ensemble_says_on_what_and_is_not_measured_on_it(registry, data, clinic, tmp_path):
    clinic = half_right(clinic, from_pretrained("b", registry=registry))
    pinned = [pin_member("b", registry=registry)]
    found = fit_on_validation(pinned, clinic, split="all")
    assert found.fit.images == len(clinic.dataset) and found.unrecorded == ()
    assert {"sensitivity_90", "specificity_95"} <= set(found.points)
    create_ensemble(tmp_path / "one", pinned, fit=found.fit, operating_points=found.points)

    config = load_ensemble_config(tmp_path / "one")
    assert config.fitted_on.images.count(image_digest(clinic.dataset["image_id"][0])) == 1
    records = training_records(Resolved("one", tmp_path / "one", None), registry=registry)
    for split in ("all", "val"):
        with pytest.raises(DataError, match=r"one was made with some of these images: \d+ images \(first: new_ISIC_"):
            choose_images("one", clinic, records, split=split)
    assert choose_images("one", data, records, split="test")[0].own


def test_the_members_gates_count_in_an_ensembles_doubt(make_model, clinic):
    weights = GateWeights("logits", torch.linspace(-1, 1, 7), 0.0)
    gated = make_model("gated", seed=2)
    write_gate(gated, weights, refuse_below=0.4, accept_from=0.6)
    pinned = [
        PinnedModel(Resolved(folder.name, folder, "v1.0.0"), load_model_config(folder))
        for folder in (gated, make_model("plain"))
    ]
    model = from_pretrained(gated)
    found = fit_on_validation(pinned, half_right(clinic, model), split="all")
    assert set(found.rules.abstention.weights) == {"confidence", "set_size", "disagreement", "scope"}
    scores = [answer.scope.score for answer in model.predict(image_paths(clinic.dataset))]
    assert found.fit.scope == pytest.approx(scores, abs=1e-6)


def test_a_record_adds_to_what_was_fitted_on_before():
    first = fitted_on("clinic", ["x"], ["p"])
    both = fitted_on("ward", ["y", "x"], ["q"], first)
    assert both.data == "clinic, ward"
    assert both.images == "".join(sorted(map(image_digest, ["x", "y"])))
    assert both.groups == "".join(sorted(map(group_digest, ["p", "q"])))
