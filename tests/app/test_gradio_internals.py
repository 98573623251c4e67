"""What a visitor was shown is not kept, and the queue rests while nobody calls, whatever Gradio's own habit is."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from gradio import block_function, http_server
from gradio.queueing import Queue

from lesion_hub.app.page import Page
from tests.app.calls import Calls
from tests.app.models import photograph


def event_of(page: Any, name: str) -> int:
    return next(event["id"] for event in page.config["dependencies"] if event["api_name"] == name)


def as_a_browser(url: str, event: int, session: str, *values: Any) -> list[Any]:
    """The answer to an event of the page itself."""
    with Calls(url) as calls:
        image = calls.upload(photograph())
        body = {"data": [image, *values], "fn_index": event, "session_hash": session}
        calls.http.post("/gradio_api/queue/join", json=body).raise_for_status()
        with calls.http.stream("GET", "/gradio_api/queue/data", params={"session_hash": session}) as stream:
            for line in stream.iter_lines():
                message = json.loads(line.removeprefix("data: ")) if line else {}
                if message.get("msg") == "process_completed":
                    return message["output"]["data"]
    raise AssertionError("no answer")


def everything_in(session: Any) -> str:
    return repr(
        (session.config_values, session.state_data, {k: vars(b).get("value") for k, b in session.blocks_config.blocks.items()})
    )


@pytest.mark.parametrize("visits", [1, 3])
def test_the_picture_that_was_shown_is_not_kept(served_page, visits):
    event = event_of(served_page.page, "analyse")
    for _ in range(visits):
        shown = as_a_browser(served_page.url, event, "visitor", "trio", None, "", "", "gradcam", "")
    picture = next(part for part in shown if "data:image/webp" in part)
    kept = everything_in(served_page.page.app.state_holder["visitor"])
    assert picture[:200] not in kept
    assert "data:image/webp" not in kept


def test_many_visitors_make_room_for_each_other(served_page):
    sessions = served_page.page.app.state_holder
    for number in range(sessions.capacity + 50):
        _ = sessions[f"visitor-{number}"]
    assert len(sessions.session_data) <= sessions.capacity


def test_a_page_that_nobody_asks_does_not_look_for_calls(served_page, monkeypatch):
    looked = []
    get_events, length = Queue.get_events, Queue.__len__
    monkeypatch.setattr(Queue, "get_events", lambda queue: looked.append("for a call") or get_events(queue))
    monkeypatch.setattr(Queue, "__len__", lambda queue: looked.append("whether there is one") or length(queue))
    time.sleep(0.3)
    assert len(looked) <= 2


def test_each_of_several_calls_starts_when_the_one_before_it_ends(served_page):
    def ask(number: int) -> str:
        with Calls(served_page.url) as calls:
            return calls.predict(photograph(number))["label"]

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(ask, range(4)))
    assert served_page.page._queue.active_jobs.count(None) == len(served_page.page._queue.active_jobs)


def test_no_summary_of_calls_is_made(served_page):
    with Calls(served_page.url) as calls:
        calls.predict(photograph())
    assert served_page.page._queue.cached_event_analytics_summary == {"functions": {}}


def test_a_space_gets_the_same_page_as_anybody(served_page, monkeypatch):
    """There Gradio would listen for edits of the code, and its page would ask other hosts for fonts and for the author."""
    monkeypatch.setenv("SYSTEM", "spaces")
    monkeypatch.setenv("SPACE_ID", "org/skin")
    monkeypatch.setattr(block_function, "spaces", None)  # in a checkout the folder of that name, which is no package
    listening = []
    monkeypatch.setattr(http_server, "watchfn_spaces", lambda reloader: listening.append(reloader))
    page = Page(served_page.page.service, served_page.page.files)
    page.launch(server_name="127.0.0.1", prevent_thread_lock=True)
    try:
        assert page.config["space_id"] is None
        assert listening == []
    finally:
        page.close(verbose=False)
