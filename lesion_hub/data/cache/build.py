"""Build a cache: plan its shards, decode the missing ones in parallel, write the index last; or stream where none has room.

Every file is written aside and renamed, so a build that is killed at any moment is merely unfinished: the next one verifies the
shards that are there and makes the others.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from filelock import FileLock
from joblib import Parallel, cpu_count, delayed

from lesion_hub.data.cache.reading import (
    CACHE_FORMAT,
    INDEX,
    ImageCache,
    ImageReader,
    ImageStream,
    ShardRecord,
    check_on_error,
    image_ids,
    open_cache,
    shard_path,
)
from lesion_hub.data.cache.spec import CacheSpec, decode_into
from lesion_hub.data.images import ImageSource
from lesion_hub.data.scan import image_sources
from lesion_hub.errors import ConfigError, DataError, ImageError
from lesion_hub.files import remove_leftovers, replacing, sha256_of, sha256_of_json
from lesion_hub.progress import Progress

if TYPE_CHECKING:
    from datasets import Dataset

logger = logging.getLogger(__name__)

Access = Literal["resident", "mapped", "stream"]

IDENTITIES = ("stat", "content")

_SHARD_BYTES = 16 << 20
_MOST_SHARD_IMAGES = 256
# Every shard of an open cache holds a file descriptor; the usual limit is 1024 for the whole process.
_MOST_SHARDS = 128


class CacheWriteError(DataError):
    """A cache that cannot be written: a full or read-only disk."""


@dataclass(frozen=True)
class CachePlan:
    """Everything that decides a cache's bytes: its images in order, its spec, and the shards they are divided into, by key."""

    sources: Sequence[ImageSource]
    ids: tuple[str, ...]
    spec: CacheSpec
    shard_images: int
    keys: tuple[str, ...]

    @property
    def fingerprint(self) -> str:
        return sha256_of_json([CACHE_FORMAT, self.shard_images, self.keys, self.ids])[:16]

    def rows(self, shard: int) -> range:
        """Return the positions of the images of one shard."""
        return range(shard * self.shard_images, min((shard + 1) * self.shard_images, len(self.ids)))


def plan_cache(
    sources: Sequence[ImageSource],
    spec: CacheSpec,
    *,
    ids: Sequence[str] | None = None,
    identify: str = "stat",
    shard_images: int | None = None,
) -> CachePlan:
    """Identify every image, by path, size and modification time or by content, and divide the set into shards."""
    if identify not in IDENTITIES:
        raise ConfigError(f"cache identify {identify!r}: use one of {', '.join(IDENTITIES)}")
    if shard_images is not None and shard_images < 1:
        raise ConfigError(f"cache shard_images {shard_images}: must be at least 1")
    if len(sources) == 0:
        raise DataError("no images to cache; check the data source")
    if shard_images is None:
        comfortable = min(_MOST_SHARD_IMAGES, max(1, _SHARD_BYTES // spec.nbytes(1)))
        shard_images = max(comfortable, -(-len(sources) // _MOST_SHARDS))
    identities = _identities(sources, identify)
    keys = tuple(
        sha256_of_json([CACHE_FORMAT, spec.to_dict(), identities[start : start + shard_images]])[:24]
        for start in range(0, len(sources), shard_images)
    )
    return CachePlan(sources, image_ids(sources, ids), spec, shard_images, keys)


def _identities(sources: Sequence[ImageSource], identify: str) -> list[tuple[str, str]]:
    """Return (path, mark) of every image, the path relative to the folder they all share and empty for embedded images."""

    def identity(source: ImageSource) -> tuple[Path | None, str]:
        if isinstance(source, Mapping):
            source = source.get("bytes") or source.get("path") or ""
        if isinstance(source, bytes):
            return None, hashlib.sha256(source).hexdigest()
        if not isinstance(source, str | os.PathLike):
            raise DataError(f"a {type(source).__name__} cannot be cached; give paths or encoded images")
        path = Path(source).absolute()
        try:
            if identify == "content" and path.is_file():
                return path, sha256_of(path)
            status = path.stat()
        except (OSError, ValueError):
            # Decoding will say what is wrong with it; here it only must differ from the file once it is mended.
            return path, "unreadable"
        return path, f"{status.st_size}:{status.st_mtime_ns}"

    identities: list[tuple[Path | None, str]] = []
    with ThreadPoolExecutor(8) as pool:
        # By slices: a lazy sequence of embedded images must not be held in memory as a whole.
        for start in range(0, len(sources), _MOST_SHARD_IMAGES):
            identities.extend(pool.map(identity, sources[start : start + _MOST_SHARD_IMAGES]))
    folders = {path.parent for path, _ in identities if path is not None}
    shared = os.path.commonpath(folders) if folders else ""
    return [("" if path is None else str(path.relative_to(shared)), mark) for path, mark in identities]


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
    again (``verify=False`` trusts a *finished* cache's content, which saves reading it all).

    ``paths`` may hold paths, encoded bytes, or the ``{"path", "bytes"}`` rows of an undecoded `datasets` column; order
    is kept. ``ids`` become ``cache.ids`` (else the positions do) and name embedded images in messages. ``identify``
    tells images apart by ``"stat"`` (relative path, size, modification time) or ``"content"`` (relative path, SHA-256).
    With ``on_error="skip"`` an unreadable image becomes black and is listed in ``cache.errors``; with ``"fail"`` it
    raises `ImageError` and what is finished stays. ``progress`` is called with (images done, images in all).
    ``shard_images`` sets how many images share a file; it is chosen from the size of the set unless given.

    ``processes`` build in parallel (None: one for each core). Two simultaneous builds of one cache wait for each other.

    >>> import tempfile
    >>> from PIL import Image
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     Image.new("RGB", (600, 450), "white").save(f"{folder}/lesion.jpg")
    ...     cache = build_cache([f"{folder}/lesion.jpg"], f"{folder}/cache", CacheSpec(150, 200))
    ...     cache.read([0, 0]).shape, cache.sizes.tolist()
    ((2, 150, 200, 3), [[450, 600]])
    """
    check_on_error(on_error)
    if processes is not None and processes < 1:
        raise ConfigError(f"processes {processes}: must be at least 1")
    plan = plan_cache(paths, spec or CacheSpec(), ids=ids, identify=identify, shard_images=shard_images)
    directory = Path(root) / plan.fingerprint
    cache = _opened(directory, plan, verify=verify, on_error=on_error)
    if cache is None:
        try:
            directory.mkdir(parents=True, exist_ok=True)
            with FileLock(directory / ".lock"):
                remove_leftovers(directory)
                _complete(directory, plan, on_error=on_error, processes=processes, progress=progress)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                why = "the disk is full; free some space and run again, finished shards are kept"
            else:
                why = f"cannot write the cache ({error.strerror or error}); choose another folder"
            raise CacheWriteError(f"{directory}: {why}") from None
        cache = open_cache(directory)
    if progress is not None:
        progress(len(cache), len(cache))
    return cache


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
    sources = image_sources(dataset)
    if "image_id" in dataset.column_names:
        options.setdefault("ids", list(dataset["image_id"]))
    return build_cache(sources, root, spec, **options)


def _opened(directory: Path, plan: CachePlan, *, verify: bool, on_error: str) -> ImageCache | None:
    """Open the cache, where it is finished and whole, without writing anything."""
    if not (directory / INDEX).is_file():
        return None
    records = _finished_shards(directory, plan, verify=verify, on_error=on_error)
    with suppress(DataError):
        cache = open_cache(directory)
        return cache if cache.records == tuple(records) else None
    return None


def _finished_shards(directory: Path, plan: CachePlan, *, verify: bool, on_error: str) -> list[ShardRecord | None]:
    """Return the record of every finished shard; None where it is absent, damaged, or not what the plan expects."""

    def record_of(shard: int) -> ShardRecord | None:
        key, images = plan.keys[shard], len(plan.rows(shard))
        path = shard_path(directory, key)
        try:
            record = ShardRecord.from_dict(json.loads((directory / f"{key}.json").read_text("utf-8")))
            whole = record.key == key and len(record.sizes) == images and path.stat().st_size == plan.spec.nbytes(images)
            if whole and verify:
                whole = sha256_of(path) == record.checksum
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return None
        # A shard with unreadable images is tried once more: they may have become readable unchanged.
        return record if whole and not (record.errors and on_error == "fail") else None

    with ThreadPoolExecutor(min(8, len(plan.keys))) as pool:
        return list(pool.map(record_of, range(len(plan.keys))))


def _complete(directory: Path, plan: CachePlan, *, on_error: str, processes: int | None, progress: Progress | None) -> None:
    """Make the shards that are not finished yet, then the index."""
    # Nothing that an unfinished build left behind is trusted, so always with checksums.
    records = _finished_shards(directory, plan, verify=True, on_error=on_error)
    missing = [shard for shard, record in enumerate(records) if record is None]
    total = len(plan.ids)
    done = total - sum(len(plan.rows(shard)) for shard in missing)
    if done and missing:
        logger.info("%s: %d of %d images are cached already", directory, done, total)
    needed, free = plan.spec.nbytes(total - done), shutil.disk_usage(directory).free
    if needed > free:
        raise CacheWriteError(
            f"{directory}: the disk is full, the cache needs {needed / 1e9:.2f} GB and {free / 1e9:.2f} GB are free; "
            "free some space or choose a smaller size"
        )

    def images_of(shard: int) -> tuple[Sequence[ImageSource], tuple[str, ...]]:
        rows = plan.rows(shard)
        return list(plan.sources[rows.start : rows.stop]), plan.ids[rows.start : rows.stop]

    workers = max(1, min(processes or cpu_count(), len(missing)))
    # Few are dispatched ahead: jobs on embedded images carry their bytes.
    pool = Parallel(workers, return_as="generator", pre_dispatch="2*n_jobs", batch_size=1)
    jobs = (delayed(make_shard)(directory, plan.keys[shard], plan.spec, *images_of(shard), on_error) for shard in missing)
    try:
        for shard, record in zip(missing, pool(jobs), strict=True):
            records[shard] = record
            done += len(plan.rows(shard))
            if progress is not None and done < total:
                progress(done, total)
    except BrokenProcessPool:
        raise DataError(f"{directory}: a build process died; run again with fewer processes to continue") from None
    index = {
        "format": CACHE_FORMAT,
        "fingerprint": plan.fingerprint,
        "spec": plan.spec.to_dict(),
        "shard_images": plan.shard_images,
        "ids": plan.ids,
        "shards": [asdict(record) for record in records if record is not None],
    }
    _write_json(directory / INDEX, index)


def make_shard(
    directory: Path, key: str, spec: CacheSpec, sources: Sequence[ImageSource], ids: Sequence[str], on_error: str
) -> ShardRecord:
    """Decode the images of one shard, one at a time, into its file; then write its record."""
    digest, sizes, errors = hashlib.sha256(), [], {}
    pixels = np.empty(spec.shape, np.uint8)
    with replacing(shard_path(directory, key)) as stream:
        for position, (source, image_id) in enumerate(zip(sources, ids, strict=True)):
            try:
                sizes.append(decode_into(pixels, source, spec, image_id))
            except ImageError as error:
                if on_error == "fail":
                    raise
                pixels[:] = 0
                sizes.append((0, 0))
                errors[position] = str(error)
            stream.write(pixels.data)
            digest.update(pixels.data)
    record = ShardRecord(key, digest.hexdigest(), tuple(sizes), errors)
    _write_json(directory / f"{key}.json", asdict(record))
    return record


def _write_json(path: Path, values: Any) -> None:
    with replacing(path) as stream:
        stream.write(json.dumps(values, separators=(",", ":")).encode())


# ------------------------------------------------------------------------------------------------ cache or stream


def plan_access(n_images: int, spec: CacheSpec, *, device_budget: int, disk_budget: int) -> Access:
    """Choose how training gets its images, the budgets in bytes (``device_budget=0``: no accelerator to hold them).

    ``"resident"``: all in the accelerator's memory; ``"mapped"``: from the cache on disk; ``"stream"``: decoded again
    in every epoch, for neither has room.

    >>> spec = CacheSpec(224, 298)
    >>> plan_access(10_015, spec, device_budget=40 << 30, disk_budget=0)
    'resident'
    >>> plan_access(400_000, spec, device_budget=40 << 30, disk_budget=1 << 40)
    'mapped'
    """
    needed = spec.nbytes(n_images)
    if needed <= device_budget:
        return "resident"
    return "mapped" if needed <= disk_budget else "stream"


def cache_or_stream(
    paths: Sequence[ImageSource],
    root: str | Path,
    spec: CacheSpec | None = None,
    *,
    device_budget: int = 0,
    disk_budget: int | None = None,
    ids: Sequence[str] | None = None,
    processes: int | None = None,
    on_error: str = "fail",
    progress: Progress | None = None,
    identify: str = "stat",
) -> tuple[Access, ImageReader]:
    """Return the access that the budgets (bytes) permit, and its reader: an `ImageCache` where one can be written.

    Where the disk is full or read-only the reader is an `ImageStream`, with ``processes`` as its threads. ``disk_budget``
    None means what is free under ``root`` and what a cache of these images takes there already. When the access is
    ``"resident"``, the reader's `to_numpy` gives the array to move. The other options are those of `build_cache`.
    """
    spec = spec or CacheSpec()
    needed = spec.nbytes(len(paths))
    if disk_budget is None:
        root = Path(root)
        existing = next(folder for folder in (root, *root.absolute().parents) if folder.exists())
        disk_budget = shutil.disk_usage(existing).free
        # Only then, for planning a cache asks the disk about every file.
        if needed > disk_budget:
            directory = root / plan_cache(paths, spec, ids=ids, identify=identify).fingerprint
            disk_budget += sum(shard.stat().st_size for shard in directory.glob("*.u8"))
    if needed <= disk_budget:
        try:
            cache = build_cache(
                paths, root, spec, ids=ids, processes=processes, on_error=on_error, progress=progress, identify=identify
            )
            return plan_access(len(paths), spec, device_budget=device_budget, disk_budget=disk_budget), cache
        except CacheWriteError as error:
            logger.warning("%s; without a cache, images are decoded in every epoch", error)
    access = plan_access(len(paths), spec, device_budget=device_budget, disk_budget=0)
    return access, ImageStream(paths, spec, ids=ids, threads=processes, on_error=on_error)
