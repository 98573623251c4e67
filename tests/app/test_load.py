"""Twenty people at once: everybody gets the answer to their own picture, and the page's memory stays as it is."""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

import lesion_hub
from tests.app.calls import Calls
from tests.app.models import photograph
from tests.app.server import PageServer

pytestmark = pytest.mark.slow

CLIENTS, REQUESTS = 20, 200
MODEL = "trio"


@pytest.fixture(scope="module")
def server(app_registry, tmp_path_factory) -> Iterator[PageServer]:
    page = PageServer.of_model(MODEL, app_registry, log=tmp_path_factory.mktemp("load") / "page.log")
    yield page
    page.stop()


@pytest.fixture(scope="module")
def pictures(app_registry):
    """[(JPEG, the library's probabilities)]: one for each client, all different."""
    contents = [photograph(seed) for seed in range(CLIENTS)]
    model = lesion_hub.from_pretrained(MODEL, registry=app_registry)
    return list(zip(contents, [answer.probabilities for answer in model.predict(contents)], strict=True))


def ask(server, pictures, client, times):
    """[(seconds, answer is the library's)] of one client, request after request."""
    content, expected = pictures[client]
    told = []
    with Calls(server.url) as calls:
        for _ in range(times):
            start = time.perf_counter()
            answer = calls.predict(content)["probabilities"]
            told.append((time.perf_counter() - start, answer == pytest.approx(expected, abs=1e-5)))
    return told


def all_at_once(server, pictures, requests):
    with ThreadPoolExecutor(CLIENTS) as pool:
        jobs = [pool.submit(ask, server, pictures, client, requests // CLIENTS) for client in range(CLIENTS)]
        return [row for job in jobs for row in job.result()]


@pytest.mark.slow
def test_everybody_gets_their_own_answer_and_memory_stays_flat(server, pictures, record_property):
    all_at_once(server, pictures, 3 * CLIENTS)
    before = server.resident_bytes()
    told = all_at_once(server, pictures, REQUESTS)
    growth = server.resident_bytes() / before - 1
    seconds = [row[0] for row in told]
    p95 = statistics.quantiles(seconds, n=20)[-1]
    record_property("p95_seconds", round(p95, 3))
    print(f"{REQUESTS} requests: median {statistics.median(seconds):.2f} s, p95 {p95:.2f} s, memory {growth:+.1%}")
    assert len(told) == REQUESTS
    assert all(right for _, right in told)
    assert abs(growth) < 0.1


def test_a_client_that_hangs_up_harms_nobody(server, pictures):
    def hang_up(step):
        calls = Calls(server.url)
        image = calls.upload(pictures[0][0])
        event = calls.start("explain", image, "occlusion", "", "", MODEL)
        if step == "waiting":
            with calls.http.stream("GET", f"/gradio_api/call/explain/{event}"):
                pass
        calls.close()

    with ThreadPoolExecutor(4) as pool:
        others = [pool.submit(ask, server, pictures, client, 3) for client in (1, 2)]
        for step in ("queued", "waiting"):
            pool.submit(hang_up, step)
        told = [row for job in others for row in job.result()]
    assert all(right for _, right in told)
    assert httpx.get(f"{server.url}/config", trust_env=False).status_code == 200
    assert ask(server, pictures, 3, 1)[0][1]
