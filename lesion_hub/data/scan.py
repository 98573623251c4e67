"""The images of a data set as a sequence, and one pass over them: spread over processes, in order, with bounded memory."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

from joblib import Parallel, delayed, effective_n_jobs

from lesion_hub.data.images import ImageSource, load_rgb, open_image_file
from lesion_hub.data.schema import image_paths, not_streamed, undecoded
from lesion_hub.data.shards import ShardedImages, is_place
from lesion_hub.errors import DataError, ImageError
from lesion_hub.progress import Progress

if TYPE_CHECKING:
    from lesion_hub.data.schema import AnyDataset

_Result = TypeVar("_Result")

# Starting worker processes takes about a second; fewer images than this are measured sooner without.
_WORTH_A_POOL = 256
_BATCH = 32


def image_sources(dataset: AnyDataset) -> Sequence[ImageSource]:
    """Return the undecoded images of a data set in row order, as `scan`, the cache and the predictor take them.

    They are the paths where every image is a file. Where any is embedded, or all lie in shards, they are a lazy sequence of
    ``{"path", "bytes"}`` mappings, of which each is fetched when it is asked for.
    """
    rows = not_streamed(dataset)
    try:
        paths = image_paths(rows)
    except DataError:
        column: Sequence[ImageSource] = undecoded(rows.with_format(None))["image"]
        return column
    return ShardedImages(paths) if paths and is_place(paths[0]) else paths


def scan(
    measure: Callable[[bytes, str], _Result],
    sources: Sequence[ImageSource],
    *,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Iterator[_Result | ImageError]:
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
    remaining = iter(sources)
    batches = iter(lambda: list(islice(remaining, _BATCH)), [])
    if jobs == 1:
        results: Iterable[list[_Result | ImageError]] = (_measure_batch(measure, batch) for batch in batches)
    else:
        pool = Parallel(n_jobs=jobs, return_as="generator", pre_dispatch="3*n_jobs", batch_size=1)
        results = pool(delayed(_measure_batch)(measure, batch) for batch in batches)
    done = 0
    for batch in results:
        yield from batch
        done += len(batch)
        if progress is not None:
            progress(done, total)


def _measure_batch(measure: Callable[[bytes, str], _Result], batch: list[ImageSource]) -> list[_Result | ImageError]:
    results: list[_Result | ImageError] = []
    for source in batch:
        try:
            results.append(measure(*encoded(source)))
        except ImageError as error:
            results.append(error)
    return results


def find_undecodable(sources: Sequence[ImageSource], *, workers: int | None = None) -> dict[int, str]:
    """Decode every image once, and return the row and the reason of each that cannot be.

    >>> list(find_undecodable([b"no image"]))
    [0]
    """
    results = scan(_decodes, sources, workers=workers)
    return {row: str(result) for row, result in enumerate(results) if isinstance(result, ImageError)}


def _decodes(content: bytes, name: str) -> None:
    load_rgb(content, name=name)


def encoded(source: ImageSource) -> tuple[bytes, str]:
    """Return the encoded bytes of ``source`` and a name for messages; `ImageError` where there is no file to read."""
    path, content = source_parts(source)
    name = path or "image"
    if content is not None:
        return content, name
    if path is None:
        raise ImageError("image: the row holds neither image bytes nor a path; drop the row or add its image")
    with open_image_file(path, name) as stream:
        try:
            return stream.read(), name
        except OSError as error:
            raise ImageError(f"{path}: cannot be read ({error.strerror or error}); check the disk it is on") from None


def source_parts(source: ImageSource) -> tuple[str | None, bytes | None]:
    """Return the path and the bytes of a source, None for what it does not hold.

    >>> source_parts("mole.jpg"), source_parts(b"..."), source_parts({"path": "mole.jpg", "bytes": b"..."})
    (('mole.jpg', None), (None, b'...'), ('mole.jpg', b'...'))
    """
    if isinstance(source, bytes):
        return None, source
    if isinstance(source, (str, os.PathLike)):
        return os.fspath(source), None
    if isinstance(source, Mapping):
        return source.get("path"), source.get("bytes")
    raise TypeError(f"an image source is a path, bytes or a mapping with path and bytes, not {type(source).__name__}")
