"""Splits that do not leak: whole lesions or patients, united with their near duplicates, dealt out class by class.

`split` makes a split and says what its parts share, `manifest` is its file and the record that a published model keeps.
"""

from lesion_hub.data.splits.manifest import SplitManifest, check_manifest, load_manifest
from lesion_hub.data.splits.split import (
    IdPair,
    Leaks,
    SplitImages,
    SplitOptions,
    find_leaks,
    split_images,
    split_source,
    united_units,
)

__all__ = [
    "IdPair",
    "Leaks",
    "SplitImages",
    "SplitManifest",
    "SplitOptions",
    "check_manifest",
    "find_leaks",
    "load_manifest",
    "split_images",
    "split_source",
    "united_units",
]
