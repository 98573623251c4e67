"""What a prediction costs beside bare forward passes and transformers pipelines: ``python benchmarks/inference.py --json``.

Three members (MobileNetV2, EfficientNet-B1, ResNet50, random weights), one 600x450 JPEG, two CPU threads:

    floor_ms              the three bare forward passes on prepared tensors, in the faster memory layout
    predict_ms            our predict: decoding, preprocessing, three forward passes, results
    explain_ms            our predict with the averaged Grad-CAM at the image's resolution
    pipelines_ms          three transformers pipelines
    pipelines_gradcam_ms  the same, plus pytorch-grad-cam on each

and in bulk, as images per second through all three members: ``floor_bulk_img_s`` (bare forwards of batches of 32),
``bulk_img_s`` (our scoring into Parquet) and ``pipeline_bulk_img_s`` (the pipelines at their best batch size).

Contenders take turns, so that a machine that is busy with other things slows all of them alike. Times are medians over the
rounds; ratios are medians of each round's ratio. ``minimum`` holds the fastest rounds. On a machine that is too busy for
two threads to meet, ``--clock cpu --threads 1`` measures the processor time of this process instead of the wall's.
"""

from __future__ import annotations

import argparse
import io
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from pytorch_grad_cam import GradCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from transformers import pipeline
from transformers.utils import logging as transformers_logging

from lesion_hub.data.synthetic import draw_lesion
from lesion_hub.hub.format import read_model, write_model
from lesion_hub.inference.bulk import ScoreOptions, score
from lesion_hub.inference.combine import Combination
from lesion_hub.inference.members import Member
from lesion_hub.inference.predictor import Predictor
from lesion_hub.inference.rows import rows_of
from lesion_hub.models import LesionClassifier

MEMBERS = {"mobilenetv2_100": 224, "efficientnet_b1": 240, "resnet50": 224}
Clock = Callable[[], float]
CLOCKS: dict[str, Clock] = {"wall": time.perf_counter, "cpu": time.process_time}
WEIGHTS = (0.3, 0.3, 0.4)
LAYERS: dict[str, Callable[[Any], Any]] = {
    "mobilenetv2_100": lambda network: network.bn2,
    "efficientnet_b1": lambda network: network.bn2,
    "resnet50": lambda network: network.layer4,
}
SIZE = (600, 450)
PIPELINE_BATCHES = (1, 8, 32)
DRAWN = 16
SLICE = 200


def main() -> None:
    options = parsed()
    torch.set_num_threads(options.threads)
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as place:
        results = measure(Path(place), options.rounds, options.images, CLOCKS[options.clock])
    results |= {"threads": options.threads, "clock": options.clock}
    if options.json:
        print(json.dumps(results))
    else:
        report(results)


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--images", type=int, default=2000, help="JPEGs for bulk scoring; 0 leaves it out")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser.parse_args()


def measure(place: Path, rounds: int, images: int, clock: Clock) -> dict[str, Any]:
    folders = write_members(place)
    jpegs = draw_jpegs(min(DRAWN, max(images, 1)))
    results = single(folders, jpegs[0], rounds, clock)
    if images:
        results |= bulk(folders, write_images(place / "images", jpegs, images), place, clock)
    return results


def write_members(place: Path) -> dict[str, Path]:
    folders = {}
    for seed, (name, size) in enumerate(MEMBERS.items()):
        torch.manual_seed(seed)
        folders[name] = place / name
        write_model(folders[name], LesionClassifier.create(name, "clinical6", image_size=size).eval(), storage="float32")
    return folders


def draw_jpegs(count: int) -> list[bytes]:
    jpegs = []
    for seed in range(count):
        stream = io.BytesIO()
        Image.fromarray(np.asarray(draw_lesion("mel", seed=seed, size=SIZE).image)).save(stream, "JPEG", quality=92)
        jpegs.append(stream.getvalue())
    return jpegs


def write_images(folder: Path, jpegs: Sequence[bytes], count: int) -> list[Path]:
    """Folders of ``SLICE`` images each."""
    parts = []
    for i in range(count):
        part = folder / f"{i // SLICE:03}"
        if i % SLICE == 0:
            part.mkdir(parents=True)
            parts.append(part)
        (part / f"{i:05}.jpg").write_bytes(jpegs[i % len(jpegs)])
    return parts


def ours(folders: dict[str, Path]) -> Predictor:
    members = [Member(name, read_model(folder)[0]) for name, folder in folders.items()]
    return Predictor(members, Combination.of([member.space for member in members], WEIGHTS))


def bare(folders: dict[str, Path], batch: int, clock: Clock) -> Callable[[], None]:
    """The forward passes alone, in the memory layout that is faster here."""
    sizes = list(MEMBERS.values())

    def forwards(layout: torch.memory_format) -> Callable[[], None]:
        networks = [read_model(folder)[0].network.to(memory_format=layout) for folder in folders.values()]
        inputs = [torch.randn(batch, 3, size, size).contiguous(memory_format=layout) for size in sizes]

        @torch.inference_mode()
        def run() -> None:
            for network, images in zip(networks, inputs, strict=True):
                network(images)

        return run

    candidates = [forwards(torch.contiguous_format), forwards(torch.channels_last)]
    times = take_turns({str(i): run for i, run in enumerate(candidates)}, 4, clock)
    return candidates[0] if min(times["0"][1:]) < min(times["1"][1:]) else candidates[1]


class Pipelines:
    """What a person builds without us: a pipeline for each member, and pytorch-grad-cam on its network."""

    def __init__(self, folders: dict[str, Path]) -> None:
        self.pipes = {
            name: pipeline("image-classification", model=str(folder), device="cpu") for name, folder in folders.items()
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
        heat = np.zeros(SIZE[::-1], dtype=np.float32)
        for weight, (name, pipe) in zip(WEIGHTS, self.pipes.items(), strict=True):
            label = pipe.model.config.label2id[max(totals, key=lambda key: totals[key])]
            pixels = pipe.preprocess(image)["pixel_values"]
            with GradCAM(_TimmLogits(pipe.model), [LAYERS[name](pipe.model.timm_model)]) as cam:
                found = cam(pixels, targets=[ClassifierOutputTarget(label)])[0]
            heat += weight * np.asarray(Image.fromarray(found).resize(SIZE, Image.Resampling.BILINEAR))
        return heat

    def bulk(self, paths: Sequence[str], batch_size: int) -> None:
        for pipe in self.pipes.values():
            for _ in pipe(list(paths), batch_size=batch_size):
                pass

    def best_batch_size(self, paths: Sequence[str], clock: Clock) -> int:
        runs = {str(size): (lambda size=size: self.bulk(paths, size)) for size in PIPELINE_BATCHES}
        times = take_turns(runs, 2, clock)
        return min(PIPELINE_BATCHES, key=lambda size: min(times[str(size)]))


class _TimmLogits(torch.nn.Module):
    """A transformers model as a network that returns logits, which is what pytorch-grad-cam takes."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.model(pixels).logits


def take_turns(runs: dict[str, Callable[[], Any]], rounds: int, clock: Clock) -> dict[str, list[float]]:
    """Seconds of every run in every round; the order rotates, so that nobody always follows the same one."""
    names = list(runs)
    times: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            start = clock()
            runs[name]()
            times[name].append(clock() - start)
    return times


def single(folders: dict[str, Path], jpeg: bytes, rounds: int, clock: Clock) -> dict[str, Any]:
    model, peers, forwards = ours(folders), Pipelines(folders), bare(folders, 1, clock)
    runs: dict[str, Callable[[], Any]] = {
        "floor_ms": forwards,
        "predict_ms": lambda: model.predict(jpeg),
        "explain_ms": lambda: model.predict(jpeg, explain="gradcam"),
        "pipelines_ms": lambda: peers.predict(jpeg),
        "pipelines_gradcam_ms": lambda: peers.explain(jpeg),
    }
    take_turns(runs, 3, clock)
    times = take_turns(runs, rounds, clock)
    ratios = {
        "predict / floor": ratio(times["predict_ms"], times["floor_ms"]),
        "explain / floor": ratio(times["explain_ms"], times["floor_ms"]),
        "pipelines_gradcam / explain": ratio(times["pipelines_gradcam_ms"], times["explain_ms"]),
        "pipelines / predict": ratio(times["pipelines_ms"], times["predict_ms"]),
    }
    medians = {name: round(1e3 * statistics.median(values), 1) for name, values in times.items()}
    minimum = {name: round(1e3 * min(values), 1) for name, values in times.items()}
    return {**medians, "ratios": ratios, "minimum": minimum, "rounds": rounds}


def ratio(these: Sequence[float], those: Sequence[float]) -> float:
    return round(statistics.median(a / b for a, b in zip(these, those, strict=True)), 3)


def bulk(folders: dict[str, Path], parts: Sequence[Path], place: Path, clock: Clock) -> dict[str, Any]:
    """Slice by slice, each contender in turn."""
    model, peers, forwards = ours(folders), Pipelines(folders), bare(folders, 32, clock)
    paths = [sorted(map(str, part.iterdir())) for part in parts]
    batch_size = peers.best_batch_size(paths[0][:64], clock)
    spent = {"floor_bulk_img_s": 0.0, "bulk_img_s": 0.0, "pipeline_bulk_img_s": 0.0}
    total = sum(map(len, paths))
    for i, (part, names) in enumerate(zip(parts, paths, strict=True)):
        runs = {
            "floor_bulk_img_s": lambda count=len(names): [forwards() for _ in range(max(1, round(count / 32)))],
            "bulk_img_s": lambda part=part, i=i: score(model, rows_of(part), place / f"scores{i}", ScoreOptions()),
            "pipeline_bulk_img_s": lambda names=names: peers.bulk(names, batch_size),
        }
        for name, (seconds,) in take_turns(runs, 1, clock).items():
            spent[name] += seconds
    rates = {name: round(total / seconds, 2) for name, seconds in spent.items()}
    gain = round(rates["bulk_img_s"] / rates["pipeline_bulk_img_s"], 3)
    return {**rates, "bulk_gain": gain, "images": total, "pipeline_batch_size": batch_size}


def report(results: dict[str, Any]) -> None:
    for name, value in results.items():
        print(f"{name:24} {value}")


if __name__ == "__main__":
    main()
