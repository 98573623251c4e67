"""Strangers who send too much, too slowly, or nonsense: they are refused in one line, and memory and log stay small."""

from __future__ import annotations

import gc
import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from lesion_hub.app import AppOptions, Running, launch
from lesion_hub.app.gradio_internals import IdleSessions
from lesion_hub.errors import ConfigError
from tests.app.calls import API, Calls
from tests.app.models import options_over, photograph
from tests.app.server import PageServer

MB = 1_000_000
BOUNDARY = "limit"
PART = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="files"; filename="a.jpg"\r\n\r\n'.encode()
IDLE_SECONDS = 1.0


class HalfOpen:
    """An upload that declares ``declared`` bytes, and sends what it is told to."""

    def __init__(self, url: str, declared: int = 200 * MB) -> None:
        place = urlsplit(url)
        self.socket = socket.create_connection((place.hostname, place.port), timeout=20)
        head = (
            f"POST {API}/upload HTTP/1.1\r\nHost: {place.netloc}\r\n"
            f"Content-Type: multipart/form-data; boundary={BOUNDARY}\r\nContent-Length: {declared}\r\n\r\n"
        )
        self.socket.sendall(head.encode())

    def send(self, content: bytes) -> None:
        try:
            self.socket.sendall(content)
        except OSError:
            """Closed by the page, which ``answer`` shows."""

    def send_file(self, megabytes: int) -> None:
        self.send(PART)
        for _ in range(megabytes):
            self.send(bytes(MB))
        self.send(b"\r\n")

    def answer(self, seconds: float = 5.0) -> tuple[int, str]:
        """(status, head and text) of what the page says meanwhile; status 0 where it says nothing."""
        self.socket.settimeout(seconds)
        try:
            told = self.socket.recv(65536).decode()
        except OSError:
            return 0, ""
        return int(told.split()[1]) if told else 0, told

    def is_closed(self, seconds: float) -> bool:
        """Whether the page closes the connection in that time."""
        self.socket.settimeout(seconds)
        try:
            while self.socket.recv(65536):
                pass
        except TimeoutError:
            return False
        except OSError:
            return True
        return True

    def close(self) -> None:
        self.socket.close()


# ------------------------------------------------------------------------------------------------ a process and its memory

BUDGET = 60 * MB
SLACK = 150 * MB  # of the allocator, of the buffers of twenty connections, and of what the first requests load


@pytest.fixture(scope="module")
def server(app_registry: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PageServer]:
    limits = ["--max-mb", "10", "--max-batch-mb", "50", "--memory-mb", "60"]
    folder = tmp_path_factory.mktemp("hostile")
    page = PageServer.of_model(
        "one", app_registry, log=folder / "page.log", options=limits, GRADIO_TEMP_DIR=str(folder / "gradio")
    )
    yield page
    page.stop()


@pytest.fixture
def measured(server: PageServer) -> Iterator[PageServer]:
    """The process, with figures of its memory printed and its peak held against the stated budget."""
    idle = server.resident_bytes()
    server.forget_peak()
    yield server
    peak, after = server.peak_bytes(), server.resident_bytes()
    print(f"memory: {idle / MB:.0f} MB idle, {peak / MB:.0f} MB at most, {after / MB:.0f} MB after")
    assert peak < idle + BUDGET + SLACK
    assert after < idle + BUDGET + SLACK


@pytest.mark.slow
def test_a_flood_of_large_files_is_refused_while_it_arrives(measured):
    uploads = [HalfOpen(measured.url) for _ in range(20)]
    with ThreadPoolExecutor(20) as pool:
        list(pool.map(lambda upload: upload.send_file(40), uploads))
    answers = [upload.answer() for upload in uploads]
    assert {status for status, _ in answers} <= {413, 503}
    assert any("A file is over the limit of 10 MB" in told for _, told in answers)
    for upload in uploads:
        upload.close()


@pytest.mark.slow
def test_all_that_arrives_stays_within_the_budget_and_the_next_one_is_told_when_to_come_back(measured):
    uploads = [HalfOpen(measured.url) for _ in range(20)]
    with ThreadPoolExecutor(20) as pool:
        list(pool.map(lambda upload: [upload.send_file(9) for _ in range(4)], uploads))
    refused = [told for status, told in (upload.answer(0.2) for upload in uploads) if status == 503]
    assert len(refused) >= 15
    assert all("retry-after: 10" in told for told in refused)
    for upload in uploads:
        upload.close()
    time.sleep(0.5)
    with Calls(measured.url) as calls:
        assert calls.predict(photograph())["label"]


@pytest.mark.slow
def test_a_flood_of_long_session_hashes_leaves_memory_as_it_is(measured):
    with httpx.Client(base_url=measured.url, timeout=20, trust_env=False) as client:
        for size, times, refused in ((1_900_000, 100, 413), (37, 400, 400)):
            for number in range(times):
                body = {"data": [], "fn_index": 0, "session_hash": f"{number:0{size}d}"}
                try:
                    assert client.post(f"{API}/queue/join", json=body).status_code == refused
                except httpx.TransportError:  # closed before the whole of it was sent
                    assert refused == 413
        for number in range(400):
            client.post(f"{API}/run/batch_cancel", json={"data": [], "session_hash": f"visitor-{number}"}).raise_for_status()


@pytest.mark.slow
def test_a_page_that_is_terminated_leaves_nothing_on_the_disk(server):
    """The last one with this process, which it ends."""
    folder = server.log.parent / "gradio"
    assert list(folder.iterdir())
    server.process.terminate()
    assert server.process.wait(20) == 0
    assert list(folder.iterdir()) == []
    assert "Traceback" not in server.log.read_text()


# ------------------------------------------------------------------------------------------------ a page with short patience


@pytest.fixture(scope="module")
def impatient(app_registry: Path) -> Iterator[Running]:
    """A page that gives up what does not arrive after a second, and holds files for two."""
    limits = {"max_bytes": 500_000, "max_batch_bytes": MB, "memory_bytes": MB}
    options = options_over(app_registry, models=("one",), idle_seconds=IDLE_SECONDS, keep_seconds=2.0, **limits)
    running = launch(options, block=False)
    yield running
    running.stop()


def test_a_file_is_refused_before_the_rest_of_it_is_sent(impatient):
    upload = HalfOpen(impatient.url)
    upload.send(PART + bytes(600_000))
    assert upload.answer()[0] == 413
    assert upload.is_closed(3 * IDLE_SECONDS)


@pytest.mark.parametrize("trickle", [False, True], ids=["nothing", "a few bytes"])
def test_an_upload_that_does_not_arrive_is_given_up(impatient, trickle):
    uploads = [HalfOpen(impatient.url) for _ in range(20)]
    for upload in uploads:
        upload.send(PART + bytes(1000))
    start = time.monotonic()
    while trickle and time.monotonic() - start < 2 * IDLE_SECONDS:
        for upload in uploads:
            upload.send(b"x")
        time.sleep(0.1)
    assert {upload.answer()[0] for upload in uploads} <= {408, 0}
    assert all(upload.is_closed(2 * IDLE_SECONDS) for upload in uploads)
    assert impatient.page.files._arriving_bytes == 0


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nHost: a\r\nX: "], ids=["nothing", "half a head"])
def test_a_connection_without_a_request_is_closed(impatient, sent):
    place = urlsplit(impatient.url)
    with socket.create_connection((place.hostname, place.port), timeout=IDLE_SECONDS + 4) as silent:
        silent.sendall(sent)
        try:
            assert silent.recv(1000) == b""
        except ConnectionResetError:
            """Closed, too."""


def test_a_body_that_does_not_arrive_is_given_up_in_a_call_too(impatient):
    place = urlsplit(impatient.url)
    with socket.create_connection((place.hostname, place.port), timeout=4 * IDLE_SECONDS) as stalled:
        stalled.sendall(f"POST {API}/queue/join HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n{{".encode())
        assert stalled.recv(1000).startswith(b"HTTP/1.1 408")


def test_files_of_a_waiting_call_stay_whoever_else_sends_some(impatient, monkeypatch):
    service, go_on = impatient.page.service, threading.Event()
    inside = service._predict
    monkeypatch.setattr(service, "_predict", lambda *args: go_on.wait(20) and inside(*args))
    with Calls(impatient.url) as visitor, Calls(impatient.url) as stranger:
        first, second = (visitor.start("predict", visitor.upload(photograph()), None, None, "", "") for _ in range(2))
        for _ in range(5):
            stranger.http.post(f"{API}/upload", files={"files": ("a.jpg", bytes(450_000))}).raise_for_status()
        time.sleep(2.1)  # longer than a file that nobody waits for is kept
        stranger.upload(b"1")
        go_on.set()
        assert [visitor.result("predict", event)[0]["label"] for event in (first, second)]


def test_files_of_waiting_calls_count_and_nothing_is_received_beyond_the_budget(impatient, monkeypatch):
    service, go_on = impatient.page.service, threading.Event()
    inside = service._predict
    monkeypatch.setattr(service, "_predict", lambda *args: go_on.wait(20) and inside(*args))
    with Calls(impatient.url) as calls:
        for content in (photograph(), bytes(480_000), bytes(480_000)):
            calls.start("predict", calls.upload(content), None, None, "", "")
        refused = calls.http.post(f"{API}/upload", files={"files": ("a.jpg", bytes(400_000))})
        go_on.set()
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "10")
        time.sleep(0.5)
        calls.upload(bytes(400_000))


def tables_with(prefix: str) -> list[str]:
    """What is left in any table of this process of the sessions whose hash starts so."""
    kept = []
    for table in gc.get_objects():
        if issubclass(type(table), (dict, set)):
            kept += [key for key in list(table) if isinstance(key, str) and key.startswith(prefix)]
    return kept


def join(calls: Calls, page: Running, session: str, event: str = "models") -> None:
    """Queue a call as the page itself does, and fetch no result."""
    number = next(one["id"] for one in page.page.config["dependencies"] if one["api_name"] == event)
    body = {"data": [], "fn_index": number, "session_hash": session}
    while (answer := calls.http.post(f"{API}/queue/join", json=body)).status_code == 503:
        time.sleep(0.02)
    answer.raise_for_status()


def test_sessions_that_fetch_no_result_are_forgotten(impatient):
    with Calls(impatient.url) as calls:
        for number in range(40):
            join(calls, impatient, f"forgotten-{number}")
            join(calls, impatient, f"forgotten-{number}", "batch_cancel")
    assert tables_with("forgotten-")
    time.sleep(4.5)
    impatient.page.app.state_holder.session_data.clear()  # bounded by its capacity, which has a test of its own
    impatient.page.app.state_holder.time_last_used.clear()
    assert tables_with("forgotten-") == []


def test_of_idle_sessions_the_newest_stay_and_busy_ones_always(served_page):
    queue = served_page.page._queue
    idle = IdleSessions(served_page.page.app, keep_seconds=60, capacity=2)
    with Calls(served_page.url) as calls:
        for number in range(4):
            join(calls, served_page, f"idle-{number}")
            while queue.event_ids_to_events:
                time.sleep(0.01)
            idle.forget(100.0 + number)
    assert [name for name in queue.pending_messages_per_session if name.startswith("idle-")] == ["idle-2", "idle-3"]
    idle.forget(162.5)
    assert [name for name in queue.pending_event_ids_session if name.startswith("idle-")] == ["idle-3"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff",
        b'{"data": [NaN], "fn_index": 0, "session_hash": "a"}',
        b'{"data": [-Infinity], "fn_index": 0, "session_hash": "a"}',
        b'{"data": ["\\ud800"], "fn_index": 0, "session_hash": "a"}',
        b'{"data": ' + b"[" * 5000 + b"]" * 5000 + b"}",
        b'{"data": [], "fn_index": 999, "session_hash": "a"}',
        b'{"data": [], "fn_index": -1, "session_hash": "a"}',
        b'{"data": [], "fn_index": 0, "session_hash": "%s"}' % (b"x" * 37),
        b'{"data": [], "fn_index": 0, "session_hash": "a\\nb"}',
        b'{"data": [], "fn_index": 0, "session_hash": ["a"]}',
    ],
)
def test_a_call_that_is_none_is_refused_in_one_line(served_page, body, capfd, caplog):
    answer = httpx.post(f"{served_page.url}gradio_api/queue/join", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert 0 < len(answer.text.strip().splitlines()) == 1
    assert "Traceback" not in capfd.readouterr().err + caplog.text


@pytest.mark.parametrize("headers", [{}, {"content-type": "text/plain"}, {"content-type": "multipart/form-data"}])
def test_an_upload_that_is_no_form_is_refused_in_one_line(served_page, headers):
    answer = httpx.post(f"{served_page.url}gradio_api/upload", content=b"x", headers=headers)
    assert (answer.status_code, len(answer.text.splitlines())) == (400, 1)


def test_an_endpoint_that_is_not_there_is_refused(served_page):
    for path in ("call/nothing", "call/v2/nothing", "run/nothing"):
        assert httpx.post(f"{served_page.url}gradio_api/{path}", json={"data": []}).status_code == 400


WRONG = [None, 5, "x", [], {}, [[1]], {"path": 5}, True, -1.5, 10**30]


def test_values_of_wrong_types_are_log_lines_and_no_traces(served_page, capfd, caplog):
    with Calls(served_page.url) as calls:
        for endpoint in ("predict", "explain", "batch"):
            for value in WRONG:
                with pytest.raises(RuntimeError) as caught:
                    calls.result(endpoint, calls.start(endpoint, *[value] * 5))
                assert len(json.dumps(str(caught.value))) < 400
    assert "Traceback" not in capfd.readouterr().err + caplog.text
    assert "a call of predict was refused: ValidationError" in caplog.text


def test_limits_that_contradict_each_other_are_one_line():
    for options in ({"max_bytes": 300 * MB}, {"memory_bytes": 100 * MB}):
        with pytest.raises(ConfigError, match="is more than") as caught:
            AppOptions.of(**options)
        assert "\n" not in str(caught.value)
