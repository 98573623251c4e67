"""The served page as programs meet it, over loopback."""

from __future__ import annotations

import os
import re
import time
import zipfile
from pathlib import Path

import httpx
import pandas as pd
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from gradio_client.utils import QueueError
from PIL import Image

from lesion_hub.app import Running, launch
from lesion_hub.app.words import NOTICE, OUR_FAULT
from tests.app.models import CAMERA, as_json, metadata_in, options_over, photograph
from tests.data.bad_files import BROKEN


@pytest.fixture(scope="module")
def client(served_page: Running, tmp_path_factory: pytest.TempPathFactory) -> Client:
    return Client(served_page.url, verbose=False, download_files=str(tmp_path_factory.mktemp("downloads")))


@pytest.fixture
def photo(tmp_path: Path):
    path = tmp_path / "phone.jpg"
    path.write_bytes(photograph())
    return handle_file(str(path))


def files_left() -> list[Path]:
    """What lies in the folder that Gradio would keep files in."""
    return [path for path in Path(os.environ["GRADIO_TEMP_DIR"]).rglob("*") if path.is_file()]


def assert_nothing_is_left(page: Running) -> None:
    assert files_left() == []
    assert len(page.page.vault) == 0


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
    monkeypatch.setattr("lesion_hub.app.service._known", lambda patient: 1 / 0)
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


# ------------------------------------------------------------------------------------------------ the door for files


def at(page: Running, path: str) -> str:
    return f"{page.url.rstrip('/')}/gradio_api/{path}"


@pytest.mark.parametrize(
    "path",
    ["/etc/passwd", "setup.cfg", "./README.md", "../../etc/passwd", "%2e%2e/%2e%2e/etc/passwd", "C:/Windows/win.ini", ""],
)
@pytest.mark.parametrize("route", ["file=", "file/"])
def test_no_file_of_this_machine_is_served(served_page, route, path):
    assert httpx.get(at(served_page, route + path)).status_code in (403, 404)


def test_not_even_a_file_beside_the_vault(served_page, app_registry):
    beside = Path(os.environ["GRADIO_TEMP_DIR"]) / "beside.txt"
    beside.write_text("secret")
    try:
        for path in (beside, f"{served_page.page.vault.root}/../beside.txt", app_registry / "one" / "v1.0.0" / "config.json"):
            assert httpx.get(at(served_page, f"file={path}")).status_code == 403
    finally:
        beside.unlink()


def test_addresses_elsewhere_are_not_fetched(served_page):
    for route in ("file=http://127.0.0.1:1/x", "proxy=http://127.0.0.1:1/x"):
        assert httpx.get(at(served_page, route)).status_code in (403, 404)


def test_a_path_that_was_not_uploaded_is_no_image(served_page):
    for path in ("/etc/passwd", str(Path(os.environ["GRADIO_TEMP_DIR"]) / "vault" / "x" / "y.jpg")):
        data = [{"path": path, "meta": {"_type": "gradio.FileData"}}, "trio", None, "", ""]
        event = httpx.post(at(served_page, "call/predict"), json={"data": data}).json()["event_id"]
        answer = httpx.get(at(served_page, f"call/predict/{event}"), timeout=30).text
        assert "event: error" in answer
        assert "root:" not in answer
        assert "Traceback" not in answer


def test_an_upload_waits_in_memory_alone_and_is_gone_once_taken(served_page):
    paths = httpx.post(at(served_page, "upload"), files={"files": ("../../x<y>.jpg", photograph())}).json()
    assert files_left() == []
    assert paths[0].endswith("/x_y_.jpg")
    first, second = (httpx.get(at(served_page, f"file={paths[0]}")) for _ in range(2))
    assert first.content == photograph()
    assert first.headers["content-disposition"].startswith("attachment")
    assert second.status_code == 403


def test_too_much_is_refused_at_the_door(served_page):
    large = httpx.post(at(served_page, "upload"), files={"files": ("big.jpg", b"x" * 500_001)})
    assert (large.status_code, "0.5 MB" in large.text) == (413, True)
    many = httpx.post(at(served_page, "upload"), files=[("files", (f"{i}.jpg", b"x")) for i in range(31)])
    assert many.status_code == 400
    call = httpx.post(at(served_page, "queue/join"), content=b"[" + b"1," * 1_500_000 + b"1]")
    assert call.status_code in (400, 413)
    assert len(served_page.page.vault) == 0


def test_the_page_fetches_nothing_from_elsewhere(served_page):
    page = httpx.get(served_page.url).text
    config = httpx.get(served_page.url.rstrip("/") + "/config").json()
    loaded = re.findall(r'<(?:script|link|img)[^>]+(?:src|href)="(https?://[^"]+)"', page)
    assert loaded == []
    assert config["analytics_enabled"] is False
    assert config["show_error"] is False
    assert "googleapis" not in httpx.get(served_page.url.rstrip("/") + "/theme.css").text


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
