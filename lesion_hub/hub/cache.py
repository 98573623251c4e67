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

from lesion_hub.config import ModelConfig
from lesion_hub.errors import StoreError
from lesion_hub.hub.layout import WEIGHTS_NAME, WeightsMismatch, is_model_folder, load_config, sha256_of, verify_weights
from lesion_hub.hub.patience import patiently
from lesion_hub.hub.versions import version_tags

logger = logging.getLogger(__name__)

_GIT_ID = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


def cached_refs(repo_id: str) -> list[str]:
    """Branches and tags of a model repo that the cache knows."""
    refs = Path(constants.HF_HUB_CACHE) / f"models--{repo_id.replace('/', '--')}" / "refs"
    return sorted(ref.name for ref in refs.iterdir()) if refs.is_dir() else []


def cached_tags(repo_id: str) -> list[str]:
    """Version tags of a model repo that the cache knows, lowest first."""
    return version_tags(cached_refs(repo_id))


def fetch_intact(download: Callable[[], Path], repo_id: str) -> Path:
    """Run ``download``, which gives a cached file or snapshot; what arrived damaged is fetched once more, then refused."""
    path = patiently(download)
    damaged = _drop_damaged(path, repo_id)
    if damaged:
        path = patiently(download)
        damaged = _drop_damaged(path, repo_id)
    if damaged:
        raise StoreError(
            f"{repo_id}: {damaged[0].name} arrived damaged twice, it does not have the announced hash; "
            "nothing of it was kept, check the connection or tell its publisher"
        )
    return path


def _drop_damaged(path: Path, repo_id: str) -> list[Path]:
    damaged = damaged_files(path)
    for file in damaged:
        logger.warning("%s: %s is not what the Hub announced; it is dropped from the cache", repo_id, file.name)
        forget(file)
    return damaged


def damaged_files(path: Path) -> list[Path]:
    """Those of a cached file, or of a cached snapshot's files, that are not what was announced.

    The Hub announces every file's hash; the config announces the weights', which are read once for that.
    """
    if path.is_file():
        return [] if is_intact(path) else [path]
    files = [file for file in sorted(path.rglob("*")) if file.is_file()]
    damaged = [file for file in files if file != path / WEIGHTS_NAME and not is_intact(file)]
    return damaged or _mismatched_weights(path)


def _mismatched_weights(snapshot: Path) -> list[Path]:
    config = load_config(snapshot) if is_model_folder(snapshot) else None
    try:
        if isinstance(config, ModelConfig):
            verify_weights(snapshot, config)
    except WeightsMismatch:
        return [snapshot / WEIGHTS_NAME]
    return []


def is_intact(path: Path) -> bool:
    """Whether a cached file has the hash in its blob's name; True where the cache keeps plain files, which have none."""
    if not path.is_symlink():
        return True
    announced = path.readlink().name
    if _SHA256.fullmatch(announced):
        return sha256_of(path) == announced
    return not _GIT_ID.fullmatch(announced) or git_blob_id(path.read_bytes()) == announced


def forget(path: Path) -> None:
    """Drop a cached file, wherever its bytes are kept, so that the next download fetches it again."""
    path.resolve().unlink(missing_ok=True)
    path.unlink(missing_ok=True)


def git_blob_id(data: bytes) -> str:
    """The id that git gives to a file with this content."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
