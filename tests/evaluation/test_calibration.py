"""A temperature is the optimum, or bounded where there is none; it becomes part of a model once, and changes no decision."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from sklearn.metrics import log_loss

import lesion_hub
from lesion_hub.config import load_ensemble_config, load_model_config
from lesion_hub.data.scan import image_sources
from lesion_hub.data.splits.manifest import image_digest
from lesion_hub.errors import ConfigError, DataError, LesionHubError
from lesion_hub.evaluation import calibration
from lesion_hub.evaluation.calibration import calibrate_run
from lesion_hub.evaluation.metrics import bin_of
from lesion_hub.evaluation.overlap import find_overlap, training_records
from lesion_hub.evaluation.predictions import log_probabilities
from lesion_hub.evaluation.scoring import read_scored, score_dataset
from lesion_hub.hub.layout import load_config, verify_weights
from lesion_hub.hub.store import Resolved
from lesion_hub.taxonomy import label_space


def calibrated_logits(seed: int, examples: int = 2000, classes: int = 5) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Logits whose softmax is the true distribution of the labels, so that the right temperature is 1."""
    random = np.random.default_rng(seed)
    logits = random.normal(scale=2.0, size=(examples, classes))
    chances = softmax(logits, axis=1).cumsum(axis=1)
    return logits, (random.random((examples, 1)) > chances[:, :-1]).sum(axis=1)


@pytest.mark.parametrize("scale", [0.3, 1.0, 2.5, 8.0])
def test_the_temperature_undoes_the_scale_of_the_logits(scale: float) -> None:
    logits, labels = calibrated_logits(0)
    assert calibration.fit_temperature(logits * scale, labels) == pytest.approx(scale, rel=0.06)


@pytest.mark.parametrize("scale", [0.2, 1.0, 5.0])
def test_the_temperature_is_the_minimum_of_the_likelihood(scale: float) -> None:
    logits, labels = calibrated_logits(1)
    rows = np.arange(len(labels))

    def nll(log_temperature: float) -> float:
        return float(-log_softmax(logits * scale / np.exp(log_temperature), axis=1)[rows, labels].mean())

    expected = minimize_scalar(nll, bounds=(-3, 3), method="bounded", options={"xatol": 1e-9}).x
    assert np.log(calibration.fit_temperature(logits * scale, labels)) == pytest.approx(expected, abs=1e-4)


def test_the_result_reports_what_was_gained() -> None:
    logits, labels = calibrated_logits(2)
    result = calibration.fit_calibration(logits * 4, labels)
    after = softmax(logits * 4 / result.temperature, axis=1)
    assert result.nll_before == pytest.approx(log_loss(labels, softmax(logits * 4, axis=1)), rel=1e-6)
    assert result.nll_after == pytest.approx(log_loss(labels, after)) and result.nll_after < result.nll_before
    assert result.ece_after == pytest.approx(calibration.expected_calibration_error(after, labels))
    assert result.ece_after < result.ece_before / 3
    assert result.note is None and result.examples == len(labels)
    json.dumps(result.to_dict(), allow_nan=False)


@pytest.mark.parametrize(
    ("labels", "words"), [([0, 1], "its lower bound.*not trained on them"), ([1, 0], "its upper bound.*labels are right")]
)
def test_a_temperature_at_a_bound_is_an_error_that_says_what_to_check(labels: list[int], words: str) -> None:
    with pytest.raises(DataError, match=words) as caught:
        calibration.fit_calibration([[5.0, 0.0], [0.0, 5.0]], labels)
    assert "\n" not in str(caught.value)


def test_labels_in_another_order_are_an_error_and_no_temperature() -> None:
    logits, labels = calibrated_logits(5)
    with pytest.raises(DataError, match="check that the labels are right and the model's own"):
        calibration.fit_calibration(logits, (labels + 1) % 5)


def test_logits_that_grew_without_limit_are_calibrated_and_useless_ones_of_that_size_refused() -> None:
    logits, labels = calibrated_logits(6)
    assert calibration.fit_temperature(logits * 60, labels) == pytest.approx(60 * calibration.fit_temperature(logits, labels))
    with pytest.raises(DataError, match="the scores say nothing of the labels"):
        calibration.fit_temperature(logits * 60, np.random.default_rng(0).permutation(labels))


def test_the_probabilities_of_very_large_logits_give_the_temperature_that_these_do() -> None:
    logits, labels = calibrated_logits(6)
    probabilities, expected = softmax(logits * 30, axis=1), calibration.fit_temperature(logits * 30, labels)
    assert calibration.fit_temperature(log_probabilities(probabilities), labels) == pytest.approx(expected, rel=1e-3)
    tempered = calibration.apply_temperature(probabilities, expected)
    assert tempered == pytest.approx(softmax(logits * 30 / expected, axis=1), abs=1e-6)


def test_a_temperature_that_worsens_the_likelihood_is_an_error(make_model, data, manifest) -> None:
    before = score_dataset(lesion_hub.from_pretrained(make_model()), validation_of(data, manifest), data.space)
    calibration.refuse_worse(before, before)
    sharper = replace(before, probabilities=calibration.apply_temperature(before.probabilities, 0.2))
    with pytest.raises(DataError, match="worsens the NLL of the 7 images"):
        calibration.refuse_worse(before, sharper)


def test_constant_logits_keep_temperature_one() -> None:
    result = calibration.fit_calibration(np.zeros((4, 3)), [0, 1, 2, 0])
    assert result.temperature == 1.0 and result.note


def test_log_probabilities_and_logits_give_the_same_temperature() -> None:
    logits, labels = calibrated_logits(3)
    from_log = calibration.fit_temperature(log_softmax(logits * 3, axis=1), labels)
    assert from_log == pytest.approx(calibration.fit_temperature(logits * 3, labels), rel=1e-8)


def test_the_logarithm_of_zero_does_not_break_the_fit() -> None:
    with np.errstate(divide="ignore"):
        scores = np.log(np.array([[1.0, 0.0]] * 9 + [[1.0, 0.0], [0.3, 0.7], [0.4, 0.6]]))
    result = calibration.fit_calibration(scores, [0] * 9 + [1, 1, 0])
    assert np.isfinite(result.nll_before) and result.temperature > 1


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10_000),
    st.integers(1, 30),
    st.floats(0.01, 100.0),
)
def test_no_decision_changes_and_the_likelihood_never_falls(seed: int, examples: int, scale: float) -> None:
    random = np.random.default_rng(seed)
    logits, labels = random.normal(size=(examples, 4)) * scale, random.integers(4, size=examples)
    try:
        result = calibration.fit_calibration(logits, labels)
    except DataError as error:
        assert "bound" in str(error)
        return
    low, high = calibration.temperature_bounds(logits)
    assert low < result.temperature < high
    assert result.nll_after <= result.nll_before
    assert ((logits / result.temperature).argmax(axis=1) == logits.argmax(axis=1)).all()


def test_tempering_a_mean_probability_is_a_softmax_of_its_scaled_logarithm() -> None:
    logits, _ = calibrated_logits(4, examples=20)
    tempered = calibration.apply_temperature(softmax(logits, axis=1), 1.7)
    assert tempered == pytest.approx(softmax(logits / 1.7, axis=1), abs=1e-12)
    assert calibration.apply_temperature([[1.0, 0.0]], 1.0) == pytest.approx(np.array([[1.0, 0.0]]), abs=1e-12)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_taking_the_temperature_out_again_is_exact(temperature):
    labels = np.arange(140) % 7
    logits = np.random.default_rng(0).normal(size=(140, 7)) + 2 * np.eye(7)[labels]
    probabilities, tempered = softmax(logits, axis=1), softmax(logits / temperature, axis=1)
    groups = [f"lesion{i // 2}" for i in range(140)]
    found = calibration.calibration_effect(tempered, labels, groups, label_space("ham7"), temperature, resamples=20)
    assert found["ece_before"]["value"] == pytest.approx(calibration.expected_calibration_error(probabilities, labels))
    assert found["ece_after"]["value"] == pytest.approx(calibration.expected_calibration_error(tempered, labels))
    assert found["temperature"] == temperature


def test_bins_are_closed_below_and_one_belongs_to_the_last() -> None:
    edges = np.linspace(0, 1, 16)
    assert bin_of(edges).tolist() == [*range(15), 14]
    assert bin_of(np.nextafter(edges[1:-1], 0)).tolist() == list(range(14))


def test_a_reliability_diagram_holds_every_example_once() -> None:
    diagram = calibration.reliability_bins([[0.9, 0.1], [0.92, 0.08], [0.45, 0.55]], [0, 1, 1])
    assert diagram.counts.sum() == 3 and len(diagram.edges) == 16
    assert diagram.confidence[13] == pytest.approx(0.91) and diagram.accuracy[13] == pytest.approx(0.5)
    assert diagram.accuracy[8] == 1.0 and np.isnan(diagram.accuracy[0])


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        ([[np.nan, 0.0]], [0], "row 0 holds NaN"),
        ([[np.inf, 0.0]], [0], "row 0 holds NaN or infinity"),
        ([[1.0, 0.0]], [2], "label 2 in row 0"),
        ([1.0, 0.0], [0], "give \\(N, C\\)"),
        (np.zeros((0, 2)), [], "hold no row"),
    ],
)
def test_what_cannot_be_fitted_is_one_line(logits: object, labels: list[int], message: str) -> None:
    with pytest.raises(LesionHubError, match=message):
        calibration.fit_temperature(logits, labels)


def validation_of(data, manifest):
    return data.dataset.select(manifest.rows(list(data.dataset["image_id"][:]), "val"))


def test_the_temperature_is_folded_in_and_noted(make_model, samples, data, manifest):
    folder = make_model(seed=3, temperature=None)
    dataset = validation_of(data, manifest)
    before = score_dataset(lesion_hub.from_pretrained(folder), dataset, data.space)
    (folder / "metrics.json").write_text(json.dumps({"test": {"accuracy": 1}, "training": {"epochs": 3}}))
    done = calibrate_run(folder, samples)
    expected = calibration.fit_calibration(np.log(before.probabilities), before.labels)
    assert done.result.temperature == pytest.approx(expected.temperature, rel=1e-4)
    assert done.result.nll_after <= done.result.nll_before

    after = score_dataset(lesion_hub.from_pretrained(folder), dataset, data.space)
    assert np.array_equal(after.probabilities.argmax(axis=1), before.probabilities.argmax(axis=1))
    kept = read_scored(folder / "predictions_validation.parquet", data.space)
    assert np.abs(kept.probabilities - after.probabilities).max() < 2e-3  # weights are stored in half precision
    config = load_config(folder)
    verify_weights(folder, config)
    assert config.lesion_hub.temperature == done.result.temperature
    assert config.lesion_hub.operating_points == done.points

    noted = json.loads((folder / "metrics.json").read_text())
    assert noted["training"] == {"epochs": 3} and "test" not in noted
    assert noted["validation"]["calibration"]["ece_before"]["value"] == pytest.approx(done.result.ece_before)


def test_the_runs_own_predictions_will_do(make_model, data, manifest):
    folder = make_model(seed=3, temperature=None)
    score_dataset(lesion_hub.from_pretrained(folder), validation_of(data, manifest), data.space).save(
        folder / "predictions_validation.parquet"
    )
    done = calibrate_run(folder)
    assert load_model_config(folder).lesion_hub.temperature == done.result.temperature


def test_nothing_is_calibrated_twice(make_model, samples):
    folder = make_model(seed=3, temperature=None)
    calibrate_run(folder, samples)
    weights = (folder / "model.safetensors").read_bytes()
    with pytest.raises(ConfigError, match="is calibrated already"):
        calibrate_run(folder, samples)
    assert (folder / "model.safetensors").read_bytes() == weights


def test_without_predictions_the_data_are_asked_for(make_model):
    with pytest.raises(ConfigError, match="--data"):
        calibrate_run(make_model(seed=3, temperature=None))


@pytest.mark.parametrize("part", ["train", "test"])
def test_only_validation_images_will_do(make_model, data, manifest, tmp_path, part):
    rows = manifest.rows(list(data.dataset["image_id"][:]), part)
    data.dataset.select(rows).to_parquet(str(tmp_path / "other.parquet"))
    with pytest.raises(DataError, match=r"made with some of these|does not hold the validation images"):
        calibrate_run(make_model(seed=3, temperature=None), tmp_path / "other.parquet")


def test_an_ensembles_temperature_stands_in_its_config(registry, pair, samples, data, manifest):
    dataset = validation_of(data, manifest)
    before = lesion_hub.from_pretrained(pair, registry=registry).predict(list(image_sources(dataset)))
    done = calibrate_run(pair, samples, registry=registry)
    config = load_ensemble_config(pair)
    assert config.temperature == done.result.temperature != 1.0
    (own, other) = training_records(Resolved("pair", pair, None), registry=registry)
    assert own.parts["fitted"].images == other.parts["fitted"].images == own.parts["val"].images
    assert find_overlap(dataset, [own], "val").images == tuple(dataset["image_id"][:])
    after = lesion_hub.from_pretrained(pair, registry=registry).predict(list(image_sources(dataset)))
    assert [answer.label for answer in after] == [answer.label for answer in before]
    with pytest.raises(ConfigError, match="is calibrated already"):
        calibrate_run(pair, samples, registry=registry)

    kept = read_scored(pair / "predictions_validation.parquet", data.space)
    replace(kept, facts=kept.facts.assign(image_id="new_" + kept.facts["image_id"])).save(
        pair / "predictions_validation.parquet"
    )
    calibrate_run(pair, rules_anew=True)
    (again, _) = training_records(Resolved("pair", pair, None), registry=registry)
    new = {image_digest(f"new_{image_id}") for image_id in dataset["image_id"][:]}
    assert again.parts["fitted"].images == own.parts["fitted"].images | new
