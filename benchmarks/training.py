"""Measure training throughput: the bare network, our loop, and a conventional loop, in one run on one device.

- *floor*: forward, backward and optimiser step on one batch that is already in memory, and nothing else;
- *ours*: ``lesion_hub.training.loop``'s own steps, fed by ``lesion_hub.training.feed`` (uint8 images cached once; on a GPU
  resident there) and augmented by ``lesion_hub.training.augmentation``: random resized crop, flips, rotation, colour jitter;
- *conventional*: a ``DataLoader`` that decodes 600x450 JPEGs of quality 90 with Pillow and augments them with torchvision's
  transforms in worker processes, and the floor's step.

Network, batch, memory layout and optimiser are the same. On a GPU all compute in bf16. On a CPU floor and conventional compute
in fp32, as PyTorch does unasked, and ours as ``precision: auto`` and ``compile: auto`` choose for a run of hours. Compiling is
outside the rounds: ``warmup_s`` says what it took, ``paid_back_after_images`` how many images make up for it. Rounds alternate
between them; the medians are printed.

On a CPU, floor and ours keep the memory that they free, as a run does. The conventional loop has a process of its own in which
the C library gives it back, as it does unasked, and so has the floor once more: *unkept*.

    python benchmarks/training.py [--model tf_efficientnet_lite0] [--batch 32] [--size 192] [--seconds 5] [--json] [--ops]
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import count
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

import numpy as np
import timm
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

# `training` must mean the package here: Python looks beside a script first, and this script has the same name.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common import write_photos

from lesion_hub.data.cache import CacheSpec
from lesion_hub.taxonomy import label_space
from lesion_hub.training.augmentation import AugmentationOptions, Augmenter
from lesion_hub.training.augmentation.draws import draw_samples
from lesion_hub.training.augmentation.operations import ArtefactBank, blur, erase, recolour, resample
from lesion_hub.training.data import Part
from lesion_hub.training.device import keep_freed_memory
from lesion_hub.training.execution import Capabilities, Execution, Precision, RunFacts, Timing, choose, time_steps
from lesion_hub.training.feed import EpochPlan, TrainingFeed, natural_order, open_pixels
from lesion_hub.training.loop import Loop, Observer
from lesion_hub.training.recipe import Recipe

SPACE = label_space("ham7")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
LR = 1e-3
WARM_UP_STEPS = 1
# Of a run in which any compiling that pays at all pays.
MANY_BATCHES = 10_000

Steps = Iterator[int]  # does one step, then gives the images it took


@dataclass(frozen=True)
class Setting:
    model: str
    batch: int
    size: int
    images: int
    seconds: float
    rounds: int
    workers: int
    device: torch.device

    @property
    def dtype(self) -> torch.dtype:
        return torch.bfloat16 if self.device.type == "cuda" else torch.float32


# ------------------------------------------------------------------------------------------------ the three loops


def make_network(setting: Setting) -> nn.Module:
    torch.manual_seed(0)
    network = timm.create_model(setting.model, num_classes=len(SPACE))
    return network.to(setting.device, memory_format=torch.channels_last)


def bare_step(setting: Setting) -> Callable[[Tensor, Tensor], None]:
    """Return a function that does one forward, backward and optimiser step, and nothing else."""
    network = make_network(setting).train()
    optimiser = torch.optim.SGD(network.parameters(), lr=LR, momentum=0.9)

    def step(images: Tensor, targets: Tensor) -> None:
        with torch.autocast(setting.device.type, setting.dtype, enabled=setting.dtype != torch.float32):
            loss = F.cross_entropy(network(images).float(), targets)
        loss.backward()
        optimiser.step()
        optimiser.zero_grad()

    return step


def floor_steps(setting: Setting) -> Steps:
    step = bare_step(setting)
    images = torch.randn(setting.batch, 3, setting.size, setting.size, device=setting.device)
    images = images.to(memory_format=torch.channels_last)
    targets = torch.arange(setting.batch, device=setting.device) % len(SPACE)
    while True:
        step(images, targets)
        yield setting.batch


class JpegDataset(Dataset):
    """JPEGs decoded with Pillow and augmented with torchvision, one at a time, as most scripts do."""

    def __init__(self, paths: list[Path], size: int) -> None:
        self.paths = paths
        self.transform = transforms.Compose(
            [
                transforms.RandomResizedCrop(size, (0.5, 1.0)),
                transforms.RandomHorizontalFlip(),
                transforms.RandomVerticalFlip(),
                transforms.RandomRotation(180),
                transforms.ColorJitter(0.2, 0.2, 0.2, 0.02),
                transforms.ToTensor(),
                transforms.Normalize(MEAN, STD),
            ]
        )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        with Image.open(self.paths[index]) as image:
            return self.transform(image.convert("RGB")), index % len(SPACE)


def conventional_steps(setting: Setting, paths: list[Path]) -> Steps:
    step = bare_step(setting)
    loader = DataLoader(
        JpegDataset(paths, setting.size),
        setting.batch,
        shuffle=True,
        drop_last=True,
        num_workers=setting.workers,
        pin_memory=setting.device.type == "cuda",
        persistent_workers=True,
    )
    for _ in count():
        for images, targets in loader:
            moved = images.to(setting.device, non_blocking=True).to(memory_format=torch.channels_last)
            step(moved, targets.to(setting.device, non_blocking=True))
            yield len(images)


class Silent(Observer):
    """An observer that reports nothing."""


def chosen_execution(setting: Setting, compiled: bool | Literal["auto"]) -> Execution:
    """Choose as a run does whose recipe says ``precision: auto`` and ``compile`` what is given."""
    network = make_network(setting)
    images = torch.randn(setting.batch, 3, setting.size, setting.size, device=setting.device)
    images = images.to(memory_format=torch.channels_last)

    def timed(precision: Precision, compiled: bool) -> Timing:
        return time_steps(network, images, None, precision, compiled)

    able = Capabilities.of(Accelerator(cpu=setting.device.type == "cpu"))
    return choose("auto", compiled, able, RunFacts.of(network, MANY_BATCHES, phases=1), timed)


def our_steps(setting: Setting, execution: Execution, paths: list[Path], cache: Path) -> Steps:
    recipe = Recipe.model_validate(
        {
            "data": {"space": SPACE.name},
            "model": {"backbone": setting.model, "image_size": setting.size},
            "optimiser": {"name": "sgd", "lr": LR},
            "epochs": 1_000_000,
            "batch_size": setting.batch,
            "precision": execution.precision,
            "compile": execution.compile,
            "channels_last": True,
        }
    )
    AcceleratorState._reset_state()
    mixed = "no" if execution.precision == "fp32" else execution.precision
    accelerator = Accelerator(cpu=setting.device.type == "cpu", mixed_precision=mixed)
    labels, names = np.arange(len(paths)) % len(SPACE), tuple(path.stem for path in paths)
    part = Part("train", paths, labels, names, names, SPACE)
    pixels = open_pixels(part, CacheSpec.for_size(setting.size), cache, setting.device)
    augmenter = Augmenter(
        recipe.augmentation or AugmentationOptions.none(), setting.size, mean=MEAN, std=STD, channels_last=True
    )
    whole_batches = len(paths) // setting.batch * setting.batch
    feed = TrainingFeed(
        part,
        pixels,
        EpochPlan(setting.batch),
        lambda epoch: natural_order(len(paths), 0, epoch)[:whole_batches],
        augmenter,
        setting.device,
    )
    unused: Any = None
    loop = Loop(recipe, make_network(setting), feed, unused, accelerator, unused, Silent())
    loop.enter_epoch(None)
    loop.network.train()
    for loop.epoch in count():
        for batch in feed.epoch(loop.epoch):
            loop.backward(batch)
            loop.update()
            yield len(batch.indices)


# ------------------------------------------------------------------------------------------------ measuring


def wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def images_per_second(steps: Steps, seconds: float, device: torch.device) -> float:
    for _ in range(WARM_UP_STEPS):
        next(steps)
    wait_for(device)
    images, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        images += next(steps)
    wait_for(device)
    return images / (time.perf_counter() - start)


def conventional_round(setting: Setting, paths: list[Path]) -> float:
    """Measure the conventional loop, with workers of its own: idle ones would read ahead while the others are measured."""
    steps = conventional_steps(setting, paths)
    speed = images_per_second(steps, setting.seconds, setting.device)
    steps.close()  # type: ignore[attr-defined]
    return speed


def unkept_round(setting: Setting) -> float:
    return images_per_second(floor_steps(setting), setting.seconds, setting.device)


def measure(setting: Setting, execution: Execution, paths: list[Path], cache: Path) -> dict[str, Any]:
    on_cpu = setting.device.type == "cpu"
    if on_cpu:
        keep_freed_memory()
    floor, ours = floor_steps(setting), our_steps(setting, execution, paths, cache)
    # What is compiled, allocated or chosen at the first steps is done before the rounds.
    for steps in (floor, ours):
        for _ in range(3):
            next(steps)
    rounds: dict[str, list[float]] = {"floor": [], "ours": [], "conventional": []} | ({"unkept": []} if on_cpu else {})
    threads = torch.get_num_threads()
    with ProcessPoolExecutor(1, get_context("spawn"), torch.set_num_threads, (threads,)) as script:
        for _ in range(setting.rounds):
            for name, steps in (("floor", floor), ("ours", ours)):
                rounds[name].append(images_per_second(steps, setting.seconds, setting.device))
            rounds["conventional"].append(script.submit(conventional_round, setting, paths).result())
            if on_cpu:
                rounds["unkept"].append(script.submit(unkept_round, setting).result())
    figures: dict[str, Any] = {f"{name}_img_s": statistics.median(values) for name, values in rounds.items()}
    ratios = [ours / others for ours, others in zip(rounds["ours"], rounds["conventional"], strict=True)]
    return {**figures, "ours_to_conventional": round(statistics.median(ratios), 3), **execution_figures(execution, setting)}


def execution_figures(execution: Execution, setting: Setting) -> dict[str, Any]:
    """Describe how ours computed, what compiling took, and after how many images that is paid back by the steps timed."""
    facts = {"precision": execution.precision, "compile": execution.compile, "why": execution.why}
    seconds, name = execution.seconds, f"{execution.precision} compiled"
    if not execution.compile:
        return {**facts, "warmup_s": 0.0, "paid_back_after_images": 0}
    warmup = seconds[f"{name}, first"]
    images = warmup / (seconds[execution.precision] - seconds[name]) * setting.batch
    return {**facts, "warmup_s": warmup, "paid_back_after_images": math.ceil(images)}


def measure_ops(setting: Setting) -> dict[str, float]:
    """Return the milliseconds that each operation of the augmentation takes per batch, all switched on; the quickest of 15."""
    options = AugmentationOptions(blur=1.0, erase=1.0, artefacts={"hair": 1.0}, artefact_layers=4)
    size, device = (setting.size, setting.size), setting.device
    height, width, _ = CacheSpec.for_size(setting.size).shape
    cached = torch.randint(0, 256, (setting.batch, height, width, 3), dtype=torch.uint8, device=device)
    draw = partial(draw_samples, options, 0, 0, np.arange(setting.batch), source=(height, width), size=size)
    draws, bank = draw(), ArtefactBank(options, size, 0, device)
    pixels = resample(cached, draws.theta, size)
    ops: dict[str, Callable[[], object]] = {
        "draws": draw,
        "resample": lambda: resample(cached, draws.theta, size),
        "artefacts": lambda: bank.lay_over(pixels, draws.layers),
        "blur": lambda: blur(pixels, draws.sigma, options.blur_sigma[1]),
        "colour and normalisation": lambda: recolour(pixels, draws.colour, MEAN, STD),
        "layout": lambda: pixels.to(setting.dtype, memory_format=torch.channels_last),
        "erasing": lambda: erase(pixels, draws.erase),
        "default pipeline": partial(
            Augmenter(AugmentationOptions(), size, mean=MEAN, std=STD, channels_last=True), cached, np.arange(setting.batch), 0
        ),
    }
    return {name: min(_seconds(op, device) for _ in range(15)) * 1000 for name, op in ops.items()}


def _seconds(op: Callable[[], object], device: torch.device) -> float:
    wait_for(device)
    start = time.perf_counter()
    op()
    wait_for(device)
    return time.perf_counter() - start


# ------------------------------------------------------------------------------------------------ the command


def setting_of(arguments: argparse.Namespace) -> Setting:
    name = ("cuda" if torch.cuda.is_available() else "cpu") if arguments.device == "auto" else arguments.device
    on_gpu, cores = name != "cpu", len(os.sched_getaffinity(0))
    return Setting(
        model=arguments.model,
        batch=arguments.batch or (256 if on_gpu else 32),
        size=arguments.size or (224 if on_gpu else 192),
        images=arguments.images or (8192 if on_gpu else 256),
        seconds=arguments.seconds or (10 if on_gpu else 5),
        rounds=arguments.rounds,
        workers=arguments.workers or (min(16, cores) if on_gpu else 2),
        device=torch.device(name, 0) if on_gpu else torch.device("cpu"),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="tf_efficientnet_lite0")
    parser.add_argument("--batch", type=int, help="default: 256 on a GPU, 32 on a CPU")
    parser.add_argument("--size", type=int, help="default: 224 on a GPU, 192 on a CPU")
    parser.add_argument("--images", type=int, help="JPEGs to generate; default: 8192 on a GPU, 256 on a CPU")
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--seconds", type=float, help="of each round of each loop; default: 10 on a GPU, 5 on a CPU")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, help="of the conventional loop; default: the cores, at most 16; 2 on a CPU")
    parser.add_argument("--threads", type=int, default=2, help="of torch on a CPU")
    parser.add_argument("--no-compile", action="store_true", help="ours is not compiled, whatever auto would choose")
    parser.add_argument("--ops", action="store_true", help="time each operation of the augmentation instead")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    setting = setting_of(arguments)
    if setting.device.type == "cpu":
        torch.set_num_threads(arguments.threads)
    if arguments.ops:
        report_ops(setting, arguments.json)
        return
    with tempfile.TemporaryDirectory() as folder:
        photos = Path(folder) / "photos"
        photos.mkdir()
        images = max(setting.images, math.ceil(setting.batch * 2))
        execution = chosen_execution(setting, compiled=False if arguments.no_compile else "auto")
        figures = measure(setting, execution, write_photos(photos, images), Path(folder) / "cache")
    described = {"device": device_name(setting.device), "model": setting.model, "batch": setting.batch}
    if arguments.json:
        print(json.dumps({**figures, **described}))
        return
    print(f"{setting.model}, batch {setting.batch}, {setting.size} px, {described['device']}; ours {execution}")
    for name in ("floor", "ours", "conventional", "unkept"):
        if (figure := figures.get(f"{name}_img_s")) is None:
            continue
        print(f"{name:>13} {figure:9.1f} images/s {figure / figures['floor_img_s']:7.1%} of the floor")
    print(f"compiling took {figures['warmup_s']:.0f} s, paid back after {figures['paid_back_after_images']:,} images")


def report_ops(setting: Setting, as_json: bool) -> None:
    milliseconds = measure_ops(setting)
    if as_json:
        print(json.dumps({"milliseconds": milliseconds, "batch": setting.batch, "device": device_name(setting.device)}))
        return
    for name, figure in milliseconds.items():
        print(f"{name:>25} {figure:8.2f} ms per batch of {setting.batch}")


def device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"cpu, {torch.get_num_threads()} threads"


if __name__ == "__main__":
    main()
