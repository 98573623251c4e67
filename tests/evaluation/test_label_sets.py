"""Label sets keep their promise on exchangeable lesions, name what has too few of them, and are the same at every call."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lesion_hub.config import AnswerRules, LabelSets, validated
from lesion_hub.errors import ConfigError
from lesion_hub.evaluation.label_sets import COVERAGES, fit_label_sets, judge_label_sets, limit, sets_at
from lesion_hub.inference.label_sets import label_set_of, labels_in_sets, lesions_for, unpromised
from lesion_hub.taxonomy import label_space

SPACE = label_space("binary")
LESION = st.lists(st.integers(0, 12), min_size=1, max_size=4)  # few values, so that scores tie


@settings(max_examples=120, deadline=None)
@given(lesions=st.lists(LESION, min_size=3, max_size=14), coverage=st.sampled_from([0.5, 0.6, 0.7, 0.8, 0.9]))
def test_the_promise_holds_on_exchangeable_lesions_whatever_their_scores(lesions, coverage):
    """Where lesions are exchangeable, each is the new one as often as any other: so leave out each in turn, and count."""
    if (len(lesions) - 1) / len(lesions) < coverage:
        return
    covered = []
    for left_out, new in enumerate(lesions):
        others = [lesion for place, lesion in enumerate(lesions) if place != left_out]
        scores = np.concatenate([np.array(lesion) / 12 for lesion in others])
        fitted = limit(scores, np.repeat(np.arange(len(others)), [len(lesion) for lesion in others]), coverage)
        covered.append(np.mean(np.array(new) / 12 <= fitted))
    assert np.mean(covered) >= coverage - 1e-9


def test_the_promise_holds_for_each_label_on_new_draws_and_not_for_other_images():
    random = np.random.default_rng(0)

    def draw(lesions: int, shift: float = 0.0):
        labels = np.repeat(random.random(lesions) < 0.2, 2).astype(int)
        logits = (
            np.repeat(random.normal(size=lesions), 2) + 0.5 * random.normal(size=2 * lesions) + np.where(labels, 1, -1) + shift
        )
        chance = 1 / (1 + np.exp(-2 * logits))
        return np.stack([1 - chance, chance], axis=1), labels, np.repeat(np.arange(lesions), 2)

    fitted = fit_label_sets(*draw(3000), SPACE)
    chances, labels, groups = draw(3000)
    found = judge_label_sets(sets_at(chances, fitted, SPACE), labels, groups, SPACE, fitted, resamples=20)["coverages"]["0.9"]
    for label in SPACE.labels:
        assert found["per_class"][label]["coverage"]["value"] == pytest.approx(0.9, abs=0.025)
    assert found["coverage"]["value"] == pytest.approx(0.9, abs=0.02)
    elsewhere, truth, _ = draw(2000, shift=-1.5)
    inside = labels_in_sets(elsewhere, fitted, SPACE.labels, 0.9)
    assert inside[truth == 1, 1].mean() < 0.8


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_sets_grow_with_their_promise_are_never_empty_and_never_change(seed):
    random = np.random.default_rng(seed)
    chances = random.dirichlet(np.ones(7), size=60)
    space = label_space("ham7")
    fitted = fit_label_sets(chances, random.integers(7, size=60), random.integers(40, size=60), space)
    before = np.zeros((60, 7), dtype=bool)
    for coverage in COVERAGES:
        inside = labels_in_sets(chances, fitted, space.labels, coverage)
        assert inside.any(axis=1).all()
        assert (inside >= before).all()
        assert np.array_equal(inside, labels_in_sets(chances, fitted, space.labels, coverage))
        before = inside


def test_a_label_with_too_few_lesions_says_so():
    assert (lesions_for(0.8), lesions_for(0.9), lesions_for(0.95)) == (10, 30, 61)
    fitted = fit_label_sets([[0.9, 0.1]] * 40 + [[0.4, 0.6]] * 8, [0] * 40 + [1] * 8, range(48), SPACE)
    rules = AnswerRules(label_sets=fitted)
    found = label_set_of({"benign": 0.35, "malignant": 0.65}, rules, 0.9, {"malignant": "Malignant"})
    assert (found.labels, found.unpromised) == (("malignant",), ("malignant",))
    assert str(found) == "malignant"
    judged = judge_label_sets(sets_at(np.array([[0.3, 0.7]]), fitted, SPACE), np.array([1]), ["a"], SPACE, fitted, resamples=5)
    assert judged["coverages"]["0.9"]["per_class"]["malignant"]["promised"] is None
    assert judged["coverages"]["0.9"]["per_class"]["benign"]["promised"] == 0.9


def test_a_label_without_any_lesion_is_named_only_where_it_is_the_most_probable():
    fitted = fit_label_sets([[0.9, 0.1]] * 40, [0] * 40, range(40), SPACE)
    assert "malignant" not in fitted.limits
    assert unpromised(fitted, SPACE.labels, 0.9) == ("malignant",)
    inside = labels_in_sets(np.array([[0.95, 0.05], [0.2, 0.8]]), fitted, SPACE.labels, 0.9)
    assert inside.tolist() == [[True, False], [False, True]]


def test_images_of_a_lesion_do_not_count_as_lesions():
    one, many = np.array([0.1] * 9 + [0.8]), np.array([0.1] * 9 + [0.8] * 50)
    lesions = np.array([*range(9), *[9] * 50])
    assert limit(many, lesions, 0.8) == limit(one, np.arange(10), 0.8) == 0.1


def test_a_coverage_that_was_not_fitted_and_limits_that_do_not_fit_are_one_line():
    fitted = fit_label_sets([[0.9, 0.1]] * 40, [0] * 40, range(40), SPACE)
    with pytest.raises(ConfigError, match=r"coverage 0.93: not fitted; those that are: 0.8, 0.85, 0.9"):
        label_set_of({"benign": 0.9, "malignant": 0.1}, AnswerRules(label_sets=fitted), 0.93)
    with pytest.raises(ConfigError, match="not one for each of the 2 coverages"):
        validated(LabelSets, {"coverages": [0.8, 0.9], "lesions": {"a": 3}, "limits": {"a": [0.1]}}, "config.json")
