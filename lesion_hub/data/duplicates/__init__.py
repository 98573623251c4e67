"""Exact and near duplicates: the same picture, however it was resized, recompressed, flipped, turned or trimmed.

`fingerprints` says what is noted of an image, `collect` notes it once (`store` keeps it); `candidates` proposes pairs by a
nearest-neighbour search over `descriptor`s; `verification` aligns (`alignment`) and compares them; `clusters` joins them;
`search` wires it.
"""

from lesion_hub.data.duplicates.clusters import unite
from lesion_hub.data.duplicates.collect import fingerprint
from lesion_hub.data.duplicates.fingerprints import Fingerprint, Fingerprints, fingerprint_image
from lesion_hub.data.duplicates.search import CrossDuplicates, Duplicates, find_duplicates, find_duplicates_between

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
