"""The page in the visitor's browser: equal to Python, silent, there without a network, and usable by everybody.

Needs Chromium, Playwright and, as ``tests/app/test_browser.py``, axe-core; and ONNX Runtime Web:
``npm install --no-save onnxruntime-web@VERSION``, or wherever ``ONNXRUNTIME_WEB`` says its dist folder is.
"""

from __future__ import annotations

import base64
import csv
import json
import os
import re
import shutil
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from io import BytesIO
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.special import softmax

from lesion_hub.app import web_runtime, words
from lesion_hub.app.static_manifest import abstention, gate
from lesion_hub.app.static_page import HEADERS, MANIFEST_NAME, write_static_page
from lesion_hub.app.static_server import served_files
from lesion_hub.config import Abstention, AnswerRules, OperatingPoint
from lesion_hub.data.images import load_rgb
from lesion_hub.data.synthetic import draw_lesion
from lesion_hub.errors import ConfigError, StoreError
from lesion_hub.evaluation.label_sets import fit_label_sets
from lesion_hub.hub.format import write_model
from lesion_hub.hub.gate_file import GateWeights
from lesion_hub.inference import Predictor, from_pretrained
from lesion_hub.inference.gate import Gate
from lesion_hub.inference.members import Combination, Member
from lesion_hub.models.network_cut import cut
from tests.app.test_browser import AXE, chromium, tab_to  # noqa: F401 - a fixture
from tests.data.bad_files import BROKEN, ODD, write_broken
from tests.inference.networks import classifier, ensemble, picture

pytestmark = [pytest.mark.browser, pytest.mark.slow]
pytest.importorskip("onnx")

RUNTIME = Path(os.environ.get("ONNXRUNTIME_WEB") or Path(__file__).parents[2] / "node_modules" / "onnxruntime-web" / "dist")
TIMEOUT_MS = 30_000
POINTS = {
    "sensitivity_90": OperatingPoint(threshold=0.2, metric="sensitivity", target=0.9),
    "specificity_95": OperatingPoint(threshold=0.6, metric="specificity", target=0.95),
}


@pytest.fixture(scope="module")
def model() -> Predictor:
    """Three networks, tempered: of two sizes and label spaces, and a third that frames as the first does."""
    members = [*ensemble().members, Member("c", classifier(seed=2))]
    spaces = [member.space for member in members]
    return Predictor(members, Combination.of(spaces, [0.3, 0.5, 0.2], temperature=0.8), POINTS, name="trio")


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory) -> Path:
    if not (RUNTIME / web_runtime.WASM).is_file():
        pytest.skip(
            f"ONNX Runtime Web is missing: npm install --no-save {web_runtime.PACKAGE}@{web_runtime.VERSION} ({RUNTIME})"
        )
    place = tmp_path_factory.mktemp("static") / "page"
    write_static_page(model, place, runtime=RUNTIME)
    return place


@pytest.fixture(scope="module")
def address(folder) -> Iterator[str]:
    """A host of plain files, which sends no headers of ours."""
    with served_files(folder, headers={}) as url:
        yield url


class Visit:
    """An open page with its model loaded, every request that it made and every error that it reported."""

    def __init__(self, page, url: str) -> None:
        self.page, self.url = page, url
        self.requests, self.errors = [], []
        page.set_default_timeout(TIMEOUT_MS)
        page.on("request", lambda request: self.requests.append(request))
        page.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.load()

    def load(self) -> None:
        self.page.goto(self.url)
        self.page.locator("html[data-ready]").wait_for(state="attached")

    def analyse(self, *files: Path) -> None:
        self.page.locator("#files").set_input_files(files)

    def see_answer(self) -> None:
        self.page.locator("#status", has_text="is ready").wait_for()
        self.page.locator("#overlay canvas.heat").first.wait_for()

    def heat(self) -> np.ndarray:
        """The shown map, read back from how much of the picture it covers."""
        script = """canvas => {
            const {data} = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
            return {size: [canvas.height, canvas.width], alpha: Array.from(data).filter((_, i) => i % 4 === 3)};
        }"""
        found = self.page.locator("#overlay canvas.heat:visible").evaluate(script)
        return (np.asarray(found["alpha"]).reshape(found["size"]) / 255) ** 2


@contextmanager
def visiting(browser, url: str) -> Iterator[Visit]:
    """Open the page; in the end it has asked its own host alone, sent nothing, and the console is clean."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    try:
        seen = Visit(context.new_page(), url)
        yield seen
        strangers = {
            r.url for r in seen.requests if urlsplit(r.url).scheme not in ("blob", "data") and not r.url.startswith(url)
        }
        assert strangers == set()
        assert {(r.method, r.post_data) for r in seen.requests} == {("GET", None)}
        assert seen.errors == []
    finally:
        context.close()


@pytest.fixture(scope="module")
def opened(chromium, address) -> Iterator[Visit]:  # noqa: F811
    """One visit that several tests share."""
    with visiting(chromium, address) as seen:
        yield seen


@pytest.fixture(scope="module")
def good(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("good") / "good.jpg"
    Image.fromarray(draw_lesion("mel", seed=3, size=(200, 150)).image).save(path, quality=92)
    return path


def write_pictures(folder: Path) -> list[Path]:
    """Pictures of several sizes and kinds; one lies on its side by its EXIF orientation, one is transparent."""
    drawn = [
        Image.fromarray(draw_lesion("nv", seed=i, size=size).image) for i, size in enumerate(((300, 225), (97, 131), (64, 64)))
    ]
    for i, image in enumerate(drawn):
        image.save(folder / f"drawn_{i}.jpg", quality=90)
    exif = Image.Exif()
    exif[0x0112] = 6
    drawn[0].save(folder / "turned.jpg", quality=90, exif=exif)
    see_through = picture(80, 60, seed=5).convert("RGBA")
    see_through.putalpha(Image.fromarray(np.tile(np.arange(60, dtype=np.uint8) * 4, (80, 1))))
    see_through.save(folder / "see_through.png")
    picture(90, 40, seed=6).save(folder / "=odd.webp", lossless=True)
    return sorted(folder.iterdir())


def test_a_batch_is_the_table_that_python_gives(opened, model, tmp_path):
    paths = write_pictures(tmp_path)
    wrong = tmp_path / "wrong.jpg"
    wrong.write_text("no image")
    opened.analyse(*paths, wrong)
    opened.page.locator("#csv").wait_for()
    with opened.page.expect_download() as download:
        opened.page.locator("#csv").click()
    rows = {row["file"]: row for row in csv.DictReader(Path(download.value.path()).read_text().splitlines())}
    assert rows.pop("wrong.jpg")["error"] == "wrong.jpg: not an image that can be read; give JPEG, PNG, WebP, GIF, BMP or AVIF."
    assert len(rows) == len(paths)
    for path in paths:
        seen, row = model.predict(path), rows["'=odd.webp" if path.name == "=odd.webp" else path.name]
        assert [float(row[f"p_{label}"]) for label in model.labels] == pytest.approx(
            list(seen.probabilities.values()), abs=0.005
        )
        assert row["label"] == seen.label
        assert float(row["malignancy"]) == pytest.approx(seen.malignancy, abs=0.005)
        assert float(row["disagreement"]) == pytest.approx(seen.disagreement, abs=0.005)
        assert {name: row[f"suspicious_{name}"] == "True" for name in POINTS} == seen.decisions
        assert row["warnings"].split() == list(seen.flags)


def test_maps_are_those_of_python_for_all_members_and_each_and_for_another_label(opened, model, good):
    opened.analyse(good)
    opened.see_answer()
    seen = model.predict(good, explain="gradcam").explanation

    def alike(ours: np.ndarray) -> float:
        shown = opened.heat()
        large = np.asarray(Image.fromarray(shown.astype(np.float32)).resize(ours.shape[::-1], Image.BILINEAR))
        return float(np.corrcoef(large.ravel(), ours.ravel())[0, 1])

    assert opened.page.locator("#maps").inner_text().startswith(f"Where the model looks: {full_name(model, seen.label)}")
    assert alike(seen.heat) > 0.98
    opened.page.locator("#member").select_option(label="b")
    assert alike(seen.members["b"]) > 0.98
    opened.page.locator("#target").select_option(label="Malignant")
    opened.page.locator("#maps", has_text="Malignant").wait_for()
    assert alike(model.predict(good, explain="gradcam", target="malignant").heat) > 0.98


def full_name(model: Predictor, label: str) -> str:
    return model.space.descriptions[model.space.index(label)]


def test_the_words_are_those_of_the_other_page(opened, model, good):
    opened.analyse(good)
    opened.see_answer()
    shown, seen = opened.page.locator("body").inner_text(), model.predict(good)
    assert words.NOTICE in shown
    for label, value in seen.probabilities.items():
        assert re.search(rf"{re.escape(full_name(model, label))} {label}\s+{re.escape(words.percent(value))}", shown), label
    for point in POINTS.values():
        assert f"{words.point_title(point)}: {words.decision(point, seen.malignancy)}" in shown
    assert words.disagreement(seen.disagreement) in shown
    assert f"{words.HEAT_MEANS} {words.HEAT_DOES_NOT_MEAN}" in shown


def test_every_broken_file_is_one_line_and_the_next_good_one_works(opened, good, tmp_path):
    (tmp_path / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0" + bytes(100))
    for path in (*write_broken(tmp_path / "broken"), tmp_path / "phone.heic"):
        opened.analyse(path)
        line = opened.page.locator("#error", has_text=f"{path.name}: ")
        line.wait_for()
        assert "\n" not in line.inner_text()
    assert "is a HEIC file" in line.inner_text()
    assert len(BROKEN) > 10
    opened.analyse(good)
    opened.see_answer()
    assert not opened.page.locator("#error").is_visible()


DECODE = """async ([content, limits]) => {
    const {opened, pixelsOf} = await import("./pictures.js");
    const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
    try {
        const bitmap = await opened(new File([bytes], "picture"), limits);
        return {size: [bitmap.width, bitmap.height], rgb: Array.from(pixelsOf(bitmap))};
    } catch (error) {
        return {error: error.message};
    }
}"""


def decoded(visit: Visit, folder: Path, content: bytes) -> Image.Image | str:
    """What the page makes of a file: its pixels, or its one line."""
    limits = json.loads((folder / "model.json").read_text())["limits"]
    found = visit.page.evaluate(DECODE, [base64.b64encode(content).decode(), limits])
    if "error" in found:
        return found["error"]
    return Image.fromarray(np.array(found["rgb"], np.uint8).reshape(*found["size"][::-1], 3))


def test_an_odd_file_has_the_pixels_that_python_reads_or_is_one_line(opened, folder):
    for name, (make, _) in ODD.items():
        content = make()
        found = decoded(opened, folder, content)
        if name.endswith(".tif"):
            assert found == "picture: is a TIFF file, which this browser does not read; save it as JPEG or PNG."
            continue
        own = load_rgb(content)
        assert found.size == own.size, name
        assert np.abs(np.asarray(found).astype(int) - np.asarray(own)).max() <= 1, name


def test_whether_a_file_ends_early_is_seen_before_a_browser_shows_what_there_is(opened, folder):
    opened.page.evaluate("""() => {
        self.strict = self.createImageBitmap;
        self.createImageBitmap = async () => Object.assign(new OffscreenCanvas(1, 1), {close() {}});
    }""")
    try:
        drawn = Image.fromarray(draw_lesion("nv", seed=1, size=(96, 72)).image)
        for format_ in ("JPEG", "PNG", "WEBP"):
            stream = BytesIO()
            drawn.save(stream, format_, **({"exif": with_thumbnail(drawn)} if format_ == "JPEG" else {}))
            whole = stream.getvalue()
            for cut_at in (len(whole) // 2, len(whole) - 20):
                assert decoded(opened, folder, whole[:cut_at]) == "picture: the image is damaged; choose another one.", format_
            for ending in (b"", bytes(50)):  # phones write more behind a picture
                assert not isinstance(decoded(opened, folder, whole + ending), str), format_
    finally:
        opened.page.evaluate("() => { self.createImageBitmap = self.strict; }")


def with_thumbnail(image: Image.Image) -> bytes:
    """An EXIF block that holds a whole JPEG, with an end marker of its own."""
    stream = BytesIO()
    image.resize((16, 12)).save(stream, "JPEG")
    exif = Image.Exif()
    exif[0x927C] = stream.getvalue()
    return exif.tobytes()


def test_a_picture_is_pasted_and_dropped_too(opened, good):
    script = """([content, kind]) => {
        const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
        const data = new DataTransfer();
        data.items.add(new File([bytes], `${kind}.jpg`, {type: "image/jpeg"}));
        const event = kind === "paste"
            ? new ClipboardEvent(kind, {clipboardData: data, bubbles: true})
            : new DragEvent(kind, {dataTransfer: data, bubbles: true});
        document.querySelector(".drop").dispatchEvent(event);
    }"""
    for kind in ("paste", "drop"):
        opened.page.evaluate(script, [base64.b64encode(good.read_bytes()).decode(), kind])
        opened.page.locator("#status", has_text=f"{kind}.jpg: the estimate is ready").wait_for()


def test_the_slider_and_the_keyboard(opened):
    press = opened.page.keyboard.press

    opened.page.locator("h1").click()
    tab_to(opened.page, 40, "[data-example]")
    press("Enter")
    opened.page.locator("#status", has_text="drawn_as_actinic_keratosis.jpg: the estimate is ready").wait_for()
    stack = opened.page.locator("#overlay .stack")
    before = stack.screenshot()
    tab_to(opened.page, 40, "#opacity")
    press("End")
    assert stack.screenshot() != before


def test_the_network_is_used_by_the_first_visit_alone_and_never_for_a_picture(chromium, folder, good):  # noqa: F811
    with ExitStack() as stack:
        server = stack.enter_context(ExitStack())
        seen = stack.enter_context(visiting(chromium, server.enter_context(served_files(folder, headers={}))))
        server.close()
        seen.load()
        seen.analyse(good)
        seen.see_answer()
        assert seen.page.locator("html").get_attribute("data-threads") == str(max(1, min(4, (os.cpu_count() or 1) // 2)))


class _Listener(BaseHTTPRequestHandler):
    heard: list[str] = []  # noqa: RUF012

    def do_GET(self) -> None:
        self.heard.append(self.path)
        self.send_response(200)
        self.send_header("Access-Control-Allow-Origin", "*")
        self.end_headers()

    do_POST = do_GET

    def log_message(self, *_: object) -> None:
        pass


def test_neither_the_page_nor_its_worker_can_send_anything_elsewhere(chromium, address):  # noqa: F811
    listener = HTTPServer(("127.0.0.1", 0), _Listener)
    threading.Thread(target=listener.serve_forever, daemon=True).start()
    send = f"fetch('http://127.0.0.1:{listener.server_port}/CALLED', {{method: 'POST', body: 'picture'}})"
    from_page = f"() => {send}.then(() => 'sent', () => 'refused')"
    from_worker = f"""() => new Promise((resolve) => {{
        const source = `{send}.then(() => postMessage('sent'), () => postMessage('refused'))`;
        new Worker(URL.createObjectURL(new Blob([source]))).onmessage = ({{data}}) => resolve(data);
    }})"""
    context = chromium.new_context(service_workers="block")  # the page's own policy, without what the service worker adds
    try:
        page = context.new_page()
        page.goto(address)
        assert [page.evaluate(from_page), page.evaluate(from_worker)] == ["refused", "refused"]
        assert _Listener.heard == []
        context.close()
    finally:
        listener.shutdown()
        listener.server_close()


def with_gates(model: Predictor) -> Predictor:
    """The same members, with input gates of arbitrary weights that read their features."""
    members = []
    for member in model.members:
        channels = cut(member.classifier).stem(torch.zeros(1, *member.classifier.input_config.input_size)).shape[1]
        weights = GateWeights("features", torch.linspace(-0.1, 0.2, 2 * channels), 0.1)
        members.append(replace(member, gate=Gate(weights, 0.5, 0.8)))
    return Predictor(members, model.combination, name=model.name)


def test_a_set_and_a_verdict_are_shown_where_the_model_has_them(chromium, folder, model, good, tmp_path):  # noqa: F811
    copy = tmp_path / "page"
    shutil.copytree(folder, copy)
    facts = json.loads((copy / "model.json").read_text())
    seen, gated = model.predict(good), with_gates(model)
    (first, _), (second, likely) = seen.top(2)
    least = [likely - 0.006 if label in (first, second) else None for label in model.labels]
    facts["label_sets"] = {"least": least, "promise": "As promised."}
    facts["gate"] = gate(gated) | {"refuse_below": 0.999, "accept_from": 0.9999}
    (copy / "model.json").write_text(json.dumps(facts))
    with served_files(copy, headers=HEADERS) as url, visiting(chromium, url) as visit:
        visit.analyse(good)
        verdict = visit.page.locator("#verdict")
        verdict.wait_for()
        assert words.OUT_OF_SCOPE in verdict.inner_text()
        assert f"Score {gated.predict(good).scope.score:.2f}" in verdict.inner_text()
        assert not visit.page.locator("#set").is_visible()
        visit.page.locator("#held-back > summary").click()
        visit.see_answer()
        both = ", ".join(full_name(model, label).lower() for label in (first, second))
        assert visit.page.locator("#set").inner_text() == f"One of {both}"


def with_rules(model: Predictor) -> Predictor:
    """The same model with gates, and label sets and abstention as if fitted; it abstains above a doubt of a half."""
    random = np.random.default_rng(0)
    chances = softmax(random.normal(size=(300, len(model.labels))), axis=1)
    sets = fit_label_sets(chances, random.integers(len(model.labels), size=300), [str(i) for i in range(300)], model.space)
    weights = {"confidence": 1.0, "set_size": 0.5, "disagreement": 0.25, "scope": 0.5}
    silence = Abstention(weights=weights, limits={"0.1": 0.5}, answered={"0.1": 0.9})
    rules = AnswerRules(label_sets=sets, abstention=silence)
    return Predictor(with_gates(model).members, model.combination, POINTS, rules=rules, name=model.name)


def test_the_model_keeps_silent_about_the_pictures_that_python_is_silent_about(chromium, model, tmp_path):  # noqa: F811
    ruled = with_rules(model)
    (tmp_path / "pictures").mkdir()
    paths = write_pictures(tmp_path / "pictures")
    doubts = sorted(one.doubt for one in ruled.predict(paths))
    middle = max(range(1, len(doubts)), key=lambda i: doubts[i] - doubts[i - 1])  # no limit is nearer to a doubt
    assert doubts[middle] - doubts[middle - 1] > 0.002
    limits = {"0.1": (doubts[middle] + doubts[middle - 1]) / 2}
    silence = ruled.rules.abstention.model_copy(update={"limits": limits})
    ruled.rules = ruled.rules.model_copy(update={"abstention": silence})
    write_static_page(ruled, tmp_path / "page", runtime=RUNTIME)
    with served_files(tmp_path / "page", headers=HEADERS) as url, visiting(chromium, url) as visit:
        visit.analyse(*paths)
        visit.page.locator("#csv").wait_for()
        with visit.page.expect_download() as download:
            visit.page.locator("#csv").click()
        rows = {row["file"].lstrip("'"): row for row in csv.DictReader(Path(download.value.path()).read_text().splitlines())}
        table = visit.page.locator("table").inner_text()
        answers = dict(zip(paths, ruled.predict(paths, abstain=0.1), strict=True))
        assert {answer.abstains for answer in answers.values()} == {True, False}
        for path, seen in answers.items():
            row = rows[path.name]
            assert row["abstains"] == str(seen.abstains)
            assert set(row["label_set"].split()) == set(seen.label_set().labels)
            assert row["scope"] == seen.scope.verdict
            assert float(row["scope_score"]) == pytest.approx(seen.scope.score, abs=0.005)
        assert table.count(words.MODEL_ABSTAINS) == sum(answer.abstains for answer in answers.values())
        for path in (min(answers, key=lambda one: answers[one].doubt), max(answers, key=lambda one: answers[one].doubt)):
            visit.load()
            visit.analyse(path)
            visit.page.locator("#differential").wait_for(state="attached")
            shown = visit.page.locator("#abstains").all_text_contents()
            assert shown == [f"{words.MODEL_ABSTAINS} {words.abstention(0.1)}"] * answers[path].abstains


def test_silence_that_goes_by_a_gate_which_the_page_cannot_read_is_not_offered(model):
    ruled = with_rules(model)
    assert abstention(ruled, 0.1)["limit"] == 0.5
    assert abstention(ruled, None) is None and abstention(ruled, 0.03) is None and abstention(model, 0.1) is None
    (first, *_), tokens = ruled.members, classifier("vit_tiny_patch16_224", size=32)
    gate_of_tokens = replace(first.gate, weights=GateWeights("features", torch.zeros(2 * 192), 0.0))
    blind = Predictor.of(tokens, gate=gate_of_tokens, rules=ruled.rules)
    assert abstention(blind, 0.1) is None


def test_axe_finds_nothing_serious_and_a_narrow_screen_does_not_scroll_sideways(opened, good):
    if not AXE.is_file():
        pytest.skip(f"axe-core is missing: npm install --no-save axe-core, or set AXE_CORE ({AXE})")
    page = opened.page
    page.set_viewport_size({"width": 380, "height": 900})
    opened.analyse(good, good)
    page.locator("#batch-text", has_text="2 of 2").wait_for()
    page.locator("#csv").wait_for()
    page.locator("#rows button").first.click()
    opened.see_answer()
    for summary in page.locator("summary").all():
        summary.click()
    assert page.evaluate("document.documentElement.scrollWidth") <= 380
    page.evaluate(AXE.read_text(encoding="utf-8"))
    found, colours = {}, set()
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        colours.add(page.evaluate("getComputedStyle(document.body).backgroundColor"))
        for violation in page.evaluate("axe.run()")["violations"]:
            if violation["impact"] in ("serious", "critical"):
                found[f"{scheme}: {violation['id']}"] = [node["html"][:200] for node in violation["nodes"][:3]]
    assert found == {}
    assert len(colours) == 2, "dark is dark"


def test_the_page_of_a_folder_does_not_tell_where_it_lies(folder, tmp_path):
    write_model(tmp_path / "mine", classifier())
    page = write_static_page(from_pretrained(tmp_path / "mine", engine="torch"), tmp_path / "page", runtime=RUNTIME)
    assert page.title == "mine"
    assert json.loads((page.folder / MANIFEST_NAME).read_text())["name"] == "mine"
    told = [name.encode() + (page.folder / name).read_bytes() for name in page.files]
    assert not any(word.encode() in content for content in told for word in (str(tmp_path), tmp_path.name))


def test_a_runtime_that_is_not_the_pinned_one_is_refused(tmp_path):
    for name in web_runtime.PINNED:
        (tmp_path / name).write_bytes(b"another")
    with pytest.raises(StoreError, match=r"is not that of onnxruntime-web"):
        web_runtime.web_runtime(tmp_path)
    (tmp_path / web_runtime.MODULE).unlink()
    with pytest.raises(StoreError, match=r"missing; --runtime names"):
        web_runtime.web_runtime(tmp_path)


def test_without_npm_one_line_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("LESION_HUB_CACHE", str(tmp_path))
    with pytest.raises(ConfigError, match=r"npm is not installed, .*--runtime"):
        web_runtime.web_runtime()


def test_a_photograph_is_taken_with_the_keyboard_and_the_camera_is_let_go(chromium, address):  # noqa: F811
    with visiting(chromium, address) as seen:
        page = seen.page
        page.locator("#open-camera").click()
        page.wait_for_function("() => document.activeElement.id === 'shoot'")
        assert page.locator("#open-camera").is_disabled(), "a second stream would never be stopped"
        page.wait_for_function("() => document.querySelector('#camera video').videoWidth > 0")
        page.evaluate("() => { self.track = document.querySelector('#camera video').srcObject.getTracks()[0]; }")
        page.keyboard.press("Escape")
        assert page.evaluate("() => [self.track.readyState, document.activeElement.id]") == ["ended", "open-camera"]
        assert page.locator("#camera").is_hidden()
        page.keyboard.press("Enter")
        page.wait_for_function(
            "() => document.querySelector('#camera video').videoWidth > 0 && self.track.readyState === 'ended'"
        )
        page.wait_for_function("() => document.activeElement.id === 'shoot'")
        page.evaluate("() => { self.track = document.querySelector('#camera video').srcObject.getTracks()[0]; }")
        page.keyboard.press("Enter")
        seen.see_answer()
        assert page.evaluate("() => self.track.readyState") == "ended"


def test_without_a_camera_or_a_place_to_keep_the_model_the_page_works(chromium, address, tmp_path):  # noqa: F811
    """As in private windows, and with a camera that cannot be opened."""
    refusing = "navigator.mediaDevices.getUserMedia = () => Promise.reject(new DOMException('in use', 'NotReadableError'));"
    with visiting(chromium, address) as seen:
        seen.page.evaluate(f"() => {{ {refusing} }}")
        seen.page.locator("#open-camera").click()
        seen.page.locator("#error", has_text="The camera cannot be used").wait_for()
        assert seen.page.locator("#open-camera").is_enabled() and seen.page.locator("#camera").is_hidden()
        seen.page.add_init_script("navigator.mediaDevices.enumerateDevices = () => Promise.resolve([]);")
        seen.page.route("**/worker.js", refuses_to_keep)
        seen.load()
        assert seen.page.locator("#open-camera").is_hidden()
        picture(60, 80).save(tmp_path / "a.png")
        seen.analyse(tmp_path / "a.png")
        seen.see_answer()


def refuses_to_keep(route):
    """Serve the worker with a browser's cache that refuses."""
    response = route.fetch()
    route.fulfill(response=response, body="self.caches.open = () => Promise.reject(new Error('denied'));\n" + response.text())


def test_a_map_that_was_overtaken_is_not_shown(chromium, address, tmp_path):  # noqa: F811
    for name, size in (("first.png", (60, 80)), ("second.png", (90, 40))):
        picture(*size).save(tmp_path / name)
    with visiting(chromium, address) as seen:
        seen.analyse(tmp_path / "first.png")
        seen.see_answer()
        # Another label's map is asked for, and in the same breath another picture chosen.
        seen.page.locator("#target").evaluate("node => { node.selectedIndex = 1; node.dispatchEvent(new Event('change')); }")
        seen.analyse(tmp_path / "second.png")
        seen.page.locator("#status", has_text="second.png: the estimate is ready").wait_for()
        seen.page.wait_for_timeout(500)
        assert seen.page.locator("#status").inner_text().startswith("second.png")
        assert seen.page.locator("#overlay canvas.heat").first.evaluate("node => node.height > node.width")
