"""Random batches from the decode-once cache against decoding the same JPEGs with Pillow.

Both deliver batches of 64 uint8 images of 224x298, drawn at random from the same 600x450 JPEGs (textured, quality 90).
The cache is read by one thread; Pillow decodes and resizes in ``--workers`` processes that hand nothing back, so it is
spared the cost of moving its pixels. The page cache is warm for both. Medians over ``--rounds``.

    python benchmarks/data_cache.py [--json] [--images 1024] [--rounds 7] [--workers 2]
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from PIL import Image

from lesion_hub.data.cache import CacheSpec, ImageCache, build_cache

BATCH = 64
PHOTOS = 128  # different ones; the cached set repeats them, to be larger than the processor's caches
SPEC = CacheSpec.for_size(224)


def write_photos(folder: Path, count: int) -> list[Path]:
    """Lesion-like 600x450 JPEGs: a smooth blob on skin with fine grain, about as large as dermoscopy files are."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[-1:1:450j, -1:1:600j]
    paths = []
    for index in range(count):
        centre_x, centre_y, radius = rng.uniform(-0.3, 0.3), rng.uniform(-0.3, 0.3), rng.uniform(0.2, 0.6)
        lesion = np.exp(-((((x - centre_x) ** 2 + (y - centre_y) ** 2) / radius**2) ** 2))
        skin = np.array([220, 170, 150]) - lesion[..., None] * rng.uniform(60, 130, 3)
        pixels = skin + rng.normal(0, 6, (450, 600, 3))
        paths.append(folder / f"{index:05d}.jpg")
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(paths[-1], quality=90)
    return paths


def decode(paths: list[Path]) -> int:
    """Decode and resize with Pillow alone, as a data loader's worker does."""
    for path in paths:
        with Image.open(path) as image:
            resized = image.convert("RGB").resize((SPEC.width, SPEC.height), Image.Resampling.BICUBIC)
            np.asarray(resized)
    return len(paths)


def images_per_second(images: int, rounds: int, deliver: Callable[[], None]) -> float:
    deliver()
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        deliver()
        seconds.append(time.perf_counter() - start)
    return images / statistics.median(seconds)


def cache_speed(cache: ImageCache, batches: list[np.ndarray], rounds: int) -> float:
    out = np.empty((BATCH, *cache.spec.shape), np.uint8)

    def deliver() -> None:
        for indices in batches:
            cache.read(indices, out=out)

    return images_per_second(BATCH * len(batches), rounds, deliver)


def pillow_speed(paths: list[Path], batches: list[np.ndarray], rounds: int, workers: int) -> float:
    batches_of_paths = [[paths[index] for index in indices] for indices in batches]
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        return images_per_second(BATCH * len(batches), rounds, lambda: list(pool.map(decode, batches_of_paths)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of the table")
    parser.add_argument("--images", type=int, default=1024, help="cached images")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--workers", type=int, default=2, help="Pillow's processes")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        photos = write_photos(Path(folder), PHOTOS)
        paths = [photos[index % PHOTOS] for index in range(options.images)]
        cache = build_cache(paths, Path(folder) / "cache", SPEC, processes=options.workers)
        rng = np.random.default_rng(1)
        batches = [rng.integers(0, options.images, BATCH) for _ in range(max(2 * options.workers, len(cache) // BATCH))]
        pillow = pillow_speed(paths, batches[: 2 * options.workers], options.rounds, options.workers)
        speeds = {
            "cache_img_s": round(cache_speed(cache, batches, options.rounds), 1),
            "pillow_img_s": round(pillow, 1),
        }
    if options.json:
        print(json.dumps(speeds))
        return
    print(f"batches of {BATCH} at {SPEC.height}x{SPEC.width}, median of {options.rounds} rounds")
    print(f"cache,  1 thread           {speeds['cache_img_s']:>10,.0f} img/s")
    print(f"Pillow, {options.workers} processes        {speeds['pillow_img_s']:>10,.0f} img/s")
    print(f"ratio                      {speeds['cache_img_s'] / speeds['pillow_img_s']:>10.1f} x")


if __name__ == "__main__":
    main()
