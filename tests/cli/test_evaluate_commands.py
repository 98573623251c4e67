"""The commands that measure, called as the command line calls them."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from lesion_hub.cli import app
from lesion_hub.errors import DataError, LesionHubError

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def call():
    """``call("evaluate", …)``: what the command printed on standard output."""

    def run(*arguments: object) -> str:
        done = CliRunner().invoke(app, [str(argument) for argument in arguments], env={"COLUMNS": "200"})
        if done.exception is not None:
            raise done.exception
        return done.stdout

    return run


@pytest.fixture(scope="module")
def recorded(call, make_model, samples, tmp_path_factory):
    """A model folder whose results and card an evaluation wrote, and what it printed."""
    folder, out = make_model("recorded"), tmp_path_factory.mktemp("out")
    return folder, call("evaluate", "--model", folder, "--data", samples, "--out", out, "--record", "--json")


def test_evaluate_prints_one_object(recorded):
    printed = json.loads(recorded[1])
    assert printed["test"] == json.loads((recorded[0] / "metrics.json").read_text())["test"]


def test_the_recorded_card_passes_its_check_until_it_is_edited(call, recorded):
    assert "hold" in call("card", recorded[0], "--check")
    card = recorded[0] / "README.md"
    text = card.read_text()
    card.write_text(text.replace("21 images of", "2100 images of"))
    with pytest.raises(LesionHubError, match="2100 stands where the files say 21"):
        call("card", recorded[0], "--check")
    call("card", recorded[0])
    assert card.read_text() == text
    assert "org/tiny" in (call("card", recorded[0], "--name", "org/tiny"), card.read_text())[1]


def test_evaluate_shows_intervals(call, make_model, samples, tmp_path):
    printed = call("evaluate", "--model", make_model(), "--data", samples, "--out", tmp_path, "--as", "binary")
    assert "balanced accuracy" in printed and "report.html" in printed and "–" in printed


def test_evaluate_refuses_training_images_unless_forced(call, make_model, samples, tmp_path):
    arguments = ("evaluate", "--model", make_model(), "--data", samples, "--out", tmp_path, "--split", "train")
    with pytest.raises(DataError, match="was made with some of these images"):
        call(*arguments)
    assert json.loads(call(*arguments, "--force", "--json"))["train"]["overlap"]["forced"] is True


def test_compare(call, make_model, samples, tmp_path):
    models = make_model("a", seed=1), make_model("b", seed=2)
    found = json.loads(call("compare", *models, "--data", samples, "--out", tmp_path, "--json"))
    assert found["first"] == "a" and "accuracy" in found["differences"]
    assert "McNemar" in call("compare", *models, "--data", samples)


def test_calibrate(call, make_model, samples):
    folder = make_model(seed=3, temperature=None)
    found = json.loads(call("calibrate", folder, "--data", samples, "--json"))
    assert found["temperature"] > 0 and found["nll_after"] <= found["nll_before"]
    with pytest.raises(LesionHubError, match="calibrated already"):
        call("calibrate", folder, "--data", samples)


def test_recalibrate_refuses_what_the_model_has_seen_and_takes_names_with_versions(call, make_model, samples, tmp_path):
    arguments = ("--data", samples, "--out", tmp_path / "new", "--margin", 0.1)
    with pytest.raises(DataError, match="was made with some of these images"):
        call("recalibrate", make_model(), *arguments)
    with pytest.raises(LesionHubError, match="nobody"):
        call("recalibrate", "nobody@v1.0.0", *arguments)
    assert not (tmp_path / "new").exists()
