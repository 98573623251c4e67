"""What changes a repo: creating it, uploads, commits, tags."""

from __future__ import annotations

import base64
import fnmatch
import hashlib
import json
import re
import subprocess
import tempfile
import uuid
from pathlib import Path
from typing import Any

from tests.hubd.calls import REPO_NAME, Call, Refusal, Reply, check_signature, repo_path, signature, timestamp
from tests.hubd.repositories import NO_COMMIT, Entry, GitError, find_commit, git, listing, read_text, store_blob, write_commit
from tests.hubd.state import STATE

KINDS = ("model", "space", "dataset")
LFS_LIMIT = 10_000_000
LFS_SUFFIXES = ["bin", "ckpt", "gz", "h5", "npy", "npz", "onnx", "parquet", "pt", "pth", "safetensors", "tar", "zip"]
ATTRIBUTES = "".join(f"*.{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in LFS_SUFFIXES)
LFS_TYPE = {"Content-Type": "application/vnd.git-lfs+json"}


def create_repo(call: Call) -> Reply:
    asked, user = call.json(), call.login()
    kind, name, owner = asked.get("type") or "model", asked.get("name", ""), asked.get("organization") or user.name
    call.require_write(owner)
    if kind not in KINDS or not REPO_NAME.match(name):
        raise Refusal(400, f"Invalid repo name or type: {name!r}")
    target = repo_path(kind, owner, name)
    url = f"{call.base}/{'' if kind == 'model' else kind + 's/'}{owner}/{name}"
    with STATE.locks[str(target)]:
        if target.exists():
            message = f"You already created this {kind} repo"
            return Reply({"error": message, "url": url}, 409, {"X-Error-Message": message})
        fresh = Path(tempfile.mkdtemp(dir=STATE.data / "tmp"))
        subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(fresh)], check=True)
        files = {".gitattributes": ATTRIBUTES}
        if kind == "space":
            files["README.md"] = f"---\ntitle: {name}\nsdk: {asked.get('sdk')}\napp_file: app.py\n---\n"
        changes: list[tuple[str, str | None]] = [(path, store_blob(fresh, text.encode())) for path, text in files.items()]
        write_commit(fresh, None, changes, "initial commit", user.name)
        private = bool(asked.get("private") or asked.get("visibility") == "private")
        meta = {"private": private, "created": timestamp(), "sdk": asked.get("sdk"), "uid": uuid.uuid4().hex[:24]}
        (fresh / "hubd.json").write_text(json.dumps(meta))
        target.parent.mkdir(parents=True, exist_ok=True)
        fresh.rename(target)
    return Reply({"url": url, "name": f"{owner}/{name}", "id": meta["uid"]})


def preupload(call: Call, revision: str) -> dict[str, Any]:
    """Which files go to LFS."""
    commit = find_commit(call.path, revision)
    there = listing(call.path, commit)
    attributes = read_text(call.path, commit, ".gitattributes").splitlines()
    patterns = [line.split()[0] for line in attributes if "filter=lfs" in line]
    answer = []
    for file in call.json()["files"]:
        path, entry = file["path"], there.get(file["path"])
        binary = b"\0" in base64.b64decode(file.get("sample") or "")
        large = file["size"] > LFS_LIMIT or any(fnmatch.fnmatch(path.rsplit("/", 1)[-1], pattern) for pattern in patterns)
        oid = entry and (entry["lfs"]["oid"] if "lfs" in entry else entry["oid"])
        mode = "lfs" if binary or large else "regular"
        answer.append({"path": path, "uploadMode": mode, "shouldIgnore": False, "oid": oid})
    return {"files": answer, "commitOid": commit}


def commit(call: Call, revision: str) -> dict[str, Any]:
    operations = [json.loads(line) for line in call.body.splitlines() if line.strip()]
    header = next((operation["value"] for operation in operations if operation["key"] == "header"), None)
    if revision != "main" or not header or not header.get("summary"):
        raise Refusal(400, "a commit goes to main and has a header line with a summary")
    with STATE.locks[str(call.path)]:
        parent = find_commit(call.path, revision)
        if header.get("parentCommit") and not parent.startswith(header["parentCommit"]):
            raise Refusal(412, "A commit has happened since. Please refresh and try again.")
        there = listing(call.path, parent)
        changes = [change for operation in operations for change in changes_of(call.path, operation, there)]
        message = f"{header['summary']}\n\n{header.get('description', '')}"
        new = write_commit(call.path, parent, changes, message, call.login().name)
    url = f"{call.base}/{call.prefix}{call.repo_id}/commit/{new}"
    return {"success": True, "commitOid": new, "commitUrl": url, "hookOutput": ""}


def changes_of(repo: Path, operation: dict[str, Any], there: dict[str, Entry]) -> list[tuple[str, str | None]]:
    """[(path, blob id or None)] of one line of a commit's body."""
    key, value = operation["key"], operation["value"]
    if key == "header":
        return []
    path = value["path"]
    if any(part in ("", ".", "..", ".git") for part in path.rstrip("/").split("/")):
        raise Refusal(400, f"Invalid path: {path!r}")
    if key == "file":
        return [(path, store_blob(repo, base64.b64decode(value["content"])))]
    if key == "lfsFile":
        large = lfs_path(value["oid"])
        if not large.exists():
            raise Refusal(400, f"LFS object of {path} was not uploaded: {value['oid']}")
        text = f"version https://git-lfs.github.com/spec/v1\noid sha256:{value['oid']}\nsize {large.stat().st_size}\n"
        return [(path, store_blob(repo, text.encode()))]
    if key not in ("deletedFile", "deletedFolder"):
        raise Refusal(400, f"unknown operation {key}")
    folder = path.rstrip("/") + "/"
    gone = [
        p for p, e in there.items() if e["type"] == "file" and (p == path if key == "deletedFile" else p.startswith(folder))
    ]
    if not gone:
        raise Refusal(404, f"A file with this name doesn't exist: {path}", "EntryNotFound")
    return [(p, None) for p in gone]


def lfs_path(sha: str) -> Path:
    if not re.fullmatch("[0-9a-f]{64}", sha):
        raise Refusal(400, "bad oid")
    return STATE.data / "lfs" / sha


def lfs_batch(call: Call) -> Reply:
    """Where to upload each LFS object to; nowhere if it is there already."""
    asked = call.json()
    call.require_write(call.repo_id.split("/")[0])
    objects = []
    for wanted in asked["objects"]:
        sha, size = wanted["oid"], wanted["size"]
        answer = {"oid": sha, "size": size}
        if not lfs_path(sha).exists():
            upload = {"href": f"{call.base}/_lfs/{sha}/{size}?sig={signature(sha, size)}"}
            verify = {"href": f"{call.base}/{call.prefix}{call.repo_id}.git/info/lfs/verify"}
            answer["actions"] = {"upload": upload, "verify": verify}
        objects.append(answer)
    return Reply({"transfer": "basic", "objects": objects}, headers=LFS_TYPE)


def lfs_verify(call: Call) -> Reply:
    asked = call.json()
    path = lfs_path(asked["oid"])
    if not path.exists() or path.stat().st_size != asked["size"]:
        raise Refusal(404, "Object does not exist")
    return Reply({"success": True})


def lfs_put(call: Call) -> Reply:
    """PUT /_lfs/<sha>/<size>: kept once its length and sha256 are proved."""
    sha, size = call.segments[1], int(call.segments[2])
    check_signature(call, sha, size)
    if len(call.body) != size or hashlib.sha256(call.body).hexdigest() != sha:
        raise Refusal(422, "the upload is not the file announced")
    aside = STATE.data / "tmp" / uuid.uuid4().hex
    aside.write_bytes(call.body)
    aside.replace(lfs_path(sha))
    return Reply(headers={"ETag": f'"{sha}"'})


def create_tag(call: Call, revision: str) -> Reply:
    tag = call.json().get("tag", "")
    target = find_commit(call.path, revision)
    try:
        git(call.path, "check-ref-format", f"refs/tags/{tag}")
        git(call.path, "update-ref", f"refs/tags/{tag}", target, NO_COMMIT)
    except GitError:
        raise Refusal(409, f"Tag reference exists already: {tag}") from None
    return Reply({"success": True})


def request_hardware(call: Call) -> dict[str, Any]:
    """The runtime of a space, which here only ever takes note of what it shall run on."""
    if call.kind != "space":
        raise Refusal(404, "only a space runs on hardware")
    runtime = {"stage": "BUILDING", "hardware": {"current": None, "requested": call.json()["flavor"]}}
    (call.path / "hubd.json").write_text(json.dumps({**call.meta, "runtime": runtime}))
    return runtime
