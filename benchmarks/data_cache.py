"""Random batches from the decode-once cache against decoding the same JPEGs with Pillow.

Both deliver batches of 64 uint8 images of 224x298, drawn at random from the same 600x450 JPEGs (synthetic lesions, quality 90).
The cache is read by one thread; Pillow decodes and resizes in ``--workers`` processes that return nothing, so the cost
of moving its pixels is not counted. The page cache is warm for both. Medians over ``--rounds``.

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
from common import write_photos
from PIL import Image

from lesion_hub.data.cache import CacheSpec, build_cache

BATCH = 64
PHOTOS = 128  # different ones; the cached set repeats them, to be larger than the processor's caches
SPEC = CacheSpec.for_size(224)


def decode(paths: list[Path]) -> None:
    """Decode and resize with Pillow alone, as a data loader's worker does."""
    for path in paths:
        with Image.open(path) as image:
            np.asarray(image.convert("RGB").resize((SPEC.width, SPEC.height), Image.Resampling.BICUBIC))


def median_rate(images: int, rounds: int, deliver: Callable[[], object]) -> float:
    """Return the median rate at which ``deliver`` gives its ``images``, after one round of warm-up."""
    deliver()
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        deliver()
        seconds.append(time.perf_counter() - start)
    return images / statistics.median(seconds)


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
        few = [[paths[index] for index in indices] for indices in batches[: 2 * options.workers]]
        with ProcessPoolExecutor(options.workers, mp_context=get_context("spawn")) as pool:
            pillow = median_rate(BATCH * len(few), options.rounds, lambda: list(pool.map(decode, few)))
        out = np.empty((BATCH, *SPEC.shape), np.uint8)
        cached = median_rate(
            BATCH * len(batches), options.rounds, lambda: [cache.read(indices, out=out) for indices in batches]
        )
    if options.json:
        print(json.dumps({"cache_img_s": round(cached, 1), "pillow_img_s": round(pillow, 1)}))
        return
    print(f"batches of {BATCH} at {SPEC.height}x{SPEC.width}, median of {options.rounds} rounds")
    print(f"cache,  1 thread           {cached:>10,.0f} img/s")
    print(f"Pillow, {options.workers} processes        {pillow:>10,.0f} img/s")
    print(f"ratio                      {cached / pillow:>10.1f} x")


if __name__ == "__main__":
    main()
