"""One pass over the images of a data set, spread over processes, in order, with bounded memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from joblib import Parallel, delayed, effective_n_jobs

from lesion_hub.data.images import ImageSource
from lesion_hub.data.schema import image_paths, undecoded
from lesion_hub.errors import DataError, ImageError

if TYPE_CHECKING:
    from datasets import Dataset

    from lesion_hub.data.schema import AnyDataset

Measured = TypeVar("Measured")
Progress = Callable[[int, int], None]

# Starting worker processes takes about a second; fewer images than this are measured sooner without.
_WORTH_A_POOL = 256
_BATCH = 32


def scan(
    measure: Callable[[bytes, str], Measured],
    sources: Sequence[ImageSource],
    *,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Iterator[Measured | ImageError]:
    """Yield ``measure(encoded bytes, name)`` of every source in order, or the `ImageError` that it raised.

    ``sources`` are paths, encoded bytes or the ``{"path", "bytes"}`` mappings of an undecoded image column; they may be
    a lazy sequence, for each is asked for once and only when its turn comes. ``measure`` must be importable (a
    module-level function). ``workers`` processes (default: one per core) share the work when there is enough of it.
    ``progress(done, total)`` is called as results arrive.

    >>> list(scan(lambda encoded, name: len(encoded), [b"12", b"345"]))
    [2, 3]
    """
    total = len(sources)
    jobs = effective_n_jobs(-1 if workers is None else workers) if total >= _WORTH_A_POOL else 1
    batches = _batches(sources)
    if jobs == 1:
        results: Iterable[list[Measured | ImageError]] = (_measure_batch(measure, batch) for batch in batches)
    else:
        pool = Parallel(n_jobs=jobs, return_as="generator", pre_dispatch="3*n_jobs", batch_size=1)
        results = pool(delayed(_measure_batch)(measure, batch) for batch in batches)
    done = 0
    for batch in results:
        yield from batch
        done += len(batch)
        if progress is not None:
            progress(done, total)


def _batches(sources: Iterable[ImageSource]) -> Iterator[list[ImageSource]]:
    iterator = iter(sources)
    while batch := list(islice(iterator, _BATCH)):
        yield batch


def _measure_batch(measure: Callable[[bytes, str], Measured], batch: list[ImageSource]) -> list[Measured | ImageError]:
    return [_measure_one(measure, source) for source in batch]


def _measure_one(measure: Callable[[bytes, str], Measured], source: ImageSource) -> Measured | ImageError:
    try:
        return measure(*encoded(source))
    except ImageError as error:
        return error


def encoded(source: ImageSource) -> tuple[bytes, str]:
    """The encoded bytes of ``source`` and a name for messages; `ImageError` where there is no file to read.

    >>> encoded({"path": "mole.jpg", "bytes": b"..."})
    (b'...', 'mole.jpg')
    """
    if isinstance(source, bytes):
        return source, "image"
    place, content = source_parts(source)
    if content is not None:
        return content, place or "image"
    if place is None:
        raise ImageError("image: the row holds neither image bytes nor a path; drop the row or add its image")
    try:
        return Path(place).read_bytes(), place
    except OSError as error:
        raise ImageError(f"{place}: cannot be read ({error.strerror or error}); check the path and its rights") from None


def source_parts(source: ImageSource) -> tuple[str | None, bytes | None]:
    """(path, bytes) of a source, None for what it does not hold.

    >>> source_parts("mole.jpg"), source_parts(b"...")
    (('mole.jpg', None), (None, b'...'))
    """
    if isinstance(source, bytes):
        return None, source
    if isinstance(source, (str, os.PathLike)):
        return os.fspath(source), None
    if isinstance(source, dict):
        return source.get("path"), source.get("bytes")
    raise TypeError(f"an image source is a path, bytes or a mapping with path and bytes, not {type(source).__name__}")


def whole(dataset: AnyDataset) -> Dataset:
    """``dataset``, which must not be a stream: `DataError` says so otherwise."""
    from datasets import Dataset

    if not isinstance(dataset, Dataset):
        raise DataError("a streamed data set cannot be searched or split as a whole; read it without streaming")
    return dataset


def image_sources(dataset: AnyDataset) -> Sequence[ImageSource]:
    """The images of a data set in row order: their paths, or, where they are embedded, each fetched when asked for."""
    rows = whole(dataset)
    try:
        return image_paths(rows)
    except DataError:
        return _EmbeddedImages(rows)


class _EmbeddedImages(Sequence[ImageSource]):
    def __init__(self, dataset: Dataset) -> None:
        self._images = undecoded(dataset).select_columns(["image"])

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, row: Any) -> Any:
        return self._images[row]["image"]
