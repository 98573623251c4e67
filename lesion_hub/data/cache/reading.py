"""Reading cached images: random access by index, the same whether they come from disk or are decoded on the way."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lesion_hub.data.cache.layout import FORMAT, INDEX, ShardRecord, checksum_of, shard_path
from lesion_hub.data.cache.spec import CacheSpec
from lesion_hub.errors import ConfigError, DataError

_ROWS_AT_ONCE = 256


class ImageReader(ABC):
    """N images of one shape, read by index as (n, H, W, 3) uint8 RGB.

    What is read does not depend on the reader: an `ImageCache` and an `ImageStream` of the same images and spec return
    identical pixels. An image that could not be read, where that was permitted, is black and listed in ``errors``.
    """

    spec: CacheSpec
    ids: Sequence[str]

    @property
    @abstractmethod
    def errors(self) -> Mapping[int, str]:
        """{index: reason} of the images that could not be read; a stream knows of those it has come across."""

    @property
    @abstractmethod
    def sizes(self) -> NDArray[np.int32]:
        """(N, 2) original upright (height, width); 0 where unknown. See `CacheSpec.stretch`."""

    @abstractmethod
    def _fill(self, out: NDArray[np.uint8], indices: NDArray[np.intp]) -> None:
        """Write the images ``indices`` (in range, not negative) into ``out``."""

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """(N, H, W, 3)."""
        return len(self), *self.spec.shape

    @property
    def nbytes(self) -> int:
        """The bytes that all images take when resident."""
        return self.spec.nbytes(len(self))

    @property
    def valid(self) -> NDArray[np.bool_]:
        """(N,) bool, False at every index in ``errors``."""
        mask = np.ones(len(self), np.bool_)
        mask[list(self.errors)] = False
        return mask

    def fits(self, budget_bytes: int) -> bool:
        """Whether all images together take no more than ``budget_bytes``."""
        return self.nbytes <= budget_bytes

    def read(self, indices: ArrayLike, out: NDArray[np.uint8] | None = None) -> NDArray[np.uint8]:
        """The images ``indices`` (n integers in -N..N-1, repeats allowed) as (n, H, W, 3) uint8, in that order.

        ``out``, of that shape and type, is filled and returned instead of a new array: give a pinned buffer to copy to
        the GPU from.
        """
        checked = self._checked(indices)
        if out is None:
            out = np.empty((len(checked), *self.spec.shape), np.uint8)
        elif out.shape != (len(checked), *self.spec.shape) or out.dtype != np.uint8:
            raise ValueError(f"out is {out.dtype} {out.shape}, not uint8 {(len(checked), *self.spec.shape)}")
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
        """All images as one (N, H, W, 3) uint8 array in memory; ``out`` as in `read`."""
        if out is None:
            out = np.empty(self.shape, np.uint8)
        for start in range(0, len(self), _ROWS_AT_ONCE):
            stop = min(start + _ROWS_AT_ONCE, len(self))
            self.read(np.arange(start, stop), out=out[start:stop])
        return out

    def _checked(self, indices: ArrayLike) -> NDArray[np.intp]:
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
        self._errors = {
            shard * shard_images + position: reason
            for shard, record in enumerate(records)
            for position, reason in record.errors.items()
        }

    @property
    def fingerprint(self) -> str:
        return self.directory.name

    @property
    def errors(self) -> Mapping[int, str]:
        return MappingProxyType(self._errors)

    @property
    def sizes(self) -> NDArray[np.int32]:
        return np.array([size for record in self.records for size in record.sizes], np.int32).reshape(-1, 2)

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
        """What the cache holds, in JSON types.

        ``errors`` maps the id of each unreadable image to its reason.
        """
        return {
            "directory": str(self.directory),
            "fingerprint": self.fingerprint,
            "images": len(self),
            "unreadable": len(self._errors),
            "bytes": self.nbytes,
            "shards": len(self.records),
            "spec": self.spec.to_dict(),
            "errors": {self.ids[index]: reason for index, reason in sorted(self._errors.items())},
        }


def open_cache(directory: str | Path, *, verify: bool = False) -> ImageCache:
    """Open the finished cache in ``directory`` (the folder named by the fingerprint).

    Truncated or missing shards are always noticed; ``verify`` also reads every shard and compares its checksum. Raises
    `DataError`; building the same cache again mends what is damaged.
    """
    directory = Path(directory)
    cache = _parsed(directory)
    if verify:
        for record in cache.records:
            path = shard_path(directory, record.key)
            if checksum_of(path) != record.checksum:
                raise DataError(f"{path}: the shard's checksum is wrong; build the cache again to replace it")
    return cache


def _parsed(directory: Path) -> ImageCache:
    path = directory / INDEX
    try:
        index = json.loads(path.read_text("utf-8"))
    except OSError:
        raise DataError(f"{directory}: holds no finished image cache; build it, or let its build finish") from None
    except ValueError:
        raise DataError(f"{path}: the index is damaged; build the cache again") from None
    if not isinstance(index, dict) or index.get("format") != FORMAT:
        raise DataError(f"{path}: made by another version of lesion-hub; build the cache again")
    try:
        spec = CacheSpec.from_dict(index["spec"])
        records = [ShardRecord.from_dict(values) for values in index["shards"]]
        return ImageCache(directory, spec, index["ids"], int(index["shard_images"]), records)
    except (KeyError, TypeError, ValueError, AttributeError, ConfigError):
        raise DataError(f"{path}: the index is damaged; build the cache again") from None


def _mapped(directory: Path, record: ShardRecord, spec: CacheSpec) -> NDArray[np.uint8]:
    path = shard_path(directory, record.key)
    shape = (len(record.sizes), *spec.shape)
    try:
        if path.stat().st_size != spec.nbytes(len(record.sizes)):
            raise DataError(f"{path}: the shard is truncated; build the cache again to replace it")
        # A plain array over the map: indexing np.memmap itself costs a Python call per image.
        return np.memmap(path, np.uint8, "r", shape=shape).view(np.ndarray)
    except OSError as error:
        raise DataError(f"{path}: the shard cannot be read ({error.strerror}); build the cache again") from None
