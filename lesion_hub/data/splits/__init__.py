"""Splits that do not leak: whole lesions or patients, united with their near duplicates, dealt out class by class.

`split_source` makes a split of a source, `assignment` deals, `leaks` says what two parts share, `manifest` is the file.
"""

from lesion_hub.data.splits.leaks import Leaks, find_leaks
from lesion_hub.data.splits.manifest import SplitManifest, check_manifest, load_manifest
from lesion_hub.data.splits.split import Images, SplitOptions, leaks_across, split_images, split_source

__all__ = [
    "Images",
    "Leaks",
    "SplitManifest",
    "SplitOptions",
    "check_manifest",
    "find_leaks",
    "leaks_across",
    "load_manifest",
    "split_images",
    "split_source",
]
