"""Uploads to the Hub: one commit on top of what is there, whatever was interrupted before or happens meanwhile.

`RepoUpload` is what models and Spaces share, `ReleaseUpload` a version of a model, which gets a tag too.
"""

from __future__ import annotations

import hashlib
import time
from datetime import timezone
from pathlib import Path
from typing import TypeAlias

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, GitCommitInfo, HfApi, hf_hub_download
from huggingface_hub.hf_api import RepoFile

from lesion_hub.errors import StoreError, one_line
from lesion_hub.files import sha256_of
from lesion_hub.hub.cache import fetch_intact, git_blob_id
from lesion_hub.hub.layout import CHANGELOG_NAME
from lesion_hub.hub.release import Content, Release
from lesion_hub.hub.retry import status_of, with_retries
from lesion_hub.hub.versions import read_changelog

IN_FLIGHT_SECONDS = 60.0
"""How long an untagged release commit may be somebody's publish that is still running."""

_MADE_BY_THE_HUB = frozenset({".gitattributes"})

Files: TypeAlias = dict[str, RepoFile]
"""The files of a commit, by name."""


class RepoUpload:
    """One commit that turns the files on ``main`` of a repo into ours.

    It looks at what is there before it sends anything, so a lost answer, an interrupted run or a second run ends with one
    commit. The commit names its parent: of two publishers at once, one is refused. Subclasses say what the files are.
    """

    repo_type = "model"

    def __init__(self, api: HfApi, repo_id: str, title: str, description: str) -> None:
        self.api = api
        self.repo_id = repo_id
        self.title = title
        self.description = description
        self._changes: dict[str, tuple[Content, list[str]]] = {}

    def create_repo(self, *, private: bool, space_sdk: str | None = None) -> None:
        """Create the repo unless it is there; one that is there and public is refused where ``private`` is asked for."""
        name, kind = self.repo_id, self.repo_type
        with_retries(lambda: self.api.create_repo(name, repo_type=kind, space_sdk=space_sdk, private=private, exist_ok=True))
        if private and not with_retries(lambda: self.api.repo_info(name, repo_type=kind)).private:
            raise StoreError(f"{name}: exists and is public; make it private in its settings, or leave out --private")

    def commit(self) -> str:
        """Return the id of the commit that holds our files: a new one, or the one that holds them already."""
        return with_retries(self._commit_once)

    def content_on(self, commit: str, there: Files) -> Content:
        """Return our files as they shall be on top of ``commit``, whose files are ``there``."""
        raise NotImplementedError

    def is_stale(self, path: str) -> bool:
        """Tell whether a file of the repo that is none of ours is deleted."""
        return path not in _MADE_BY_THE_HUB

    def find(self, history: list[GitCommitInfo]) -> str | None:
        """Return the commit of ``history`` (newest first) that holds our files already. Here only the newest counts."""
        head = history[0].commit_id
        return None if any(self.changes(head)) else head

    def history(self) -> list[GitCommitInfo]:
        """List the commits on ``main``, newest first."""
        return self.api.list_repo_commits(self.repo_id, repo_type=self.repo_type)

    def changes(self, commit: str) -> tuple[Content, list[str]]:
        """Compare ``commit`` with our files: those to write, and paths to delete."""
        if commit not in self._changes:  # a commit never changes, so a repeated attempt need not compare again
            entries = self.api.list_repo_tree(self.repo_id, recursive=True, revision=commit, repo_type=self.repo_type)
            there = {entry.path: entry for entry in entries if isinstance(entry, RepoFile)}
            content = self.content_on(commit, there)
            to_write = {path: data for path, data in content.items() if path not in there or not _is_same(data, there[path])}
            self._changes[commit] = to_write, [path for path in there if path not in content and self.is_stale(path)]
        return self._changes[commit]

    def _commit_once(self) -> str:
        history = self.history()
        found = self.find(history)
        if found is not None:
            return found
        to_write, to_delete = self.changes(history[0].commit_id)
        additions = [
            CommitOperationAdd(path, data if isinstance(data, bytes) else str(data)) for path, data in to_write.items()
        ]
        try:
            answer = self.api.create_commit(
                self.repo_id,
                [*additions, *(CommitOperationDelete(path) for path in to_delete)],
                commit_message=self.title,
                commit_description=self.description,
                repo_type=self.repo_type,
                parent_commit=history[0].commit_id,
            )
        except Exception as error:
            status = status_of(error)
            # huggingface_hub asks first what the Hub says to the front matter; an HTTP 400 is a ValueError too.
            if isinstance(error, ValueError) and status is None:
                reason = one_line(error)
                raise StoreError(f"{self.repo_id}: the Hub refuses README.md ({reason}); mend its front matter") from None
            if status != 412:
                raise
            found = self.find(self.history())
            if found is None:
                raise StoreError(
                    f"{self.repo_id}: someone else published there meanwhile; nothing of yours was written, "
                    "look at what is there now and run it again"
                ) from None
            return found
        return str(answer.oid)


def _is_same(data: Path | bytes, entry: RepoFile) -> bool:
    """Tell whether a file of the repo is ours, by git blob id or LFS sha256."""
    if entry.lfs is not None:
        return entry.lfs.sha256 == (hashlib.sha256(data).hexdigest() if isinstance(data, bytes) else sha256_of(data))
    return entry.blob_id == git_blob_id(data if isinstance(data, bytes) else data.read_bytes())


class ReleaseUpload(RepoUpload):
    """A release as a version of its repo: one commit, and one tag on it.

    A publish that was interrupted before its tag has left a commit, perhaps under a newer version's: it is found by its
    title and files, and tagged. One that was interrupted after it is done: ``already`` is True then.
    """

    def __init__(self, api: HfApi, repo_id: str, release: Release) -> None:
        super().__init__(api, repo_id, release.title, release.notes)
        self.release = release
        self.already = False

    def content_on(self, commit: str, there: Files) -> Content:
        """Return the files of the release, its changelog on top of that of ``commit``."""
        previous = None
        if CHANGELOG_NAME in there:
            token = self.api.token
            path = fetch_intact(
                lambda: Path(hf_hub_download(self.repo_id, CHANGELOG_NAME, revision=commit, token=token)), self.repo_id
            )
            previous = read_changelog(path)
        return {**self.release.files, CHANGELOG_NAME: self.release.changelog_on(previous).encode("utf-8")}

    def find(self, history: list[GitCommitInfo]) -> str | None:
        """Return the commit that an interrupted publish of this very release left; refuse while another may be running."""
        same_version = [commit for commit in history if commit.title == self.title]
        for commit in same_version:
            if not any(self.changes(commit.commit_id)):
                return commit.commit_id
        for commit in same_version:
            if _age(commit) < IN_FLIGHT_SECONDS:
                raise StoreError(
                    f"{self.repo_id}: another publish of {self.release.version} is under way (commit {commit.commit_id[:8]}); "
                    "wait a minute, look at its versions, and run it again if it is not there"
                )
        return None

    def tag(self, commit: str) -> None:
        """Give ``commit`` the version's tag."""
        with_retries(lambda: self._tag_once(commit))

    def _commit_once(self) -> str:
        tagged = self._tagged_commit()
        if tagged is None:
            return super()._commit_once()
        if any(self.changes(tagged)):
            raise StoreError(f"{self.repo_id} {self.release.version} already exists; a version never changes, raise the number")
        self.already = True
        return tagged

    def _tag_once(self, commit: str) -> None:
        if self._is_tagged(commit):
            return
        try:
            # A tag without a message: its target is the commit itself, which is what _is_tagged compares.
            self.api.create_tag(self.repo_id, tag=str(self.release.version), revision=commit)
        except Exception as error:
            if status_of(error) != 409 or not self._is_tagged(commit):
                raise

    def _is_tagged(self, commit: str) -> bool:
        holder = self._tagged_commit()
        if holder is not None and holder != commit:
            raise StoreError(
                f"{self.repo_id}: {self.release.version} was published by someone else meanwhile; nothing was mixed, "
                "raise the number"
            )
        return holder is not None

    def _tagged_commit(self) -> str | None:
        refs = self.api.list_repo_refs(self.repo_id)
        return next((ref.target_commit for ref in refs.tags if ref.name == str(self.release.version)), None)


def _age(commit: GitCommitInfo) -> float:
    """Return the seconds since the Hub made the commit; clocks that differ count as distance, not as a negative age."""
    made = commit.created_at if commit.created_at.tzinfo else commit.created_at.replace(tzinfo=timezone.utc)
    return abs(time.time() - made.timestamp())
