"""Members' probabilities become one answer: a distribution, whatever the order, weights, spaces and temperature."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lesion_hub.errors import ConfigError, TaxonomyError
from lesion_hub.inference.members import Combination
from lesion_hub.taxonomy import LABEL_SPACES, label_space

HAM7, ISIC8, BINARY = label_space("ham7"), label_space("isic8"), label_space("binary")


def dirichlet(space, n=4, seed=0):
    return np.random.default_rng(seed).dirichlet(np.ones(len(space)), n)


@st.composite
def ensembles(draw):
    names = draw(st.lists(st.sampled_from(["ham7", "isic8", "isic9", "isic2017", "binary"]), min_size=1, max_size=4))
    raw = draw(st.lists(st.floats(0.01, 1), min_size=len(names), max_size=len(names)))
    spaces = [label_space(name) for name in names]
    return spaces, [w / sum(raw) for w in raw], [dirichlet(s, seed=i) for i, s in enumerate(spaces)]


@given(ensembles(), st.sampled_from(["probabilities", "logits"]), st.floats(0.3, 5))
def test_every_ensemble_returns_distributions(ensemble, combine, temperature):
    spaces, weights, rows = ensemble
    combined = Combination.of(spaces, weights, combine=combine, temperature=temperature)(rows)
    assert (combined >= 0).all()
    np.testing.assert_allclose(combined.sum(1), 1, atol=1e-9)


@given(ensembles(), st.randoms(use_true_random=False), st.sampled_from(["probabilities", "logits"]))
def test_the_order_of_members_changes_nothing(ensemble, random, combine):
    spaces, weights, rows = ensemble
    order = list(range(len(spaces)))
    random.shuffle(order)
    one = Combination.of(spaces, weights, combine=combine)
    other = Combination.of([spaces[i] for i in order], [weights[i] for i in order], combine=combine)
    assert one.space == other.space
    np.testing.assert_allclose(one(rows), other([rows[i] for i in order]), atol=1e-9)


@pytest.mark.parametrize("combine", ["probabilities", "logits"])
@pytest.mark.parametrize("space", LABEL_SPACES.values(), ids=lambda s: s.name)
def test_one_member_alone_equals_the_member(space, combine):
    rows = dirichlet(space)
    np.testing.assert_allclose(Combination.of([space], [1.0], space=space, combine=combine)([rows]), rows, atol=1e-9)


@given(st.integers(0, 1000), st.floats(0.2, 5))
def test_the_temperature_keeps_the_order_of_labels(seed, temperature):
    rows = [dirichlet(HAM7, seed=seed), dirichlet(HAM7, seed=seed + 1)]
    plain = Combination.of([HAM7, HAM7], [0.5, 0.5])(rows)
    tempered = Combination.of([HAM7, HAM7], [0.5, 0.5], temperature=temperature)(rows)
    np.testing.assert_array_equal(plain.argsort(1), tempered.argsort(1))


def test_temperature_one_over_the_log_of_the_mean_is_the_mean():
    rows = [dirichlet(HAM7, seed=1), dirichlet(HAM7, seed=2)]
    np.testing.assert_allclose(Combination.of([HAM7, HAM7], [0.3, 0.7])(rows), 0.3 * rows[0] + 0.7 * rows[1])


def test_members_of_different_spaces_meet_in_the_finest_common_one():
    combined = Combination.of([ISIC8, HAM7], [0.5, 0.5])
    assert combined.space == HAM7
    rows = combined([np.eye(8)[[3]], np.eye(7)[[3]]])
    assert rows[0, HAM7.index("akiec")] == 1.0


@given(ensembles())
def test_disagreement_lies_between_none_and_all(ensemble):
    spaces, weights, rows = ensemble
    apart = Combination.of(spaces, weights).disagreement(rows)
    assert (apart is None) == (len(spaces) == 1)
    if apart is not None:
        assert ((apart >= 0) & (apart <= 1)).all()


def test_disagreement_is_zero_for_the_same_opinion_and_one_for_certain_opposites():
    pair = Combination.of([HAM7, HAM7], [0.3, 0.7])
    same = dirichlet(HAM7)
    np.testing.assert_allclose(pair.disagreement([same, same]), 0, atol=1e-9)
    np.testing.assert_allclose(pair.disagreement([np.eye(7)[[0]], np.eye(7)[[1]]]), 1, atol=1e-9)
    np.testing.assert_allclose(Combination.of([HAM7, HAM7], [0.0, 1.0]).disagreement([same, same[::-1]]), 0)


@pytest.mark.parametrize("weights", [[0.5, 0.4], [1.5, -0.5], [1.0], [0.5, 0.25, 0.25], [float("nan"), 0.5]])
def test_weights_that_do_not_sum_to_one_are_an_error(weights):
    with pytest.raises(ConfigError, match="sum to 1"):
        Combination.of([HAM7, HAM7], weights)


def test_a_member_that_does_not_map_into_the_stated_space_is_an_error():
    with pytest.raises(TaxonomyError):
        Combination.of([BINARY, HAM7], [0.5, 0.5], space=HAM7)
