"""Exact and near duplicates: the same picture, however it was resized, recompressed, flipped, turned or trimmed.

`fingerprints` computes what an image is recognised by, `search` finds and verifies the pairs, `alignment` aligns thumbnails.
"""

from lesion_hub.data.duplicates.fingerprints import Fingerprint, Fingerprints, fingerprint, fingerprint_image
from lesion_hub.data.duplicates.search import CrossDuplicates, Duplicates, find_duplicates, find_duplicates_between, unite

__all__ = [
    "CrossDuplicates",
    "Duplicates",
    "Fingerprint",
    "Fingerprints",
    "find_duplicates",
    "find_duplicates_between",
    "fingerprint",
    "fingerprint_image",
    "unite",
]
