"""The decode-once cache: images decoded and resized one time, then read as uint8 arrays at memory speed."""

from __future__ import annotations

from lesion_hub.data.cache.build import build_cache
from lesion_hub.data.cache.dataset import cache_dataset, image_sources
from lesion_hub.data.cache.reading import ImageCache, ImageReader, open_cache
from lesion_hub.data.cache.spec import CacheSpec
from lesion_hub.data.cache.streaming import ImageStream, cache_or_stream, plan_access

__all__ = [
    "CacheSpec",
    "ImageCache",
    "ImageReader",
    "ImageStream",
    "build_cache",
    "cache_dataset",
    "cache_or_stream",
    "image_sources",
    "open_cache",
    "plan_access",
]
