"""Time a prediction beside bare forward passes and transformers pipelines: ``python benchmarks/inference.py --json``.

Three members (MobileNetV2, EfficientNet-B1, ResNet50, random weights), one 600x450 JPEG, two CPU threads:

    floor_ms              the three bare forward passes on prepared tensors, in the faster memory layout
    predict_ms            our predict: decoding, preprocessing, three forward passes, results
    explain_ms            our predict with the averaged Grad-CAM at the image's resolution
    pipelines_ms          three transformers pipelines
    pipelines_gradcam_ms  the same, plus pytorch-grad-cam on each

in bulk, as images per second through all three members: ``floor_bulk_img_s`` (bare forwards of batches of 32),
``bulk_img_s`` (our scoring into Parquet) and ``pipeline_bulk_img_s`` (the pipelines at their best batch size);
``explain_batch_ratio`` (32 images with Grad-CAM, over the same without); ``busy_ratio`` (our predict beside two busy processes,
over alone);
``gate_ratio`` (the packaged ensemble's predict with its input gates, over the same without); and
``cold_start``: what it takes a fresh process to load the packaged ensemble and answer once, with either engine, in seconds and
in MB of memory. ``engine`` names what ran our networks; ``--engine torch`` measures that instead.

Contenders take turns, so that a machine that is busy with other things slows all of them alike. Times are medians over the
rounds; ratios are medians of each round's ratio. ``minimum`` holds the fastest rounds. On a machine that is too busy to run
two threads at once, ``--clock cpu --threads 1`` measures the processor time of this process instead of wall-clock time.
"""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import CLOCKS, IMAGE_SIZE, add_timing_options, draw_jpeg, median_ratio, milliseconds, take_turns
from PIL import Image
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from transformers import pipeline
from transformers.utils import logging as transformers_logging

from lesion_hub import DEFAULT_MODEL
from lesion_hub.hub.format import read_model, write_model
from lesion_hub.inference.bulk import ScoreOptions, score_in_bulk
from lesion_hub.inference.engine import ENGINES
from lesion_hub.inference.loading import from_pretrained
from lesion_hub.inference.members import Combination
from lesion_hub.inference.predictor import Predictor
from lesion_hub.inference.rows import open_rows
from lesion_hub.models import LesionClassifier

# The members: image size, weight, and the layer that pytorch-grad-cam looks at.
NETWORKS = {"mobilenetv2_100": (224, 0.3, "bn2"), "efficientnet_b1": (240, 0.3, "bn2"), "resnet50": (224, 0.4, "layer4")}
WEIGHTS = [weight for _, weight, _ in NETWORKS.values()]
PIPELINE_BATCHES = (1, 8, 16)
DISTINCT_IMAGES = 16
IMAGES_PER_FOLDER = 200

COLD_START = """
import json, sys, time
start = time.perf_counter()
import numpy as np, torch, lesion_hub
torch.set_num_threads(int(sys.argv[2]))
imported = time.perf_counter()
model = lesion_hub.from_pretrained("dermoscopy-trio", engine=sys.argv[1])
loaded = time.perf_counter()
model.predict(np.zeros((450, 600, 3), np.uint8), explain="gradcam")
done = time.perf_counter()
with open("/proc/self/status") as status:  # not getrusage's, which a child inherits from the process that started it
    memory = next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) // 1024
print(json.dumps({"seconds": round(done - start, 2), "loading": round(loaded - imported, 2), "memory_mb": memory}))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_timing_options(parser, threads=2, rounds=10)
    parser.add_argument("--images", type=int, default=64, help="JPEGs for bulk scoring; 0 leaves it out")
    parser.add_argument("--engine", choices=ENGINES, default="auto", help="what runs our networks")
    parser.add_argument("--no-cold-start", action="store_true", help="leave out fresh processes, busy ones and gates")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    clock = CLOCKS[options.clock]
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        models = {name: place / name for name in NETWORKS}
        for seed, (name, (side, _, _)) in enumerate(NETWORKS.items()):
            torch.manual_seed(seed)
            write_model(models[name], LesionClassifier.create(name, "clinical6", image_size=side).eval(), storage="float32")
        jpegs = [draw_jpeg(seed) for seed in range(min(DISTINCT_IMAGES, max(options.images, 1)))]
        ours = predictor(models, options.engine)
        results = time_one_image(ours, models, jpegs[0], options.rounds, clock)
        results |= {"explain_batch_ratio": time_maps_of_a_batch(ours, jpegs, clock)}
        if options.images:
            results |= time_bulk(ours, models, write_images(place / "images", jpegs, options.images), place, clock)
        if not options.no_cold_start:
            results |= {"busy_ratio": time_beside_busy_processes(ours, jpegs[0])}
            results |= {"gate_ratio": time_gates(jpegs[0], options.engine, 6 * options.rounds, clock)}
            results |= {"cold_start": {engine: cold_start(engine, options.threads) for engine in ("onnx", "torch")}}
    engine = "onnx" if all(member.running for member in ours.members) else "torch"
    results |= {"threads": options.threads, "clock": options.clock, "engine": engine}
    print(json.dumps(results) if options.json else "\n".join(f"{name:24} {value}" for name, value in results.items()))


def time_one_image(
    ours: Predictor, models: dict[str, Path], jpeg: bytes, rounds: int, clock: Callable[[], float]
) -> dict[str, Any]:
    pipelines, forwards = Pipelines(models), bare_forwards(models, 1, clock)
    contenders: dict[str, Callable[[], Any]] = {
        "floor_ms": forwards,
        "predict_ms": lambda: ours.predict(jpeg),
        "explain_ms": lambda: ours.predict(jpeg, explain="gradcam"),
        "pipelines_ms": lambda: pipelines.predict(jpeg),
        "pipelines_gradcam_ms": lambda: pipelines.explain(jpeg),
    }
    take_turns(contenders, 3, clock)
    times = take_turns(contenders, rounds, clock)
    ratios = {
        "predict / floor": median_ratio(times["predict_ms"], times["floor_ms"]),
        "explain / floor": median_ratio(times["explain_ms"], times["floor_ms"]),
        "pipelines_gradcam / explain": median_ratio(times["pipelines_gradcam_ms"], times["explain_ms"]),
        "pipelines / predict": median_ratio(times["pipelines_ms"], times["predict_ms"]),
    }
    minimum = {name: round(1e3 * min(values), 1) for name, values in times.items()}
    medians = {name: milliseconds(values) for name, values in times.items()}
    return {**medians, "ratios": ratios, "minimum": minimum, "rounds": rounds}


def time_maps_of_a_batch(ours: Predictor, jpegs: Sequence[bytes], clock: Callable[[], float]) -> float:
    batch = [jpegs[i % len(jpegs)] for i in range(32)]
    contenders = {"plain": lambda: ours.predict(batch), "explained": lambda: ours.predict(batch, explain="gradcam")}
    take_turns(contenders, 1, clock)
    times = take_turns(contenders, 2, clock)
    return median_ratio(times["explained"], times["plain"])


def time_beside_busy_processes(ours: Predictor, jpeg: bytes) -> float:
    """Compare the median prediction beside two processes that compute with the median alone, by the clock on the wall."""
    contender = {"predict": lambda: ours.predict(jpeg)}
    alone = take_turns(contender, 20, CLOCKS["wall"])["predict"]
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2)]
    try:
        beside = take_turns(contender, 20, CLOCKS["wall"])["predict"]
    finally:
        for process in busy:
            process.kill()
            process.wait()
    return round(float(np.median(beside) / np.median(alone)), 3)


def time_gates(jpeg: bytes, engine: str, rounds: int, clock: Callable[[], float]) -> float:
    """Compare predictions of the packaged ensemble with its input gates and without them."""
    gated = from_pretrained(DEFAULT_MODEL, engine=engine)
    plain = Predictor([replace(member, gate=None) for member in gated.members], gated.combination, rules=gated.rules)
    contenders = {"gated": lambda: gated.predict(jpeg), "plain": lambda: plain.predict(jpeg)}
    take_turns(contenders, 3, clock)
    times = take_turns(contenders, rounds, clock)
    return median_ratio(times["gated"], times["plain"])


def cold_start(engine: str, threads: int) -> dict[str, float]:
    """Load the packaged ensemble in a fresh process and predict once; this one has read the libraries' files already."""
    command = [sys.executable, "-c", COLD_START, engine, str(threads)]
    found: dict[str, float] = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    return found


def time_bulk(
    ours: Predictor, models: dict[str, Path], folders: Sequence[Path], place: Path, clock: Callable[[], float]
) -> dict[str, Any]:
    """Score folder by folder, each contender in turn."""
    pipelines, forwards = Pipelines(models), bare_forwards(models, 32, clock)
    paths = [sorted(map(str, folder.iterdir())) for folder in folders]
    batch_size = pipelines.best_batch_size(paths[0][:16], clock)
    spent = {"floor_bulk_img_s": 0.0, "bulk_img_s": 0.0, "pipeline_bulk_img_s": 0.0}
    total = sum(map(len, paths))
    for i, (folder, names) in enumerate(zip(folders, paths, strict=True)):
        contenders: dict[str, Callable[[], Any]] = {
            "floor_bulk_img_s": lambda count=len(names): [forwards() for _ in range(max(1, round(count / 32)))],
            "bulk_img_s": lambda folder=folder, i=i: score_in_bulk(
                ours, open_rows(folder), place / f"scores{i}", ScoreOptions()
            ),
            "pipeline_bulk_img_s": lambda names=names: pipelines.score(names, batch_size),
        }
        for name, (seconds,) in take_turns(contenders, 1, clock).items():
            spent[name] += seconds
    rates = {name: round(total / seconds, 2) for name, seconds in spent.items()}
    gain = round(rates["bulk_img_s"] / rates["pipeline_bulk_img_s"], 3)
    return {**rates, "bulk_gain": gain, "images": total, "pipeline_batch_size": batch_size}


def write_images(root: Path, jpegs: Sequence[bytes], count: int) -> list[Path]:
    """Write the JPEGs over and over, ``count`` in all, into folders of ``IMAGES_PER_FOLDER``."""
    folders = []
    for i in range(count):
        folder = root / f"{i // IMAGES_PER_FOLDER:03}"
        if i % IMAGES_PER_FOLDER == 0:
            folder.mkdir(parents=True)
            folders.append(folder)
        (folder / f"{i:05}.jpg").write_bytes(jpegs[i % len(jpegs)])
    return folders


def predictor(models: dict[str, Path], engine: str) -> Predictor:
    loaded = {name: from_pretrained(folder, engine=engine).members[0] for name, folder in models.items()}
    members = [replace(member, name=name) for name, member in loaded.items()]
    return Predictor(members, Combination.of([member.space for member in members], WEIGHTS))


def bare_forwards(models: dict[str, Path], batch: int, clock: Callable[[], float]) -> Callable[[], None]:
    """Return the forward passes alone, in the memory layout that is faster here."""

    def forwards(layout: torch.memory_format) -> Callable[[], None]:
        networks = [read_model(folder)[0].network.to(memory_format=layout) for folder in models.values()]
        inputs = [torch.randn(batch, 3, side, side).contiguous(memory_format=layout) for side, _, _ in NETWORKS.values()]

        @torch.inference_mode()
        def run() -> None:
            for network, images in zip(networks, inputs, strict=True):
                network(images)

        return run

    layouts = {"contiguous": forwards(torch.contiguous_format), "channels last": forwards(torch.channels_last)}
    # The first round warms up.
    times = take_turns(layouts, 4, clock)
    return layouts[min(layouts, key=lambda name: min(times[name][1:]))]


class Pipelines:
    """The same ensemble without lesion-hub: a transformers pipeline for each member, and pytorch-grad-cam on its network."""

    def __init__(self, models: dict[str, Path]) -> None:
        self.pipes = {
            name: pipeline("image-classification", model=str(folder), device="cpu") for name, folder in models.items()
        }

    def predict(self, jpeg: bytes) -> dict[str, float]:
        image = Image.open(io.BytesIO(jpeg)).convert("RGB")
        totals: dict[str, float] = {}
        for weight, pipe in zip(WEIGHTS, self.pipes.values(), strict=True):
            for row in pipe(image, top_k=None):
                totals[row["label"]] = totals.get(row["label"], 0.0) + weight * row["score"]
        return totals

    def explain(self, jpeg: bytes) -> np.ndarray:
        totals = self.predict(jpeg)
        image = Image.open(io.BytesIO(jpeg)).convert("RGB")
        heat = np.zeros(IMAGE_SIZE[::-1], dtype=np.float32)
        for name, pipe in self.pipes.items():
            _, weight, layer = NETWORKS[name]
            label = pipe.model.config.label2id[max(totals, key=lambda key: totals[key])]
            pixels = pipe.preprocess(image)["pixel_values"]
            with GradCAM(LogitsOnly(pipe.model), [getattr(pipe.model.timm_model, layer)]) as cam:
                found = cam(pixels, targets=[ClassifierOutputTarget(label)])[0]
            heat += weight * np.asarray(Image.fromarray(found).resize(IMAGE_SIZE, Image.Resampling.BILINEAR))
        return heat

    def score(self, paths: Sequence[str], batch_size: int) -> None:
        for pipe in self.pipes.values():
            for _ in pipe(list(paths), batch_size=batch_size):
                pass

    def best_batch_size(self, paths: Sequence[str], clock: Callable[[], float]) -> int:
        runs = {str(size): (lambda size=size: self.score(paths, size)) for size in PIPELINE_BATCHES}
        times = take_turns(runs, 2, clock)
        return min(PIPELINE_BATCHES, key=lambda size: min(times[str(size)]))


class LogitsOnly(torch.nn.Module):
    """A transformers model as a network that returns logits, which is what pytorch-grad-cam takes."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.model(pixels).logits


if __name__ == "__main__":
    main()
