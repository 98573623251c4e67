"""Images and labels: readers of every source into one schema, and what is built on it.

The names below are loaded when first used, so that importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lesion_hub.extras import require_extra

if TYPE_CHECKING:
    from lesion_hub.data.cache import CacheSpec, ImageCache, cache_dataset, cache_or_stream
    from lesion_hub.data.draw import Draw, balanced_draw, load_draw
    from lesion_hub.data.images import load_rgb, probe
    from lesion_hub.data.schema import COLUMNS, features, image_paths, undecoded
    from lesion_hub.data.sources import ReadReport, ReadResult, read, summarise
    from lesion_hub.data.splits import SplitOptions, load_manifest, split_source

_HOME = {
    **dict.fromkeys(("COLUMNS", "features", "image_paths", "undecoded"), "lesion_hub.data.schema"),
    **dict.fromkeys(("load_rgb", "probe"), "lesion_hub.data.images"),
    **dict.fromkeys(("ReadReport", "ReadResult", "read", "summarise"), "lesion_hub.data.sources"),
    **dict.fromkeys(("CacheSpec", "ImageCache", "cache_dataset", "cache_or_stream"), "lesion_hub.data.cache"),
    **dict.fromkeys(("SplitOptions", "load_manifest", "split_source"), "lesion_hub.data.splits"),
    **dict.fromkeys(("Draw", "balanced_draw", "load_draw"), "lesion_hub.data.draw"),
}

__all__ = [
    "COLUMNS",
    "CacheSpec",
    "Draw",
    "ImageCache",
    "ReadReport",
    "ReadResult",
    "SplitOptions",
    "balanced_draw",
    "cache_dataset",
    "cache_or_stream",
    "features",
    "image_paths",
    "load_draw",
    "load_manifest",
    "load_rgb",
    "probe",
    "read",
    "split_source",
    "summarise",
    "undecoded",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name in _HOME:
        if _HOME[name] != "lesion_hub.data.images":
            require_extra("data")
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOME])
