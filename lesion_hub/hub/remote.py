"""The Hugging Face Hub: one commit and one immutable tag per version, and downloads that are checked by sha256."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    constants,
    hf_hub_download,
    snapshot_download,
)
from huggingface_hub.hf_api import RepoFile
from huggingface_hub.utils import disable_progress_bars, enable_progress_bars

from lesion_hub.config import CONFIG_NAME, ENSEMBLE_NAME, MEMBER_REVISION, ModelConfig
from lesion_hub.errors import ConfigError, StoreError
from lesion_hub.hub.format import (
    CARD_NAME,
    CHANGELOG_NAME,
    METRICS_NAME,
    MODELING_NAME,
    PLOTS_PATTERN,
    SPLIT_NAME,
    WEIGHTS_NAME,
    WeightsMismatch,
    load_config,
    verify_weights,
)
from lesion_hub.hub.patience import explained, is_hub_error, patiently, status_of
from lesion_hub.hub.release import Published, Release
from lesion_hub.hub.versions import version_tags
from lesion_hub.version import __version__

logger = logging.getLogger(__name__)

REPO_PATTERNS = [
    *(CONFIG_NAME, ENSEMBLE_NAME, WEIGHTS_NAME, MODELING_NAME),
    *(CARD_NAME, METRICS_NAME, SPLIT_NAME, CHANGELOG_NAME, PLOTS_PATTERN),
]
IN_FLIGHT_SECONDS = 60.0
"""How long an untagged release commit may be somebody's publish that is still running."""


@dataclass(frozen=True)
class _Head:
    commit: str
    title: str
    created: datetime


class Hub:
    """The Hub at ``HF_ENDPOINT``, with the verbs of the registry. The token comes from the usual places if not given."""

    def __init__(self, token: str | None = None, *, private: bool = False) -> None:
        self.token = token
        self.private = private
        self.api = HfApi(token=token, library_name="lesion-hub", library_version=__version__)

    def versions(self, name: str) -> list[str]:
        """Version tags of a repo, lowest first; offline, those in the cache."""
        if constants.HF_HUB_OFFLINE:
            return _cached_tags(name)
        with _explained(name, "listing its versions"):
            return self._tags(name)

    def fetch(self, name: str, revision: str | None = None) -> tuple[Path, str]:
        """(folder in the cache, revision) of a version, checked; None is the highest version, or ``main`` without any.

        A version tag or commit never changes, so a checked copy in the cache is used without asking the Hub.
        """
        revision = revision or self._newest(name)
        if MEMBER_REVISION.fullmatch(revision) or constants.HF_HUB_OFFLINE:
            folder = self._cached(name, revision)
            if folder is not None:
                return folder, revision
        with _explained(name, f"fetching revision {revision}"):
            folder = patiently(lambda: Path(self._snapshot(name, revision)))
            self._heal(name, folder)
        return folder, revision

    def publish(self, release: Release, name: str) -> Published:
        """Commit the release on top of main, guarded by its parent, and tag it. Safe to run again after any failure."""
        with _explained(name, f"publishing {release.version}"):
            patiently(lambda: self.api.create_repo(name, private=self.private, exist_ok=True))
            if str(release.version) in self._tags(name):
                raise StoreError(f"{name} {release.version} already exists; a version never changes, raise the number")
            commit = self._commit(release, name)
            self._tag(release, name, commit)
        return Published(name, str(release.version), f"{self.api.endpoint}/{name}/tree/{release.version}", commit)

    # -------------------------------------------------------------------------------------------- reading

    def _tags(self, name: str) -> list[str]:
        refs = patiently(lambda: self.api.list_repo_refs(name))
        return version_tags(tag.name for tag in refs.tags)

    def _newest(self, name: str) -> str:
        tags = self.versions(name)
        if not tags and constants.HF_HUB_OFFLINE:
            raise StoreError(
                f"{name}: not in the cache, and this process is offline (HF_HUB_OFFLINE); go online once to fetch it"
            )
        return tags[-1] if tags else constants.DEFAULT_REVISION

    def _snapshot(self, name: str, revision: str, *, local: bool = False) -> str:
        return snapshot_download(
            name,
            revision=revision,
            token=self.token,
            allow_patterns=REPO_PATTERNS,
            local_files_only=local,
            library_name="lesion-hub",
        )

    def _cached(self, name: str, revision: str) -> Path | None:
        """The checked copy in the cache, or None when there is none or it is damaged."""
        try:
            folder = Path(self._snapshot(name, revision, local=True))
            _check(folder)
        except (OSError, ConfigError, StoreError) as error:
            if constants.HF_HUB_OFFLINE:
                if isinstance(error, OSError):
                    raise explained(error, name, "reading the cache") from None
                raise
            return None
        return folder

    def _heal(self, name: str, folder: Path) -> None:
        """Check a downloaded folder; a damaged file is fetched once more, and refused if that does not help."""
        try:
            _check(folder)
            return
        except WeightsMismatch as error:
            damaged, reason = WEIGHTS_NAME, str(error)
        except ConfigError as error:
            damaged = ENSEMBLE_NAME if (folder / ENSEMBLE_NAME).exists() else CONFIG_NAME
            reason = str(error)
        logger.warning("%s: %s; fetching %s again", name, reason, damaged)
        patiently(lambda: hf_hub_download(name, damaged, revision=folder.name, token=self.token, force_download=True))
        _check(folder)

    # -------------------------------------------------------------------------------------------- writing

    def _commit(self, release: Release, name: str) -> str:
        """The id of the commit that holds the release: a new one, or the one that an interrupted publish left."""
        head, files = self._head(name), self._files(name)
        previous = self._changelog(name, head.commit) if CHANGELOG_NAME in files else None
        content: dict[str, Path | bytes] = {**release.files, CHANGELOG_NAME: release.changelog_on(previous).encode("utf-8")}
        if _same(content, files):
            return head.commit
        if head.title == release.title and _age(head) < IN_FLIGHT_SECONDS:
            raise StoreError(
                f"{name}: another publish of {release.version} is under way (commit {head.commit[:8]}); "
                "wait a minute, look at its versions, and run it again if it is not there"
            )
        operations: list[CommitOperationAdd | CommitOperationDelete] = [
            CommitOperationAdd(path, data if isinstance(data, bytes) else str(data)) for path, data in content.items()
        ]
        operations += [CommitOperationDelete(path) for path in files if path not in content and path != ".gitattributes"]

        def commit() -> str:
            return self.api.create_commit(
                name,
                operations,
                commit_message=release.title,
                commit_description=release.notes,
                parent_commit=head.commit,
            ).oid

        def landed() -> str | None:
            now = self._head(name)
            return now.commit if now.commit != head.commit and _same(content, self._files(name)) else None

        return _unless_overtaken(lambda: patiently(commit, landed=landed), name, release)

    def _tag(self, release: Release, name: str, commit: str) -> None:
        tag = str(release.version)

        def landed() -> bool | None:
            refs = self.api.list_repo_refs(name)
            holders = [ref.target_commit for ref in refs.tags if ref.name == tag]
            if holders and holders[0] != commit:
                raise StoreError(f"{name} {tag} was published by someone else meanwhile; nothing was mixed, raise the number")
            return True if holders else None

        def create() -> bool:
            try:
                self.api.create_tag(name, tag=tag, revision=commit, tag_message=release.notes)
            except Exception as error:
                if status_of(error) == 409 and landed():
                    return True
                raise
            return True

        patiently(create, landed=landed)

    def _head(self, name: str) -> _Head:
        newest = patiently(lambda: self.api.list_repo_commits(name))[0]
        return _Head(newest.commit_id, newest.title, newest.created_at)

    def _files(self, name: str) -> dict[str, RepoFile]:
        entries = patiently(lambda: list(self.api.list_repo_tree(name, recursive=True)))
        return {entry.path: entry for entry in entries if isinstance(entry, RepoFile)}

    def _changelog(self, name: str, commit: str) -> str:
        path = patiently(lambda: hf_hub_download(name, CHANGELOG_NAME, revision=commit, token=self.token))
        return Path(path).read_text(encoding="utf-8")


def _check(folder: Path) -> None:
    config = load_config(folder)
    if isinstance(config, ModelConfig):
        verify_weights(folder, config)


def _cached_tags(name: str) -> list[str]:
    refs = Path(constants.HF_HUB_CACHE) / f"models--{name.replace('/', '--')}" / "refs"
    return version_tags(ref.name for ref in refs.iterdir()) if refs.is_dir() else []


def _same(content: dict[str, Path | bytes], files: dict[str, RepoFile]) -> bool:
    """Whether the repo holds exactly this content (its .gitattributes aside), by git blob id or LFS sha256."""
    if set(content) != set(files) - {".gitattributes"}:
        return False
    for path, data in content.items():
        blob = data if isinstance(data, bytes) else data.read_bytes()
        entry = files[path]
        if entry.lfs is not None:
            if entry.lfs.sha256 != hashlib.sha256(blob).hexdigest():
                return False
        elif entry.blob_id != hashlib.sha1(b"blob %d\0" % len(blob) + blob, usedforsecurity=False).hexdigest():
            return False
    return True


def _age(head: _Head) -> float:
    created = head.created if head.created.tzinfo else head.created.replace(tzinfo=timezone.utc)
    return time.time() - created.timestamp()


def _unless_overtaken(commit: Callable[[], str], name: str, release: Release) -> str:
    try:
        return commit()
    except Exception as error:
        if status_of(error) == 412:
            raise StoreError(
                f"{name}: someone else published while {release.version} was on its way; nothing of yours was written, "
                f"look at `lesion-hub versions {name}` and run it again"
            ) from None
        raise


@contextmanager
def _explained(name: str, doing: str) -> Iterator[None]:
    try:
        yield
    except StoreError:
        raise
    except Exception as error:
        if not is_hub_error(error):
            raise
        raise explained(error, name, doing) from None


@contextmanager
def quiet_downloads(quiet: bool = True) -> Iterator[None]:
    """Silence huggingface_hub's progress bars for a while, for machine-readable output."""
    if quiet:
        disable_progress_bars()
    try:
        yield
    finally:
        if quiet:
            enable_progress_bars()
