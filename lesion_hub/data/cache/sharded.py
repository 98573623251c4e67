"""Images in shards as a reader of uint8 arrays: what stands in for the cache where the images do not fit the disk."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lesion_hub.data.cache.reading import ImageStream
from lesion_hub.data.cache.spec import CacheSpec
from lesion_hub.data.shards import ShardedImages
from lesion_hub.errors import ConfigError

_Reading = tuple[NDArray[np.uint8], list[Future[None]]]


class ShardStream(ImageStream):
    """An `ImageStream` that walks its shards: `batches` reads each once, forwards, however the rows asked for are ordered.

    One thread reads ahead of the threads that decode. In memory are the batches in flight, and the encoded images that were
    passed and are asked for later: the order of the rows decides how many those are.
    """

    def __init__(
        self,
        images: ShardedImages,
        spec: CacheSpec | None = None,
        *,
        ids: Sequence[str] | None = None,
        threads: int | None = None,
        on_error: str = "fail",
    ) -> None:
        super().__init__(images, spec, ids=ids, threads=threads, on_error=on_error)
        self._images = images

    def _fill(self, out: NDArray[np.uint8], indices: NDArray[np.intp]) -> None:
        for _ in self._pool.map(self._decode, out, indices.tolist(), self._images.in_order(indices)):
            pass

    def batches(self, batches: Iterable[ArrayLike], *, prefetch: int = 2) -> Iterator[NDArray[np.uint8]]:
        """Yield `read` of each batch of indices, in order, at most ``prefetch`` batches being read ahead.

        All ``batches`` are taken at once, for what is asked for last may lie first in a shard.
        """
        if prefetch < 1:
            raise ConfigError(f"prefetch {prefetch}: must be at least 1")
        wanted = [self._checked(indices) for indices in batches]
        sources = self._images.in_order(np.concatenate([np.empty(0, np.intp), *wanted]))

        def start(rows: NDArray[np.intp]) -> _Reading:
            out = np.empty((len(rows), *self.spec.shape), np.uint8)
            # The rows come first: when they are at an end, no further image is taken.
            pairs = enumerate(zip(rows.tolist(), sources, strict=False))
            return out, [self._pool.submit(self._decode, out[at], row, source) for at, (row, source) in pairs]

        ahead: deque[Future[_Reading]] = deque()
        with ThreadPoolExecutor(1, thread_name_prefix="shards") as reader:
            try:
                for rows in wanted:
                    if len(ahead) == prefetch:
                        yield _finished(ahead.popleft())
                    ahead.append(reader.submit(start, rows))
                while ahead:
                    yield _finished(ahead.popleft())
            finally:
                for future in ahead:
                    future.cancel()
        sources.close()  # type: ignore[attr-defined]


def _finished(reading: Future[_Reading]) -> NDArray[np.uint8]:
    out, decoding = reading.result()
    for one in decoding:
        one.result()
    return out
