"""The page in a real browser: what people see, what leaves their machine (nothing), and whether everybody can use it.

Needs Chromium and Playwright's Python package, and for the accessibility check axe-core: ``node_modules/axe-core/axe.min.js``
(``npm install --no-save axe-core``), or wherever ``AXE_CORE`` says. What is missing is named when a test is skipped.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.app.models import photograph
from tests.browsers import BROWSERS, browser_program
from tests.data.bad_files import BROKEN, write_broken

playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is missing: pip install playwright")

pytestmark = pytest.mark.browser

AXE = Path(os.environ.get("AXE_CORE") or Path(__file__).parents[2] / "node_modules" / "axe-core" / "axe.min.js")
TABS = ("Lesion", "Batch", "Models", "About")
TIMEOUT_MS = 60_000


A_CAMERA = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")
"""Options by which Chromium has a camera that shows a test picture, and lets every page use it."""


@pytest.fixture(scope="module")
def chromium() -> Iterator[playwright.Browser]:
    found = browser_program()
    if found is None:
        pytest.skip(f"no browser: none of {', '.join(BROWSERS)} is installed")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=found, args=["--no-sandbox", *A_CAMERA])
        yield browser
        browser.close()


class Visit:
    """An open page, with every request that it made and every error that it reported."""

    def __init__(self, page: playwright.Page, url: str) -> None:
        self.page = page
        self.requests: list[str] = []
        self.errors: list[str] = []
        page.set_default_timeout(TIMEOUT_MS)
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("websocket", lambda socket: self.requests.append(socket.url))
        page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.goto(url)
        page.locator("#lesion-run").wait_for()

    def choose(self, path: Path) -> None:
        self.page.locator("#lesion-file").set_input_files(path)

    def analyse(self) -> None:
        self.page.locator("#lesion-run").click()

    def see_result(self) -> None:
        self.page.locator("#lesion-overlay img.lh-heat").first.wait_for()
        self.page.locator("#lesion-bars [aria-labelledby=lh-bars-title]").wait_for()

    def analyse_first_example(self) -> None:
        self.page.locator("#lesion-examples .lh-example").first.click()
        self.analyse()
        self.see_result()

    def open_tab(self, name: str) -> None:
        self.page.get_by_role("tab", name=name, exact=True).click()

    def strangers(self) -> list[str]:
        """Addresses asked for that are not on this machine."""
        outside = {url for url in self.requests if urlsplit(url).scheme not in ("data", "blob")}
        return sorted(url for url in outside if urlsplit(url).hostname != "127.0.0.1")


@pytest.fixture
def visit(chromium, served_page) -> Iterator[Visit]:
    """``visit(width=…, dark=…)``; in the end nobody else was asked for anything, and the console is clean."""
    opened: list[Visit] = []

    def open_(width: int = 1280, *, dark: bool = False) -> Visit:
        scheme = "dark" if dark else "light"
        context = chromium.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        opened.append(Visit(context.new_page(), served_page.url))
        return opened[-1]

    yield open_
    for one in opened:
        one.page.context.close()
        assert one.strangers() == []
        assert one.errors == []


@pytest.fixture
def good(tmp_path: Path) -> Path:
    path = tmp_path / "good.jpg"
    path.write_bytes(photograph())
    return path


def test_the_first_example_gives_bars_a_score_and_an_overlay(visit):
    seen = visit()
    seen.analyse_first_example()
    shares = seen.page.locator("#lesion-bars").inner_text()
    assert shares.count("%") >= 7
    assert "%" in seen.page.locator("#lesion-malignancy").inner_text()
    assert seen.page.locator("#lesion-original img").evaluate("image => image.naturalWidth") > 100


def test_every_broken_file_gives_a_clear_message_and_the_next_good_one_works(visit, good, tmp_path):
    seen = visit()
    for path in write_broken(tmp_path / "broken"):
        seen.choose(path)
        seen.analyse()
        seen.page.locator(".lh-error", has_text=path.name).wait_for()
        assert seen.page.locator("#lesion-overlay").count() == 0
    assert len(BROKEN) > 10
    seen.choose(good)
    seen.analyse()
    seen.see_result()
    assert seen.page.locator(".lh-error").count() == 0


def test_no_image_is_a_message_too(visit):
    seen = visit()
    seen.analyse()
    seen.page.locator(".lh-error", has_text="No image was given").wait_for()


def test_a_file_over_the_limit_is_refused_before_it_is_sent(visit, tmp_path):
    seen = visit()
    path = tmp_path / "large.jpg"
    path.write_bytes(photograph() + bytes(600_000))
    seen.choose(path)
    seen.page.locator("#lesion-status", has_text="the limit is").wait_for()
    assert not [url for url in seen.requests if "/upload" in url]


def test_the_slider_changes_the_picture_without_asking_the_server(visit):
    seen = visit()
    seen.analyse_first_example()
    picture = seen.page.locator("#lesion-overlay .lh-stack")
    before, asked = picture.screenshot(), len(seen.requests)
    seen.page.locator("#lesion-opacity").fill("100")
    after = picture.screenshot()
    assert after != before
    assert len(seen.requests) == asked


def test_the_map_of_a_member_is_shown_without_asking_the_server(visit):
    seen = visit()
    seen.analyse_first_example()
    asked = len(seen.requests)
    seen.page.locator("#lesion-member").select_option("two")
    assert seen.page.locator("#lesion-overlay img.lh-heat:visible").get_attribute("data-member") == "two"
    assert len(seen.requests) == asked


def tab_to(page, most: int, selector: str) -> None:
    """Press Tab until an element is reached, at most so many times."""
    for _ in range(most):
        page.keyboard.press("Tab")
        if page.evaluate("selector => document.activeElement.matches(selector)", selector):
            return
    raise AssertionError(f"{most} times Tab do not reach {selector}")


def test_the_keyboard_reaches_an_example_and_the_button(visit):
    seen = visit()
    press = seen.page.keyboard.press

    tab_to(seen.page, 60, ".lh-example")
    press("Enter")
    tab_to(seen.page, 60, "#lesion-run, #lesion-run button")
    press("Enter")
    seen.see_result()


SLOW_EXAMPLES = """() => {
    const plain = window.fetch;
    window.fetch = async (address, ...rest) => {
        if (String(address).startsWith("data:")) await new Promise((done) => setTimeout(done, 700));
        return plain(address, ...rest);
    };
}"""


def test_analyse_waits_for_an_example_that_is_on_its_way(visit):
    seen = visit()
    seen.page.evaluate(SLOW_EXAMPLES)
    seen.page.set_default_timeout(15_000)
    seen.analyse_first_example()


@pytest.mark.parametrize("width", [380, 768])
def test_a_narrow_screen_does_not_scroll_sideways(visit, width):
    seen = visit(width)
    seen.analyse_first_example()
    for name in TABS:
        seen.open_tab(name)
        assert seen.page.evaluate("document.documentElement.scrollWidth") <= width, name


def test_dark_is_dark(visit):
    def brightness(dark: bool) -> float:
        colour = "getComputedStyle(document.body).backgroundColor.match(/[0-9.]+/g).slice(0, 3).map(Number)"
        return sum(visit(dark=dark).page.evaluate(colour)) / 3

    assert brightness(dark=True) < 60 < 200 < brightness(dark=False)


def test_a_batch_shows_a_row_for_every_file(visit, good, tmp_path):
    bad = tmp_path / "text.jpg"
    bad.write_text("no image")
    seen = visit()
    seen.open_tab("Batch")
    seen.page.locator("#batch-input").set_input_files([good, bad])
    seen.page.locator("#batch-run").click()
    table = seen.page.locator("#batch-table")
    table.get_by_text("good.jpg").first.wait_for()
    table.get_by_text("not an image").first.wait_for()


def test_a_cancelled_batch_offers_its_rows_and_a_waiting_one_leaves_the_queue(visit, served_page, monkeypatch, tmp_path):
    service = served_page.page.service
    inside = service._predict
    monkeypatch.setattr(service, "_predict", lambda *args: time.sleep(1) or inside(*args))
    paths = [tmp_path / f"{number}.jpg" for number in range(8)]
    for path in paths:
        path.write_bytes(photograph())
    first, second = visit(), visit()
    for seen in (first, second):
        seen.open_tab("Batch")
        seen.page.locator("#batch-input").set_input_files(paths)
        seen.page.locator("#batch-run").click()
        seen.page.locator("#batch-status", has_text="8 files.").wait_for()
        if seen is first:
            seen.page.locator("#batch-table").get_by_text("0.jpg").first.wait_for()
    second.page.locator("#batch-cancel").click()
    second.page.locator("#batch-progress", has_text="No batch of yours").wait_for()
    first.page.locator("#batch-cancel").click()
    first.page.locator("#batch-progress", has_text="then cancelled").wait_for()
    assert 0 < first.page.locator("#batch-table tbody tr").count() < 8
    with first.page.expect_download() as download:
        first.page.get_by_text("Table as CSV").click()
    rows = Path(download.value.path()).read_text().splitlines()[1:]
    assert len(rows) == first.page.locator("#batch-table tbody tr").count()
    monkeypatch.setattr(service, "_predict", inside)
    second.page.locator("#batch-run").click()
    second.page.locator("#batch-progress", has_text="8 of 8 analysed").wait_for()


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_axe_finds_nothing_serious(visit, dark):
    if not AXE.is_file():
        pytest.skip(f"axe-core is missing: npm install --no-save axe-core, or set AXE_CORE ({AXE})")
    seen = visit(dark=dark)
    seen.analyse_first_example()
    seen.page.add_script_tag(content=AXE.read_text(encoding="utf-8"))
    found = {}
    for name in TABS:
        seen.open_tab(name)
        for violation in seen.page.evaluate("axe.run()")["violations"]:
            if violation["impact"] in ("serious", "critical"):
                found[f"{name}: {violation['id']}"] = [node["html"][:200] for node in violation["nodes"][:3]]
    assert found == {}
