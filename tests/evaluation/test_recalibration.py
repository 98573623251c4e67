"""Recalibration: a new temperature and thresholds from a clinic's lesions, reported by what was fitted on others."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.special import softmax

import lesion_hub
from lesion_hub.config import load_ensemble_config, load_model_config
from lesion_hub.data.sources import read
from lesion_hub.data.synthetic import SampleSpec, write_sample_set
from lesion_hub.errors import DataError, LesionHubError, StoreError
from lesion_hub.evaluation.operating_points import lesions_needed
from lesion_hub.evaluation.recalibration import cross_fit, recalibrate
from lesion_hub.evaluation.run import evaluate
from lesion_hub.evaluation.scoring import Scored, score_dataset
from lesion_hub.hub import store
from lesion_hub.hub.card_check import check_card
from lesion_hub.hub.format import read_model, write_model
from lesion_hub.hub.gate_file import GateWeights, write_gate
from lesion_hub.hub.layout import verify_weights
from lesion_hub.inference.ensemble import create_ensemble, mean_nll
from lesion_hub.taxonomy import label_space

TARGETS = {"sensitivity_90": ("sensitivity", 0.9)}
QUICK = {"resamples": 20}

pytestmark = pytest.mark.slow


def scored_lesions(count: int, images: int = 2, sharper: float = 3.0) -> Scored:
    """Calibrated probabilities of ``count`` lesions, ``images`` of each, made too sure of themselves."""
    random = np.random.default_rng(0)
    logits = np.repeat(random.normal(scale=1.5, size=(count, 2)), images, axis=0)
    labels = (random.random(len(logits)) < softmax(logits, axis=1)[:, 1]).astype(np.int64)
    groups = np.repeat([f"lesion{i}" for i in range(count)], images)
    facts = pd.DataFrame({"image_id": [f"image{i}" for i in range(len(logits))], "group": groups})
    return Scored(softmax(sharper * logits, axis=1), labels, label_space("binary"), facts)


def test_cross_fitting_judges_each_lesion_by_what_was_fitted_on_others():
    scored = scored_lesions(150)
    found = cross_fit(scored, TARGETS)
    assert mean_nll(found.scored.probabilities, scored.labels) < mean_nll(scored.probabilities, scored.labels) - 0.1
    assert 0.75 < found.calls["sensitivity_90"][scored.labels == 1].mean() < 1
    # All images of a lesion are tempered alike, and there are as many temperatures as folds.
    logit = np.log(scored.probabilities[:, 1] / scored.probabilities[:, 0])
    temperature = logit / np.log(found.scored.probabilities[:, 1] / found.scored.probabilities[:, 0])
    by_lesion = pd.Series(temperature.round(6)).groupby(scored.groups).nunique()
    assert by_lesion.max() == 1 and len(set(temperature.round(6))) == 5


def test_what_a_fold_is_judged_by_does_not_depend_on_its_labels():
    scored = scored_lesions(60)
    first = cross_fit(scored, TARGETS)
    temperature = np.log(scored.probabilities[:, 1]) / np.log(first.scored.probabilities[:, 1])
    fold = np.flatnonzero(np.isclose(temperature, temperature[0]))
    noise = replace(scored, labels=scored.labels.copy())
    lesion = [row for row in fold if scored.groups[row] == scored.groups[fold[0]]]
    noise.labels[lesion] = noise.labels[lesion][::-1]
    again = cross_fit(noise, TARGETS)
    assert np.allclose(first.scored.probabilities[lesion], again.scored.probabilities[lesion])


@pytest.mark.parametrize(("rate", "margin"), [(0.9, 0.05), (0.95, 0.02), (1.0, 0.05), (0.5, 0.1)])
def test_the_lesions_needed_are_the_fewest_whose_wilson_interval_is_narrow_enough(rate, margin):
    def half(n: int) -> float:
        z = 1.959963984540054
        return z * np.sqrt(rate * (1 - rate) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)

    needed = lesions_needed(rate, margin)
    assert half(needed) <= margin < half(needed - 1)


@pytest.fixture(scope="module")
def clinic(tmp_path_factory):
    """Another synthetic set, with lesions of its own."""
    root = tmp_path_factory.mktemp("recalibration") / "clinic"
    write_sample_set(root, SampleSpec(space="ham7", count=90, size=40, balanced=True, artefacts=False, seed=11))
    data = read(root)
    renamed = data.dataset.map(lambda row: {"image_id": f"clinic_{row['image_id']}", "group": f"clinic_{row['group']}"})
    return replace(data, dataset=renamed)


@pytest.fixture(scope="module")
def trained(make_model, clinic, tmp_path_factory):
    """A model that has learned something and is too sure of it, and a registry with it and an ensemble of it."""
    folder = make_model("trained")
    classifier, config = read_model(folder)
    pictures = torch.stack([classifier.transform(image) for image in clinic.dataset["image"]])
    labels = torch.tensor(clinic.dataset["label"][:])
    optimiser = torch.optim.Adam(classifier.network.parameters(), lr=0.003)
    torch.manual_seed(0)
    for _ in range(25):
        optimiser.zero_grad()
        # A third of the labels are wrong, so that it is not right on all of them.
        noisy = torch.where(torch.rand(len(labels)) < 0.3, torch.randint(7, labels.shape), labels)
        torch.nn.functional.cross_entropy(classifier(pictures), noisy).backward()
        optimiser.step()
    with torch.no_grad():
        classifier.last_layer.weight.mul_(9)
        classifier.last_layer.bias.mul_(9)
    points = config.lesion_hub.operating_points
    write_model(folder, classifier.eval(), training=config.lesion_hub.training, temperature=2.0, operating_points=points)
    (folder / "metrics.json").write_text(json.dumps({"training": {"epochs": 3}, "test": {"accuracy": 0.5}}))
    (folder / "README.md").write_text("---\nlicense: cc0-1.0\n---\n")
    registry = tmp_path_factory.mktemp("recalibration") / "registry"
    store.publish(folder, "trained", version="1.0.0", notes="First.", registry=registry)
    return folder, registry


@pytest.fixture(scope="module")
def done(trained, clinic, tmp_path_factory):
    return recalibrate("trained", clinic, out=tmp_path_factory.mktemp("recalibrated") / "new", registry=trained[1], **QUICK)


def test_a_model_is_published_as_a_new_version_with_calibrated_probabilities(done, trained, clinic):
    folder, registry = trained
    config = load_model_config(done.folder)
    verify_weights(done.folder, config)
    check_card(done.folder)
    assert config.lesion_hub.temperature == done.temperature > 2.0
    assert {point.chosen_on for point in config.lesion_hub.operating_points.values()} == {"clinic"}
    old, new = (
        score_dataset(lesion_hub.from_pretrained(place), clinic.dataset, clinic.space) for place in (folder, done.folder)
    )
    assert mean_nll(new.probabilities, new.labels) < mean_nll(old.probabilities, old.labels)
    assert (new.probabilities.argmax(axis=1) == old.probabilities.argmax(axis=1)).mean() > 0.98
    malignancy = new.predictions.malignancy()
    called = malignancy.scores >= config.lesion_hub.operating_points["sensitivity_90"].threshold
    assert called[malignancy.truth].mean() >= 0.9
    assert (
        store.publish(done.folder, "trained", version="1.1.0", notes="For the clinic.", registry=registry).version == "v1.1.0"
    )


def test_the_numbers_say_what_was_promised_and_what_it_was(done):
    section = json.loads((done.folder / "metrics.json").read_text())["recalibration"]
    assert section == json.loads(json.dumps(done.section))
    assert section["counts"]["images"] == 90 and section["counts"]["malignant_lesions"] >= 10
    assert section["calibration"]["nll_after"]["value"] < section["calibration"]["nll_before"]["value"]
    point = section["points"]["sensitivity_90"]
    assert point["promised_sensitivity"] == 0.9
    assert point["before"]["threshold"] == 0.4 != point["after"]["threshold"]
    assert point["before"]["sensitivity"]["low"] <= point["before"]["sensitivity"]["value"]
    assert point["malignant_lesions_needed"] == lesions_needed(0.9, 0.05)


def test_the_card_says_what_it_was_recalibrated_on_and_old_figures_are_gone(done):
    kept = json.loads((done.folder / "metrics.json").read_text())
    assert set(kept) == {"training", "recalibration"}
    card = (done.folder / "README.md").read_text()
    counts = done.section["counts"]
    assert f"fitted anew on clinic: 90 images of {counts['lesions']} lesions" in card
    assert "no longer describes this one" in card and "fitted on clinic and folded" in card
    assert "cross-fitted" in card and "validation results" not in card


def test_it_is_never_measured_on_the_images_that_it_was_recalibrated_on(done, clinic, samples, tmp_path):
    for split in ("all", "val"):
        with pytest.raises(DataError, match="was made with some of these images"):
            evaluate(done.folder, clinic, out=tmp_path / "out", split=split, **QUICK)
    with pytest.raises(DataError, match="was made with some of these images"):
        recalibrate(done.folder, clinic, out=tmp_path / "again", **QUICK)
    with pytest.raises(DataError, match="was made with some of these images"):
        evaluate(done.folder, samples, out=tmp_path / "out", split="train", **QUICK)


def test_the_gate_stays_a_signal_of_doubt(trained, clinic, tmp_path):
    folder = tmp_path / "gated"
    shutil.copytree(trained[0], folder)
    write_gate(folder, GateWeights("logits", torch.linspace(-1, 1, 7), 0.0), refuse_below=0.4, accept_from=0.6)
    done = recalibrate(folder, clinic, out=tmp_path / "new", **QUICK)
    assert "scope" in load_model_config(done.folder).lesion_hub.rules.abstention.weights


def test_an_ensemble_keeps_its_temperature_and_its_record_in_its_config(trained, clinic, tmp_path):
    registry = trained[1]
    create_ensemble(tmp_path / "one", ["trained@v1.0.0"], registry=registry)
    done = recalibrate(tmp_path / "one", clinic, out=tmp_path / "new", registry=registry, margin=0.1, **QUICK)
    config = load_ensemble_config(done.folder)
    assert config.temperature == done.temperature > 1 and config.fitted_on.data == "clinic"
    assert set(config.operating_points) == {"sensitivity_90", "sensitivity_95", "specificity_95"}
    assert done.section["points"]["sensitivity_90"]["before"] is None
    assert done.section["points"]["sensitivity_90"]["malignant_lesions_needed"] == 37
    check_card(done.folder)
    store.publish(done.folder, "one", version="1.0.0", notes="First.", registry=registry)
    with pytest.raises(DataError, match="was made with some of these images"):
        evaluate("one", clinic, out=tmp_path / "out", registry=registry, split="all", **QUICK)


def test_mistakes_are_one_line_and_leave_nothing(trained, clinic, samples, tmp_path):
    few = replace(clinic, dataset=clinic.dataset.select(range(12)))
    coarse = read(samples, space="binary")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    for data, options, kind, words in [
        (few, {}, DataError, r"clinic: holds \d+ lesions, \d+ of them malignant.*at least 30 lesions, 10 of them malignant"),
        (samples, {}, DataError, "was made with some of these images"),
        (coarse, {}, LesionHubError, "labels (.*) are not the model's|was made with"),
        (clinic, {"margin": 0.7}, LesionHubError, "margin"),
        (clinic, {"split": "tets"}, LesionHubError, "did you mean 'test'"),
        (clinic, {"out": tmp_path / "full"}, StoreError, "is not an empty folder"),
    ]:
        with pytest.raises(kind, match=words) as caught:
            recalibrate(trained[0], data, **{"out": tmp_path / "new", **QUICK, **options})
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "new").exists()
