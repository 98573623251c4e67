"""What the page says, and that nothing a stranger sends becomes markup."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from lesion_hub.app import fragments, words
from lesion_hub.app.handlers import Handlers
from lesion_hub.app.options import AppOptions
from lesion_hub.app.service import Answer, BatchItem
from lesion_hub.app.uploads import Upload
from lesion_hub.data.quality import FLAGS
from lesion_hub.hub.wording import breaches, missing_statements
from lesion_hub.inference.results import Scope
from tests.app.models import photograph
from tests.inference.networks import RULES

NASTY = "<img src=x onerror=alert(1)>\"'&"


@pytest.fixture(scope="module")
def answer(service) -> Answer:
    return service.predict(Upload("phone.jpg", photograph()), method="gradcam")


def text_of(html: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html)).replace("\u00a0", " ")


def test_bars_name_every_label_in_full_with_its_code(answer):
    html = fragments.bars_html(answer)
    for row in answer.served.predictor.space.rows:
        assert row.name in html
        assert f"<code>{row.code}</code>" in html
    shown = [float(width) for width in re.findall(r'style="width: ([\d.]+)%"', html)]
    assert shown == sorted(shown, reverse=True)
    assert sum(shown) == pytest.approx(100, abs=0.5)


def test_the_score_stands_against_each_operating_point(answer):
    text = text_of(fragments.malignancy_html(answer))
    assert "90 % sensitivity" in text
    assert "95 % specificity" in text
    assert text.count("threshold of") == 2


def test_the_page_keeps_to_the_wording(service, answer):
    pieces = [
        fragments.render("header", models=list(service.models.values())),
        fragments.render("about", options=AppOptions()),
        fragments.malignancy_html(answer),
        fragments.members_html(answer),
        fragments.heat_maps_html(answer, AppOptions()),
        *(" ".join(words.warning(flag)) for flag in FLAGS),
    ]
    for piece in pieces:
        assert not list(breaches(text_of(piece)))
    for piece in pieces[:2]:
        assert not list(missing_statements(text_of(piece)))


def test_one_picture_holds_every_member_map(answer):
    html = fragments.heat_maps_html(answer, AppOptions())
    assert html.count('class="lh-heat"') == 4
    for member in ("one", "two", "three"):
        assert f'<option value="{member}">' in html
    assert words.HEAT_DOES_NOT_MEAN.replace("'", "&#39;") in html


def test_nothing_from_outside_becomes_markup(answer):
    evil = BatchItem(NASTY, error=NASTY)
    for html in (fragments.render("error", text=NASTY), fragments.batch_table_html([evil])):
        assert "<img" not in html
        assert "&lt;img" in html
    named = replace(answer, served=replace(answer.served, name=NASTY))
    assert "<img" not in fragments.bars_html(named)
    assert "<img" not in fragments.render("header", models=[named.served])


def test_the_label_set_stands_above_the_bars_and_a_silent_model_says_so(answer):
    html = fragments.bars_html(answer)
    assert "Label sets are not fitted" in html
    few = replace(answer.prediction, rules=RULES, names={"df": "Dermatofibroma", "mel": NASTY})
    text = fragments.bars_html(replace(answer, prediction=few))
    assert "data-label-set" in text.partition("Differential")[0]
    assert "No promise for Dermatofibroma: too few lesions" in text
    assert "90\u00a0% have their label in this set" in text
    assert "abstains" not in text
    assert "<img src=x" not in text
    silent = fragments.bars_html(replace(answer, prediction=replace(few, abstains=True), abstain=0.1))
    assert silent.index("The model abstains.") < silent.index("What it may well be")
    assert "at most 10\u00a0%" in silent
    for piece in (text, silent):
        assert not list(breaches(text_of(piece)))


def test_a_page_keeps_silent_by_the_error_that_a_model_has_a_threshold_for(answer, service):
    served = answer.served
    assert served.abstain_for(0.1) is None
    served.predictor.rules = RULES
    try:
        assert (served.abstain_for(0.1), served.abstain_for(0.2), served.abstain_for(None)) == (0.1, None, None)
        told = service.predict(Upload("phone.jpg", photograph())).to_dict()
        assert told["abstains"] is True
        assert told["label_set"]["unpromised"] == ["df"]
    finally:
        served.predictor.rules = None


def judged(answer: Answer, score: float) -> Answer:
    """The answer with an input gate's verdict."""
    return replace(answer, prediction=replace(answer.prediction, scope=Scope(score, 0.5, 0.8)))


def test_a_picture_out_of_scope_shows_verdict_and_reason_and_holds_the_answer_back(service, answer, monkeypatch):
    def analyse(score: float) -> tuple[str, ...]:
        monkeypatch.setattr(type(service), "predict", lambda *_, **__: judged(answer, score))
        return Handlers(service, None, None).analyse(None, None, None, None, None, None, None)  # type: ignore[arg-type]

    first, held, *rest = analyse(0.1)
    assert first.startswith("<div") and words.OUT_OF_SCOPE in first and "Score 0.10" in text_of(first)
    assert held.startswith("<details") and "<summary>" in held and rest == ["", "", ""]
    assert all(part in held for part in analyse(0.9)[1:])
    unsure, *shown = analyse(0.6)
    assert words.UNSURE in unsure and not any("<details class" in part for part in shown[:2])
    assert 'data-scope="' not in analyse(0.9)[0]
    assert not list(breaches(text_of(first + unsure)))
    table = text_of(fragments.batch_table_html([BatchItem("a.jpg", judged(answer, 0.1))]))
    assert "out of scope" in table
