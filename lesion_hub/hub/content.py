"""The files of a Hub repo, and whether they are the ones we have."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.hf_api import RepoFile

from lesion_hub.hub.cache import git_blob_id
from lesion_hub.hub.layout import sha256_of

KEPT = frozenset({".gitattributes"})
"""Files that the Hub made, which are nobody's content."""

Content = dict[str, "Path | bytes"]


def files_at(api: HfApi, repo_id: str, commit: str, repo_type: str = "model") -> dict[str, RepoFile]:
    """The files of a commit by name."""
    entries = api.list_repo_tree(repo_id, recursive=True, revision=commit, repo_type=repo_type)
    return {entry.path: entry for entry in entries if isinstance(entry, RepoFile)}


def same_files(content: Content, files: dict[str, RepoFile]) -> bool:
    """Whether the repo holds exactly this content."""
    if set(content) != set(files) - KEPT:
        return False
    return all(same_file(data, files[path]) for path, data in content.items())


def same_file(data: Path | bytes, entry: RepoFile) -> bool:
    """Whether a file of the repo is ours, by git blob id or LFS sha256."""
    if entry.lfs is not None:
        return isinstance(data, Path) and entry.lfs.sha256 == sha256_of(data)
    return entry.blob_id == git_blob_id(data if isinstance(data, bytes) else data.read_bytes())
