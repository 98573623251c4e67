"""A temperature is fitted on validation once, becomes part of the model, and changes no decision."""

from __future__ import annotations

import json

import numpy as np
import pytest

import lesion_hub
from lesion_hub.config import load_ensemble_config, load_model_config
from lesion_hub.data.scan import image_sources
from lesion_hub.errors import ConfigError, DataError
from lesion_hub.evaluation.calibration import calibrate
from lesion_hub.evaluation.recalibrate import calibrate_run
from lesion_hub.evaluation.scoring import read_scored, score
from lesion_hub.hub.layout import load_config, verify_weights


def validation_of(data, manifest):
    return data.dataset.select(manifest.rows(list(data.dataset["image_id"][:]), "val"))


def test_the_temperature_is_folded_in_and_noted(make_model, samples, data, manifest):
    folder = make_model(temperature=None)
    dataset = validation_of(data, manifest)
    before = score(lesion_hub.from_pretrained(folder), dataset, data.space)
    (folder / "metrics.json").write_text(json.dumps({"test": {"accuracy": 1}, "training": {"epochs": 3}}))
    done = calibrate_run(folder, samples)
    expected = calibrate(np.log(before.probabilities), before.labels)
    assert done.result.temperature == pytest.approx(expected.temperature, rel=1e-4)
    assert done.result.nll_after <= done.result.nll_before

    after = score(lesion_hub.from_pretrained(folder), dataset, data.space)
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
    folder = make_model(temperature=None)
    score(lesion_hub.from_pretrained(folder), validation_of(data, manifest), data.space).save(
        folder / "predictions_validation.parquet"
    )
    done = calibrate_run(folder)
    assert load_model_config(folder).lesion_hub.temperature == done.result.temperature


def test_nothing_is_calibrated_twice(make_model, samples):
    folder = make_model(temperature=None)
    calibrate_run(folder, samples)
    weights = (folder / "model.safetensors").read_bytes()
    with pytest.raises(ConfigError, match="is calibrated already"):
        calibrate_run(folder, samples)
    assert (folder / "model.safetensors").read_bytes() == weights


def test_without_predictions_the_data_are_asked_for(make_model):
    with pytest.raises(ConfigError, match="--data"):
        calibrate_run(make_model(temperature=None))


@pytest.mark.parametrize("part", ["train", "test"])
def test_only_validation_images_will_do(make_model, data, manifest, tmp_path, part):
    rows = manifest.rows(list(data.dataset["image_id"][:]), part)
    data.dataset.select(rows).to_parquet(str(tmp_path / "other.parquet"))
    with pytest.raises(DataError, match=r"made with some of these|does not hold the validation images"):
        calibrate_run(make_model(temperature=None), tmp_path / "other.parquet")


def test_an_ensembles_temperature_stands_in_its_config(registry, pair, samples, data, manifest):
    dataset = validation_of(data, manifest)
    before = lesion_hub.from_pretrained(pair, registry=registry).predict(list(image_sources(dataset)))
    done = calibrate_run(pair, samples, registry=registry)
    assert load_ensemble_config(pair).temperature == done.result.temperature != 1.0
    after = lesion_hub.from_pretrained(pair, registry=registry).predict(list(image_sources(dataset)))
    assert [answer.label for answer in after] == [answer.label for answer in before]
    with pytest.raises(ConfigError, match="is calibrated already"):
        calibrate_run(pair, samples, registry=registry)
