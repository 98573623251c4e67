"""The Hub's cache on this machine: what it holds, and whether each file is what the Hub sent.

huggingface_hub names every cached blob after the hash that the Hub announced for it (the git blob id, or the sha256 of a
large file) but does not compare. We do, because one flipped byte would otherwise stay in the cache for good.
"""

from __future__ import annotations

import hashlib
import logging
import re
import shutil
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path

from huggingface_hub import constants

from lesion_hub.errors import StoreError
from lesion_hub.files import sha256_of
from lesion_hub.hub.layout import REPO_PATTERNS, WEIGHTS_NAME, WeightsMismatch, is_model_folder, load_config, verify_weights
from lesion_hub.hub.retry import with_retries
from lesion_hub.hub.versions import version_tags

logger = logging.getLogger(__name__)

_GIT_ID = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def cached_refs(repo_id: str) -> list[str]:
    """List the branches and tags of a model repo that the cache knows."""
    refs = _refs(repo_id)
    return sorted(ref.name for ref in refs.iterdir()) if refs.is_dir() else []


def drop_broken_refs(repo_id: str) -> None:
    """Remove refs that name no commit: huggingface_hub neither reads nor replaces what is not text."""
    for ref in [path for path in _refs(repo_id).rglob("*") if path.is_symlink() or not path.is_dir()]:
        try:
            whole = ref.is_file() and _GIT_ID.fullmatch(ref.read_bytes().decode("ascii", "replace"))
        except FileNotFoundError:  # somebody else dropped it
            continue
        if not whole:
            logger.warning("%s: its ref %s is damaged and dropped from the cache", repo_id, ref.name)
            ref.unlink(missing_ok=True)


def _refs(repo_id: str) -> Path:
    return Path(constants.HF_HUB_CACHE) / f"models--{repo_id.replace('/', '--')}" / "refs"


def cached_tags(repo_id: str) -> list[str]:
    """List the version tags of a model repo that the cache knows, lowest first."""
    return version_tags(cached_refs(repo_id))


def fetch_intact(download: Callable[[], Path], repo_id: str) -> Path:
    """Run ``download``, which gives a cached file or snapshot; what arrived damaged is fetched once more, then refused."""
    damaged: list[Path] = []
    for _ in range(2):
        path = with_retries(download)
        damaged = damaged_files(path)
        if not damaged:
            return path
        for file in damaged:
            logger.warning("%s: %s is not what the Hub announced; it is dropped from the cache", repo_id, file.name)
            _drop(file)
    raise StoreError(
        f"{repo_id}: {damaged[0].name} arrived damaged twice, it does not have the announced hash; "
        "nothing of it was kept, check the connection or tell its publisher"
    )


def damaged_files(path: Path) -> list[Path]:
    """List those of a cached file, or of a cached snapshot's files, that are not what was announced.

    The Hub announces every file's hash; the config announces the weights', which are read once for that. A folder in a
    file's place is damage too, and so is a link to anything but one of the repo's blobs.
    """
    if path.is_file():
        return [] if _is_intact(path) else [path]
    damaged = []
    for file in sorted(path.rglob("*")):
        if file.is_symlink() or file.is_file():
            whole = _is_blob(file) if file == path / WEIGHTS_NAME else _is_intact(file)
        else:
            whole = not any(fnmatch(file.relative_to(path).as_posix(), pattern) for pattern in REPO_PATTERNS)
        if not whole:
            damaged.append(file)
    if damaged or not is_model_folder(path):
        return damaged
    try:
        verify_weights(path, load_config(path))
    except WeightsMismatch:
        return [path / WEIGHTS_NAME]
    return []


def _is_blob(path: Path) -> bool:
    """Tell whether a cached file is a link to a blob of its repo; True where the cache keeps plain files."""
    if not path.is_symlink():
        return path.is_file()
    blob = path.parent / path.readlink()
    return blob.is_file() and blob.parent.resolve() == _blobs(path)


def _blobs(path: Path) -> Path | None:
    """Find the blobs of the repo that a cached file is of: they lie beside its snapshots."""
    snapshots = next((folder for folder in path.parents if folder.name == "snapshots"), None)
    return snapshots.with_name("blobs").resolve() if snapshots else None


def _drop(path: Path) -> None:
    """Remove a cached file and its blob, so that the next download fetches it; what else it was linked to stays untouched."""
    if not path.is_symlink():
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
        return
    if _is_blob(path):
        (path.parent / path.readlink()).unlink(missing_ok=True)
    path.unlink(missing_ok=True)


def _is_intact(path: Path) -> bool:
    """Tell whether a cached file has the hash in its blob's name; True where the cache keeps plain files, which have none."""
    if not _is_blob(path):
        return False
    if not path.is_symlink():
        return True
    announced = path.readlink().name
    if _SHA256.fullmatch(announced):
        return sha256_of(path) == announced
    return not _GIT_ID.fullmatch(announced) or git_blob_id(path.read_bytes()) == announced


def git_blob_id(data: bytes) -> str:
    """Return the id that git gives to a file with this content.

    >>> git_blob_id(b"")
    'e69de29bb2d1d6434b8b29ae775ad8c2e48c5391'
    """
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
