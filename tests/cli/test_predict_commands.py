"""The commands that use a model, from their options to what they print and write."""

from __future__ import annotations

import json
import shutil

import pytest
from PIL import Image
from typer.testing import CliRunner

from lesion_hub.cli import app
from lesion_hub.config import load_model_config
from lesion_hub.data.synthetic import SampleSpec, write_sample_set
from lesion_hub.errors import ConfigError, LesionHubError
from lesion_hub.files import sha256_of
from lesion_hub.hub import store
from lesion_hub.hub.format import write_model
from lesion_hub.inference import from_pretrained
from tests.hub.publishable import TRAINING, write_folder
from tests.inference.networks import RULES, classifier, picture


def run(*arguments):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.stdout


def object_of(*arguments):
    return json.loads(run(*arguments, "--json"))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A registry with models a and b, a run folder, two photographs and a synthetic set."""
    root = tmp_path_factory.mktemp("place")
    for seed, name in enumerate("ab"):
        store.publish(write_folder(root / name, seed), name, version="1.0.0", notes="First.", registry=root / "registry")
    for i in range(2):
        picture(40, 60, seed=i).save(root / f"mole{i}.jpg")
    write_sample_set(root / "set", SampleSpec(count=14, size=40, balanced=True))
    return root


def test_predict_prints_probabilities_and_that_it_is_no_diagnosis(place):
    said = object_of("predict", place / "mole0.jpg", place / "mole1.jpg", "--model", place / "a", "--top", 2)
    assert [row["image"] for row in said["predictions"]] == [str(place / "mole0.jpg"), str(place / "mole1.jpg")]
    assert len(said["predictions"][0]["top"]) == 2
    assert "not a diagnosis" in said["notice"]
    text = run("predict", place / "mole0.jpg", "--model", place / "a")
    assert "malignant" in text
    assert "safe" not in text.lower()


def test_an_overlay_is_an_image_of_the_same_size(place, tmp_path):
    said = object_of(
        "predict", place / "mole0.jpg", "--model", "a", "--registry", place / "registry", "--overlay", tmp_path / "o"
    )
    row = said["predictions"][0]
    assert Image.open(row["overlay"]).size == (60, 40)
    assert row["explanation"] == {"method": "gradcam", "label": row["label"]}


def test_overlays_of_images_of_one_name_are_numbered_and_one_that_cannot_be_written_is_one_line(place, tmp_path):
    images = [tmp_path / folder / "mole.jpg" for folder in "ab"]
    for i, image in enumerate(images):
        image.parent.mkdir()
        picture(40 + i, 60).save(image)
    out, model = tmp_path / "out", ("--model", place / "a")
    said = object_of("predict", *images, *model, "--overlay", out)
    assert [row["overlay"] for row in said["predictions"]] == [str(out / "mole_heat.png"), str(out / "mole_2_heat.png")]
    assert [Image.open(row["overlay"]).height for row in said["predictions"]] == [40, 41]
    with pytest.raises(LesionHubError, match="cannot be written"):
        run("predict", images[0], *model, "--overlay", images[1])


def test_a_case_is_one_answer(place, tmp_path):
    said = object_of(
        "predict", place / "mole0.jpg", place / "mole1.jpg", "--model", place / "a", "--case", "--overlay", tmp_path
    )
    assert len(said["images"]) == 2
    assert sum(said["probabilities"].values()) == pytest.approx(1)
    assert len(list(tmp_path.glob("*_heat.png"))) == 2


def test_score_writes_shards_and_goes_on(place, tmp_path):
    arguments = ("score", place / "set", "--model", place / "a", "--out", tmp_path / "s", "--source", "ham10000")
    assert object_of(*arguments)["scored"] == 14
    again = object_of(*arguments)
    assert (again["scored"], again["already_there"], again["complete"]) == (0, 14, True)


def test_an_ensemble_is_created_with_weights_or_fitted(place, tmp_path):
    registry = ("--registry", place / "registry")
    fixed = object_of("ensemble", "create", "a", "b@v1.0.0", "--weights", "0.3,0.7", "--out", tmp_path / "fixed", *registry)
    assert fixed["members"] == {"a@v1.0.0": 0.3, "b@v1.0.0": 0.7}
    fitted = object_of("ensemble", "create", "a", "b", "--fit", place / "set", "--out", tmp_path / "fitted", *registry)
    assert sum(fitted["members"].values()) == pytest.approx(1)
    assert fitted["fit"]["images"] == 14
    assert "sensitivity_90" in fitted["operating points"]
    said = object_of("predict", place / "mole0.jpg", "--model", tmp_path / "fitted", *registry)
    assert "sensitivity_90" in said["predictions"][0]["decisions"]
    with pytest.raises(LesionHubError, match="are no numbers"):
        run("ensemble", "create", "a", "--weights", "half", "--out", tmp_path / "wrong", *registry)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["a", "b", "--weights", "0.5,0.5"], "not both"),
        (["a", "a@v1.0.0"], "a@v1.0.0 is a member twice"),
        (["a", "b", "--out", "FULL"], "not an empty folder"),
        (["a", "squashed", "--bundle"], "cannot share one input"),
    ],
)
def test_what_makes_no_ensemble_is_said_before_the_data_to_fit_on_are_read(place, tmp_path, arguments, words):
    shutil.copytree(place / "registry", tmp_path / "registry")
    write_model(write_folder(tmp_path / "run"), classifier(crop_mode="squash"), training=TRAINING, temperature=1.0)
    store.publish(tmp_path / "run", "squashed", version="1.0.0", notes="First.", registry=tmp_path / "registry")
    places = ("--out", tmp_path / "new", "--registry", tmp_path / "registry", "--fit", tmp_path / "nowhere")
    with pytest.raises(LesionHubError, match=words):
        run("ensemble", "create", *places, *(place if argument == "FULL" else argument for argument in arguments))


def test_attribution_is_checked_and_recorded(place):
    said = object_of("attribution", "check", place / "b", "--data", place / "set", "--images", 2, "--stages", 1, "--record")
    assert {"gradcam", "random", "centre_gaussian", "edges"} == set(said["maps"])
    assert said["mask_area"] > 0
    assert json.loads((place / "b" / "metrics.json").read_text())["attribution"] == said
    assert "similarity" in run("attribution", "check", place / "b", "--data", place / "set", "--images", 1, "--stages", 1)
    assert object_of("attribution", "methods")["methods"][0]["name"] == "gradcam"
    with pytest.raises(LesionHubError, match="pull the model"):
        run("attribution", "check", "b", "--data", place / "set", "--record")


def test_export_writes_a_file_and_an_8_bit_one(place, tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr("lesion_hub.inference.quantization.compare_speed", lambda *files: {"1 thread, batch 1": 1.5})
    out, lenient = tmp_path / "a.onnx", ("--recall-drop", 1, "--agreement", 0)
    said = object_of("export", place / "a", "--out", out, "--quantize", place / "set", *lenient)
    assert [row["path"] for row in said["files"]] == [str(out), str(tmp_path / "a.int8.onnx")]
    assert [row["precision"] for row in said["files"]] == ["float32", "int8"]
    with pytest.raises(LesionHubError, match="use onnx"):
        run("export", place / "a", "--out", out, "--format", "tflite")


@pytest.mark.slow
def test_an_8_bit_file_of_a_folder_is_recorded_there(place, tmp_path, monkeypatch):
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr("lesion_hub.inference.quantization.compare_speed", lambda *files: {"1 thread, batch 1": 1.5})
    cards: list[str] = []
    monkeypatch.setattr("lesion_hub.hub.card.write_card", cards.append)
    folder = write_folder(tmp_path / "c", 2)
    asked = ("export", folder, "--precision", "int8", "--data", place / "set", "--record", "--recall-drop", 1)
    text = run(*asked, "--agreement", 0)
    assert "of those tried" in text
    measured = json.loads((folder / "metrics.json").read_text())["int8"]
    assert measured["sha256"] == sha256_of(folder / "onnx" / "model_int8.onnx")
    assert load_model_config(folder).lesion_hub.graphs == {"int8": measured["sha256"]}
    assert measured["images"] == sum(count["images"] for count in measured["classes"].values())
    assert cards == [str(folder)]
    exact, near = (
        from_pretrained(folder, engine=name).predict(picture(), explain="gradcam") for name in ("torch", "onnx-int8")
    )
    assert 0 < max(abs(near.probabilities[name] - exact.probabilities[name]) for name in exact.probabilities) < 0.05
    assert near.heat.shape == exact.heat.shape
    scored = ("score", place / "set", "--source", "ham10000", "--model", folder, "--out", tmp_path / "scores", "--engine")
    run(*scored, "torch")
    with pytest.raises(LesionHubError, match="precision differs"):
        run(*scored, "onnx-int8")
    with pytest.raises(ConfigError, match="without an 8-bit file"):
        from_pretrained(place / "a", engine="onnx-int8")
    with pytest.raises(LesionHubError, match="is published"):
        run("export", "a", "--registry", place / "registry", *asked[2:])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--precision", "int4", "--out", "a.onnx"], "use float32 or int8"),
        (["--precision", "int8", "--out", "a.onnx"], "give both it and --data"),
        (["--data", "D", "--out", "a.onnx"], "give both it and --data"),
        (["--precision", "int8", "--data", "D"], "--out FILE"),
        (["--record"], "add --precision int8"),
    ],
)
def test_fewer_bits_come_with_data_and_a_place(place, options, words):
    with pytest.raises(LesionHubError, match=words):
        run("export", place / "a", *options)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["predict", "nowhere.jpg", "--model", "A"], "no such file"),
        (["predict", "P", "--model", "A", "--explain", "gradcamm"], "did you mean 'gradcam'"),
        (["predict", "P", "--model", "A", "--explain", "gradcam", "--target", "melanomma"], "known: akiec"),
        (["predict", "P", "--model", "A", "--target", "mel"], "add explain"),
        (["predict", "P", "--model", "A", "--tta", "9"], "tta"),
        (["predict", "P", "--model", "A", "--threads", "0"], "1 or more"),
        (["score", "A", "--model", "A", "--out", "O", "--batch-size", "7"], "not a multiple"),
    ],
)
def test_a_mistake_is_one_line(place, tmp_path, arguments, words):
    places = {"A": place / "a", "P": place / "mole0.jpg", "O": tmp_path / "out"}
    with pytest.raises(LesionHubError, match=words) as caught:
        run(*(places.get(argument, argument) for argument in arguments))
    assert "\n" not in str(caught.value)


def test_answers_are_read_by_the_rules_asked_for_and_a_model_without_them_says_so(place, tmp_path):
    ruled = tmp_path / "ruled"
    write_model(write_folder(ruled), classifier(), training=TRAINING, temperature=1.0, rules=RULES)
    image = place / "mole0.jpg"
    options = ("--cost", "mel:nv=1000", "--cost", "mel:bkl=1000", "--prior", "mel=0.3", "--abstain", "0.1", "--coverage", "0.8")
    said = object_of("predict", image, "--model", ruled, *options)["predictions"][0]
    assert said["decided_by"] == "cost"
    assert said["label_set"]["coverage"] == 0.8
    assert said["abstains"] is True
    text = run("predict", image, "--model", ruled, *options)
    assert "the model abstains" in text
    assert "(80% of lesions)" in text
    assert "not fitted" in run("predict", image, "--model", place / "a")
    assert "label sets         not fitted" in run("info", place / "a")
    with pytest.raises(LesionHubError, match="balanced': not fitted"):
        run("predict", image, "--model", place / "a", "--decide", "balanced")
    with pytest.raises(LesionHubError, match="leave out --decide"):
        run("predict", image, "--model", ruled, "--decide", "balanced", "--cost", "mel:nv=2")
