"""The page's endpoints over plain HTTP, as any program may call them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx

API = "/gradio_api"


class Calls:
    """One client with a connection of its own."""

    def __init__(self, url: str, timeout: float = 60.0) -> None:
        self.http = httpx.Client(base_url=url, timeout=timeout, trust_env=False)

    def upload(self, content: bytes, name: str = "lesion.jpg") -> dict[str, Any]:
        """Send a file; what a call takes for it."""
        answer = self.http.post(f"{API}/upload", files={"files": (name, content)})
        answer.raise_for_status()
        return {"path": answer.json()[0], "orig_name": name, "meta": {"_type": "gradio.FileData"}}

    def start(self, endpoint: str, *values: Any) -> str:
        """Queue a call; its event id."""
        answer = self.http.post(f"{API}/call/{endpoint}", json={"data": values})
        answer.raise_for_status()
        return answer.json()["event_id"]

    def result(self, endpoint: str, event: str) -> list[Any]:
        """The values of a queued call; a refusal is a RuntimeError with its message."""
        with self.http.stream("GET", f"{API}/call/{endpoint}/{event}") as stream:
            for kind, data in _events(stream.iter_lines()):
                if kind == "complete":
                    return data
                if kind == "error":
                    raise RuntimeError(data)
        raise RuntimeError("the stream ended without an answer")

    def predict(self, content: bytes) -> dict[str, Any]:
        return self.result("predict", self.start("predict", self.upload(content), None, None, "", ""))[0]

    def explain(self, content: bytes) -> tuple[bytes, dict[str, Any]]:
        """(overlay as a JPEG, prediction)."""
        overlay, prediction = self.result("explain", self.start("explain", self.upload(content), "gradcam", "", "", None))
        return self.http.get(f"{API}/file={overlay['path']}").raise_for_status().content, prediction

    def close(self) -> None:
        self.http.close()

    def __enter__(self) -> Calls:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _events(lines: Iterator[str]) -> Iterator[tuple[str, Any]]:
    """(event, data) of a stream of server-sent events."""
    kind = ""
    for line in lines:
        name, _, value = line.partition(": ")
        if name == "event":
            kind = value
        elif name == "data":
            yield kind, json.loads(value)
