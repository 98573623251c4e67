"""Images and labels: readers of every source into one schema, and what is built on it.

The names below are loaded when first used, so that importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_HOMES = {
    "COLUMNS": "lesion_hub.data.schema",
    "features": "lesion_hub.data.schema",
    "image_paths": "lesion_hub.data.schema",
    "undecoded": "lesion_hub.data.schema",
    "load_rgb": "lesion_hub.data.images",
    "probe": "lesion_hub.data.images",
    "read": "lesion_hub.data.sources",
    "ReadReport": "lesion_hub.data.sources",
    "ReadResult": "lesion_hub.data.sources",
    "summarise": "lesion_hub.data.sources",
    "CacheSpec": "lesion_hub.data.cache",
    "ImageCache": "lesion_hub.data.cache",
    "cache_dataset": "lesion_hub.data.cache",
    "cache_or_stream": "lesion_hub.data.cache",
    "SplitOptions": "lesion_hub.data.splits",
    "split_source": "lesion_hub.data.splits",
    "load_manifest": "lesion_hub.data.splits",
    "Draw": "lesion_hub.data.draw",
    "balanced_draw": "lesion_hub.data.draw",
    "load_draw": "lesion_hub.data.draw",
}

__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
