"""What is said of a model comes from its folder, and a card's own markup does not reach the page."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from lesion_hub.app import fragments
from lesion_hub.app.model_facts import card_html, model_facts, model_summary


def test_a_card_is_shown_without_its_markup_and_with_its_own_pictures_alone(service):
    html = str(card_html(service.default.folder))
    assert "<script" not in html
    assert "javascript:" not in re.findall(r'href="([^"]*)"', html)
    assert html.count("<img") == 1
    assert "data:image/png" in html
    assert "example.org" not in html
    assert "license:" not in html


def test_a_model_shows_metrics_with_intervals_and_its_reliability(service):
    facts = model_facts(service.default)
    assert dict(facts.metrics)["balanced accuracy"] == "0.718 (0.653–0.790)"
    assert facts.reliability.startswith("data:image/png")
    assert [name for name, *_ in facts.members] == ["one", "two", "three"]
    assert "ISIC 2017" in fragments.model_html(service.default)


def test_a_model_without_an_evaluation_says_so(service, tmp_path):
    bare = replace(service.served("aware"), folder=tmp_path)
    for name in ("config.json", "README.md"):
        (tmp_path / name).write_text((service.served("aware").folder / name).read_text())
    assert "No evaluation is stored" in fragments.model_html(bare)
    assert model_summary(bare)["metrics"] == {}


@pytest.mark.parametrize(
    "measured",
    [
        {"test": {"intervals": {}}, "training": [1]},
        {"test": {"intervals": [0.7]}},
        {"test": {"intervals": {"balanced_accuracy": {"value": 0.7}}}},
        {"test": {"intervals": {"balanced_accuracy": [0.7]}}},
        {"test": {"intervals": {}, "data": "a set of their own"}},
    ],
)
def test_results_of_another_shape_are_none(service, tmp_path, measured):
    foreign = replace(service.default, folder=Path(shutil.copytree(service.default.folder, tmp_path / "foreign")))
    (foreign.folder / "metrics.json").write_text(json.dumps(measured))
    assert "No evaluation is stored" in fragments.model_html(foreign)
    assert (model_summary(foreign)["metrics"], model_summary(foreign)["measured_on"]) == ({}, None)
