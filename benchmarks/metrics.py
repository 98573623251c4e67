"""How long all measures with their intervals take: ``python benchmarks/metrics.py --json``.

Prints {"n", "classes", "resamples", "seconds"}: the wall time of every measure of ``lesion_hub.evaluation.metrics`` and its
95 % interval by bootstrap over groups, on random predictions in which every image is a group of its own (the slowest case).
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np

from lesion_hub.evaluation import intervals, metrics
from lesion_hub.taxonomy import label_space


def measure(examples: int, resamples: int, seed: int = 0) -> dict[str, float]:
    """Seconds for ``metrics.compute`` plus ``intervals.bootstrap`` on ``examples`` predictions of the 8 ISIC 2019 classes."""
    space = label_space("isic8")
    random = np.random.default_rng(seed)
    labels = random.integers(len(space), size=examples)
    logits = random.normal(size=(examples, len(space)))
    logits[np.arange(examples), labels] += 2
    odds = np.exp(logits)
    probabilities = odds / odds.sum(axis=1, keepdims=True)
    start = time.perf_counter()
    metrics.compute(probabilities, labels, space)
    intervals.bootstrap(probabilities, labels, np.arange(examples), space, resamples=resamples)
    seconds = time.perf_counter() - start
    return {"n": examples, "classes": len(space), "resamples": resamples, "seconds": round(seconds, 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=100_000)
    parser.add_argument("--resamples", type=int, default=2000)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    result = measure(options.examples, options.resamples)
    if options.json:
        print(json.dumps(result))
    else:
        print("{n:,} predictions x {classes} classes, {resamples:,} resamples: {seconds:.2f} s".format(**result))


if __name__ == "__main__":
    main()
