"""The bare git repositories behind the repos."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import tempfile
import uuid
import zlib
from functools import lru_cache
from pathlib import Path
from typing import Any

from tests.hubd.calls import Refusal
from tests.hubd.state import STATE, die_if_asked

POINTER = re.compile(rb"version https://git-lfs.github.com/spec/v1\noid sha256:([0-9a-f]{64})\nsize (\d+)\n")
NO_COMMIT = "0" * 40

Entry = dict[str, Any]


def git(repo: Path, *args: str, data: bytes | None = None, env: dict[str, str] | None = None) -> bytes:
    """Run git in a bare repo."""
    command = ["git", "-c", "core.quotepath=off", "--git-dir", str(repo), *args]
    done = subprocess.run(command, input=data, capture_output=True, check=False, env={**os.environ, **(env or {})})
    if done.returncode:
        raise GitError(f"git {args[0]}: {done.stderr.decode(errors='replace').strip()}")
    return done.stdout


class GitError(Exception):
    """git said no."""


def find_commit(repo: Path, revision: str) -> str:
    """Commit id of a branch, tag, refs/... name or (possibly shortened) commit id."""
    names = [revision] if revision.startswith("refs/") else [f"refs/heads/{revision}", f"refs/tags/{revision}"]
    if re.fullmatch("[0-9a-f]{7,40}", revision):
        names.append(revision)
    for name in names:
        try:
            return git(repo, "rev-parse", "--verify", "--quiet", "--end-of-options", name + "^{commit}").decode().strip()
        except GitError:
            continue
    raise Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")


@lru_cache(maxsize=64)
def listing(repo: Path, commit: str) -> dict[str, Entry]:
    """{path: entry} of a commit (which never changes), folders included. An LFS pointer shows up as the file it stands for."""
    entries: dict[str, Entry] = {}
    for line in git(repo, "ls-tree", "-r", "-t", "-l", "-z", commit).decode().split("\0")[:-1]:
        about, path = line.split("\t", 1)
        _, kind, oid, size = about.split()
        is_file = kind == "blob"
        entry: Entry = {"type": "file" if is_file else "directory", "path": path, "oid": oid, "size": 0}
        entries[path] = entry
        if is_file:
            entry["size"] = int(size)
            match = POINTER.fullmatch(git(repo, "cat-file", "blob", oid)) if int(size) < 200 else None
            if match:
                entry["lfs"] = {"oid": match[1].decode(), "size": int(match[2]), "pointerSize": int(size)}
                entry["size"] = int(match[2])
    return entries


def read_text(repo: Path, commit: str, path: str) -> str:
    entry = listing(repo, commit).get(path)
    if not entry or entry["type"] != "file" or "lfs" in entry:
        return ""
    return git(repo, "cat-file", "blob", entry["oid"]).decode(errors="replace")


def store_blob(repo: Path, data: bytes) -> str:
    """Write a loose object as git does, which for every file of a commit would be a process of its own."""
    content = b"blob %d\0" % len(data) + data
    oid = hashlib.sha1(content).hexdigest()
    path = repo / "objects" / oid[:2] / oid[2:]
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        aside = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
        aside.write_bytes(zlib.compress(content))
        aside.rename(path)
    return oid


def write_commit(repo: Path, parent: str | None, changes: list[tuple[str, str | None]], message: str, user: str) -> str:
    """Commit [(path, blob id, or None to delete)] to main: objects first, then one compare-and-swap of the branch."""
    with tempfile.TemporaryDirectory(dir=STATE.data / "tmp") as folder:
        env = {"GIT_INDEX_FILE": f"{folder}/index", "GIT_AUTHOR_NAME": user, "GIT_AUTHOR_EMAIL": f"{user}@localhost"}
        env |= {"GIT_COMMITTER_NAME": "hubd", "GIT_COMMITTER_EMAIL": "hubd@localhost"}
        if parent:
            git(repo, "read-tree", parent, env=env)
        lines = "".join(f"{f'100644 {oid}' if oid else f'0 {NO_COMMIT}'}\t{path}\0" for path, oid in changes)
        git(repo, "update-index", "--add", "--replace", "-z", "--index-info", data=lines.encode(), env=env)
        tree = git(repo, "write-tree", env=env).decode().strip()
        parents = ["-p", parent] if parent else []
        new = git(repo, "commit-tree", tree, *parents, data=message.encode(), env=env).decode().strip()
    die_if_asked("before-ref")
    try:
        git(repo, "update-ref", "refs/heads/main", new, parent or NO_COMMIT)
    except GitError:
        raise Refusal(412, "A commit has happened since. Please refresh and try again.") from None
    die_if_asked("after-ref")
    return new
