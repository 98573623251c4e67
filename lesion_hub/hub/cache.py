"""The Hub's cache on this machine: what it holds, and whether each file is what the Hub sent.

huggingface_hub names every cached blob after the hash that the Hub announced for it (the git blob id, or the sha256 of a
large file) but does not compare. We do, because one flipped byte would otherwise stay in the cache for good.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable
from pathlib import Path

from huggingface_hub import constants

from lesion_hub.errors import StoreError
from lesion_hub.files import sha256_of
from lesion_hub.hub.layout import WEIGHTS_NAME, WeightsMismatch, is_model_folder, load_config, verify_weights
from lesion_hub.hub.retry import with_retries
from lesion_hub.hub.versions import version_tags

logger = logging.getLogger(__name__)

_GIT_ID = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def cached_refs(repo_id: str) -> list[str]:
    """List the branches and tags of a model repo that the cache knows."""
    refs = Path(constants.HF_HUB_CACHE) / f"models--{repo_id.replace('/', '--')}" / "refs"
    return sorted(ref.name for ref in refs.iterdir()) if refs.is_dir() else []


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
            file.resolve().unlink(missing_ok=True)  # the blob, and then the link to it: the next download fetches it again
            file.unlink(missing_ok=True)
    raise StoreError(
        f"{repo_id}: {damaged[0].name} arrived damaged twice, it does not have the announced hash; "
        "nothing of it was kept, check the connection or tell its publisher"
    )


def damaged_files(path: Path) -> list[Path]:
    """List those of a cached file, or of a cached snapshot's files, that are not what was announced.

    The Hub announces every file's hash; the config announces the weights', which are read once for that.
    """
    if path.is_file():
        return [] if _is_intact(path) else [path]
    files = [file for file in sorted(path.rglob("*")) if file.is_file()]
    damaged = [file for file in files if file != path / WEIGHTS_NAME and not _is_intact(file)]
    if damaged or not is_model_folder(path):
        return damaged
    try:
        verify_weights(path, load_config(path))
    except WeightsMismatch:
        return [path / WEIGHTS_NAME]
    return []


def _is_intact(path: Path) -> bool:
    """Tell whether a cached file has the hash in its blob's name; True where the cache keeps plain files, which have none."""
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
