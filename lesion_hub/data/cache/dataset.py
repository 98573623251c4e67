"""From a `datasets.Dataset` to its cache."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lesion_hub.data.cache.build import build_cache
from lesion_hub.data.cache.reading import ImageCache
from lesion_hub.data.cache.spec import CacheSpec
from lesion_hub.data.images import ImageSource
from lesion_hub.data.schema import undecoded
from lesion_hub.errors import DataError

if TYPE_CHECKING:
    from datasets import Dataset


def image_sources(dataset: Dataset) -> Sequence[ImageSource]:
    """The ``image`` column, undecoded and in order, as a lazy sequence that `build_cache` and `ImageStream` take."""
    column: Sequence[ImageSource] = undecoded(dataset.with_format(None))["image"]
    return column


def cache_dataset(dataset: Dataset, root: str | Path, spec: CacheSpec | None = None, **options: Any) -> ImageCache:
    """Cache the images of ``dataset``, row i as image i; ``options`` are those of `build_cache`.

    Cache a data set whole, before it is split: then one cache serves every split, fold and draw by row number.

    >>> import tempfile
    >>> from datasets import Dataset
    >>> from PIL import Image
    >>> dataset = Dataset.from_dict({"image": [Image.new("RGB", (8, 6))]})
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     cache_dataset(dataset, folder, CacheSpec(3, 4)).shape
    (1, 3, 4, 3)
    """
    if not hasattr(dataset, "__len__"):
        raise DataError("a streamed data set cannot be cached: its size is unknown; read it without streaming")
    if "image_id" in dataset.column_names and "ids" not in options:
        options["ids"] = list(dataset["image_id"])
    return build_cache(image_sources(dataset), root, spec, **options)
