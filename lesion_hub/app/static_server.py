"""A server of plain files on this machine, for the static page: it answers GET, and sends `HEADERS` with every file."""

from __future__ import annotations

import functools
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from lesion_hub.app.serving import DEFAULT_HOST, cannot_listen
from lesion_hub.app.static_page import HEADERS

FIRST_PORT, PORTS_TRIED = 7860, 100

TYPES = {".js": "text/javascript", ".mjs": "text/javascript", ".wasm": "application/wasm", ".onnx": "application/octet-stream"}
"""What browsers insist on, whatever this machine's table of types says."""


class _Handler(SimpleHTTPRequestHandler):
    """Sends the files of a folder, no listing of it, and writes no log: addresses are nobody's business."""

    def __init__(self, *args: Any, headers: Mapping[str, str], **options: Any) -> None:
        self._sent_along = headers
        super().__init__(*args, **options)

    def end_headers(self) -> None:
        for name, value in self._sent_along.items():
            self.send_header(name, value)
        super().end_headers()

    def guess_type(self, path: Any) -> str:
        return TYPES.get(Path(path).suffix) or super().guess_type(path)

    def list_directory(self, path: Any) -> None:
        self.send_error(404)

    def log_message(self, format: str, *args: Any) -> None:
        pass


def file_server(
    folder: Path, *, host: str | None = None, port: int | None = None, headers: Mapping[str, str] = HEADERS
) -> ThreadingHTTPServer:
    """Open a server of a folder's files, not yet answering; without a port it takes the first free one from 7860."""
    handler = functools.partial(_Handler, directory=str(folder), headers=headers)
    name = host or DEFAULT_HOST
    for number in range(FIRST_PORT, FIRST_PORT + PORTS_TRIED) if port is None else (port,):
        try:
            return ThreadingHTTPServer((name, number), handler)
        except OSError as error:
            refused = error
    raise cannot_listen(name, port, refused)


def address(server: ThreadingHTTPServer) -> str:
    """Return the address of a server for a browser on this machine."""
    host, port = server.server_address[:2]
    return f"http://{host!s}:{port}/"


@contextmanager
def served_files(folder: Path, *, headers: Mapping[str, str] = HEADERS) -> Iterator[str]:
    """Serve a folder's files on a free port of this machine while the block runs; gives the address."""
    server = file_server(folder, port=0, headers=headers)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield address(server)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
