"""What shows a repo: its files, their content, its history."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import yaml

from tests.hubd.calls import Call, Refusal, Reply, check_signature, signature, timestamp
from tests.hubd.repositories import Entry, find_commit, git, listing, read_text
from tests.hubd.writing import lfs_path


def front_matter(text: str) -> Any:
    """The YAML block at the head of a README.md."""
    match = re.match(r"\s*---\r?\n(.*?)\r?\n---\s*(\r?\n|\Z)", text, re.DOTALL)
    return yaml.safe_load(match[1]) if match else None


def repo_info(call: Call, revision: str = "main") -> dict[str, Any]:
    commit_id = find_commit(call.path, revision)
    card = front_matter(read_text(call.path, commit_id, "README.md")) or {}
    siblings = [{"rfilename": path} for path, entry in listing(call.path, commit_id).items() if entry["type"] == "file"]
    changed = int(git(call.path, "log", "-1", "--format=%ct", commit_id))
    answer = {
        "_id": call.meta["uid"],
        "id": call.repo_id,
        "author": call.repo_id.split("/")[0],
        "sha": commit_id,
        "private": call.meta["private"],
        "gated": False,
        "disabled": False,
        "tags": list(card.get("tags") or []),
        "cardData": json.loads(json.dumps(card, default=str)),
        "createdAt": call.meta["created"],
        "lastModified": timestamp(changed),
        "siblings": siblings,
    }
    if call.kind == "space":
        answer |= {"sdk": card.get("sdk") or call.meta["sdk"], "subdomain": call.repo_id.replace("/", "-")}
        answer |= {"runtime": call.meta["runtime"]} if "runtime" in call.meta else {}
    return answer


def resolve(call: Call, revision: str, path: str) -> Reply:
    commit_id = find_commit(call.path, revision)
    entry, headers = listing(call.path, commit_id).get(path), {"X-Repo-Commit": commit_id}
    if not entry or entry["type"] != "file":
        raise Refusal(404, "Entry not found", "EntryNotFound", **headers)
    if "lfs" not in entry:
        content = git(call.path, "cat-file", "blob", entry["oid"])
        return ranged(call, len(content), {**headers, "ETag": f'"{entry["oid"]}"'}, body=content)
    sha = entry["lfs"]["oid"]
    # Large files come from "another host", as on the Hub, so that a client that leaks its token there is seen.
    elsewhere = call.base.replace("127.0.0.1", "localhost")
    headers |= {"X-Linked-Size": str(entry["size"]), "X-Linked-Etag": f'"{sha}"', "ETag": f'"{sha}"'}
    headers |= {"Location": f"{elsewhere}/_cdn/{sha}?sig={signature(sha)}"}
    return Reply(status=302, headers=headers)


def cdn(call: Call) -> Reply:
    sha = call.segments[1]
    check_signature(call, sha)
    path = lfs_path(sha)
    return ranged(call, path.stat().st_size, {"ETag": f'"{sha}"'}, path=path)


def ranged(call: Call, size: int, headers: dict[str, str], *, path: Path | None = None, body: bytes = b"") -> Reply:
    """All of it, or the part that a Range header asks for."""
    wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", call.headers.get("range", ""))
    status, first, last = 200, 0, size - 1
    if wanted:
        status, first, last = 206, int(wanted[1]), min(int(wanted[2] or last), last)
        if first > last:
            raise Refusal(416, "Range Not Satisfiable", **{"Content-Range": f"bytes */{size}"})
        headers["Content-Range"] = f"bytes {first}-{last}/{size}"
    headers |= {"Accept-Ranges": "bytes", "Content-Type": "application/octet-stream"}
    return Reply(body[first : last + 1], status, headers, path, (first, last - first + 1))


def tree(call: Call, revision: str, folder: str) -> list[Entry]:
    entries = listing(call.path, find_commit(call.path, revision))
    if folder and entries.get(folder, {}).get("type") != "directory":
        raise Refusal(404, f'{folder} does not exist on "{revision}"', "EntryNotFound")
    root = f"{folder}/" if folder else ""
    deep = call.query.get("recursive", [""])[0].lower() in ("1", "true")
    return [entry for path, entry in entries.items() if path.startswith(root) and (deep or "/" not in path[len(root) :])]


def paths_info(call: Call) -> list[Entry]:
    is_json = "json" in call.headers.get("content-type", "")
    form = call.json() if is_json else parse_qs(call.body.decode())
    wanted = form.get("paths", [])
    entries = listing(call.path, find_commit(call.path, call.segments[5]))
    return [entries[path] for path in ([wanted] if isinstance(wanted, str) else wanted) if path in entries]


def refs(call: Call) -> dict[str, list[dict[str, str]]]:
    answer: dict[str, list[dict[str, str]]] = {"branches": [], "converts": [], "tags": [], "pullRequests": []}
    for line in git(call.path, "for-each-ref", "--format=%(refname) %(objectname)").decode().splitlines():
        ref, oid = line.split(" ")
        _, kind, name = ref.split("/", 2)
        answer["branches" if kind == "heads" else "tags"].append({"name": name, "ref": ref, "targetCommit": oid})
    return answer


def history(call: Call, revision: str) -> list[dict[str, Any]]:
    log = git(call.path, "log", "-z", "--format=%H%x01%ct%x01%an%x01%s%x01%b", find_commit(call.path, revision)).decode()
    rows = [row.split("\1") for row in log.split("\0") if row]
    return [
        {"id": oid, "date": timestamp(int(when)), "authors": [{"user": author}], "title": title, "message": body.strip()}
        for oid, when, author, title, body in rows
    ]


def whoami(call: Call) -> dict[str, Any]:
    user = call.login()
    token = {"type": "access_token", "accessToken": {"displayName": "hubd", "role": "write" if user.may_write else "read"}}
    return {"type": "user", "id": user.name, "name": user.name, "fullname": user.name, "orgs": [], "auth": token}


def validate_yaml(call: Call) -> Reply:
    try:
        card = front_matter(call.json().get("content", ""))
    except yaml.YAMLError as error:
        return Reply({"errors": [{"message": f"YAML Metadata Error: {error}"}], "warnings": []}, 400)
    warnings = [] if card else [{"message": "empty or missing yaml metadata in repo card"}]
    return Reply({"errors": [], "warnings": warnings})
