"""Take the pictures in ``docs/images`` again, of the shipped models: ``make screenshots``.

Needs Chromium (``apt install chromium``), Playwright's Python package, and for the page in the browser ONNX Runtime Web
(``npm install --no-save onnxruntime-web``, or it is fetched once from npm).
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import sync_playwright

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from lesion_hub import DEFAULT_MODEL, from_pretrained
from lesion_hub.app import AppOptions, launch
from lesion_hub.app.static_page import write_static_page
from lesion_hub.app.static_server import served_files
from lesion_hub.inference import Predictor
from tests.browsers import browser_program

ROOT = Path(__file__).resolve().parents[1]
IMAGES = ROOT / "docs" / "images"
PICTURE = ROOT / "spaces" / "lesion-ensemble" / "examples" / "drawn_as_melanoma.jpg"
RUNTIME = ROOT / "node_modules" / "onnxruntime-web" / "dist"
# By the end of a picture's name; CSS pixels.
WIDTHS = {"": 1000, "_phone": 380}
OVERLAY_SIDE = 450
TIMEOUT_MS = 120_000


def pages_of(browser: Any, url: str, name: str, answer: Any) -> None:
    """One picture per width, of the whole page once ``answer`` has made it answer."""
    for end, width in WIDTHS.items():
        context = browser.new_context(viewport={"width": width, "height": 800}, color_scheme="light", reduced_motion="reduce")
        page = context.new_page()
        page.set_default_timeout(TIMEOUT_MS)
        page.goto(url)
        answer(page)
        page.mouse.move(0, 0)
        page.wait_for_timeout(1000)  # what fades has faded
        page.screenshot(path=IMAGES / f"{name}{end}.jpg", type="jpeg", quality=88, full_page=True)
        context.close()


def answer_of_a_machine(page: Any) -> None:
    page.locator("#lesion-file").set_input_files(PICTURE)
    page.locator("#lesion-run").click()
    page.locator("#lesion-overlay img.lh-heat").first.wait_for()
    page.locator("#lesion-bars [aria-labelledby=lh-bars-title]").wait_for()


def answer_of_the_browser(page: Any) -> None:
    page.locator("html[data-ready]").wait_for(state="attached")
    page.locator("#files").set_input_files(PICTURE)
    page.locator("#status", has_text="is ready").wait_for()
    page.locator("#overlay canvas.heat").first.wait_for()


def draw_overlay(model: Predictor) -> None:
    """The picture, and beside it the same under its heat map."""
    seen = model.predict(PICTURE, explain="gradcam")
    with Image.open(PICTURE) as opened:
        pair = [opened.convert("RGB"), seen.overlay().convert("RGB")]
    height = round(OVERLAY_SIDE * pair[0].height / pair[0].width)
    sheet = Image.new("RGB", (2 * OVERLAY_SIDE + 12, height), "white")
    for place, picture in enumerate(pair):
        sheet.paste(picture.resize((OVERLAY_SIDE, height), Image.Resampling.LANCZOS), (place * (OVERLAY_SIDE + 12), 0))
    sheet.save(IMAGES / "overlay.jpg", quality=90)


def main() -> None:
    parser = argparse.ArgumentParser(description="Take the pictures in docs/images again.")
    parser.add_argument("--model", default=DEFAULT_MODEL, help=f"what the pages serve (default: {DEFAULT_MODEL})")
    name = parser.parse_args().model
    model = from_pretrained(name)
    draw_overlay(model)
    with sync_playwright() as driver, tempfile.TemporaryDirectory() as folder:
        browser = driver.chromium.launch(executable_path=browser_program(), args=["--no-sandbox"])
        running = launch(AppOptions(models=(name,)), block=False)
        pages_of(browser, running.url, "page", answer_of_a_machine)
        running.stop()
        static = Path(folder) / "page"
        write_static_page(model, static, runtime=RUNTIME if RUNTIME.is_dir() else None)
        with served_files(static) as url:
            pages_of(browser, url, "browser", answer_of_the_browser)
        browser.close()


if __name__ == "__main__":
    main()
