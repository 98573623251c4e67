"""Files that visitors send and get: received into memory, checked, held for minutes at most, and never on a disk.

`UploadMiddleware` answers every request for a file before Gradio does: Gradio's own routes for files are never reached, so
nobody can ask them for a path on this machine. `FileStore` holds the bytes of an upload until the call that uses them, and
those of a result until its download. `open_upload` and `check_batch` refuse what is over a limit or no image.
"""

from __future__ import annotations

import re
import secrets
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from mimetypes import guess_type
from pathlib import PurePosixPath, PureWindowsPath
from urllib.parse import quote, unquote

from PIL import Image
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lesion_hub.app.options import MEGABYTE, AppOptions
from lesion_hub.data.images import load_rgb
from lesion_hub.errors import ImageError

NAME_LENGTH = 80
_UNSAFE_IN_NAME = re.compile(r"[^\w .()+-]+")
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")

_FILE_ROUTE = re.compile(r"/file(?:=|/)(?P<path>.*)", re.DOTALL)
_CLOSED_ROUTES = re.compile(r"/(?:proxy=|stream/|upload_progress|deep_link|component_server|monitoring|dev/|vibe)")
_FORM_OVERHEAD = MEGABYTE
_CALL_BYTES = 2 * MEGABYTE
_HEADERS = [(b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer")]


@dataclass(frozen=True)
class Upload:
    """A file in memory: the name as it may be shown and written, and the bytes."""

    name: str
    content: bytes = field(repr=False)


class _TooLarge(Exception):
    """The body of a request is over its limit."""


class _InMemoryParser(MultiPartParser):
    """Starlette's parser, kept from putting files of over a megabyte on the disk."""

    spool_max_size = 0  # of a SpooledTemporaryFile: never roll over to disk


class UploadMiddleware:
    """ASGI middleware over a Gradio app: it receives uploads into ``files``, serves results from there, and limits requests."""

    def __init__(self, app: ASGIApp, files: FileStore, options: AppOptions) -> None:
        self.app = app
        self.files = files
        self.options = options

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path = scope["path"]
        if scope["method"] == "POST" and path.endswith("/upload"):
            response: Response = await self._receive_files(Request(scope, receive))
        elif found := _FILE_ROUTE.search(path):
            response = self._serve_file(found["path"], scope["method"])
        elif _CLOSED_ROUTES.search(path):
            response = PlainTextResponse("Not found", status_code=404)
        else:
            await self._pass_on(scope, receive, send)
            return
        await response(scope, receive, send)

    async def _receive_files(self, request: Request) -> Response:
        """Put the files of a multipart form into the store and answer with their paths, as Gradio's own route does."""
        limit = self.options.max_batch_bytes + _FORM_OVERHEAD
        body = _limited(request.stream(), limit)
        parser = _InMemoryParser(request.headers, body, max_files=self.options.max_files, max_fields=8)
        try:
            form = await parser.parse()
        except _TooLarge:
            return PlainTextResponse(f"The files are over the limit of {limit // MEGABYTE} MB.", status_code=413)
        except MultiPartException as error:
            return PlainTextResponse(f"The upload cannot be read: {error.message}", status_code=400)
        try:
            sent = [file for file in form.getlist("files") if isinstance(file, UploadFile)]
            if any((file.size or 0) > self.options.max_bytes for file in sent):
                return PlainTextResponse(f"A file is over the limit of {_megabytes(self.options.max_bytes)}.", status_code=413)
            return JSONResponse([self.files.put(file.filename or "image", await file.read()) for file in sent])
        finally:
            await form.close()

    def _serve_file(self, path: str, method: str) -> Response:
        """Answer with a file of the store, once, as a download: it must never be shown as a page of this site."""
        upload = self.files.take(unquote(path)) if method == "GET" else None
        if upload is None:
            return PlainTextResponse("File not allowed", status_code=403)
        headers = {
            "Content-Disposition": f"attachment; filename*=utf-8''{quote(upload.name)}",
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
        }
        return Response(upload.content, media_type=guess_type(upload.name)[0] or "application/octet-stream", headers=headers)

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let Gradio answer, limit the size of the request, and add our headers to the response."""
        received = 0

        async def receive_limited() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > _CALL_BYTES:
                raise _TooLarge
            return message

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *_HEADERS]
            await send(message)

        try:
            await self.app(scope, receive_limited, send_with_headers)
        except _TooLarge:
            await JSONResponse({"detail": "The request is too large."}, status_code=413)(scope, receive, send)


async def _limited(stream: AsyncIterator[bytes], limit: int) -> AsyncGenerator[bytes, None]:
    """Pass a stream on until it is over ``limit`` bytes."""
    total = 0
    async for chunk in stream:
        total += len(chunk)
        if total > limit:
            raise _TooLarge
        yield chunk


class FileStore:
    """Files in memory: at most ``capacity`` bytes, each for at most ``keep_seconds``; the oldest make room for new ones.

    Files go by paths below ``root``, a folder that does not hold them, because Gradio's clients name files by path.

    >>> files = FileStore("/nowhere", capacity=10, keep_seconds=60)
    >>> path = files.put("mole.jpg", b"12345")
    >>> files.take(path).content, files.take(path)
    (b'12345', None)
    """

    def __init__(self, root: str, *, capacity: int, keep_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.root = root
        self.capacity = capacity
        self.keep_seconds = keep_seconds
        self._clock = clock
        self._held: dict[str, tuple[Upload, float]] = {}  # token -> (file, when it goes), the oldest first
        self._lock = threading.Lock()

    def put(self, name: str, content: bytes) -> str:
        """Store a file; return the path by which it can be taken, once."""
        upload = Upload(safe_name(name), content)
        token = secrets.token_urlsafe(18)
        with self._lock:
            self._held[token] = (upload, self._clock() + self.keep_seconds)
            self._make_room()
        return f"{self.root}/{token}/{upload.name}"

    def take(self, path: str) -> Upload | None:
        """Remove and return the file at ``path``; None where there is none."""
        folder = PurePosixPath(path).parent
        token = folder.name if str(folder.parent) == self.root else ""
        with self._lock:
            self._make_room()
            upload, _ = self._held.pop(token, (None, 0.0))
        return upload

    def __len__(self) -> int:
        with self._lock:
            self._make_room()
            return len(self._held)

    def _make_room(self) -> None:
        """Drop what is too old, then the oldest until the rest fits."""
        now = self._clock()
        total = sum(len(upload.content) for upload, _ in self._held.values())
        for token, (upload, until) in list(self._held.items()):
            if until > now and total <= self.capacity:
                return  # what came later is younger still
            total -= len(upload.content)
            del self._held[token]


def open_upload(upload: Upload | None, options: AppOptions) -> Image.Image:
    """Decode an upload to an upright RGB picture without metadata; one that is missing, too large or broken is one line."""
    if upload is None:
        raise ImageError("No image was given; choose, paste or drop one.")
    if len(upload.content) > options.max_bytes:
        raise ImageError(
            f"{upload.name}: {_megabytes(len(upload.content))} is over the limit of {_megabytes(options.max_bytes)}"
        )
    return load_rgb(upload.content, max_pixels=options.max_pixels, name=upload.name)


def check_batch(uploads: Sequence[Upload], options: AppOptions) -> None:
    """Refuse a batch that is empty or over a limit."""
    if not uploads:
        raise ImageError("No files were given; choose one or more images.")
    if len(uploads) > options.max_files:
        raise ImageError(f"{len(uploads)} files are over the limit of {options.max_files}; send them in parts")
    total = sum(len(upload.content) for upload in uploads)
    if total > options.max_batch_bytes:
        raise ImageError(
            f"{_megabytes(total)} in all are over the limit of {_megabytes(options.max_batch_bytes)}; send them in parts"
        )


def safe_name(name: str) -> str:
    """Keep the last part of a file name, of letters, digits and a few signs only, at most 80 characters.

    >>> safe_name("../../etc/pass wd<script>.jpg"), safe_name("C:\\\\photos\\\\mole.jpg"), safe_name("..")
    ('pass wd_script_.jpg', 'mole.jpg', 'image')
    """
    last = PureWindowsPath(str(name)).name
    clean = _UNSAFE_IN_NAME.sub("_", last).strip(" .")
    if len(clean) > NAME_LENGTH:
        stem, dot, ending = clean.rpartition(".")
        ending = dot + ending if dot and len(ending) <= 5 else ""
        clean = (stem or clean)[: NAME_LENGTH - len(ending)] + ending
    return clean or "image"


def safe_cell(text: str) -> str:
    """Put a quote before text that a spreadsheet would run as a formula.

    >>> safe_cell("=1+1"), safe_cell("mole.jpg")
    ("'=1+1", 'mole.jpg')
    """
    return f"'{text}" if text.startswith(_FORMULA_STARTS) else text


def _megabytes(count: int) -> str:
    return f"{count / MEGABYTE:.3g} MB"
