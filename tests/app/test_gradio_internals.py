"""What a visitor was shown is not kept, whatever Gradio's own habit is."""

from __future__ import annotations

import json
from typing import Any

import pytest

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
