"""The only door for files: in front of Gradio, it receives uploads into memory and serves results from there.

Gradio's own routes for files are never reached, so there is no path on this machine that they could be asked for.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, AsyncIterator
from mimetypes import guess_type
from urllib.parse import quote, unquote

from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lesion_hub.app.options import MEGABYTE, AppOptions
from lesion_hub.app.vault import Vault

_FILE = re.compile(r"/file(?:=|/)(?P<path>.*)", re.DOTALL)
_CLOSED = re.compile(r"/(?:proxy=|stream/|upload_progress|deep_link|component_server|monitoring|dev/|vibe)")
_FORM_OVERHEAD = MEGABYTE
_CALL_BYTES = 2 * MEGABYTE


class _TooLarge(Exception):
    """The body of a request is over its limit."""


class _InMemory(MultiPartParser):
    """Starlette's parser, which would put what is over a megabyte into a temporary file."""

    spool_max_size = 0  # of a SpooledTemporaryFile: never roll over to disk


class Airlock:
    """ASGI middleware over a Gradio app; ``vault`` holds the files of both directions."""

    def __init__(self, app: ASGIApp, vault: Vault, options: AppOptions) -> None:
        self.app = app
        self.vault = vault
        self.options = options

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path = scope["path"]
        if scope["method"] == "POST" and path.endswith("/upload"):
            response: Response = await self._receive(Request(scope, receive))
        elif found := _FILE.search(path):
            response = self._serve(found["path"], scope["method"])
        elif _CLOSED.search(path):
            response = PlainTextResponse("Not found", status_code=404)
        else:
            await self._pass_on(scope, receive, send)
            return
        await response(scope, receive, send)

    async def _receive(self, request: Request) -> Response:
        """Files of a multipart form to the vault; their paths, as Gradio's own route answers."""
        limit = self.options.max_batch_bytes + _FORM_OVERHEAD
        parser = _InMemory(request.headers, _counted(request.stream(), limit), max_files=self.options.max_files, max_fields=8)
        try:
            form = await parser.parse()
        except _TooLarge:
            return PlainTextResponse(f"The files are over the limit of {limit // MEGABYTE} MB.", status_code=413)
        except MultiPartException as error:
            return PlainTextResponse(f"The upload cannot be read: {error.message}", status_code=400)
        try:
            files = [file for file in form.getlist("files") if isinstance(file, UploadFile)]
            if any((file.size or 0) > self.options.max_bytes for file in files):
                limit_words = f"{self.options.max_bytes / MEGABYTE:.3g} MB"
                return PlainTextResponse(f"A file is over the limit of {limit_words}.", status_code=413)
            return JSONResponse([self.vault.put(file.filename or "image", await file.read()) for file in files])
        finally:
            await form.close()

    def _serve(self, path: str, method: str) -> Response:
        """A file of the vault, once. It is sent to be saved, never to be shown as a page of this site."""
        upload = self.vault.take(unquote(path)) if method == "GET" else None
        if upload is None:
            return PlainTextResponse("File not allowed", status_code=403)
        headers = {
            "Content-Disposition": f"attachment; filename*=utf-8''{quote(upload.name)}",
            "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff",
        }
        return Response(upload.content, media_type=guess_type(upload.name)[0] or "application/octet-stream", headers=headers)

    async def _pass_on(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Everything else is Gradio's, with headers of ours and a limit on what a call may weigh."""
        received = 0

        async def limited() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > _CALL_BYTES:
                raise _TooLarge
            return message

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], *_HEADERS]
            await send(message)

        try:
            await self.app(scope, limited, with_headers)
        except _TooLarge:
            await JSONResponse({"detail": "The request is too large."}, status_code=413)(scope, receive, send)


_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]


async def _counted(stream: AsyncIterator[bytes], limit: int) -> AsyncGenerator[bytes, None]:
    total = 0
    async for chunk in stream:
        total += len(chunk)
        if total > limit:
            raise _TooLarge
        yield chunk
