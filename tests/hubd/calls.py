"""One request and its answer."""

from __future__ import annotations

import hmac
import json
import re
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.hubd.state import STATE, USERS, User

REPO_NAME = re.compile(r"(?!.*(--|\.\.))[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?(?<!\.git)\Z")


class Refusal(Exception):
    """An error answer. ``code`` becomes X-Error-Code, which the client turns into its exception classes."""

    def __init__(self, status: int, message: str, code: str | None = None, **headers: str) -> None:
        super().__init__(message)
        self.status, self.message = status, message
        self.headers = {"X-Error-Message": message, **({"X-Error-Code": code} if code else {}), **headers}


class Reply:
    """An answer: bytes, something that becomes JSON, or a span (start, length) of a file."""

    def __init__(
        self,
        body: Any = b"",
        status: int = 200,
        headers: dict[str, str] | None = None,
        path: Path | None = None,
        span: tuple[int, int] = (0, 0),
    ) -> None:
        if not isinstance(body, bytes):
            body, headers = json.dumps(body).encode(), {"Content-Type": "application/json", **(headers or {})}
        self.body, self.status, self.headers, self.path, self.span = body, status, dict(headers or {}), path, span

    @property
    def size(self) -> int:
        return self.span[1] if self.path else len(self.body)

    def content(self) -> bytes:
        if self.path is None:
            return bytes(self.body)
        with open(self.path, "rb") as file:
            file.seek(self.span[0])
            return file.read(self.span[1])


@dataclass
class Call:
    """One request: what is asked, by whom, and (after ``open_repo``) of which repo."""

    method: str
    segments: list[str]
    query: dict[str, list[str]]
    headers: dict[str, str]
    base: str
    body: bytes = b""
    kind: str = "model"
    repo_id: str = ""
    path: Path = Path()
    meta: dict[str, Any] = field(default_factory=dict)

    @property
    def user(self) -> User | None:
        return USERS.get(self.headers.get("authorization", "").removeprefix("Bearer "))

    def json(self) -> Any:
        try:
            return json.loads(self.body or b"{}")
        except ValueError:
            raise Refusal(400, "body is not JSON") from None

    def login(self) -> User:
        if self.user is None:
            raise Refusal(401, "Invalid credentials in Authorization header")
        return self.user

    def require_write(self, owner: str) -> None:
        user = self.login()
        if not user.may_write or owner != user.name:
            raise Refusal(403, f'You don\'t have the rights to write under the namespace "{owner}"')

    def open_repo(self, kind: str, owner: str, name: str, *, write: bool = False) -> None:
        if "authorization" in self.headers:
            self.login()
        path = repo_path(kind, owner, name)
        there = REPO_NAME.match(owner) and REPO_NAME.match(name) and (path / "hubd.json").exists()
        meta = json.loads((path / "hubd.json").read_text()) if there else None
        if meta is None or (meta["private"] and not (self.user and owner == self.user.name)):
            raise Refusal(404 if self.user else 401, "Repository not found", "RepoNotFound")
        if write:
            self.require_write(owner)
        self.kind, self.repo_id, self.path, self.meta = kind, f"{owner}/{name}", path, meta

    @property
    def prefix(self) -> str:
        return "" if self.kind == "model" else f"{self.kind}s/"


def repo_path(kind: str, owner: str, name: str) -> Path:
    return STATE.data / "repos" / f"{kind}s" / owner / f"{name}.git"


def signature(*parts: str | int) -> str:
    """What makes an upload or download URL a "pre-signed" one."""
    return hmac.new(STATE.key, "/".join(map(str, parts)).encode(), "sha256").hexdigest()[:32]


def check_signature(call: Call, *parts: str | int) -> None:
    if call.query.get("sig", [""])[0] != signature(*parts):
        raise Refusal(403, "bad signature")
    if "authorization" in call.headers:
        raise Refusal(400, "the client sent its token along with a signed URL")


def timestamp(seconds: float | None = None) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime(seconds))
