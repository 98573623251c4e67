"""The served page as programs meet it, over loopback."""

from __future__ import annotations

import asyncio
import base64
import re
import time
import zipfile
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import httpx
import pandas as pd
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from gradio_client.utils import QueueError
from PIL import Image

from lesion_hub.app import Running, launch
from lesion_hub.app.handlers import Handlers
from lesion_hub.app.uploads import Upload
from lesion_hub.app.words import NOTICE, OUR_FAULT
from tests.app.models import CAMERA, as_json, files_on_disk, metadata_in, options_over, photograph
from tests.data.bad_files import BROKEN

pytestmark = pytest.mark.usefixtures("nothing_waits")


@pytest.fixture(scope="module")
def client(served_page: Running, tmp_path_factory: pytest.TempPathFactory) -> Client:
    return Client(served_page.url, verbose=False, download_files=str(tmp_path_factory.mktemp("downloads")))


@pytest.fixture
def photo(tmp_path: Path):
    path = tmp_path / "phone.jpg"
    path.write_bytes(photograph())
    return handle_file(str(path))


def assert_nothing_is_left(page: Running) -> None:
    assert files_on_disk() == []
    assert len(page.page.files) == 0


def test_predict_gives_the_whole_answer_and_the_notice(client, photo, served_page):
    answer = client.predict(photo, api_name="/predict")
    assert sum(answer["probabilities"].values()) == pytest.approx(1)
    assert (answer["model"], answer["version"], answer["notice"]) == ("trio", "v1.0.0", NOTICE)
    assert set(answer["members"]) == {"one", "two", "three"}
    assert_nothing_is_left(served_page)


def test_predict_takes_model_and_patient(client, photo):
    young, old = (client.predict(photo, model="aware", age=age, sex="female", api_name="/predict") for age in (5, 90))
    assert young["model"] == "aware"
    assert young["probabilities"] != old["probabilities"]


def test_explain_gives_an_image_without_metadata_and_what_it_is_about(client, photo, served_page):
    path, answer = client.predict(photo, "hirescam", "mel", "two", api_name="/explain")
    assert answer["explanation"] == {"method": "hirescam", "label": "mel", "member": "two"}
    content = Path(path).read_bytes()
    assert Image.open(path).size == (160, 120)
    assert metadata_in(content) == []
    assert_nothing_is_left(served_page)


def test_batch_gives_rows_tables_and_overlays(client, photo, tmp_path, served_page):
    bad = tmp_path / "=cmd<b>.jpg"
    bad.write_bytes(BROKEN["text.jpg"]())
    rows, csv, parquet, overlays = client.predict([photo, handle_file(str(bad))], api_name="/batch")
    assert [row["error"] is None for row in rows] == [True, False]
    read = pd.read_parquet(parquet)
    assert read["p_mel"][0] == pytest.approx(rows[0]["p_mel"])
    assert pd.read_csv(csv)["file"].tolist()[0] == "phone.jpg"
    assert not [cell for cell in pd.read_csv(csv)["file"] if cell.startswith("=")]
    with zipfile.ZipFile(overlays) as archive:
        assert archive.namelist() == ["001_phone_heat.jpg"]
        assert metadata_in(archive.read("001_phone_heat.jpg")) == []
        assert archive.infolist()[0].date_time[0] == 1980
    assert "<b>" not in as_json(rows)
    assert_nothing_is_left(served_page)


def test_models_are_told_with_intervals(client):
    trio, aware = client.predict(api_name="/models")
    assert (trio["name"], trio["version"], trio["members"]) == ("trio", "v1.0.0", ["one", "two", "three"])
    assert trio["metrics"]["balanced_accuracy"]["low"] < trio["metrics"]["balanced_accuracy"]["high"]
    assert (trio["takes_metadata"], aware["takes_metadata"]) == (False, True)
    assert trio["licence"] == "cc-by-nc-4.0"


def test_no_answer_carries_what_the_photograph_did(client, photo):
    answers = [client.predict(photo, api_name="/predict"), client.predict(photo, api_name="/explain")[1]]
    rows, *files = client.predict([photo], api_name="/batch")
    assert CAMERA not in as_json([answers, rows])
    assert not [path for path in files if CAMERA.encode() in Path(path).read_bytes()]


@pytest.mark.parametrize("name", ["text.jpg", "zero_byte.jpg", "bomb.png", "truncated.jpg"])
def test_a_bad_file_is_one_line_and_the_next_request_is_served(client, photo, tmp_path, name, served_page):
    path = tmp_path / name
    path.write_bytes(BROKEN[name]())
    with pytest.raises(AppError) as caught:
        client.predict(handle_file(str(path)), api_name="/predict")
    assert name in str(caught.value)
    assert "Traceback" not in str(caught.value)
    assert_nothing_is_left(served_page)
    assert client.predict(photo, api_name="/predict")["label"]


def test_a_fault_of_ours_shows_no_trace_and_is_logged(client, photo, monkeypatch, caplog):
    monkeypatch.setattr("lesion_hub.app.service._filled_in", lambda patient: 1 / 0)
    with pytest.raises(AppError) as caught:
        client.predict(photo, api_name="/predict")
    assert str(caught.value) == OUR_FAULT
    assert "ZeroDivisionError" in caplog.text


def test_a_missing_image_is_told(client):
    with pytest.raises(AppError, match="No image was given"):
        client.predict(None, api_name="/predict")


def test_page_events_are_not_for_programs(client):
    names = set(client.view_api(return_format="dict")["named_endpoints"])
    assert names == {"/predict", "/explain", "/batch", "/models"}
    assert client.view_api(return_format="dict")["unnamed_endpoints"] == {}


def test_the_page_fetches_nothing_from_elsewhere(served_page):
    page = httpx.get(served_page.url).text
    config = httpx.get(served_page.url.rstrip("/") + "/config").json()
    loaded = re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="(https?://[^"]+)"', page)
    assert loaded == []
    assert config["analytics_enabled"] is False
    assert config["show_error"] is False
    assert "googleapis" not in httpx.get(served_page.url.rstrip("/") + "/theme.css").text


@pytest.mark.slow
def test_a_full_queue_says_busy(app_registry, tmp_path, monkeypatch):
    running = launch(options_over(app_registry, models=("one",), queue_size=1), block=False)
    try:
        path = tmp_path / "a.jpg"
        path.write_bytes(photograph())
        inside = running.page.service._predict
        monkeypatch.setattr(running.page.service, "_predict", lambda *args: time.sleep(1.5) or inside(*args))
        caller = Client(running.url, verbose=False)
        jobs = [caller.submit(handle_file(str(path)), api_name="/predict") for _ in range(5)]
        refused = [job.exception(timeout=60) for job in jobs]
        assert [error for error in refused if isinstance(error, QueueError) and "full" in str(error)]
        assert None in refused
    finally:
        running.stop()


@pytest.fixture
def handlers(served_page: Running) -> Handlers:
    """Handlers beside the page's own, whose batches are in no queue."""

    async def withdraw(session: str) -> None:
        """Nothing is queued."""

    return Handlers(served_page.page.service, served_page.page.files, withdraw)


VISITOR = SimpleNamespace(session_hash="visitor")


def downloads_of(html: str) -> dict[str, bytes]:
    """The files that the page offers, by name."""
    links = re.findall(r'download="([^"]+)" href="data:[^;]+;base64,([^"]+)"', html)
    return {name: base64.b64decode(content) for name, content in links}


def test_a_cancelled_batch_stops_behind_the_file_at_hand_and_offers_what_is_done(handlers):
    steps = handlers.batch_page([Upload(f"{i}.jpg", photograph()) for i in range(5)], None, VISITOR)
    shown = [next(steps), next(steps)]
    assert "can be downloaded" in asyncio.run(handlers.cancel_batch(VISITOR))
    shown += list(steps)
    progress, table, downloads = shown[-1]
    assert "2 of 5 analysed, then cancelled" in progress
    assert table.count('scope="row"') == 2
    assert "the images that were done" in downloads
    files = downloads_of(downloads)
    assert pd.read_csv(BytesIO(files["lesions.csv"]))["file"].tolist() == ["0.jpg", "1.jpg"]
    assert pd.read_parquet(BytesIO(files["lesions.parquet"]))["file"].tolist() == ["0.jpg", "1.jpg"]
    assert len(zipfile.ZipFile(BytesIO(files["overlays.zip"])).namelist()) == 2
    assert len(list(handlers.batch_page([Upload("a.jpg", photograph())], None, VISITOR))) == 3
    assert handlers.running == {}


def test_cancelling_nothing_says_so_and_is_forgotten(handlers):
    assert "No batch of yours" in asyncio.run(handlers.cancel_batch(VISITOR))
    assert "1 of 1 analysed<" in list(handlers.batch_page([Upload("a.jpg", photograph())], None, VISITOR))[-1][0]


def test_a_batch_that_fails_offers_what_was_done(handlers, monkeypatch):
    steps = handlers.batch_page([Upload(f"{i}.jpg", photograph()) for i in range(3)], None, VISITOR)
    shown = [next(steps), next(steps)]
    monkeypatch.setattr("lesion_hub.app.service._filled_in", lambda patient: 1 / 0)
    message, table, downloads = [*shown, *steps][-1]
    assert OUR_FAULT in message
    assert table.count('scope="row"') == 1
    assert pd.read_csv(BytesIO(downloads_of(downloads)["lesions.csv"]))["file"].tolist() == ["0.jpg"]
