"""The measures tell a map that shows the evidence from one that does not."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from lesion_hub.data.synthetic import SampleSpec, write_sample_set
from lesion_hub.errors import DataError, LesionHubError
from lesion_hub.hub.card import write_card
from lesion_hub.hub.card_check import check_card
from lesion_hub.inference.faithfulness import (
    BASELINES,
    CheckImage,
    CheckOptions,
    ExplainedModel,
    as_batch,
    as_pixels,
    cascading_randomisation,
    check_images_of,
    check_maps,
    deletion_auc,
    edges,
    insertion_auc,
    record_check,
)
from tests.hub.test_card import GOLDEN
from tests.inference.networks import ensemble, planted, predictor

SMALL = CheckOptions(steps=6, perturbations=4, stages=2)


@pytest.fixture(scope="module")
def checked(patch_finder):
    return check_maps(patch_finder, [CheckImage(*planted(seed)) for seed in range(500, 503)], SMALL)


def test_evidence_beats_maps_that_know_nothing(checked):
    maps = checked["maps"]
    assert maps["gradcam"]["insertion_auc"] > maps["random"]["insertion_auc"] + 0.02
    assert maps["gradcam"]["heat_in_mask"] > 0.8
    assert maps["random"]["heat_in_mask"] == pytest.approx(checked["mask_area"], abs=0.02)
    assert maps["gradcam"]["infidelity"] < maps["random"]["infidelity"]
    assert maps["gradcam"]["sensitivity_max"] >= 0
    assert maps["random"]["sensitivity_max"] is None


def test_the_results_are_json_and_name_every_measure(checked):
    assert json.loads(json.dumps(checked, allow_nan=False)) == checked
    assert set(checked["maps"]) == {"gradcam", *BASELINES}
    assert all(set(row) == set(checked["measures"]) for row in checked["maps"].values())


def test_the_true_mask_is_the_best_map_and_its_inverse_the_worst(patch_finder):
    image, mask = planted(510)
    subject = ExplainedModel(patch_finder, "malignant")
    good, bad = mask.astype(np.float32), (~mask).astype(np.float32)
    assert deletion_auc(subject, image, good, 8) < deletion_auc(subject, image, bad, 8) - 0.3
    assert insertion_auc(subject, image, good, 8) > insertion_auc(subject, image, bad, 8) + 0.3


def test_the_areas_of_a_flat_map_are_those_of_a_random_one(patch_finder):
    image, _ = planted(511)
    subject = ExplainedModel(patch_finder, "malignant")
    flat = np.zeros(image.shape[:2], np.float32)
    random = BASELINES["random"](image, 3)
    assert deletion_auc(subject, image, flat, 8) == pytest.approx(deletion_auc(subject, image, random, 8), abs=0.15)


def test_maps_change_when_the_weights_are_random(patch_finder):
    pairs = [(planted(seed)[0], "malignant") for seed in range(520, 524)]
    found = cascading_randomisation(patch_finder, pairs, "gradcam", stages=2)
    assert [stage.share for stage in found] == [0.5, 1.0]
    assert found[-1].similarity is None or found[-1].similarity < 0.7


def test_the_cascade_leaves_the_model_alone():
    model = ensemble()
    image = planted(530)[0]
    before = model.predict(image).probabilities
    cascading_randomisation(model, [(image, "mel")], "gradcam", stages=2)
    assert model.predict(image).probabilities == before


def test_a_map_that_ignores_the_model_is_found_out(patch_finder, monkeypatch):
    """Edges of the image, as Guided Backpropagation draws them, stay the same whatever the weights."""
    monkeypatch.setattr(ExplainedModel, "heats", lambda self, images, method: [edges(image, 0) for image in images])
    found = cascading_randomisation(patch_finder, [(planted(540)[0], "malignant")], "gradcam", stages=2)
    assert [stage.similarity for stage in found] == pytest.approx([1, 1])


def test_masks_of_a_synthetic_set_are_found(tmp_path):
    write_sample_set(tmp_path / "set", SampleSpec(count=6, size=48))
    found = check_images_of(tmp_path / "set", 4)
    assert len(found) == 4
    assert all(item.mask is not None and item.mask.any() and not item.mask.all() for item in found)
    results = check_maps(predictor(), found, CheckOptions(steps=2, perturbations=2, stages=0))
    assert 0 < results["mask_area"] < 1
    assert results["randomisation"] == {}
    with pytest.raises(DataError, match="no such folder"):
        check_images_of(tmp_path / "nowhere", 4)


def test_results_go_into_metrics_json_beside_what_is_there(tmp_path, checked):
    (tmp_path / "metrics.json").write_text('{"test": {"accuracy": 0.5}}')
    record_check(tmp_path, checked)
    held = json.loads((tmp_path / "metrics.json").read_text())
    assert held["test"] == {"accuracy": 0.5}
    assert held["attribution"]["images"] == 3


def test_recorded_results_stand_in_the_card(tmp_path, checked):
    folder = shutil.copytree(GOLDEN, tmp_path / "model")
    record_check(folder, checked)
    write_card(folder)
    check_card(folder)
    insertion = checked["maps"]["gradcam"]["insertion_auc"]
    assert f"| gradcam | {insertion:.3f} |" in (folder / "README.md").read_text()


def test_an_unknown_method_is_one_line_before_any_work():
    with pytest.raises(LesionHubError, match="did you mean"):
        check_maps(predictor(), [], CheckOptions(methods=("gradcamm",)))


def test_pictures_survive_the_way_to_captum_and_back():
    image = planted(550)[0]
    np.testing.assert_array_equal(as_pixels(as_batch(image))[0], image)
