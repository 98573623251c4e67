"""The routes, the faults on their way, and the server around them."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import shutil
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote

import uvicorn

from tests.hubd import __doc__ as manual
from tests.hubd import reading, writing
from tests.hubd.calls import Call, Refusal, Reply
from tests.hubd.repositories import GitError
from tests.hubd.state import REQUEST_LINE, STATE, fault

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]


def route(call: Call) -> Any:
    """Path segments arrive split first and unquoted after: refs%2Fheads%2Fx is one segment."""
    first = call.segments[0]
    if first == "_lfs":
        return writing.lfs_put(call)
    if first == "_cdn":
        return reading.cdn(call)
    return route_api(call, call.segments[1:]) if first == "api" else route_git(call, call.segments)


def route_git(call: Call, parts: list[str]) -> Reply:
    """<owner>/<name>/resolve/<revision>/<path> and <owner>/<name>.git/info/lfs/..., below spaces/ or datasets/ for those."""
    kind = parts[0][:-1] if parts[0] in ("spaces", "datasets") else "model"
    parts = parts if kind == "model" else parts[1:]
    if len(parts) >= 5 and parts[2:4] == ["info", "lfs"]:
        call.open_repo(kind, parts[0], parts[1].removesuffix(".git"))
        return writing.lfs_batch(call) if parts[4] == "objects" else writing.lfs_verify(call)
    if len(parts) >= 5 and parts[2] == "resolve":
        call.open_repo(kind, parts[0], parts[1])
        return reading.resolve(call, parts[3], "/".join(parts[4:]))
    raise Refusal(404, "no such page")


def route_api(call: Call, parts: list[str]) -> Any:
    own: dict[tuple[str, ...], Callable[[Call], Any]] = {
        ("whoami-v2",): reading.whoami,
        ("validate-yaml",): reading.validate_yaml,
        ("repos", "create"): writing.create_repo,
    }
    if tuple(parts) in own:
        return own[tuple(parts)](call)
    if len(parts) < 3 or parts[0] not in ("models", "spaces", "datasets"):
        raise Refusal(404, f"hubd does not know /{'/'.join(call.segments)}")
    what, rest = (parts[3] if len(parts) > 3 else ""), parts[4:]
    write = call.method != "GET" and what != "paths-info"
    call.open_repo(parts[0][:-1], parts[1], parts[2], write=write)
    revision = rest[0] if rest else "main"
    verbs: dict[tuple[str, str], Callable[[], Any]] = {
        ("GET", ""): lambda: reading.repo_info(call),
        ("GET", "revision"): lambda: reading.repo_info(call, revision),
        ("GET", "refs"): lambda: reading.refs(call),
        ("GET", "tree"): lambda: reading.tree(call, revision, "/".join(rest[1:]).rstrip("/")),
        ("GET", "commits"): lambda: reading.history(call, revision),
        ("POST", "paths-info"): lambda: reading.paths_info(call),
        ("POST", "preupload"): lambda: writing.preupload(call, revision),
        ("POST", "commit"): lambda: writing.commit(call, revision),
        ("POST", "tag"): lambda: writing.create_tag(call, revision),
        ("POST", "hardware"): lambda: writing.request_hardware(call),
    }
    if (call.method, what) not in verbs:
        raise Refusal(404, f"hubd does not know {call.method} /{'/'.join(call.segments)}")
    return verbs[call.method, what]()


def control(call: Call) -> Reply:
    """The tests' own routes."""
    if call.segments[1] == "log":
        seen = list(STATE.log)
        if call.method == "DELETE":
            STATE.log.clear()
        return Reply(seen)
    if call.method != "GET":
        STATE.faults[:] = json.loads(call.body or b"[]")
    return Reply(STATE.faults)


async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    if scope["type"] != "http":
        return
    call = parse(scope)
    call.body = await read_body(receive)
    if call.segments[0] == "_hubd":
        await answer(control(call), call, send)
        return
    REQUEST_LINE.set(f"{call.method} /{'/'.join(call.segments)}")
    transport = receive.__self__.transport  # type: ignore[attr-defined]  # uvicorn's: the only way to hang up unanswered
    try:
        reply = await perform(call)
    except Refusal as refusal:
        reply = Reply({"error": refusal.message}, refusal.status, refusal.headers)
    if fault("lose"):
        STATE.log.append({"request": REQUEST_LINE.get(), "status": "dropped"})
        transport.abort()
        return
    ranges = {"range": call.headers["range"]} if "range" in call.headers else {}
    STATE.log.append({"request": REQUEST_LINE.get(), "status": reply.status, **ranges})
    if not await answer(reply, call, send):
        await asyncio.sleep(0.1)  # let what was written reach the client
        transport.close()


def parse(scope: dict[str, Any]) -> Call:
    headers = {key.decode("latin1").lower(): value.decode("latin1") for key, value in scope["headers"]}
    path = scope["raw_path"].decode().split("?")[0]
    segments = [unquote(part) for part in path.strip("/").split("/")]
    query = {key.rstrip("[]"): value for key, value in parse_qs(scope["query_string"].decode()).items()}
    return Call(scope["method"], segments, query, headers, f"http://{headers.get('host')}")


async def read_body(receive: Receive) -> bytes:
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            return body


async def perform(call: Call) -> Reply:
    late, status = fault("delay"), fault("status")
    if late:
        await asyncio.sleep(late["delay"])
    if status:
        raise Refusal(status["status"], "fault asked for")
    try:
        result = await asyncio.to_thread(route, call)
    except (KeyError, ValueError, TypeError, AttributeError, IndexError, GitError) as error:
        raise Refusal(400, f"malformed request: {error!r}") from error
    return result if isinstance(result, Reply) else Reply(result)


async def answer(reply: Reply, call: Call, send: Send) -> bool:
    """Send it, whole or as a fault spoils it; False when the connection is to be dropped in the middle."""
    headers = {"Content-Length": str(reply.size), "X-Request-Id": uuid.uuid4().hex, **reply.headers}
    pairs = [(key.lower().encode(), re.sub(r"[^\x20-\xff]", " ", value).encode("latin1")) for key, value in headers.items()]
    await send({"type": "http.response.start", "status": reply.status, "headers": pairs})
    content = b"" if call.method == "HEAD" else reply.content()
    if content and (cut := fault("cut")):
        keep = int(cut["cut"] * len(content)) if cut["cut"] < 1 else int(cut["cut"])
        await send({"type": "http.response.body", "body": content[:keep], "more_body": True})
        return False
    if content and fault("corrupt"):
        content = bytes([content[0] ^ 255]) + content[1:]
    await send({"type": "http.response.body", "body": content})
    return True


def prepare(data: Path) -> None:
    """Make the folders, and sweep up what a killed server left behind."""
    STATE.data = data.resolve()
    shutil.rmtree(STATE.data / "tmp", ignore_errors=True)
    for name in ("tmp", "lfs", "repos"):
        (STATE.data / name).mkdir(parents=True, exist_ok=True)
    for lock in (STATE.data / "repos").glob("*/*/*.git/**/*.lock"):
        lock.unlink()
    key = STATE.data / "key"
    if not key.exists():
        key.write_bytes(os.urandom(32))
    STATE.key = key.read_bytes()


def main() -> None:
    parser = argparse.ArgumentParser(description=manual, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--port", type=int, default=8640)
    options = parser.parse_args()
    prepare(options.data)
    uvicorn.run(app, host="127.0.0.1", port=options.port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main()
