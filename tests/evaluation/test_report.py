"""The report is one file that asks for nothing from outside, shows every number's interval, and hides no mistake."""

from __future__ import annotations

import base64
import io
import re
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image

from lesion_hub.evaluation.report import worst_mistakes
from lesion_hub.evaluation.run import Evaluation, evaluate

pytestmark = pytest.mark.slow

CHROMIUM = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)


@pytest.fixture(scope="module")
def done(make_model, samples, tmp_path_factory) -> Evaluation:
    return evaluate(make_model("m<b>del"), samples, out=tmp_path_factory.mktemp("report"), stress=True, resamples=50)


def test_everything_is_in_the_page_itself(done):
    page = done.report.read_text()
    sources = re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?([^"'\s>)]+)""", page)
    assert sources and not [source for source in sources if not source.startswith(("data:", "#"))]
    assert "default-src 'none'" in page and "<script" not in page


def test_every_plot_is_there_and_opens(done):
    page = done.report.read_text()
    pictures = re.findall(r"data:image/(?:png|jpeg);base64,([A-Za-z0-9+/=]+)", page)
    assert len(pictures) >= len(done.figures)
    for picture in pictures:
        Image.open(io.BytesIO(base64.b64decode(picture))).verify()


def test_it_says_what_it_is_and_is_not(done):
    page = done.report.read_text()
    for words in ("Not a medical device", "see a doctor", "95 % intervals by resampling lesions", "not a Fitzpatrick type"):
        assert words in page
    for anchor in re.findall(r'href="#(\w+)"', page):
        assert f'id="{anchor}"' in page


def test_small_bins_are_marked(done):
    assert "too few to tell" in done.report.read_text()


def test_it_is_made_for_paper_and_for_the_dark(done):
    page = done.report.read_text()
    assert "@media print" in page and "prefers-color-scheme: dark" in page


def test_names_cannot_inject_markup(done):
    page = done.report.read_text()
    assert "m&lt;b&gt;del" in page and "<b>" not in page


def test_the_surest_wrong_answers_come_first(done, data):
    titled = dict(worst_mistakes(done.scored, data.dataset))
    sure = done.scored.probabilities.max(axis=1)
    wrong = done.scored.probabilities.argmax(axis=1) != done.scored.labels
    expected = sorted(sure[wrong], reverse=True)[:12]
    notes = [float(mistake.note.split()[-1]) for mistake in titled["The surest wrong answers"]]
    assert np.allclose(notes, np.round(expected, 2), atol=0.006)
    for mistake in titled["The surest wrong answers"]:
        assert mistake.truth != mistake.predicted


def test_missed_malignant_lesions_are_shown(done, data):
    missed = dict(worst_mistakes(done.scored, data.dataset))["Malignant lesions with the lowest malignant score"]
    scores = [float(mistake.note.split()[-1]) for mistake in missed]
    assert scores == sorted(scores) and all(score < 0.5 for score in scores)
    assert {mistake.truth for mistake in missed} <= {"mel", "bcc", "akiec"}


@pytest.mark.browser
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_a_browser_opens_it_without_complaint(done, tmp_path):
    command = [
        str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--hide-scrollbars",
        f"--user-data-dir={tmp_path / 'profile'}", "--host-resolver-rules=MAP * ~NOTFOUND",
        "--virtual-time-budget=1000", f"--screenshot={tmp_path / 'page.png'}", done.report.as_uri(),
    ]  # fmt: skip
    run = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "CONSOLE" not in run.stderr
    assert len(Image.open(tmp_path / "page.png").convert("RGB").getcolors(1 << 24) or []) > 50
