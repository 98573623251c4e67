"""Time the page in the visitor's browser beside the Python engine: ``python benchmarks/browser.py --json``.

Chromium opens the static page of a model from a server of plain files on this machine, and answers one 600x450 JPEG with its
maps, again and again; the library answers the same picture in this process, in turn with it:

    load_s       from opening the page to a model that is ready, of a first visit, everything fetched from this machine
    again_s      the same of a second visit, everything kept in the browser
    first_ms     the first answer after loading
    page_ms      each further one, from the choice of the file to the answer on the screen
    worker_ms    of that, what the worker computed: decoding, networks, quality, maps
    library_ms   ``predict(jpeg, explain="gradcam")`` in this process

Times are medians over the rounds, with the least of them beside; ``ratio`` is the median of each round's page to library.
Needs Chromium, Playwright's Python package, and the files of ONNX Runtime Web (``--runtime``, else npm fetches them).
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common import draw_jpeg, median_ratio, milliseconds, take_turns
from playwright.sync_api import Browser, Page, sync_playwright

import lesion_hub
from lesion_hub.app.static_page import HEADERS, write_static_page
from lesion_hub.app.static_server import served_files
from tests.browsers import browser_program


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="dermoscopy-trio", help="registry name, Hub id or folder")
    parser.add_argument("--runtime", type=Path, help="folder with ONNX Runtime Web's files")
    parser.add_argument("--page", type=Path, help="folder of a page that was written before")
    parser.add_argument("--threads", type=int, default=2, help="of the library")
    parser.add_argument("--single", action="store_true", help="have the browser use one thread, as in a frame of another page")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model = lesion_hub.from_pretrained(options.model)
    with tempfile.TemporaryDirectory() as scratch:
        place = options.page or Path(scratch) / "page"
        if options.page is None:
            write_static_page(model, place, runtime=options.runtime)
        picture = Path(scratch) / "lesion.jpg"
        picture.write_bytes(draw_jpeg())
        permitted = {} if options.single else HEADERS
        with served_files(place, headers=permitted) as url:
            result = {"model": options.model, **measured(model, url, picture, options.rounds, single=options.single)}
        facts = json.loads((place / "model.json").read_text())
    result["graphs_mb"] = round(sum(member["graph"]["bytes"] for member in facts["members"]) / 1e6, 2)
    result["runtime_mb"] = round(facts["runtime"]["wasm"]["bytes"] / 1e6, 2)
    if options.json:
        print(json.dumps(result, indent=2))
    else:
        print("\n".join(f"{name:<12} {value}" for name, value in result.items()))


def measured(model: lesion_hub.Predictor, url: str, picture: Path, rounds: int, *, single: bool) -> dict[str, Any]:
    """Open the page twice, then have page and library answer the same picture in turn."""
    content, inside = picture.read_bytes(), list[float]()
    with chromium() as browser:
        page = browser.new_context(service_workers="block" if single else "allow").new_page()
        load, threads = opened(page, url)
        first = answered(page, picture)
        again, _ = opened(page, url)
        answered(page, picture)
        model.predict(content, explain="gradcam")

        def on_page() -> None:
            inside.append(answered(page, picture) / 1e3)

        library = {"library": lambda: model.predict(content, explain="gradcam")}
        seconds = take_turns({"page": on_page, **library}, rounds, time.perf_counter)
    return {
        "threads_page": threads,
        "threads_library": torch.get_num_threads(),
        "rounds": rounds,
        "load_s": round(load, 2),
        "again_s": round(again, 2),
        "first_ms": round(first, 1),
        "page_ms": milliseconds(seconds["page"]),
        "page_least_ms": round(1e3 * min(seconds["page"]), 1),
        "worker_ms": milliseconds(inside),
        "worker_least_ms": round(1e3 * min(inside), 1),
        "library_ms": milliseconds(seconds["library"]),
        "library_least_ms": round(1e3 * min(seconds["library"]), 1),
        "ratio": median_ratio(seconds["page"], seconds["library"]),
        "ratio_of_least": round(min(seconds["page"]) / min(seconds["library"]), 3),
    }


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start the browser that is installed."""
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=browser_program(), args=["--no-sandbox"])
        yield browser
        browser.close()


def opened(page: Page, url: str) -> tuple[float, int]:
    """Open the page; return the seconds until its model is ready, and its threads."""
    start = time.perf_counter()
    page.goto(url)
    page.locator("html[data-ready]").wait_for(state="attached", timeout=120_000)
    return time.perf_counter() - start, int(page.locator("html").get_attribute("data-threads") or 0)


def answered(page: Page, picture: Path) -> float:
    """Have the page answer; return the milliseconds that its worker computed."""
    page.locator("#files").set_input_files(picture)
    answer = page.locator("#answer[data-milliseconds]")
    answer.wait_for(state="attached", timeout=120_000)
    page.locator("#overlay canvas.heat").first.wait_for()
    spent = float(answer.get_attribute("data-milliseconds") or "nan")
    page.locator("#answer").evaluate("answer => { delete answer.dataset.milliseconds; answer.replaceChildren(); }")
    return spent


if __name__ == "__main__":
    main()
