"""Building a cache: in parallel, in bounded memory, and so that a build killed at any moment is merely unfinished."""

from __future__ import annotations

import hashlib
import logging
import multiprocessing
import os
import shutil
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import connection
from pathlib import Path

import numpy as np
from filelock import FileLock

from lesion_hub.data.cache.layout import (
    INDEX,
    CachePlan,
    ShardRecord,
    disk_errors,
    plan_cache,
    read_record,
    remove_leftovers,
    shard_path,
    write_index,
    write_record,
)
from lesion_hub.data.cache.reading import ImageCache, open_cache
from lesion_hub.data.cache.spec import CacheSpec, decode_into
from lesion_hub.data.files import replacing
from lesion_hub.data.images import ImageSource
from lesion_hub.errors import ConfigError, DataError, ImageError

logger = logging.getLogger(__name__)

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class _Job:
    """One shard to make, complete enough to be sent to another process."""

    directory: Path
    key: str
    spec: CacheSpec
    sources: Sequence[ImageSource]
    ids: Sequence[str]
    on_error: str


def build_cache(
    paths: Sequence[ImageSource],
    root: str | Path,
    spec: CacheSpec | None = None,
    *,
    ids: Sequence[str] | None = None,
    processes: int | None = None,
    on_error: str = "fail",
    progress: Progress | None = None,
    identify: str = "stat",
    verify: bool = True,
    shard_images: int | None = None,
) -> ImageCache:
    """Decode and resize every image once, into a folder under ``root`` named by the fingerprint of images and spec.

    A finished cache of the same images is opened, an unfinished one completed; shards that fail their checksum are made
    again (``verify=False`` trusts a *finished* cache's content, which saves reading it all). Shards are shared with
    earlier caches under ``root``, so that after one image has changed only its shard is made anew.

    ``paths`` may hold paths, encoded bytes, or the ``{"path", "bytes"}`` rows of an undecoded `datasets` column; order
    is kept. ``ids`` become ``cache.ids`` (else the positions do) and name embedded images in messages. ``identify``
    tells images apart by ``"stat"`` (relative path, size, modification time) or ``"content"`` (relative path, SHA-256).
    With ``on_error="skip"`` an unreadable image becomes black and is listed in ``cache.errors``; with ``"fail"`` it
    raises `ImageError` and what is finished stays. ``progress`` is called with (images done, images in all).
    ``shard_images`` sets how many images share a file; it is chosen from the size of the set unless given.

    Several processes build in parallel (None: one for each core); as always with multiprocessing, a script that calls
    this needs its ``if __name__ == "__main__":``. Two simultaneous builds of one cache wait for each other.

    >>> import tempfile
    >>> from PIL import Image
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Image.new("RGB", (600, 450), "white").save(f"{folder}/lesion.jpg")
    ...     cache = build_cache([f"{folder}/lesion.jpg"], f"{folder}/cache", CacheSpec(150, 200))
    ...     cache.read([0, 0]).shape, cache.sizes.tolist()
    ((2, 150, 200, 3), [[450, 600]])
    """
    if on_error not in ("fail", "skip"):
        raise ConfigError(f"on_error {on_error!r}: use one of fail, skip")
    if processes is not None and processes < 1:
        raise ConfigError(f"processes {processes}: must be at least 1")
    plan = plan_cache(paths, spec or CacheSpec(), ids=ids, identify=identify, shard_images=shard_images)
    directory = Path(root) / plan.fingerprint
    cache = _opened(directory, plan, verify=verify, on_error=on_error)
    if cache is None:
        with _locked(directory):
            # Nothing that an unfinished build left behind is trusted, so always with checksums.
            records = _finished(directory, plan, verify=True, on_error=on_error)
            _complete(directory, plan, records, on_error=on_error, processes=processes, progress=progress)
        cache = open_cache(directory)
    if progress is not None:
        progress(len(cache), len(cache))
    return cache


@contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Hold the folder, made if need be and rid of what killed builds were writing, against other builds."""
    lock = FileLock(directory / ".lock")
    with disk_errors(directory):
        directory.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    try:
        with disk_errors(directory):
            remove_leftovers(directory)
        yield
    finally:
        lock.release()


def _opened(directory: Path, plan: CachePlan, *, verify: bool, on_error: str) -> ImageCache | None:
    """The cache, where it is finished and whole."""
    if not (directory / INDEX).is_file():
        return None
    records = _finished(directory, plan, verify=verify, on_error=on_error)
    with suppress(DataError):
        cache = open_cache(directory)
        return cache if cache.records == tuple(records) else None
    return None


def _finished(directory: Path, plan: CachePlan, *, verify: bool, on_error: str) -> list[ShardRecord | None]:
    """The record of every finished shard, None for the others."""

    def record_of(shard: int) -> ShardRecord | None:
        record = read_record(directory, plan.keys[shard], plan.spec, plan.count(shard), verify=verify)
        # A shard with unreadable images is tried once more: they may have become readable unchanged.
        return None if record is not None and record.errors and on_error == "fail" else record

    with ThreadPoolExecutor(min(8, len(plan.keys))) as pool:
        return list(pool.map(record_of, range(len(plan.keys))))


def _complete(
    directory: Path,
    plan: CachePlan,
    records: list[ShardRecord | None],
    *,
    on_error: str,
    processes: int | None,
    progress: Progress | None,
) -> None:
    """Make the shards that have no record yet, then the index."""
    for shard, record in enumerate(records):
        if record is None:
            records[shard] = _shared(directory, plan, shard)
    missing = [shard for shard, record in enumerate(records) if record is None]
    done = sum(plan.count(shard) for shard, record in enumerate(records) if record is not None)
    if done and missing:
        logger.info("%s: %d of %d images are cached already", directory, done, len(plan.ids))
    _check_room(directory, plan.spec.nbytes(len(plan.ids) - done))
    for shard, record in _made(directory, plan, missing, on_error, processes or _cores()):
        records[shard] = record
        done += plan.count(shard)
        if progress is not None and done < len(plan.ids):
            progress(done, len(plan.ids))
    with disk_errors(directory):
        write_index(directory, plan, [record for record in records if record is not None])


def _shared(directory: Path, plan: CachePlan, shard: int) -> ShardRecord | None:
    """Take a shard over from another cache under the same root, by a hard link."""
    key = plan.keys[shard]
    for other in directory.parent.glob(f"*/{key}.json"):
        record = read_record(other.parent, key, plan.spec, plan.count(shard), verify=True)
        if other.parent == directory or record is None or record.errors:
            continue
        # File systems without hard links exist; there the shard is simply made again.
        with suppress(OSError):
            shard_path(directory, key).unlink(missing_ok=True)
            os.link(shard_path(other.parent, key), shard_path(directory, key))
            write_record(directory, record)
            return record
    return None


def _check_room(directory: Path, needed: int) -> None:
    free = shutil.disk_usage(directory).free
    if needed > free:
        raise DataError(
            f"{directory}: the disk is full, the cache needs {needed / 1e9:.2f} GB and {free / 1e9:.2f} GB are free; "
            "free some space or choose a smaller size"
        )


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _made(
    directory: Path, plan: CachePlan, missing: Sequence[int], on_error: str, processes: int
) -> Iterator[tuple[int, ShardRecord]]:
    """Make the ``missing`` shards; yields each as it is finished, in any order."""
    jobs = ((shard, _job(directory, plan, shard, on_error)) for shard in missing)
    processes = min(processes, len(missing))
    if processes <= 1:
        yield from ((shard, make_shard(job)) for shard, job in jobs)
        return
    # Spawned, not forked: the caller may hold threads and a GPU.
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(processes, mp_context=context, initializer=_follow_parent)
    running: dict[Future[ShardRecord], int] = {}
    try:
        for shard, job in jobs:
            running[pool.submit(make_shard, job)] = shard
            # Few at once: jobs on embedded images carry their bytes.
            if len(running) > processes:
                yield from _collected(running)
        while running:
            yield from _collected(running)
    except BrokenProcessPool:
        raise DataError(
            f"{directory}: a build process died; run again with fewer processes to continue, and guard the calling "
            'script with `if __name__ == "__main__":`'
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _collected(running: dict[Future[ShardRecord], int]) -> Iterator[tuple[int, ShardRecord]]:
    for future in wait(running, return_when=FIRST_COMPLETED).done:
        yield running.pop(future), future.result()


def _job(directory: Path, plan: CachePlan, shard: int, on_error: str) -> _Job:
    span = plan.span(shard)
    return _Job(directory, plan.keys[shard], plan.spec, list(plan.sources[span]), plan.ids[span], on_error)


def _follow_parent() -> None:
    """In a build process: leave interrupts to the parent, and do not outlive it when it is killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_exit_after, args=(parent.sentinel,), daemon=True).start()


def _exit_after(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)


def make_shard(job: _Job) -> ShardRecord:
    """Decode the images of one shard, one at a time, into its file; then write its record."""
    digest, sizes, errors = hashlib.sha256(), [], {}
    pixels = np.empty(job.spec.shape, np.uint8)
    with disk_errors(job.directory):
        with replacing(shard_path(job.directory, job.key)) as stream:
            for position, (source, image_id) in enumerate(zip(job.sources, job.ids, strict=True)):
                try:
                    sizes.append(decode_into(pixels, source, job.spec, image_id))
                except ImageError as error:
                    if job.on_error == "fail":
                        raise
                    pixels[:] = 0
                    sizes.append((0, 0))
                    errors[position] = str(error)
                stream.write(pixels.data)
                digest.update(pixels.data)
        record = ShardRecord(job.key, digest.hexdigest(), tuple(sizes), errors)
        write_record(job.directory, record)
    return record
