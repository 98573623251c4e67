"""The commands of the input gate, and the verdict that predictions print."""

from __future__ import annotations

import json

from tests.cli.test_predict_commands import object_of, run
from tests.inference.networks import picture


def test_a_gate_is_fitted_and_checked_and_then_every_prediction_has_its_verdict(make_model, samples, tmp_path):
    folder, photos = make_model(), tmp_path / "photos"
    photos.mkdir()
    for i in range(5):
        picture(40, 60, seed=i).save(photos / f"{i}.jpg")
    assert "not fitted" in run("predict", photos / "0.jpg", "--model", folder)
    said = object_of("gate", "fit", folder, "--data", samples, "--outliers", photos, "--count", 20)
    assert (said["images"], said["outliers"], said["held_out"]["outliers"]) == (20, 4, 1)
    assert said == {"folder": str(folder), **json.loads((folder / "metrics.json").read_text())["gate"]}
    checked = object_of("gate", "check", folder, "--data", samples, "--split", "test", "--outliers", photos)
    assert checked["outliers"]["images"] == 5 and checked["data"]["images"] < 60 and 0 <= checked["auroc"] <= 1
    assert "out of scope" in run("gate", "check", folder, "--outliers", photos, "--record")
    recorded = json.loads((folder / "metrics.json").read_text())["gate_check"]
    assert recorded["auroc"] is None and recorded["pictures"] == [checked["outliers"]]
    scope = object_of("predict", photos / "0.jpg", "--model", folder)["predictions"][0]["scope"]
    assert set(scope) == {"verdict", "score", "refuse_below", "accept_from"}
    assert f"{scope['verdict']} (score {scope['score']:.2f})" in run("predict", photos / "0.jpg", "--model", folder)
