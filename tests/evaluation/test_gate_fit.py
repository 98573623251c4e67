"""Fitting an input gate to a model folder: the right images, the files it writes, and what later steps keep of it."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from lesion_hub.config import Abstention, AnswerRules, dump_json, load_model_config
from lesion_hub.errors import ConfigError, DataError
from lesion_hub.evaluation import gate_fit
from lesion_hub.evaluation.gate_fit import (
    FittedGate,
    GateOptions,
    check_gate,
    count_verdicts,
    fit_gate,
    fit_gate_of,
    record_check,
    scope_auroc,
)
from lesion_hub.files import read_json, write_json, write_text
from lesion_hub.hub.card import render_card, write_card
from lesion_hub.hub.card_check import check_card
from lesion_hub.hub.gate_file import GateWeights, carry_gate, read_gate, write_gate
from lesion_hub.hub.layout import CARD_NAME
from lesion_hub.inference import from_pretrained
from tests.hub.test_card import GOLDEN


@pytest.fixture
def run(make_model):
    """The folder of a model trained on a part of ``samples``, with the results of the golden card."""
    folder = make_model()
    for name in ("metrics.json", "CHANGELOG.md"):
        shutil.copyfile(GOLDEN / name, folder / name)
    write_card(folder, name="org/mine")
    return folder


@pytest.fixture
def photos(tmp_path):
    """A folder of ten pictures that are no lesions, and a file that is none."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(10):
        Image.fromarray(np.random.default_rng(i).integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    (folder / "broken.jpg").write_bytes(b"no image")
    return folder


def test_a_folder_gets_its_gate_its_figures_and_its_card(run, samples, photos):
    fitted = fit_gate_of(run, samples, outliers=photos)
    section = read_json(run / "metrics.json")["gate"]
    held = section["held_out"]
    assert section == fitted.section and section["selection"] == "the part 'train' of the split that the model was made with"
    assert (section["drawn"], section["outliers"], held["outliers"]) == (section["images"], 8, 2)
    assert held["outliers_refused"] == 1.0 and held["by_kind"]["noise"] == 1.0
    config = load_model_config(run)
    assert config.lesion_hub.gate.refuse_below == 0.5
    assert torch.equal(read_gate(run, config).outputs, fitted.weights.outputs)
    card = (run / CARD_NAME).read_text()
    assert "# org/mine" in card and "## Input gate" in card and "that a program drew and 8 others" in card
    check_card(run)
    assert "## Input gate" not in render_card(GOLDEN)

    model = from_pretrained(run)
    inside = check_gate(model, sorted((samples / "HAM10000_images").glob("*.jpg")))
    outside = check_gate(model, sorted(photos.iterdir()))
    assert count_verdicts(outside) == {"images": 10, "in_scope": 0.0, "unsure": 0.0, "out_of_scope": 1.0}
    record_check(run, [{"name": "photos", **count_verdicts(outside)}], scope_auroc(inside, outside))
    assert "| photos | 10 | 0.000 | 0.000 | 1.000 |" in (run / CARD_NAME).read_text()
    check_card(run)
    assert len(inside) == 60 and count_verdicts(inside)["out_of_scope"] < 0.2 and scope_auroc(inside, outside) > 0.95


def test_images_that_cannot_be_read_are_not_counted(run, samples, photos):
    known = sorted((samples / "HAM10000_images").glob("*.jpg"))
    fitted = fit_gate(from_pretrained(run).members[0], [photos / "broken.jpg", *known[:20]], known[20:])
    assert (fitted.section["images"], fitted.section["drawn"]) == (20, 20)


@pytest.mark.parametrize(("weight", "kept"), [(0.0, {"abstention"}), (0.5, set())])
def test_a_new_gate_leaves_nothing_that_was_measured_of_the_old_one(run, samples, weight, kept):
    section = load_model_config(run).lesion_hub
    abstention = Abstention(weights={"confidence": 1.0, "scope": weight}, limits={}, answered={})
    ruled = section.model_copy(update={"rules": AnswerRules(abstention=abstention)})
    write_text(run / "config.json", dump_json(load_model_config(run).model_copy(update={"lesion_hub": ruled})))
    metrics = read_json(run / "metrics.json")
    measured = {"gate": {}, "abstention": {}}
    whole = {"intervals": {}, **measured, "home": {"intervals": {}, **measured}}
    write_json(run / "metrics.json", {**metrics, "validation": {"decisions": {}, **measured}, "all": whole})
    fit_gate_of(run, samples, images=20, held_out=9)
    after = read_json(run / "metrics.json")
    for part in (after["validation"], after["all"], after["all"]["home"]):
        assert set(measured) & set(part) == kept


@pytest.mark.parametrize("records", [True, False])
def test_the_model_s_test_images_are_not_fitted_on(make_model, data, manifest, monkeypatch, records):
    folder, seen = make_model(records=records), []
    weights = GateWeights("features", torch.zeros(2), 0.0)

    def keep(member, training, held_out, *_, **__):
        seen.extend({path.rsplit("/", 1)[-1].split(".")[0] for path in paths} for paths in (training, held_out))
        return FittedGate(weights, 0.5, 0.6, {})

    monkeypatch.setattr(gate_fit, "fit_gate", keep)
    fit_gate_of(folder, data)
    parts = {part: {name for name, place in manifest.part_of.items() if place == part} for part in manifest.parts}
    if records:
        assert seen == [parts["train"], parts["val"]]
    else:  # nothing is known of them: all, a fifth of the lesions aside
        groups = dict(zip(data.dataset["image_id"][:], data.dataset["group"][:], strict=True))
        assert len(seen[0]) + len(seen[1]) == 60 and len(seen[1]) >= 10
        assert not {groups[name] for name in seen[0]} & {groups[name] for name in seen[1]}


def test_what_cannot_be_fitted_is_one_line(pair, run, samples, registry):
    with pytest.raises(ConfigError, match="is an ensemble, whose verdict comes from its members' gates"):
        fit_gate_of(pair, samples)
    with pytest.raises(ConfigError, match="refused 0 must be above 0"):
        fit_gate_of(run, samples, refused=0.0)
    with pytest.raises(DataError, match="too few to fit an input gate"):
        fit_gate(from_pretrained(run).members[0], [], [], options=GateOptions())
    with pytest.raises(ConfigError, match="has no input gate; fit one"):
        check_gate(from_pretrained(run), [])


def test_a_new_temperature_leaves_the_verdict_as_it_was(run):
    write_gate(run, GateWeights("logits", torch.arange(7.0), 0.5), refuse_below=0.5, accept_from=0.6)
    model, section = from_pretrained(run), load_model_config(run).lesion_hub.gate
    logits = torch.randn(3, 7)
    carry_gate(model.gates[0].weights, section, run, factor=1.7)
    after = from_pretrained(run).gates[0]
    np.testing.assert_allclose(after.log_odds(logits / 1.7), model.gates[0].log_odds(logits), rtol=1e-5)
    assert (after.refuse_below, after.accept_from) == (0.5, 0.6)
