"""What several benchmarks share: synthetic JPEGs, the options of timing, contenders that take turns, and medians."""

from __future__ import annotations

import argparse
import io
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lesion_hub.data.artefacts import add_artefact
from lesion_hub.data.synthetic import draw_lesion

IMAGE_SIZE = (600, 450)

CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}


def add_timing_options(parser: argparse.ArgumentParser, *, threads: int, rounds: int) -> None:
    """Add ``--threads``, ``--rounds``, ``--clock`` and ``--json``."""
    parser.add_argument("--threads", type=int, default=threads)
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--clock", choices=tuple(CLOCKS), default="wall")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def draw_jpeg(seed: int = 0) -> bytes:
    """Draw a synthetic lesion of 600x450 pixels as a JPEG."""
    stream = io.BytesIO()
    Image.fromarray(draw_lesion("mel", seed=seed, size=IMAGE_SIZE).image).save(stream, "JPEG", quality=92)
    return stream.getvalue()


def write_photos(folder: Path, images: int) -> list[Path]:
    """Write JPEGs of 600x450 and quality 90: a dozen synthetic lesions, shifted and covered with hair to make ``images``."""
    drawn = [draw_lesion("nv", seed, IMAGE_SIZE).image for seed in range(min(12, images))]
    paths = []
    for number in range(images):
        shifted = np.roll(drawn[number % len(drawn)], (7 * number, 11 * number), axis=(0, 1))
        paths.append(folder / f"{number:05d}.jpg")
        Image.fromarray(add_artefact(shifted, "hair", 1 + number % 3, number)).save(paths[-1], quality=90)
    return paths


def take_turns(contenders: Mapping[str, Callable[[], Any]], rounds: int, clock: Callable[[], float]) -> dict[str, list[float]]:
    """Return each contender's seconds in every round; the order rotates, so that none always follows the same one."""
    names = list(contenders)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            start = clock()
            contenders[name]()
            seconds[name].append(clock() - start)
    return seconds


def median_ratio(seconds: Sequence[float], others: Sequence[float]) -> float:
    """Return the median of each round's ratio, which a machine that is busy with other things hardly moves."""
    return round(statistics.median(a / b for a, b in zip(seconds, others, strict=True)), 3)


def milliseconds(seconds: Sequence[float]) -> float:
    """Return the median in milliseconds."""
    return round(1e3 * statistics.median(seconds), 1)
