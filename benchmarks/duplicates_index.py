"""How the search for near duplicates scales: N made-up descriptors with planted copies, indexed and paired.

    python benchmarks/duplicates_index.py --json

The descriptors are spread, kind by kind, as those of dermoscopic images are, and a planted copy is moved as far as a
crop by 5 % moves an image. A share of the rows are equal, as in sets that repeat one picture many thousand times.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lesion_hub.data.duplicates.candidates import near_candidates
from lesion_hub.data.duplicates.descriptor import TERMS

# Standard deviation of each descriptor term over images, in units of what a 5 % crop changes: HAM10000, rounded.
SPREAD = (17, 13, 9, 5, 21, 11, 11, 7, 6, 6, 5, 4, 3, 3, 3, 3, 3, 4, 3, 3)


@dataclass(frozen=True)
class Planted:
    """``terms`` (N, TERMS) and the (copy, original) index pairs that were planted among them."""

    terms: NDArray[np.float32]
    pairs: NDArray[np.int64]


def plant(count: int, copies: int, equal: int, seed: int) -> Planted:
    """``count`` descriptors, the first ``copies`` near the next ``copies``, the last ``equal`` all at one place."""
    rng = np.random.default_rng(seed)
    terms = (rng.standard_normal((count, TERMS)) * SPREAD).astype(np.float32)
    terms[:copies] = terms[copies : 2 * copies] + rng.standard_normal((copies, TERMS)).astype(np.float32)
    terms[count - equal :] = terms[-1]
    rows = np.arange(copies)
    return Planted(terms, np.stack([rows, rows + copies], axis=1))


def recall(found: NDArray[np.int64], planted: NDArray[np.int64], count: int) -> float:
    """The share of planted pairs among those found."""
    return float(np.isin(planted[:, 0] * count + planted[:, 1], found[:, 0] * count + found[:, 1]).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=400_000)
    parser.add_argument("--copies", type=int, default=20_000)
    parser.add_argument("--equal", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    planted = plant(options.count, options.copies, options.equal, options.seed)
    started = time.perf_counter()
    found = near_candidates(planted.terms, workers=options.workers)
    result = {
        "n": options.count,
        "seconds": round(time.perf_counter() - started, 2),
        "peak_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 3),
        "recall": recall(found, planted.pairs, options.count),
        "candidate_pairs": len(found),
    }
    sys.stdout.write(json.dumps(result) + "\n" if options.json else "".join(f"{k:16} {v}\n" for k, v in result.items()))


if __name__ == "__main__":
    main()
