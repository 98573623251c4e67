"""What the page says, and that nothing a stranger sends becomes markup."""

from __future__ import annotations

import re
from dataclasses import replace
from types import SimpleNamespace

import pytest

from lesion_hub.app import fragments, words
from lesion_hub.app.batch import Results
from lesion_hub.app.cards import card_html, model_facts, model_summary
from lesion_hub.app.handlers import Handlers
from lesion_hub.app.intake import Upload
from lesion_hub.app.options import AppOptions
from lesion_hub.app.service import BatchItem, Reading
from lesion_hub.config import OperatingPoint
from lesion_hub.hub.wording import breaches, missing_statements
from lesion_hub.inference.quality import FLAGS
from tests.app.models import photograph

NASTY = "<img src=x onerror=alert(1)>\"'&"


@pytest.fixture(scope="module")
def reading(service) -> Reading:
    return service.read(Upload("phone.jpg", photograph()), method="gradcam")


def text_of(html: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html)).replace("\u00a0", " ")


def test_bars_name_every_label_in_full_with_its_code(reading):
    html = fragments.bars(reading)
    for row in reading.served.predictor.space.rows:
        assert row.name in html
        assert f"<code>{row.code}</code>" in html
    shown = [float(width) for width in re.findall(r'style="width: ([\d.]+)%"', html)]
    assert shown == sorted(shown, reverse=True)
    assert sum(shown) == pytest.approx(100, abs=0.5)


def test_the_score_stands_against_each_operating_point(reading):
    text = text_of(fragments.malignancy(reading))
    assert "90 % sensitivity" in text
    assert "95 % specificity" in text
    assert text.count("threshold of") == 2


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


def test_the_page_keeps_to_the_wording(service, reading):
    pieces = [
        fragments.header(list(service.models.values())),
        fragments.about(AppOptions()),
        fragments.malignancy(reading),
        fragments.members(reading),
        fragments.look(reading, AppOptions()),
        *(" ".join(words.warning(flag)) for flag in FLAGS),
    ]
    for piece in pieces:
        assert not list(breaches(text_of(piece)))
    for piece in pieces[:2]:
        assert not list(missing_statements(text_of(piece)))


def test_disagreement_is_told_in_words():
    assert len({words.disagreement(value) for value in (None, 0.0, 0.2, 0.9)}) == 4


def test_each_flag_has_advice():
    assert set(words.ADVICE) == set(FLAGS)
    assert "dermoscopic" in words.warning("not_skin_like")[0]


def test_one_picture_holds_every_member_map(reading):
    html = fragments.look(reading, AppOptions())
    assert html.count('class="lh-heat"') == 4
    for member in ("one", "two", "three"):
        assert f'<option value="{member}">' in html
    assert words.HEAT_DOES_NOT_MEAN.replace("'", "&#39;") in html


def test_nothing_from_outside_becomes_markup(reading):
    evil = BatchItem(NASTY, error=NASTY)
    for html in (fragments.trouble(NASTY), fragments.batch_table([evil])):
        assert "<img" not in html
        assert "&lt;img" in html
    named = replace(reading, served=replace(reading.served, name=NASTY))
    assert "<img" not in fragments.bars(named)
    assert "<img" not in fragments.header([named.served])


def test_a_batch_keeps_no_pixels(reading):
    results = Results(200)
    results.add(BatchItem("a.jpg", reading))
    assert results.items[0].reading.prediction.explanation is None
    assert len(results.overlays) == 1


def test_a_cancelled_batch_stops_behind_the_file_at_hand(service):
    handlers, visitor = Handlers(service), SimpleNamespace(session_hash="visitor")
    steps = handlers.batch_page([Upload("a.jpg", photograph()) for _ in range(5)], None, visitor)
    shown = [next(steps), next(steps)]
    handlers.cancel_batch(visitor)
    shown += list(steps)
    assert "2 of 5 analysed, then cancelled" in shown[-1][0]
    assert shown[-1][1].count('scope="row"') == 2
    assert len(list(handlers.batch_page([Upload("a.jpg", photograph())], None, visitor))) == 3


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
    assert [member.name for member in facts.members] == ["one", "two", "three"]
    assert "ISIC 2017" in fragments.model(service.default)


def test_a_model_without_an_evaluation_says_so(service, tmp_path):
    bare = replace(service.served("aware"), folder=tmp_path)
    for name in ("config.json", "README.md"):
        (tmp_path / name).write_text((service.served("aware").folder / name).read_text())
    assert "No evaluation is stored" in fragments.model(bare)
    assert model_summary(bare)["metrics"] == {}
