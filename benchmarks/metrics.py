"""Time all measures with their intervals: ``python benchmarks/metrics.py --json``.

Prints {"n", "classes", "resamples", "seconds"}: the wall time of every measure of ``lesion_hub.evaluation.metrics`` and its
95 % interval by bootstrap over groups, on random predictions in which every image is a group of its own (the slowest case).
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np
from scipy.special import softmax

from lesion_hub.evaluation import intervals, metrics
from lesion_hub.taxonomy import label_space


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--examples", type=int, default=100_000)
    parser.add_argument("--resamples", type=int, default=2000)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()

    # Random predictions of the 8 ISIC 2019 classes that are right more often than not.
    space, images = label_space("isic8"), np.arange(options.examples)
    random = np.random.default_rng(0)
    labels = random.integers(len(space), size=len(images))
    logits = random.normal(size=(len(images), len(space)))
    logits[images, labels] += 2
    probabilities = softmax(logits, axis=1)

    start = time.perf_counter()
    metrics.compute(probabilities, labels, space)
    intervals.bootstrap(probabilities, labels, images, space, resamples=options.resamples)
    seconds = round(time.perf_counter() - start, 3)

    result = {"n": len(images), "classes": len(space), "resamples": options.resamples, "seconds": seconds}
    if options.json:
        print(json.dumps(result))
    else:
        print("{n:,} predictions x {classes} classes, {resamples:,} resamples: {seconds:.2f} s".format(**result))


if __name__ == "__main__":
    main()
