"""The input gate: one pass gives its features too, whatever runs the network and whatever else was asked for."""

from __future__ import annotations

import copy
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image

from lesion_hub.config import ENGINE_VARIABLE
from lesion_hub.data.synthetic import draw_lesion
from lesion_hub.errors import ConfigError
from lesion_hub.evaluation.gate_fit import GateOptions, fit_gate, gives_features
from lesion_hub.hub.format import write_model
from lesion_hub.hub.gate_file import GateWeights, write_gate
from lesion_hub.inference import Predictor, from_pretrained, members
from lesion_hub.inference.bulk import ShardFolder, score_in_bulk
from lesion_hub.inference.gate import Gate, pooled, scopes
from lesion_hub.inference.members import Combination, Member
from lesion_hub.inference.rows import open_rows
from tests.inference.networks import classifier, picture


def lesions(count, first=0, side=40):
    return [draw_lesion("nv", seed, side, artefacts=False).image for seed in range(first, first + count)]


def encoded(images):
    """Images as the fit takes them: encoded bytes."""
    files = []
    for image in images:
        stream = BytesIO()
        Image.fromarray(np.asarray(image)).save(stream, "PNG")
        files.append(stream.getvalue())
    return files


def fitted(model, images=48, held_out=24):
    """A member's gate, fitted on drawn lesions."""
    member = Member("one", model).ready()
    found = fit_gate(member, encoded(lesions(images)), encoded(lesions(held_out, 500)), options=GateOptions(images=images))
    return Gate(found.weights, found.refuse_below, found.accept_from), found.section


@pytest.fixture(scope="module")
def gated():
    """A predictor with a gate of its own, and what the fit says of it."""
    model = classifier()
    gate, section = fitted(model)
    return Predictor.of(model, gate=gate), section


def test_lesions_pass_and_what_is_plainly_something_else_does_not(gated):
    model, section = gated
    passed = [found.scope.verdict != "out of scope" for found in model.predict(lesions(40, 900))]
    assert np.mean(passed) >= 0.9
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    others = [noise, *(np.full((40, 40, 3), level, np.uint8) for level in (0, 128, 255))]
    assert [found.scope.verdict for found in model.predict(others)] == ["out of scope"] * 4
    held = section["held_out"]
    assert held["refused"] <= 0.1 and held["auroc"] > 0.9 and held["by_kind"]["noise"] == 1.0


def test_the_verdict_is_the_same_whatever_else_is_asked_for(gated):
    model, _ = gated
    image = lesions(1, 77)[0]
    plain = model.predict(image).scope
    for options in ({"explain": "gradcam"}, {"explain": "occlusion"}, {"tta": 4}, {"explain": "gradcam", "tta": 2}):
        other = model.predict(image, **options).scope
        assert other.score == pytest.approx(plain.score, abs=1e-5), options
    assert plain.to_dict()["verdict"] == plain.verdict


def test_a_compiled_network_is_judged_alike(gated):
    model, _ = gated
    image = lesions(1, 31)[0]
    twin = Predictor.of(copy.deepcopy(model.classifier), gate=model.gates[0]).compile(backend="eager")
    assert twin.members[0].compiled is not None
    assert twin.predict(image).scope.score == pytest.approx(model.predict(image).scope.score, abs=1e-5)


def test_the_engine_gives_what_torch_gives(tmp_path, gated, monkeypatch):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    model, gate = gated[0], gated[0].gates[0]
    monkeypatch.delenv(ENGINE_VARIABLE)
    write_model(tmp_path / "run", model.classifier, temperature=1.0, storage="float32")
    write_gate(tmp_path / "run", gate.weights, refuse_below=gate.refuse_below, accept_from=gate.accept_from)
    fused, torch_ = (from_pretrained(tmp_path / "run", engine=engine) for engine in ("onnx", "torch"))
    assert fused.members[0].running is not None
    for image in (lesions(1, 5)[0], picture()):
        one, other = fused.predict(image).scope, torch_.predict(image).scope
        assert one.score == pytest.approx(other.score, abs=1e-4)


def test_an_ensemble_s_score_is_the_mean_of_its_members_in_log_odds(gated):
    model, gate = gated[0].classifier, gated[0].gates[0]
    other = Gate(GateWeights("features", gate.weights.outputs * -0.5, 0.3), 0.2, 0.9)
    image, share = lesions(1, 3)[0], 0.5
    singles = [Predictor.of(model, gate=one).predict(image).scope.score for one in (gate, other)]
    three = [Member("a", model, gate=gate), Member("b", model, gate=other), Member("c", model)]
    combination = Combination.of([model.space] * 3, [share, share, 0.0])
    together = Predictor(three, combination).predict(image).scope
    odds = np.mean([np.log(score / (1 - score)) for score in singles])
    assert together.score == pytest.approx(1 / (1 + np.exp(-odds)), rel=1e-4)
    assert together.refuse_below == pytest.approx(1 / 3)  # odds of 1 and 1/4
    assert Predictor(three[2:], Combination.single(model.space)).predict(image).scope is None


def test_a_case_is_as_far_out_of_scope_as_its_worst_image(gated):
    model, _ = gated
    case = model.predict_case([lesions(1, 9)[0], np.zeros((40, 40, 3), np.uint8)])
    assert case.scope == case.images[1].scope and case.scope.verdict == "out of scope"


def test_the_tokens_of_a_transformer_are_pooled():
    model = classifier("vit_tiny_patch16_224", size=32)
    gate, section = fitted(model, images=6, held_out=4)
    assert section["reads"] == "features" and len(gate.weights.outputs) == 2 * 192
    assert 0 < Predictor.of(model, gate=gate).predict(lesions(1)[0]).scope.score < 1


def test_a_network_that_cannot_be_cut_is_judged_by_its_logits(monkeypatch):
    def uncut(_):
        raise ConfigError("its layout is not known")

    monkeypatch.setattr(members, "cut", uncut)
    model = classifier()
    gate, section = fitted(model, images=6, held_out=4)
    assert section["reads"] == "logits" and len(gate.weights.outputs) == 7
    assert not gives_features(Member("one", model))
    assert 0 < Predictor.of(model, gate=gate).predict(lesions(1)[0]).scope.score < 1


def test_features_are_pooled_over_the_image_in_every_layout():
    maps = torch.randn(2, 5, 3, 4)
    expected = torch.cat([maps.mean((2, 3)), maps.std((2, 3), correction=0)], dim=1).numpy()
    np.testing.assert_allclose(pooled(maps, 10), expected, rtol=1e-5)
    np.testing.assert_allclose(pooled(maps.permute(0, 2, 3, 1), 10), expected, rtol=1e-5)
    np.testing.assert_allclose(pooled(maps.flatten(2).transpose(1, 2), 10), expected, rtol=1e-5)


def test_a_score_on_a_limit_belongs_to_the_better_side():
    gate = Gate(GateWeights("features", torch.zeros(2), 0.0), 0.5, 0.8)
    verdicts = [scope.verdict for scope in scopes([gate], [np.array([-0.1, 0.0, 1.0, 2.0])])]
    assert verdicts == ["out of scope", "unsure", "unsure", "in scope"]


def test_bulk_scoring_has_a_column_for_it_where_there_is_a_gate(gated, folder, tmp_path):
    for name, model in (("gated", gated[0]), ("plain", Predictor.of(gated[0].classifier))):
        score_in_bulk(model, open_rows(folder), tmp_path / name)
    table = ShardFolder(tmp_path / "gated").table().to_pylist()
    assert {row["scope"] for row in table if row["error"] is None} <= {"in scope", "unsure", "out of scope"}
    assert all((row["scope"] is None) == (row["error"] is not None) for row in table)
    assert "scope" not in ShardFolder(tmp_path / "plain").table().column_names
