"""What the page costs beside the library: ``python benchmarks/space.py --json``.

One 600x450 JPEG, answered and explained (Grad-CAM of every member, overlay drawn), in two ways that take turns:

    library_ms   ``predict(jpeg, explain="gradcam")`` and ``overlay()`` in this process
    request_ms   the same through the page's ``/explain``: upload, queue, answer, and the overlay fetched as a JPEG;
                 the page is another process (``lesion-hub serve``), asked over HTTP on loopback

Times are medians over the rounds, ``request_p95_ms`` the 95th percentile; ``ratio`` is the median of each round's ratio, so
that a machine that is busy with other things slows both alike. ``steps_ms`` says where the request's time goes, as this
client sees it. On a machine that is too busy for that, ``--clock cpu`` counts processor time instead of the wall's: this
process's for the library, the page's and this client's together for a request.

Without ``--model`` an ensemble of three networks with random weights is made for the occasion.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import torch
from PIL import Image

import lesion_hub
from lesion_hub.config import DataSource, Training
from lesion_hub.data.synthetic import draw_lesion
from lesion_hub.hub import store
from lesion_hub.hub.format import write_model
from lesion_hub.inference.ensemble import create_ensemble
from lesion_hub.models import LesionClassifier

Clock = Callable[[], float]
MEMBERS = ("mobilenetv2_100", "tf_efficientnet_lite0", "tf_efficientnet_lite2")
SIDE = 144
IMAGE_SIZE = (600, 450)
WARM_UP = 5
CARD = "---\nlicense: cc-by-nc-4.0\n---\n\n# Random weights\n"
TRAINING = Training(recipe="random", data=(DataSource(name="none", license="cc-by-nc-4.0"),))


def main() -> None:
    options = parsed()
    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as place:
        name, registry = options.model, options.registry
        if name is None:
            name, registry = "trio", write_trio(Path(place) / "registry")
        with page(name, registry, options.threads) as (url, process):
            clock = time.perf_counter if options.clock == "wall" else cpu_clock(process.pid)
            results = measure(name, registry, url, options.rounds, clock)
    results |= {"model": options.model or "random trio", "threads": options.threads, "rounds": options.rounds}
    results["clock"] = options.clock
    print(json.dumps(results) if options.json else "\n".join(f"{key:16} {value}" for key, value in results.items()))


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="registry name, Hub id or folder; default: a random trio")
    parser.add_argument("--registry", type=Path, help="registry root of --model")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser.parse_args()


def write_trio(registry: Path) -> Path:
    """A registry with an ensemble of three networks that learned nothing."""
    for name in MEMBERS:
        run = registry.parent / name
        write_model(run, LesionClassifier.create(name, "ham7", image_size=SIDE).eval(), training=TRAINING, temperature=1.0)
        publish(run, name, registry)
    run = registry.parent / "trio"
    create_ensemble(run, list(MEMBERS), registry=registry)
    publish(run, "trio", registry)
    return registry


def publish(run: Path, name: str, registry: Path) -> None:
    (run / "README.md").write_text(CARD)
    for paper in ("metrics.json", "split.json"):
        (run / paper).write_text("{}")
    store.publish(run, name, version="1.0.0", notes="Random weights.", registry=registry)


@contextmanager
def page(name: str, registry: Path | None, threads: int) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The page's address and process, which has as many threads as this one."""
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
    """The address that the process says it serves on."""
    assert process.stdout is not None
    said: list[str] = []
    for line in process.stdout:
        said.append(line)
        if found := re.search(r"http://[\d.]+:\d+", line):
            return found[0]
    raise SystemExit("the page did not start:\n" + "".join(said[-20:]))


def cpu_clock(pid: int) -> Clock:
    """Seconds that this process and process ``pid`` have computed, to the nanosecond (Linux)."""
    theirs = (~pid << 3) | 2
    return lambda: time.process_time() + time.clock_gettime(theirs)


class Visitor:
    """A program that asks the page, and notes when each step was done."""

    def __init__(self, url: str, clock: Clock) -> None:
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


def measure(name: str, registry: Path | None, url: str, rounds: int, clock: Clock) -> dict[str, Any]:
    model, visitor, jpeg = lesion_hub.from_pretrained(name, registry=registry), Visitor(url, clock), draw_jpeg()
    for _ in range(WARM_UP):
        model.predict(jpeg, explain="gradcam").overlay()
        visitor.explain(jpeg)
    visitor.steps = {step: [] for step in visitor.steps}
    times: dict[str, list[float]] = {"library": [], "request": []}
    for turn in range(rounds):
        for who in ("library", "request") if turn % 2 else ("request", "library"):
            start = clock()
            if who == "library":
                model.predict(jpeg, explain="gradcam").overlay()
            else:
                visitor.explain(jpeg)
            times[who].append(clock() - start)
    ratios = [request / library for request, library in zip(times["request"], times["library"], strict=True)]
    return {
        "library_ms": milliseconds(times["library"]),
        "request_ms": milliseconds(times["request"]),
        "ratio": round(statistics.median(ratios), 3),
        "request_p95_ms": round(1e3 * statistics.quantiles(times["request"], n=20)[-1], 1),
        "steps_ms": {step: milliseconds(values) for step, values in visitor.steps.items()},
    }


def milliseconds(values: Sequence[float]) -> float:
    return round(1e3 * statistics.median(values), 1)


def draw_jpeg() -> bytes:
    stream = io.BytesIO()
    Image.fromarray(draw_lesion("mel", seed=0, size=IMAGE_SIZE).image).save(stream, "JPEG", quality=92)
    return stream.getvalue()


if __name__ == "__main__":
    main()
