"""Time a request to the page beside the same call of the library: ``python benchmarks/space.py --json``.

One 600x450 JPEG, answered and explained (Grad-CAM of every member, overlay drawn), in two ways that take turns:

    library_ms   ``predict(jpeg, explain="gradcam")`` and ``overlay()`` in this process
    request_ms   the same through the page's ``/explain``: upload, queue, answer, and the overlay fetched as a JPEG;
                 the page is another process (``lesion-hub serve``), asked over HTTP on loopback

Times are medians over the rounds, ``request_p95_ms`` the 95th percentile; ``ratio`` is the median of each round's ratio, so
that a machine that is busy with other things slows both alike. ``steps_ms`` splits the request's time by step, as this
client sees it. On a machine that is too busy for that, ``--clock cpu`` counts processor time instead of wall-clock time: this
process's for the library, the page's and this client's together for a request.

Without ``--model`` an ensemble of three networks with random weights is made first.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import torch
from common import add_timing_options, draw_jpeg, median_ratio, milliseconds, take_turns

import lesion_hub
from lesion_hub.config import DataSource, Training
from lesion_hub.hub import store
from lesion_hub.hub.format import write_model
from lesion_hub.inference.ensemble import create_ensemble
from lesion_hub.models import LesionClassifier

ARCHITECTURES = ("mobilenetv2_100", "tf_efficientnet_lite0", "tf_efficientnet_lite2")
NETWORK_SIDE = 144
WARM_UP_ROUNDS = 5
CARD = "---\nlicense: cc-by-nc-4.0\n---\n\n# Random weights\n"
TRAINING = Training(recipe="random", data=(DataSource(name="none", license="cc-by-nc-4.0"),))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="registry name, Hub id or folder; default: a random trio")
    parser.add_argument("--registry", type=Path, help="registry root of --model")
    add_timing_options(parser, threads=1, rounds=60)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as place:
        name, registry = options.model, options.registry
        if name is None:
            name, registry = "trio", write_trio(Path(place) / "registry")
        with page(name, registry, options.threads) as (url, process):
            clock = time.perf_counter if options.clock == "wall" else cpu_clock(process.pid)
            results = time_page(lesion_hub.from_pretrained(name, registry=registry), url, options.rounds, clock)
    results |= {"model": options.model or "random trio", "threads": options.threads, "rounds": options.rounds}
    results["clock"] = options.clock
    print(json.dumps(results) if options.json else "\n".join(f"{key:16} {value}" for key, value in results.items()))


def time_page(model: lesion_hub.Predictor, url: str, rounds: int, clock: Callable[[], float]) -> dict[str, Any]:
    client, jpeg = PageClient(url, clock), draw_jpeg()
    contenders: dict[str, Callable[[], Any]] = {
        "request": lambda: client.explain(jpeg),
        "library": lambda: model.predict(jpeg, explain="gradcam").overlay(),
    }
    take_turns(contenders, WARM_UP_ROUNDS, clock)
    client.steps = {step: [] for step in client.steps}
    times = take_turns(contenders, rounds, clock)
    return {
        "library_ms": milliseconds(times["library"]),
        "request_ms": milliseconds(times["request"]),
        "ratio": median_ratio(times["request"], times["library"]),
        "request_p95_ms": round(1e3 * statistics.quantiles(times["request"], n=20)[-1], 1),
        "steps_ms": {step: milliseconds(values) for step, values in client.steps.items()},
    }


def write_trio(registry: Path) -> Path:
    """Write a registry with an ensemble of three networks of random weights."""
    for name in ARCHITECTURES:
        run = registry.parent / name
        network = LesionClassifier.create(name, "ham7", image_size=NETWORK_SIDE).eval()
        write_model(run, network, training=TRAINING, temperature=1.0)
        publish(run, name, registry)
    run = registry.parent / "trio"
    create_ensemble(run, list(ARCHITECTURES), registry=registry)
    publish(run, "trio", registry)
    return registry


def publish(run: Path, name: str, registry: Path) -> None:
    (run / "README.md").write_text(CARD)
    for file in ("metrics.json", "split.json"):
        (run / file).write_text("{}")
    store.publish(run, name, version="1.0.0", notes="Random weights.", registry=registry)


@contextmanager
def page(name: str, registry: Path | None, threads: int) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Serve the page in a process with as many threads as this one; yield its address and the process."""
    command = [str(Path(sys.executable).with_name("lesion-hub")), "serve", "--model", name]
    command += ["--registry", str(registry)] if registry else []
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        yield address(process), process
    finally:
        process.terminate()
        process.wait(30)


def address(process: subprocess.Popen[str]) -> str:
    """Return the address that the process says it serves on."""
    assert process.stdout is not None
    lines: list[str] = []
    for line in process.stdout:
        lines.append(line)
        if found := re.search(r"http://[\d.]+:\d+", line):
            return found[0]
    raise SystemExit("the page did not start:\n" + "".join(lines[-20:]))


def cpu_clock(pid: int) -> Callable[[], float]:
    """Return a clock of the seconds that this process and process ``pid`` have computed, to the nanosecond (Linux)."""
    theirs = (~pid << 3) | 2
    return lambda: time.process_time() + time.clock_gettime(theirs)


class PageClient:
    """A client of the page that records how long each step of a request took."""

    def __init__(self, url: str, clock: Callable[[], float]) -> None:
        self.clock = clock
        self.http = httpx.Client(base_url=f"{url}/gradio_api", timeout=60, trust_env=False)
        self.steps: dict[str, list[float]] = {"upload": [], "join": [], "answer": [], "fetch": []}

    def explain(self, jpeg: bytes) -> bytes:
        start = self.clock()
        path = self.http.post("/upload", files={"files": ("lesion.jpg", jpeg)}).raise_for_status().json()[0]
        start = self._note("upload", start)
        image = {"path": path, "orig_name": "lesion.jpg", "meta": {"_type": "gradio.FileData"}}
        event = self.http.post("/call/explain", json={"data": [image, "gradcam", "", "", None]}).raise_for_status().json()
        start = self._note("join", start)
        overlay, _ = self._answer(event["event_id"])
        start = self._note("answer", start)
        content = self.http.get(f"/file={overlay['path']}").raise_for_status().content
        self._note("fetch", start)
        return content

    def _answer(self, event: str) -> list[Any]:
        with self.http.stream("GET", f"/call/explain/{event}") as stream:
            kind = ""
            for line in stream.iter_lines():
                name, _, value = line.partition(": ")
                kind = value if name == "event" else kind
                if name == "data" and kind == "complete":
                    return list(json.loads(value))
                if name == "data" and kind == "error":
                    raise SystemExit(f"the page refused: {value}")
        raise SystemExit("the page hung up")

    def _note(self, step: str, start: float) -> float:
        now = self.clock()
        self.steps[step].append(now - start)
        return now


if __name__ == "__main__":
    main()
