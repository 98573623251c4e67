"""The cache on disk: what identifies it, the files it consists of, and how each file appears whole or not at all.

A cache is one folder named by its fingerprint::

    <root>/<fingerprint>/
        <key>.u8      one shard: (n, H, W, 3) uint8, raw
        <key>.json    its record: checksum, original sizes, images that could not be read
        index.json    the shards in order; without it the folder is an unfinished build

A shard's key covers the identity of its files and the spec, so a change to one image costs one shard, not the cache.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lesion_hub.data.cache.spec import CacheSpec
from lesion_hub.data.files import replacing
from lesion_hub.data.images import ImageSource
from lesion_hub.errors import ConfigError, DataError

FORMAT = 1
INDEX = "index.json"
IDENTITIES = ("stat", "content")

_SHARD_BYTES = 16 << 20
_MOST_SHARD_IMAGES = 256
# Every shard of an open cache holds a file descriptor; the usual limit is 1024 for the whole process.
_MOST_SHARDS = 128
_CHUNK = 4 << 20


@dataclass(frozen=True)
class ShardRecord:
    """One finished shard: ``sizes`` are original (height, width), ``errors`` map positions in the shard to reasons."""

    key: str
    checksum: str
    sizes: tuple[tuple[int, int], ...]
    errors: Mapping[int, str]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ShardRecord:
        sizes = tuple((int(height), int(width)) for height, width in values["sizes"])
        errors = {int(position): str(reason) for position, reason in values["errors"].items()}
        return cls(str(values["key"]), str(values["checksum"]), sizes, errors)


@dataclass(frozen=True)
class CachePlan:
    """Everything that decides a cache's bytes: its images in order, its spec, and the division into shards."""

    sources: Sequence[ImageSource]
    ids: tuple[str, ...]
    spec: CacheSpec
    shard_images: int
    keys: tuple[str, ...]

    @property
    def fingerprint(self) -> str:
        return _digest([FORMAT, self.shard_images, self.keys, self.ids])[:16]

    def span(self, shard: int) -> slice:
        """The images of one shard, as a slice of the whole set."""
        return slice(shard * self.shard_images, min((shard + 1) * self.shard_images, len(self.ids)))

    def count(self, shard: int) -> int:
        span = self.span(shard)
        return int(span.stop - span.start)


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
    shard_images = shard_images or _shard_images(len(sources), spec)
    identities = _identities(sources, identify)
    keys = tuple(
        _digest([FORMAT, spec.to_dict(), identities[start : start + shard_images]])[:24]
        for start in range(0, len(sources), shard_images)
    )
    return CachePlan(sources, image_ids(sources, ids), spec, shard_images, keys)


def image_ids(sources: Sequence[ImageSource], ids: Sequence[str] | None) -> tuple[str, ...]:
    """``ids`` as given, one for each image, else their positions."""
    if ids is not None and len(ids) != len(sources):
        raise DataError(f"{len(ids)} ids for {len(sources)} images; give one id for each image")
    return tuple(map(str, range(len(sources)) if ids is None else ids))


def _shard_images(images: int, spec: CacheSpec) -> int:
    comfortable = min(_MOST_SHARD_IMAGES, max(1, _SHARD_BYTES // spec.nbytes(1)))
    return max(comfortable, -(-images // _MOST_SHARDS))


def _identities(sources: Sequence[ImageSource], identify: str) -> list[tuple[str, str]]:
    """(path, mark) of every image, the path relative to the folder they all share and empty for embedded images."""
    identities: list[tuple[Path | None, str]] = []
    with ThreadPoolExecutor(8) as pool:
        # By slices: a lazy sequence of embedded images must not be held in memory as a whole.
        for start in range(0, len(sources), _MOST_SHARD_IMAGES):
            chunk = sources[start : start + _MOST_SHARD_IMAGES]
            identities.extend(pool.map(lambda source: _identity(source, identify), chunk))
    folders = {path.parent for path, _ in identities if path is not None}
    shared = os.path.commonpath(folders) if folders else ""
    return [("" if path is None else str(path.relative_to(shared)), mark) for path, mark in identities]


def _identity(source: ImageSource, identify: str) -> tuple[Path | None, str]:
    if isinstance(source, Mapping):
        source = source.get("bytes") or source.get("path") or ""
    if isinstance(source, bytes):
        return None, hashlib.sha256(source).hexdigest()
    if not isinstance(source, str | os.PathLike):
        raise DataError(f"a {type(source).__name__} cannot be cached; give paths or encoded images")
    path = Path(source).absolute()
    try:
        if identify == "content":
            return path, checksum_of(path)
        status = path.stat()
    except (OSError, ValueError):
        # Decoding will say what is wrong with it; here it only must differ from the file once it is mended.
        return path, "unreadable"
    return path, f"{status.st_size}:{status.st_mtime_ns}"


def _digest(values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def checksum_of(path: Path) -> str:
    """SHA-256 of a file, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as stream:
        while piece := stream.read(_CHUNK):
            digest.update(piece)
    return digest.hexdigest()


def shard_path(directory: Path, key: str) -> Path:
    return directory / f"{key}.u8"


def write_record(directory: Path, record: ShardRecord) -> None:
    _write_json(directory / f"{record.key}.json", asdict(record))


def read_record(directory: Path, key: str, spec: CacheSpec, count: int, *, verify: bool) -> ShardRecord | None:
    """The record of a finished shard; None when shard or record is absent, damaged, or not what the plan expects."""
    try:
        values = json.loads((directory / f"{key}.json").read_text("utf-8"))
        record = ShardRecord.from_dict(values)
        path = shard_path(directory, key)
        whole = record.key == key and len(record.sizes) == count and path.stat().st_size == spec.nbytes(count)
        if whole and verify:
            whole = checksum_of(path) == record.checksum
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return record if whole else None


def write_index(directory: Path, plan: CachePlan, records: Sequence[ShardRecord]) -> None:
    """Make the cache valid: the last write of a build."""
    index = {
        "format": FORMAT,
        "fingerprint": plan.fingerprint,
        "spec": plan.spec.to_dict(),
        "shard_images": plan.shard_images,
        "ids": plan.ids,
        "shards": [asdict(record) for record in records],
    }
    _write_json(directory / INDEX, index)


def _write_json(path: Path, values: Any) -> None:
    with replacing(path) as stream:
        stream.write(json.dumps(values, separators=(",", ":")).encode())


def remove_leftovers(directory: Path) -> None:
    """Delete what killed builds were writing; call it only with the folder locked."""
    for path in directory.glob(".*.tmp"):
        path.unlink(missing_ok=True)


@contextmanager
def disk_errors(directory: Path) -> Iterator[None]:
    """Turn what the file system refuses into one line that says what to do."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise DataError(f"{directory}: the disk is full; free some space and run again, finished shards are kept") from None
        reason = error.strerror or error
        raise DataError(f"{directory}: cannot write the cache ({reason}); choose another folder") from None
