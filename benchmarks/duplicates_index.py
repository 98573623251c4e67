"""Time the search for near duplicates: N made-up descriptors with planted copies, indexed and paired.

    python benchmarks/duplicates_index.py --json

Each term of the descriptors varies as much as it does over dermoscopic images, and a planted copy differs as much as a crop by
5 % makes an image differ. Some rows are equal, as in sets that repeat one picture many thousand times.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time

import numpy as np
from numpy.typing import NDArray

from lesion_hub.data.duplicates.fingerprints import TERMS
from lesion_hub.data.duplicates.search import near_candidates

# Standard deviation of each descriptor term over images, in units of what a 5 % crop changes: HAM10000, rounded.
SPREAD = (17, 13, 9, 5, 21, 11, 11, 7, 6, 6, 5, 4, 3, 3, 3, 3, 3, 4, 3, 3)


def descriptors_with_copies(count: int, copies: int, equal: int, seed: int) -> NDArray[np.float32]:
    """Make ``count`` descriptors, the first ``copies`` near the next ``copies``, the last ``equal`` all at one place."""
    rng = np.random.default_rng(seed)
    terms = (rng.standard_normal((count, TERMS)) * SPREAD).astype(np.float32)
    terms[:copies] = terms[copies : 2 * copies] + rng.standard_normal((copies, TERMS)).astype(np.float32)
    terms[count - equal :] = terms[-1]
    return terms


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=400_000)
    parser.add_argument("--copies", type=int, default=20_000)
    parser.add_argument("--equal", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    terms = descriptors_with_copies(options.count, options.copies, options.equal, options.seed)
    started = time.perf_counter()
    found = near_candidates(terms, workers=options.workers)
    seconds = time.perf_counter() - started
    # The share of the (copy, original) pairs that are among those found.
    copies = np.arange(options.copies)
    recalled = np.isin(copies * options.count + copies + options.copies, found[:, 0] * options.count + found[:, 1])
    result = {
        "n": options.count,
        "seconds": round(seconds, 2),
        "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 3),
        "recall": float(recalled.mean()),
        "candidate_pairs": len(found),
    }
    sys.stdout.write(json.dumps(result) + "\n" if options.json else "".join(f"{k:16} {v}\n" for k, v in result.items()))


if __name__ == "__main__":
    main()
