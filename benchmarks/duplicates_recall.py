"""Count the changed copies of images that are found, per change, and the pairs of distinct lesions that are taken for one.

    python benchmarks/duplicates_recall.py DATA --images 2000 --json

DATA is any folder that `lesion_hub.data.read` reads; without it the synthetic sample set is used. A false pair is a
near-duplicate pair of images of two groups; the pairs are listed, for some data sets hold one lesion under two ids.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageEnhance

from lesion_hub.data import image_paths, load_rgb, read
from lesion_hub.data.duplicates import (
    Fingerprint,
    Fingerprints,
    find_duplicates,
    find_duplicates_between,
    fingerprint,
    fingerprint_image,
)
from lesion_hub.data.scan import scan
from lesion_hub.data.synthetic import SampleSpec, write_sample_set

Change = Callable[[Image.Image, Generator], Image.Image]


def rescaled(image: Image.Image, rng: Generator, *, factor: float) -> Image.Image:
    return image.resize((round(image.width * factor), round(image.height * factor)), Image.Resampling.BICUBIC)


def recompressed(image: Image.Image, rng: Generator, *, quality: int) -> Image.Image:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=quality)
    return Image.open(stream).convert("RGB")


def transposed(image: Image.Image, rng: Generator, *, method: Image.Transpose) -> Image.Image:
    return image.transpose(method)


def cropped(image: Image.Image, rng: Generator, *, share: float) -> Image.Image:
    width, height = round(image.width * (1 - share)), round(image.height * (1 - share))
    left, top = int(rng.integers(image.width - width + 1)), int(rng.integers(image.height - height + 1))
    return image.crop((left, top, left + width, top + height))


def trimmed(image: Image.Image, rng: Generator, *, share: float) -> Image.Image:
    x, y = round(image.width * share), round(image.height * share)
    return image.crop((x, y, image.width - x, image.height - y))


def brightened(image: Image.Image, rng: Generator, *, factor: float) -> Image.Image:
    return ImageEnhance.Brightness(image).enhance(factor)


def rotated(image: Image.Image, rng: Generator, *, degrees: float | None) -> Image.Image:
    return image.rotate(rng.uniform(0, 360) if degrees is None else degrees, Image.Resampling.BICUBIC)


def all_at_once(image: Image.Image, rng: Generator) -> Image.Image:
    image = transposed(cropped(image, rng, share=0.05), rng, method=Image.Transpose(int(rng.integers(7))))
    image = rescaled(brightened(image, rng, factor=rng.uniform(0.9, 1.1)), rng, factor=rng.uniform(0.5, 2))
    return recompressed(image, rng, quality=int(rng.integers(40, 96)))


CHANGES: dict[str, Change] = {
    "resize x0.5": partial(rescaled, factor=0.5),
    "resize x2": partial(rescaled, factor=2.0),
    "jpeg quality 40": partial(recompressed, quality=40),
    "jpeg quality 95": partial(recompressed, quality=95),
    "horizontal flip": partial(transposed, method=Image.Transpose.FLIP_LEFT_RIGHT),
    "vertical flip": partial(transposed, method=Image.Transpose.FLIP_TOP_BOTTOM),
    "90 degree turn": partial(transposed, method=Image.Transpose.ROTATE_90),
    "180 degree turn": partial(transposed, method=Image.Transpose.ROTATE_180),
    "270 degree turn": partial(transposed, method=Image.Transpose.ROTATE_270),
    "5 % crop": partial(cropped, share=0.05),
    "5 % off every side": partial(trimmed, share=0.05),
    "brightness +10 %": partial(brightened, factor=1.1),
    "brightness -10 %": partial(brightened, factor=0.9),
    "all of these at once": all_at_once,
    "10 % crop": partial(cropped, share=0.10),
    "10 % off every side": partial(trimmed, share=0.10),
    "rotation by 5 degrees": partial(rotated, degrees=5.0),
    "rotation by any angle": partial(rotated, degrees=None),
}


def fingerprint_copy(encoded: bytes, name: str, *, change: str) -> Fingerprint:
    """Fingerprint the changed copy of an encoded image; the image's own bytes seed the random change."""
    copy = CHANGES[change](load_rgb(encoded, name=name), np.random.default_rng(list(encoded[-64:-32])))
    return fingerprint_image(copy, copy.tobytes())


def recalls(prints: Fingerprints, paths: Sequence[str], chosen: Sequence[int], workers: int) -> dict[str, float]:
    """Return, per change, the share of copies of the ``chosen`` images whose original is found among all ``prints``."""
    result = {}
    for name in CHANGES:
        copies = Fingerprints.empty(len(chosen))
        changed = scan(partial(fingerprint_copy, change=name), [paths[place] for place in chosen], workers=workers)
        for row, found in enumerate(changed):
            copies.put(row, found)
        pairs = find_duplicates_between(copies, prints, workers=workers)
        matched = {a for a, b in (*pairs.exact, *pairs.near) if b == chosen[a]}
        result[name] = round(len(matched) / len(chosen), 5)
        sys.stderr.write(f"{name}: {result[name]:.2%}\n")
    return result


def measure_duplicates(data: Path, images: int, seed: int, workers: int) -> dict[str, object]:
    dataset = read(data).dataset
    paths, groups, ids = image_paths(dataset), dataset["group"][:], dataset["image_id"][:]
    started = time.perf_counter()
    prints = fingerprint(paths, workers=workers)
    fingerprinted = time.perf_counter()
    found = find_duplicates(prints, workers=workers)
    finished = time.perf_counter()
    false = [(ids[a], ids[b]) for a, b in found.near if groups[a] != groups[b]]
    lesions = len(set(groups))
    count = min(images, len(paths))
    chosen = np.sort(np.random.default_rng(seed).choice(len(paths), count, replace=False)).tolist()
    return {
        "images": len(paths),
        "lesions": lesions,
        "copies_per_change": count,
        "seconds_fingerprinting": round(fingerprinted - started, 1),
        "seconds_searching": round(finished - fingerprinted, 1),
        "exact_pairs": [(ids[a], ids[b]) for a, b in found.exact],
        "near_pairs_within_a_lesion": len(found.near) - len(false),
        "near_pairs_between_lesions": false,
        "false_pairs_per_1000_lesions": round(1000 * len(false) / lesions, 3),
        "recall": recalls(prints, paths, chosen, workers),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", type=Path)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = options.data or Path(folder) / "synthetic"
        if options.data is None:
            write_sample_set(data, SampleSpec(count=500, size=(200, 150)))
        result = measure_duplicates(data, options.images, options.seed, options.workers)
    sys.stdout.write(json.dumps(result, indent=None if options.json else 2) + "\n")


if __name__ == "__main__":
    main()
