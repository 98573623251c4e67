"""Each use decides by its own rule, and probabilities can be told for another prevalence."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lesion_hub.config import OperatingPoint
from lesion_hub.errors import ConfigError
from lesion_hub.inference.bulk import ScoreOptions, ShardFolder, score_in_bulk
from lesion_hub.inference.decisions import CostRule, at_prevalence, decided
from lesion_hub.inference.predictor import Predictor
from lesion_hub.inference.rows import open_rows
from lesion_hub.taxonomy import label_space
from tests.inference.networks import RULES, SHARES, classifier, picture

HAM7 = label_space("ham7")
POINT = OperatingPoint(threshold=0.3, metric="sensitivity", target=0.95)
#                 mel   nv   bcc  akiec bkl   df   vasc
CHANCES = np.array([[0.28, 0.55, 0.02, 0.02, 0.11, 0.01, 0.01], [0.1, 0.5, 0.02, 0.02, 0.34, 0.01, 0.01]])


@pytest.fixture(scope="module")
def model():
    return Predictor.of(classifier(), operating_points={"sensitivity_95": POINT}, rules=RULES)


def labels_of(decide, **options):
    found = decided(CHANCES, decide, HAM7, {"sensitivity_95": POINT}, RULES, **options)
    return [HAM7.labels[place] for place in found]


def test_each_rule_names_another_label():
    assert labels_of("most_probable") == ["nv", "nv"]
    assert labels_of("balanced") == ["mel", "bkl"]
    assert labels_of("sensitivity_95") == ["mel", "nv"]  # 0.32 of the first is malignant, 0.14 of the second
    assert labels_of(CostRule(cost={"mel": {"nv": 20, "bkl": 20}})) == ["mel", "mel"]
    dear = np.where(np.eye(7), 0, 1.0)
    assert labels_of(CostRule(cost=tuple(map(tuple, dear)))) == labels_of("most_probable")


def test_a_prevalence_counts_for_the_most_probable_label_and_not_for_sensitivities():
    rare = {"mel": 0.001, "nv": 0.1}
    assert labels_of("most_probable", prior=rare) == ["bkl", "bkl"]
    for rule in ("balanced", "sensitivity_95"):
        assert labels_of(rule, prior=rare) == labels_of(rule)


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_reweighting_there_and_back_changes_nothing(seed):
    random = np.random.default_rng(seed)
    chances, other = random.dirichlet(np.ones(7), size=5), random.dirichlet(np.ones(7) * 3)
    there = at_prevalence(chances, dict(zip(HAM7.labels, other, strict=True)), HAM7, RULES)
    shares = {name: share / other[place] for place, (name, share) in enumerate(SHARES.items())}
    back = there * np.array(list(shares.values()))
    assert np.allclose(back / back.sum(axis=1, keepdims=True), chances)
    assert np.allclose(there.sum(axis=1), 1)
    assert np.allclose(at_prevalence(chances, {}, HAM7, RULES), chances)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"decide": "sensitivity_99"}, "unknown decision 'sensitivity_99'; did you mean 'sensitivity_95'"),
        ({"decide": {"cost": [[0, 1], [1, 0]]}}, "not a matrix of 7 rows"),
        ({"decide": {"cost": {"mel": {"nv": -1}}}}, "predict: decide"),
        ({"prior": {"mel": 0.8, "nv": 0.4}}, "sum to 1.2"),
        ({"prior": {"mel": 0.8, "nv": 0.20101}}, "sum to 1.00101"),
        ({"prior": dict.fromkeys(SHARES, 0.14)}, "sum to 0.98"),
        ({"prior": {"mel": 0.1, "melanoma": 0.2}}, "'mel' and 'melanoma' name the same label"),
        ({"decide": {"cost": {"mel": {"nv": 5, "nevus": 6}}}}, "'nv' and 'nevus' name the same label"),
        ({"coverage": 0.5}, "coverage 0.5: not fitted; those that are: 0.8, 0.9"),
        ({"abstain": 0.2}, "no threshold was chosen for that error; those that were: 0.05, 0.1"),
    ],
)
def test_what_a_model_cannot_do_is_one_line_before_an_image_is_opened(model, options, line):
    with pytest.raises(ConfigError, match=line) as caught:
        model.predict("no-such-file.jpg", **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("all_named", [True, False])
@pytest.mark.parametrize("total", [0.9991, 0.9999, 1.0001, 1.0009])
def test_prevalences_may_be_rounded(total, all_named):
    prior = {"mel": total} | dict.fromkeys(HAM7.labels[1:] if all_named else (), 0.0)
    assert decided(CHANCES, "most_probable", HAM7, {}, RULES, prior).tolist() == [0, 0]


@pytest.mark.parametrize("options", [{"decide": "balanced"}, {"prior": {"mel": 0.1}}, {"abstain": 0.05}, {"coverage": 0.8}])
def test_a_model_without_rules_says_that_they_are_not_fitted(options):
    bare = Predictor.of(classifier())
    with pytest.raises(ConfigError, match=r"not fitted|not recorded"):
        bare.predict(picture(), **options)
    plain = bare.predict(picture())
    assert plain.to_dict()["label_set"] is None
    assert plain.doubt is None
    with pytest.raises(ConfigError, match="label sets are not fitted for this model"):
        plain.label_set()


def test_a_prediction_brings_its_set_its_decision_and_its_doubt(model):
    plain = model.predict(picture(), abstain=0.1)
    found = plain.label_set()
    assert found == plain.label_set(0.9)
    assert found.labels[0] == plain.most_probable == plain.label
    assert found.unpromised == ("df",)
    assert set(plain.label_set(0.8).labels) <= set(found.labels)
    assert all(plain.probabilities[label] >= 0.14 - 1e-6 for label in found.labels[1:])
    assert plain.abstains == (plain.doubt > 0)
    told = plain.to_dict()
    assert told["label_set"]["words"] == str(found)
    assert (told["decided_by"], told["abstains"]) == ("most_probable", True)
    weighted = model.predict(picture(), prior={"mel": 0.9}, decide="balanced")
    assert weighted.probabilities["mel"] > plain.probabilities["mel"]
    assert weighted.label_set() == found  # a label's own promise does not depend on how common it is
    assert weighted.decisions == plain.decisions
    case = model.predict_case([picture(seed=1), picture(seed=2)], decide="balanced")
    assert case.decided_by == "balanced"
    assert case.label_set().labels


def test_bulk_scores_have_the_rules_columns_and_other_rules_are_another_run(model, tmp_path):
    (tmp_path / "images").mkdir()
    for seed in range(3):
        picture(seed=seed).save(tmp_path / "images" / f"{seed}.png")
    options = {"batch_size": 2, "shard_size": 2, "decide": "balanced", "abstain": 0.05, "coverage": 0.8}
    score_in_bulk(model, open_rows(tmp_path / "images"), tmp_path / "scores", ScoreOptions(**options))
    for row in ShardFolder(tmp_path / "scores").table().to_pylist():
        alone = model.predict(tmp_path / "images" / row["image_id"], decide="balanced", abstain=0.05, coverage=0.8)
        assert row["label"] == alone.label
        assert row["most_probable"] == alone.most_probable
        assert row["label_set"] == list(alone.label_set().labels)
        assert row["abstains"] == alone.abstains
    with pytest.raises(Exception, match="rules differs"):
        score_in_bulk(model, open_rows(tmp_path / "images"), tmp_path / "scores", ScoreOptions(**options | {"abstain": None}))


def test_a_bulk_run_that_decides_by_a_matrix_of_costs_goes_on(model, tmp_path):
    (tmp_path / "images").mkdir()
    picture().save(tmp_path / "images" / "0.png")
    options = ScoreOptions(decide={"cost": (1 - np.eye(7)).tolist()})
    reports = [score_in_bulk(model, open_rows(tmp_path / "images"), tmp_path / "scores", options) for _ in range(2)]
    assert [report.scored for report in reports] == [1, 0]
