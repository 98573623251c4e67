"""Read images of one shape by index: from a finished cache on disk, or as a stream that decodes at every reading.

A cache is a folder named by its fingerprint. Each shard is ``<key>.u8``, the uint8 pixels of its images one after the other,
with a record ``<key>.json``; ``index.json`` repeats the records in order and is written last: with it the cache is finished.
"""

from __future__ import annotations

import json
import os
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lesion_hub.data.cache.spec import CacheSpec, decode_into
from lesion_hub.data.images import ImageSource
from lesion_hub.errors import ConfigError, DataError, ImageError
from lesion_hub.files import sha256_of

CACHE_FORMAT = 1
INDEX = "index.json"
ON_ERROR = ("fail", "skip")
_ROWS_AT_ONCE = 256


class ImageReader(ABC):
    """N images of one shape, read by index as (n, H, W, 3) uint8 RGB.

    What is read does not depend on the reader: an `ImageCache` and an `ImageStream` of the same images and spec return
    identical pixels. An image that could not be read, where that was permitted, is black and listed in ``errors``, which
    maps its index to the reason. ``sizes`` is (N, 2), the original upright (height, width), 0 where unknown (see
    `CacheSpec.stretch`). A stream knows the errors and sizes of those images that it has read.
    """

    spec: CacheSpec
    ids: Sequence[str]
    errors: Mapping[int, str]
    sizes: NDArray[np.int32]

    @abstractmethod
    def _fill(self, out: NDArray[np.uint8], indices: NDArray[np.intp]) -> None:
        """Write the images ``indices`` (in range, not negative) into ``out``."""

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """The shape of all images together: (N, H, W, 3)."""
        return len(self), *self.spec.shape

    @property
    def nbytes(self) -> int:
        """The bytes that all images take when resident."""
        return self.spec.nbytes(len(self))

    @property
    def valid(self) -> NDArray[np.bool_]:
        """Mask (N,) bool, False at every index in ``errors``."""
        mask = np.ones(len(self), np.bool_)
        mask[list(self.errors)] = False
        return mask

    def fits(self, budget_bytes: int) -> bool:
        """Return whether all images together take no more than ``budget_bytes``."""
        return self.nbytes <= budget_bytes

    def read(self, indices: ArrayLike, out: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        """Return the images ``indices`` (n integers in -N..N-1, repeats allowed) as (n, H, W, 3) uint8, in that order.

        ``out``, of that shape and type, is filled and returned instead of a new array: give a pinned buffer to copy to
        the GPU from.
        """
        checked = self._checked(indices)
        shape = (len(checked), *self.spec.shape)
        if out is None:
            out = np.empty(shape, np.uint8)
        elif out.shape != shape or out.dtype != np.uint8:
            raise ValueError(f"out is {out.dtype} {out.shape}, not uint8 {shape}")
        self._fill(out, checked)
        return out

    def batches(self, batches: Iterable[ArrayLike], *, prefetch: int = 2) -> Iterator[NDArray[np.uint8]]:
        """Yield `read` of each batch of indices, in order, at most ``prefetch`` batches being read ahead."""
        if prefetch < 1:
            raise ConfigError(f"prefetch {prefetch}: must be at least 1")
        ahead: deque[Future[NDArray[np.uint8]]] = deque()
        with ThreadPoolExecutor(prefetch, thread_name_prefix="image-batches") as pool:
            try:
                for indices in batches:
                    if len(ahead) == prefetch:
                        yield ahead.popleft().result()
                    ahead.append(pool.submit(self.read, indices))
                while ahead:
                    yield ahead.popleft().result()
            finally:
                for future in ahead:
                    future.cancel()

    def to_numpy(self, out: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        """Return all images as one (N, H, W, 3) uint8 array in memory; ``out`` as in `read`."""
        if out is None:
            out = np.empty(self.shape, np.uint8)
        for start in range(0, len(self), _ROWS_AT_ONCE):
            stop = min(start + _ROWS_AT_ONCE, len(self))
            self.read(np.arange(start, stop), out=out[start:stop])
        return out

    def _checked(self, indices: ArrayLike) -> NDArray[np.intp]:
        """Return ``indices`` as positions 0..N-1; what is no flat list of integers in range raises `IndexError`."""
        checked = np.asarray(indices)
        if checked.size == 0:
            return np.empty(0, np.intp)
        if checked.ndim != 1 or not np.issubdtype(checked.dtype, np.integer):
            raise IndexError(f"indices must be a flat list of integers, not {checked.dtype} {checked.shape}")
        outside = (checked < -len(self)) | (checked >= len(self))
        if outside.any():
            raise IndexError(f"image {int(checked[outside][0])} of {len(self)}: out of range")
        positions: NDArray[np.intp] = np.where(checked < 0, checked + len(self), checked).astype(np.intp)
        return positions


# ------------------------------------------------------------------------------------------------ a finished cache


@dataclass(frozen=True)
class ShardRecord:
    """One finished shard: ``checksum`` is the SHA-256 of its pixels, ``sizes`` are original (height, width), ``errors`` map
    positions in the shard to reasons."""

    key: str
    checksum: str
    sizes: tuple[tuple[int, int], ...]
    errors: Mapping[int, str]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ShardRecord:
        sizes = tuple((int(height), int(width)) for height, width in values["sizes"])
        errors = {int(position): str(reason) for position, reason in values["errors"].items()}
        return cls(str(values["key"]), str(values["checksum"]), sizes, errors)


def shard_path(directory: Path, key: str) -> Path:
    """Return the file of the pixels of the shard ``key``."""
    return directory / f"{key}.u8"


class ImageCache(ImageReader):
    """A finished cache: memory-mapped, read-only, cheap to open and to pickle. Made by `build_cache` or `open_cache`.

    ``cache[i]`` is image i as a read-only (H, W, 3) view, without a copy.
    """

    def __init__(
        self, directory: Path, spec: CacheSpec, ids: Sequence[str], shard_images: int, records: Sequence[ShardRecord]
    ) -> None:
        self.directory = directory
        self.spec = spec
        self.ids = tuple(ids)
        self.shard_images = shard_images
        self.records = tuple(records)
        self._shards = [_mapped(directory, record, spec) for record in records]
        self.sizes = np.array([size for record in records for size in record.sizes], np.int32).reshape(-1, 2)
        self.sizes.flags.writeable = False
        self.errors = MappingProxyType(
            {
                shard * shard_images + position: reason
                for shard, record in enumerate(records)
                for position, reason in record.errors.items()
            }
        )

    @property
    def fingerprint(self) -> str:
        return self.directory.name

    def __getitem__(self, index: int) -> NDArray[np.uint8]:
        shard, position = divmod(int(self._checked([index])[0]), self.shard_images)
        return self._shards[shard][position]

    def _fill(self, out: NDArray[np.uint8], indices: NDArray[np.intp]) -> None:
        # In the order on disk, so that a cold cache is read forwards.
        order = np.argsort(indices, kind="stable")
        shards, positions = np.divmod(indices[order], self.shard_images)
        for row, shard, position in zip(order.tolist(), shards.tolist(), positions.tolist(), strict=True):
            out[row] = self._shards[shard][position]

    def __reduce__(self) -> tuple[Any, ...]:
        return open_cache, (self.directory,)

    def summary(self) -> dict[str, Any]:
        """Describe the cache in JSON types; ``errors`` maps the id of each unreadable image to its reason."""
        return {
            "directory": str(self.directory),
            "fingerprint": self.fingerprint,
            "images": len(self),
            "unreadable": len(self.errors),
            "bytes": self.nbytes,
            "shards": len(self.records),
            "spec": self.spec.to_dict(),
            "errors": {self.ids[index]: reason for index, reason in sorted(self.errors.items())},
        }


def open_cache(directory: str | Path, *, verify: bool = False) -> ImageCache:
    """Open the finished cache in ``directory`` (the folder named by the fingerprint).

    Truncated or missing shards are always noticed; ``verify`` also reads every shard and compares its checksum. Raises
    `DataError`; building the same cache again mends what is damaged.
    """
    directory = Path(directory)
    path = directory / INDEX
    try:
        index = json.loads(path.read_text("utf-8"))
        if not isinstance(index, dict) or index.get("format") != CACHE_FORMAT:
            raise DataError(f"{path}: made by another version of lesion-hub; build the cache again")
        spec = CacheSpec(**index["spec"])
        records = [ShardRecord.from_dict(values) for values in index["shards"]]
        cache = ImageCache(directory, spec, index["ids"], int(index["shard_images"]), records)
    except OSError:
        raise DataError(f"{directory}: holds no finished image cache; build it, or let its build finish") from None
    except (KeyError, TypeError, ValueError, AttributeError, ConfigError):
        raise DataError(f"{path}: the index is damaged; build the cache again") from None
    for record in cache.records if verify else ():
        shard = shard_path(directory, record.key)
        if sha256_of(shard) != record.checksum:
            raise DataError(f"{shard}: the shard's checksum is wrong; build the cache again to replace it")
    return cache


def _mapped(directory: Path, record: ShardRecord, spec: CacheSpec) -> NDArray[np.uint8]:
    """Map the pixels of one shard, (images, H, W, 3) read-only."""
    path = shard_path(directory, record.key)
    shape = (len(record.sizes), *spec.shape)
    try:
        if path.stat().st_size != spec.nbytes(len(record.sizes)):
            raise DataError(f"{path}: the shard is truncated; build the cache again to replace it")
        # A plain array over the map: indexing np.memmap itself costs a Python call per image.
        return np.memmap(path, np.uint8, "r", shape=shape).view(np.ndarray)
    except OSError as error:
        raise DataError(f"{path}: the shard cannot be read ({error.strerror}); build the cache again") from None


# ------------------------------------------------------------------------------------------------ a stream


class ImageStream(ImageReader):
    """Images decoded and resized at every reading, by a pool of ``threads`` (None: one for each core).

    Needs no disk, and memory only for the batches in flight; returns the very pixels that an `ImageCache` of the same
    images and spec holds. Pillow decodes outside the interpreter's lock, so threads suffice. Use it as a context
    manager, or `close` it, to end its threads.

    >>> from io import BytesIO
    >>> from PIL import Image
    >>> file = BytesIO()
    >>> Image.new("RGB", (8, 6), "white").save(file, "PNG")
    >>> with ImageStream([file.getvalue()] * 5, CacheSpec(3, 4)) as stream:
    ...     [batch.shape for batch in stream.batches([[0, 1], [4, 3, 2]])]
    [(2, 3, 4, 3), (3, 3, 4, 3)]
    """

    def __init__(
        self,
        paths: Sequence[ImageSource],
        spec: CacheSpec | None = None,
        *,
        ids: Sequence[str] | None = None,
        threads: int | None = None,
        on_error: str = "fail",
    ) -> None:
        check_on_error(on_error)
        self.spec = spec or CacheSpec()
        self.ids = image_ids(paths, ids)
        self.threads = threads or os.cpu_count() or 1
        self.on_error = on_error
        self._paths = paths
        self._sizes = np.zeros((len(paths), 2), np.int32)
        self._errors: dict[int, str] = {}
        # Read-only views: callers see what reading fills in, and cannot change it.
        self.sizes = self._sizes.view()
        self.sizes.flags.writeable = False
        self.errors = MappingProxyType(self._errors)
        self._pool = ThreadPoolExecutor(self.threads, thread_name_prefix="image-decode")

    def _fill(self, out: NDArray[np.uint8], indices: NDArray[np.intp]) -> None:
        for _ in self._pool.map(self._decode, out, indices.tolist()):
            pass

    def _decode(self, out: NDArray[np.uint8], index: int, source: ImageSource | None = None) -> None:
        try:
            self._sizes[index] = decode_into(out, source or self._paths[index], self.spec, self.ids[index])
        except ImageError as error:
            if self.on_error == "fail":
                raise
            out[:] = 0
            self._errors[index] = str(error)

    def close(self) -> None:
        """End the decoding threads; nothing can be read afterwards."""
        self._pool.shutdown()

    def __enter__(self) -> ImageStream:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __reduce__(self) -> tuple[Any, ...]:
        remade = partial(ImageStream, ids=self.ids, threads=self.threads, on_error=self.on_error)
        return remade, (self._paths, self.spec)


def check_on_error(on_error: str) -> None:
    """Raise `ConfigError` unless ``on_error`` is one of `ON_ERROR`."""
    if on_error not in ON_ERROR:
        raise ConfigError(f"on_error {on_error!r}: use one of {', '.join(ON_ERROR)}")


def image_ids(sources: Sequence[ImageSource], ids: Sequence[str] | None) -> tuple[str, ...]:
    """Return ``ids`` as given, one for each image, else the positions of the images."""
    if ids is not None and len(ids) != len(sources):
        raise DataError(f"{len(ids)} ids for {len(sources)} images; give one id for each image")
    return tuple(map(str, range(len(sources)) if ids is None else ids))
