"""Rules are fitted where the temperature is, travel with the model, are measured with it, and stand in its card."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from datasets import ClassLabel
from scipy.special import softmax

import lesion_hub
from lesion_hub.config import dump_json, load_ensemble_config, load_model_config
from lesion_hub.errors import ConfigError
from lesion_hub.evaluation.abstention import aurc, fit_abstention, judge_abstention, risk_coverage
from lesion_hub.evaluation.calibration import calibrate_run
from lesion_hub.evaluation.external import home_figures
from lesion_hub.evaluation.rules import RULE_RESULTS, RuleAnswers, answers_by, fit_rules, measure_rules
from lesion_hub.evaluation.run import evaluate, record
from lesion_hub.evaluation.scoring import Scored
from lesion_hub.hub.card import write_card
from lesion_hub.hub.card_check import check_card
from lesion_hub.hub.gate_file import GateWeights, write_gate
from lesion_hub.hub.layout import verify_weights
from lesion_hub.hub.store import info
from lesion_hub.inference.ensemble import create_ensemble, pin_member
from lesion_hub.taxonomy import label_space, space_from_names
from tests.inference.networks import picture

HAM7 = label_space("ham7")
QUICK = {"resamples": 20}


def scored_lesions(count: int = 400, seed: int = 0) -> Scored:
    """Calibrated probabilities of lesions of seven labels, the last of them rare, with how far two members are apart."""
    random = np.random.default_rng(seed)
    logits = random.normal(scale=2, size=(count, 7)) - np.arange(7) / 2
    chances = softmax(logits, axis=1)
    labels = np.array([random.choice(7, p=row) for row in chances])
    facts = pd.DataFrame(
        {
            "image_id": [f"image{i}" for i in range(count)],
            "group": [f"lesion{i // 2}" for i in range(count)],
            "age": random.integers(20, 90, count).astype(float),
            "sex": random.choice(["female", "male"], count),
            "site": None,
            "source": "a",
            "width": 300,
            "height": 300,
            "skin_tone": random.normal(40, 20, count),
            "disagreement": 1 - chances.max(axis=1),
        }
    )
    return Scored(chances, labels, HAM7, facts)


def test_every_rule_is_measured_with_intervals_and_by_skin_tone():
    scored = scored_lesions()
    rules = fit_rules(scored)
    found = measure_rules(scored, {}, rules, **QUICK)
    assert set(found) == {"label_sets", "decisions", "abstention"}
    sets = found["label_sets"]["coverages"]["0.9"]
    assert sets["coverage"]["low"] <= sets["coverage"]["value"] <= sets["coverage"]["high"]
    assert sets["coverage"]["value"] >= 0.9  # on the very lesions that fitted it
    balanced, plain = (
        found["decisions"][name]["intervals"]["balanced_accuracy"]["value"] for name in ("balanced", "most_probable")
    )
    assert balanced > plain
    assert found["decisions"]["balanced"]["gain"]["value"] == pytest.approx(balanced - plain)
    assert found["decisions"]["balanced"]["power"] == pytest.approx(1, abs=0.3)  # these probabilities are calibrated
    silence = found["abstention"]["errors"]["0.1"]
    assert silence["error"]["value"] <= 0.1
    for section in (sets, silence):
        tones = section["by_group"]["skin_tone"]
        assert sum(one["images"] for one in tones.values()) == 400
    assert json.loads(json.dumps(found)) == found


def test_joined_answers_are_those_of_all_images():
    scored = scored_lesions(80)
    rules = fit_rules(scored)
    whole = answers_by(scored.probabilities, HAM7, {}, rules, scored)
    rows = np.arange(80)[::-1][:30], np.arange(50)
    some = [replace(scored, facts=scored.facts.iloc[part]) for part in rows]
    parts = [(part, answers_by(scored.probabilities[part], HAM7, {}, rules, one)) for part, one in zip(rows, some, strict=True)]
    joined = RuleAnswers.joined(parts)
    assert np.array_equal(joined.decisions["balanced"], whole.decisions["balanced"])
    assert np.array_equal(joined.sets[0.9], whole.sets[0.9])
    assert np.array_equal(joined.doubt, whole.doubt)


def test_the_area_under_risk_and_coverage():
    doubt, wrong = np.array([0.1, 0.2, 0.3, 0.4]), np.array([False, False, True, True])
    assert risk_coverage(doubt, wrong)[1].tolist() == pytest.approx([0, 0, 1 / 3, 1 / 2])
    tied = risk_coverage(np.array([0.1, 0.3, 0.3, 0.6]), np.array([False, False, True, False]))  # answered together
    assert tied[1].tolist() == pytest.approx([0, 1 / 4, 1 / 3, 1 / 4])
    assert aurc(np.zeros(4), wrong) == 0.5  # no doubt at all: the error itself
    assert aurc(doubt, wrong) < aurc(-doubt, wrong)
    judged = judge_abstention(doubt, {}, wrong.astype(int), np.zeros(4, int), list("abcd"), label_space("binary"), **QUICK)
    assert judged["aurc"]["value"] == pytest.approx(aurc(doubt, wrong)) == pytest.approx(judged["aurc_at_best"])


def test_a_label_may_have_the_name_of_a_measure():
    silent, predicted = np.array([False, False, True, True]), np.array([0, 0, 1, 1])
    measured = (np.arange(4) / 4, {"0.1": silent}, predicted, np.array([0, 1, 1, 1]), list("abcd"))
    found = judge_abstention(*measured, space_from_names(["answered", "error"]), **QUICK)["errors"]["0.1"]
    assert (found["answered"]["value"], found["error"]["value"]) == (0.5, 0.5)
    assert {name: one["value"] for name, one in found["answered_per_class"].items()} == {
        "answered": 1.0,
        "error": pytest.approx(1 / 3),
    }


def test_the_signal_that_knows_of_errors_gets_weight_and_the_threshold_keeps_the_error():
    random = np.random.default_rng(0)
    chances = softmax(random.normal(size=(500, 2)), axis=1)
    scope = random.random(500)
    labels = np.where(scope < 0.3, 1 - chances.argmax(axis=1), chances.argmax(axis=1))  # wrong wherever it is far out
    fitted = fit_abstention(chances, labels, None, None, scope=scope)
    assert fitted.weights["scope"] == 1.0
    assert fitted.answered["0.05"] > 0.3
    assert "0.02" not in fit_abstention(chances, 1 - chances.argmax(axis=1), None, None).limits  # always wrong: no threshold


def test_what_the_gate_says_is_a_signal_of_doubt_and_is_measured_at_home_and_elsewhere(make_model, samples, data):
    folder = make_model(seed=5)
    weights = GateWeights("logits", torch.linspace(-1, 1, 7), 0.0)
    write_gate(folder, weights, refuse_below=0.4, accept_from=0.6)
    abstention = calibrate_run(folder, samples).rules.abstention
    assert "scope" in abstention.weights
    given = abstention.model_copy(update={"weights": {"confidence": 1.0, "scope": 1.0}, "limits": {"0.05": 0.5}})
    section = load_model_config(folder).lesion_hub
    rules = section.rules.model_copy(update={"abstention": given})
    config = load_model_config(folder).model_copy(update={"lesion_hub": section.model_copy(update={"rules": rules})})
    (folder / "config.json").write_text(dump_json(config))

    model = lesion_hub.from_pretrained(folder)
    answer = model.predict(picture())
    unsure = (1 - max(answer.probabilities.values())) * 7 / 6
    assert answer.doubt == pytest.approx((unsure + 1 - answer.scope.score) / 2, abs=1e-6)
    done = evaluate(folder, data, out=folder / "evaluation", **QUICK)
    record(done)
    answers = [model.predict(image.convert("RGB")) for image in done_images(done, data)]
    own = answers_by(done.scored.probabilities, HAM7, {}, rules, done.scored)
    assert own.doubt == pytest.approx([one.doubt for one in answers], abs=1e-5)
    refused = np.mean([one.scope.verdict == "out of scope" for one in answers])
    assert 0 < refused < 1
    assert done.section["gate"]["out_of_scope"]["value"] == pytest.approx(refused)
    assert sum(one["images"] for one in done.section["gate"]["by_group"]["skin_tone"].values()) == len(answers)
    home = home_figures(folder, HAM7, [0, 1, 2, 3, 4, 5, 6], HAM7, {}, rules, QUICK)
    assert home["gate"] == done.section["gate"]
    card = write_card(folder).read_text()
    check_card(folder)
    assert "out of scope. By group" in card


def done_images(done, data):
    ids = list(data.dataset["image_id"][:])
    return [data.dataset[ids.index(name)]["image"] for name in done.scored.facts["image_id"]]


def test_a_calibrated_model_gets_its_rules_alone_and_nothing_else_changes(make_model, samples):
    folder = make_model(seed=3)
    weights, before = (folder / "model.safetensors").read_bytes(), load_model_config(folder).lesion_hub
    assert info(folder).rules["label sets"] == "not fitted"
    answer = lesion_hub.from_pretrained(folder).predict(picture())
    done = calibrate_run(folder, samples)
    config = load_model_config(folder)
    assert done.result is None
    assert config.lesion_hub.rules == done.rules
    assert config.lesion_hub.model_copy(update={"rules": None}) == before
    assert (folder / "model.safetensors").read_bytes() == weights
    verify_weights(folder, config)
    after = lesion_hub.from_pretrained(folder).predict(picture())
    assert after.probabilities == answer.probabilities
    assert after.label_set().unpromised  # nine validation images promise nothing
    assert "lesions: mel" in info(folder).rules["label sets"]
    assert "label_sets" in json.loads((folder / "metrics.json").read_text())["validation"]
    with pytest.raises(ConfigError, match="with its rules"):
        calibrate_run(folder, samples)
    assert calibrate_run(folder, samples, rules_anew=True).rules == done.rules


def test_an_ensembles_rules_stand_in_its_config(registry, pair, samples, tmp_path, data):
    calibrate_run(pair, samples, registry=registry)
    kept = load_ensemble_config(pair)
    assert kept.rules.abstention.weights.keys() == {"confidence", "set_size", "disagreement"}
    members = [pin_member(name, registry=registry) for name in ("a", "b")]
    made = create_ensemble(tmp_path / "made", members, rules=kept.rules, registry=registry)
    assert load_ensemble_config(tmp_path / "made").rules == made.rules == kept.rules
    assert lesion_hub.from_pretrained(tmp_path / "made", registry=registry).predict(picture()).label_set().labels
    (tmp_path / "made" / "ensemble.json").write_text(
        (tmp_path / "made" / "ensemble.json").read_text().replace('"power"', '"powr"')
    )
    with pytest.raises(ConfigError, match=r"unknown key 'rules.decision.powr'; did you mean 'power'"):
        load_ensemble_config(tmp_path / "made")


@pytest.fixture
def other(data):
    """Images of two labels that the model has not seen, as another clinic's set in isic2017's labels."""
    space = label_space("isic2017")
    codes = [data.space.labels[place] for place in data.dataset["label"][:]]
    rows = [row for row, code in enumerate(codes) if code in ("mel", "bkl")]
    names = {"mel": space.index("mel"), "bkl": space.index("sk")}
    dataset = data.dataset.select(rows).map(
        lambda row, i: {"image_id": f"far{i}", "group": f"far{i}", "label": names[codes[rows[i]]]}, with_indices=True
    )
    dataset = dataset.cast_column("label", ClassLabel(names=list(space.labels)))
    return replace(data, dataset=dataset, space=space, official_split=None)


@pytest.mark.slow
def test_a_set_measured_elsewhere_stands_in_the_card_beside_home(make_model, samples, other, tmp_path):
    folder = make_model(seed=3)
    calibrate_run(folder, samples)
    record(evaluate(folder, samples, out=tmp_path / "home", **QUICK))
    known = {"split": "all", "external": "Far clinic", "licence": "cc0-1.0", "origin": "Drawn | for a test.", **QUICK}
    record(evaluate(folder, other, out=tmp_path / "far", **known))
    section = json.loads((folder / "metrics.json").read_text())["external"]["Far clinic"]
    assert section["licence"] == "cc0-1.0"
    assert section["label_map"]["map"]["bkl"] == {"data": ["sk"], "model": ["bkl"]}
    assert section["label_map"]["coarse"] == [
        "sk (Seborrheic keratosis) counts as bkl (Benign keratosis-like lesion), which holds more"
    ]
    home = section["home"]
    own = pd.read_parquet(folder / "predictions_test.parquet")
    assert home["same_labels"]
    assert home["images"] == own["label"].isin(["mel", "bkl"]).sum() < len(own)
    write_card(folder)
    check_card(folder)
    card = (folder / "README.md").read_text()
    assert "## Measured elsewhere" in card
    assert "sk of the set with bkl of the model as bkl" in card
    for heading in ("## Label sets", "## Decisions", "## When it keeps silent"):
        assert heading in card
    assert "balanced accuracy, by the balanced decision" in card
    (folder / "predictions_test.parquet").unlink()
    assert home_figures(folder, HAM7, [0, 4], HAM7, {}, None, QUICK)["same_labels"] is False

    # Rules that are fitted anew leave the results of the old ones nowhere.
    calibrate_run(folder, samples, rules_anew=True)
    content = json.loads((folder / "metrics.json").read_text())
    far = content["external"]["Far clinic"]
    assert not any(set(RULE_RESULTS) & set(part) for part in (content["test"], far, far["home"]))
    assert set(RULE_RESULTS) <= set(content["validation"])
    write_card(folder)
    check_card(folder)
    card = (folder / "README.md").read_text()
    assert "## Measured elsewhere" in card and "## Label sets" not in card and "by the balanced decision" not in card


def test_a_set_measured_elsewhere_needs_a_licence(make_model, other, tmp_path):
    with pytest.raises(ConfigError, match="--data-licence"):
        evaluate(make_model(), other, out=tmp_path / "far", split="all", external="Far clinic", **QUICK)
