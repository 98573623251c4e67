"""The cache of images that are decoded and resized once, then read as uint8 arrays at memory speed.

`spec` holds their shape and the decoding into it, `reading` the cache and the stream that stands in for it, `build` makes the
cache and chooses between the two.
"""

from __future__ import annotations

from lesion_hub.data.cache.build import build_cache, cache_dataset, cache_or_stream, plan_access
from lesion_hub.data.cache.reading import ImageCache, ImageReader, ImageStream, open_cache
from lesion_hub.data.cache.sharded import ShardStream
from lesion_hub.data.cache.spec import CacheSpec

__all__ = [
    "CacheSpec",
    "ImageCache",
    "ImageReader",
    "ImageStream",
    "ShardStream",
    "build_cache",
    "cache_dataset",
    "cache_or_stream",
    "open_cache",
    "plan_access",
]
