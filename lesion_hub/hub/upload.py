"""One release on its way to the Hub: one commit and one tag, whatever was interrupted before or happens meanwhile."""

from __future__ import annotations

import time
from datetime import timezone
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, GitCommitInfo, HfApi, hf_hub_download
from huggingface_hub.hf_api import RepoFile

from lesion_hub.errors import StoreError
from lesion_hub.hub.cache import fetch_intact
from lesion_hub.hub.content import KEPT, Content, files_at, same_files
from lesion_hub.hub.layout import CHANGELOG_NAME
from lesion_hub.hub.patience import patiently, status_of
from lesion_hub.hub.release import Release

IN_FLIGHT_SECONDS = 60.0
"""How long an untagged release commit may be somebody's publish that is still running."""


class ReleaseUpload:
    """Puts ``release`` on top of ``main`` of a repo, as a version that it does not have yet.

    Each step looks at what is there before it sends anything, so a step whose answer was lost, or a whole publish that was
    interrupted, can be run again and ends with one commit and one tag. The commit names its parent: of two publishers at
    once, one is refused.
    """

    def __init__(self, api: HfApi, repo_id: str, release: Release) -> None:
        self.api = api
        self.repo_id = repo_id
        self.release = release

    def commit(self) -> str:
        """The id of the commit that holds the release: a new one, or the one that an interrupted publish left."""
        return patiently(self._commit_once)

    def tag(self, commit: str) -> None:
        """Give ``commit`` the version's tag."""
        patiently(lambda: self._tag_once(commit))

    # -------------------------------------------------------------------------------------------- the commit

    def _commit_once(self) -> str:
        if self._tagged_commit() is not None:
            raise StoreError(f"{self.repo_id} {self.release.version} already exists; a version never changes, raise the number")
        history = self.api.list_repo_commits(self.repo_id)
        found = self._left_behind(history)
        if found is not None:
            return found
        self._refuse_if_under_way(history)
        try:
            return self._send(history[0].commit_id)
        except Exception as error:
            if status_of(error) != 412:
                raise
            return self._left_behind(self.api.list_repo_commits(self.repo_id)) or self._overtaken()

    def _send(self, parent: str) -> str:
        content, there = self._content_on(parent), self._files_at(parent)
        operations: list[CommitOperationAdd | CommitOperationDelete] = [
            CommitOperationAdd(path, data if isinstance(data, bytes) else str(data)) for path, data in content.items()
        ]
        operations += [CommitOperationDelete(path) for path in there if path not in content and path not in KEPT]
        try:
            answer = self.api.create_commit(
                self.repo_id,
                operations,
                commit_message=self.release.title,
                commit_description=self.release.notes,
                parent_commit=parent,
            )
        except ValueError as error:  # the Hub's verdict on the front matter, which huggingface_hub asks for first
            reason = " ".join(str(error).split())
            raise StoreError(f"{self.repo_id}: the Hub refuses the card ({reason}); mend README.md's front matter") from None
        return answer.oid

    def _left_behind(self, history: list[GitCommitInfo]) -> str | None:
        """The commit among ``history`` that already holds exactly this release."""
        for commit in self._of_this_version(history):
            if same_files(self._content_on(commit.commit_id), self._files_at(commit.commit_id)):
                return commit.commit_id
        return None

    def _refuse_if_under_way(self, history: list[GitCommitInfo]) -> None:
        for commit in self._of_this_version(history):
            if _age(commit) < IN_FLIGHT_SECONDS:
                raise StoreError(
                    f"{self.repo_id}: another publish of {self.release.version} is under way (commit {commit.commit_id[:8]}); "
                    "wait a minute, look at its versions, and run it again if it is not there"
                )

    def _of_this_version(self, history: list[GitCommitInfo]) -> list[GitCommitInfo]:
        return [commit for commit in history if commit.title == self.release.title]

    def _overtaken(self) -> str:
        raise StoreError(
            f"{self.repo_id}: someone else published while {self.release.version} was on its way; nothing of yours was "
            f"written, look at `lesion-hub versions {self.repo_id}` and run it again"
        )

    # -------------------------------------------------------------------------------------------- the tag

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

    # -------------------------------------------------------------------------------------------- what is there

    def _files_at(self, commit: str) -> dict[str, RepoFile]:
        return files_at(self.api, self.repo_id, commit)

    def _content_on(self, commit: str) -> Content:
        """The files of the release, its changelog written on top of that of ``commit``."""
        changelog = self.release.changelog_on(self._changelog_at(commit))
        return {**self.release.files, CHANGELOG_NAME: changelog.encode("utf-8")}

    def _changelog_at(self, commit: str) -> str | None:
        if CHANGELOG_NAME not in self._files_at(commit):
            return None
        path = fetch_intact(
            lambda: Path(hf_hub_download(self.repo_id, CHANGELOG_NAME, revision=commit, token=self.api.token)), self.repo_id
        )
        return path.read_text(encoding="utf-8")


def _age(commit: GitCommitInfo) -> float:
    """Seconds since the Hub made the commit; clocks that differ count as distance, not as a negative age."""
    made = commit.created_at if commit.created_at.tzinfo else commit.created_at.replace(tzinfo=timezone.utc)
    return abs(time.time() - made.timestamp())
