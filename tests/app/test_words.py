"""What the page says in words: nothing is certain, nothing reassures."""

from __future__ import annotations

import pytest

from lesion_hub.app import words
from lesion_hub.config import OperatingPoint
from lesion_hub.data.quality import FLAGS
from lesion_hub.hub.wording import breaches


def test_a_score_is_never_certain_nor_nothing():
    assert words.percent(1.0) == words.percent(0.9999) == ">\u00a099\u00a0%"
    assert words.percent(0.0) == "<\u00a01\u00a0%"


@pytest.mark.parametrize("metric", ["sensitivity", "specificity"])
@pytest.mark.parametrize("score", [0.0, 0.3, 1.0])
def test_no_decision_reassures(metric, score):
    point = OperatingPoint(threshold=0.3, metric=metric, target=0.9)
    said = words.decision(point, score)
    assert not list(breaches(said))
    assert ("suspicious" in said) == (score >= 0.3)
    assert "safe" not in said
    assert "benign" not in said


def test_disagreement_is_told_in_words():
    assert len({words.disagreement(value) for value in (None, 0.0, 0.2, 0.9)}) == 4


def test_each_flag_has_advice():
    assert set(words.ADVICE) == set(FLAGS)
    assert "dermoscopic" in words.warning("not_skin_like")[0]
