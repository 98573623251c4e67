"""What every request passes before Gradio sees it: files are received and served here, and calls are limited and checked.

`PageMiddleware` answers every request for a file itself: Gradio's own routes for files are never reached, so nobody can ask
them for a path on this machine. What is over a limit is refused while it arrives, and a body that no longer arrives is given
up. The bytes of all bodies count against the memory of the `FileStore`, which is bounded.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import AsyncGenerator
from mimetypes import guess_type
from urllib.parse import quote, unquote

from pydantic_core import from_json
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lesion_hub.app.gradio_internals import ERRORS_OF_CALLERS
from lesion_hub.app.options import MEGABYTE, AppOptions
from lesion_hub.app.uploads import FileStore, StoreFull, megabytes

logger = logging.getLogger(__name__)

_FILE_ROUTE = re.compile(r"/file(?:=|/)(?P<path>.*)", re.DOTALL)
_CLOSED_ROUTES = re.compile(
    r"/(?:proxy=|stream/|upload_progress|deep_link|component_server|monitoring|dev/|vibe|process_recording|run-history)"
)
_SESSION_HASH = re.compile(r"[\w-]{1,36}", re.ASCII)  # Gradio's page makes 11 characters, its Python client a UUID
_HEADERS = [(b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer")]

_FORM_OVERHEAD = MEGABYTE
_CALL_BYTES = 16_000
_CALL_BYTES_PER_FILE = 1500  # a call names a file in some 700
_LEAST_PROGRESS = 10_000
_RETRY_SECONDS = 10


class _Refused(Exception):
    """A request is refused with an HTTP status and one line."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


class RequestBody:
    """A request's body as it arrives, at most ``limit`` bytes; until `close`, they count against the memory of ``files``."""

    def __init__(self, receive: Receive, files: FileStore, *, limit: int, idle_seconds: float) -> None:
        self.files = files
        self.limit = limit
        self.idle_seconds = idle_seconds
        self.complete = False
        self._receive = receive
        self._reserved = 0

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """Yield what arrives; refuse what is over the limit, finds no memory, or brings too little in ``idle_seconds``."""
        total = progress = 0
        until = time.monotonic() + self.idle_seconds
        while not self.complete:
            chunk = await self._next(until)
            total += len(chunk)
            progress += len(chunk)
            if total > self.limit:
                raise _Refused(413, f"The request is over the limit of {megabytes(self.limit)}.")
            if progress >= _LEAST_PROGRESS:
                progress, until = 0, time.monotonic() + self.idle_seconds
            try:
                self.files.reserve(len(chunk))
            except StoreFull:
                raise _Refused(503, "The page has no memory left for files; please try again in a moment.") from None
            self._reserved += len(chunk)
            yield chunk

    async def discard(self) -> None:
        """Read on without keeping anything: a client that is still sending would otherwise miss the answer."""
        until = time.monotonic() + self.idle_seconds
        while not self.complete:
            await self._next(until)

    def release(self, count: int) -> None:
        """Count ``count`` bytes no longer: they are kept elsewhere, or nowhere."""
        count = min(count, self._reserved)
        self.files.release(count)
        self._reserved -= count

    def close(self) -> None:
        self.release(self._reserved)

    async def _next(self, until: float) -> bytes:
        try:
            message = await asyncio.wait_for(self._receive(), until - time.monotonic())
        except asyncio.TimeoutError:
            raise _Refused(408, f"Too little arrived in {self.idle_seconds:g} seconds.") from None
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        self.complete = not message.get("more_body", False)
        return message.get("body", b"")


class _InMemoryParser(MultiPartParser):
    """Starlette's parser, kept from putting files on the disk, and refusing a part that is over a limit while it arrives."""

    spool_max_size = 0  # of a SpooledTemporaryFile: never roll over to disk

    def __init__(self, headers: Headers, body: RequestBody, options: AppOptions) -> None:
        super().__init__(headers, body.chunks(), max_files=options.max_files, max_fields=8)
        self.limit = options.max_bytes
        self._part_bytes = 0

    def on_part_begin(self) -> None:
        self._part_bytes = 0
        super().on_part_begin()

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        self._part_bytes += end - start
        if self._part_bytes > self.limit:
            raise _Refused(413, f"A file is over the limit of {megabytes(self.limit)}.")
        super().on_part_data(data, start, end)


class PageMiddleware:
    """ASGI middleware over a Gradio app: it receives uploads into ``files``, serves results from there, and limits calls."""

    def __init__(self, app: ASGIApp, files: FileStore, options: AppOptions) -> None:
        self.app = app
        self.files = files
        self.options = options

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path = scope["path"]
        if found := _FILE_ROUTE.search(path):
            await self._serve_file(found["path"], scope["method"])(scope, receive, send)
        elif _CLOSED_ROUTES.search(path):
            await PlainTextResponse("Not found", status_code=404)(scope, receive, send)
        elif scope["method"] == "POST":
            await self._receive_body(scope, receive, send)
        else:
            await self._pass_on(scope, receive, send)

    async def _receive_body(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer an upload, or let Gradio answer a call, once the body is there; or refuse it before."""
        options = self.options
        upload = scope["path"].endswith("/upload")
        limit = options.max_batch_bytes + _FORM_OVERHEAD if upload else _CALL_BYTES + _CALL_BYTES_PER_FILE * options.max_files
        body = RequestBody(receive, self.files, limit=limit, idle_seconds=options.idle_seconds)
        try:
            if upload:
                response = await self._receive_files(Headers(scope=scope), body)
                await response(scope, receive, send)
            else:
                content = b"".join([chunk async for chunk in body.chunks()])
                _check_call(content)
                await self._pass_on(scope, _replayed(content, receive), send)
        except _Refused as refused:
            body.close()
            await _refuse(refused, body, send)
        except ClientDisconnect:
            pass
        finally:
            body.close()

    async def _receive_files(self, headers: Headers, body: RequestBody) -> Response:
        """Put the files of a multipart form into the store and answer with their paths, as Gradio's own route does."""
        if not headers.get("content-type", "").startswith("multipart/form-data"):
            raise _Refused(400, "The upload cannot be read: it is no multipart/form-data.")
        try:
            form = await _InMemoryParser(headers, body, self.options).parse()
        except MultiPartException as error:
            raise _Refused(400, f"The upload cannot be read: {error.message}") from None
        try:
            paths = []
            for file in form.getlist("files"):
                if isinstance(file, UploadFile):
                    content = await file.read()
                    await file.close()
                    body.release(len(content))
                    paths.append(self.files.put(file.filename or "image", content))
            return JSONResponse(paths)
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
        """Let Gradio answer, and add our headers; where it stumbles over a call, answer with one line in place of a trace."""
        started = False

        async def send_with_headers(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = [*message["headers"], *_HEADERS]
            await send(message)

        try:
            await self.app(scope, receive, send_with_headers)
        except Exception as error:
            if started:
                raise
            logger.warning("a request was refused: %s %s: %s", scope["method"], scope["path"][:80], type(error).__name__)
            logger.debug("why the request was refused", exc_info=error)
            theirs = isinstance(error, ERRORS_OF_CALLERS)
            text = "The page cannot make sense of this request." if theirs else "Something went wrong on our side."
            await JSONResponse({"detail": text}, status_code=400 if theirs else 500)(scope, receive, send)


def _check_call(content: bytes) -> None:
    """Refuse a call that is not strict JSON, or whose session hash is none of Gradio's: Gradio's tables are keyed by it."""
    try:
        call = from_json(content, allow_inf_nan=False)
    except ValueError:
        raise _Refused(400, "The call cannot be read: it is not JSON.") from None
    session = call.get("session_hash") if isinstance(call, dict) else None
    if session is not None and not (isinstance(session, str) and _SESSION_HASH.fullmatch(session)):
        raise _Refused(400, "The session hash is not one of this page: up to 36 letters, digits and hyphens.")


def _replayed(content: bytes, receive: Receive) -> Receive:
    """Give a body that was read already once more, then whatever the client does."""
    pending = [content]

    async def replay() -> Message:
        if pending:
            return {"type": "http.request", "body": pending.pop(), "more_body": False}
        return await receive()

    return replay


async def _refuse(refused: _Refused, body: RequestBody, send: Send) -> None:
    """Send the refusal at once, read for a moment what is still being sent, and close the connection."""
    content = refused.text.encode("utf-8")
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(content)).encode("ascii")),
        (b"connection", b"close"),
        *_HEADERS,
    ]
    if refused.status == 503:
        headers.append((b"retry-after", str(_RETRY_SECONDS).encode("ascii")))
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": content, "more_body": True})
    try:
        if refused.status != 408:
            await body.discard()
    except (_Refused, ClientDisconnect):
        pass
    await send({"type": "http.response.body", "body": b"", "more_body": False})
