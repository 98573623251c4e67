"""Files that visitors send and get: held in memory for minutes at most, checked, and never on a disk.

`FileStore` holds the bytes of an upload until the call that uses them, and those of a result until its download.
`open_upload` and `check_batch` refuse what is over a limit or no image.
"""

from __future__ import annotations

import re
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath, PureWindowsPath

from PIL import Image

from lesion_hub.app.options import MEGABYTE, AppOptions
from lesion_hub.data.images import load_rgb
from lesion_hub.errors import ImageError

NAME_LENGTH = 80
_UNSAFE_IN_NAME = re.compile(r"[^\w .()+-]+")
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True)
class Upload:
    """A file in memory: the name as it may be shown and written, and the bytes."""

    name: str
    content: bytes = field(repr=False)


class StoreFull(Exception):
    """The memory for files is taken by files that are arriving or in use."""


class FileStore:
    """Files in memory: at most ``capacity`` bytes with those that are arriving, each for at most ``keep_seconds``.

    The oldest make room for new ones, except those that ``in_use`` names: the paths of files that a call is waiting for.
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
        self.in_use: Callable[[], set[str]] = set
        self._clock = clock
        self._held: dict[str, tuple[Upload, float]] = {}  # token -> (file, when it goes), the oldest first
        self._held_bytes = 0
        self._arriving_bytes = 0
        self._lock = threading.Lock()

    def put(self, name: str, content: bytes) -> str:
        """Store a file; return the path by which it can be taken, once."""
        upload = Upload(safe_name(name), content)
        token = secrets.token_urlsafe(18)
        with self._lock:
            self._make_room(len(content))
            self._held[token] = (upload, self._clock() + self.keep_seconds)
            self._held_bytes += len(content)
        return f"{self.root}/{token}/{upload.name}"

    def take(self, path: str) -> Upload | None:
        """Remove and return the file at ``path``; None where there is none."""
        with self._lock:
            self._make_room()
            return self._drop(self._token(path))

    def reserve(self, count: int) -> None:
        """Count bytes that are arriving, until `release`; raise `StoreFull` where no file can make room for them."""
        with self._lock:
            self._make_room(count)
            if self._held_bytes + self._arriving_bytes + count > self.capacity:
                raise StoreFull
            self._arriving_bytes += count

    def release(self, count: int) -> None:
        """Count ``count`` bytes of those that are arriving no longer."""
        with self._lock:
            self._arriving_bytes -= count

    def __len__(self) -> int:
        with self._lock:
            self._make_room()
            return len(self._held)

    def _make_room(self, count: int = 0) -> None:
        """Drop what is too old, then the oldest until ``count`` bytes fit; leave what is in use."""
        now = self._clock()
        in_use: set[str] | None = None
        for token, (_, until) in list(self._held.items()):
            if until > now and self._held_bytes + self._arriving_bytes + count <= self.capacity:
                return  # what came later is younger still
            in_use = set(map(self._token, self.in_use())) if in_use is None else in_use
            if token not in in_use:
                self._drop(token)

    def _drop(self, token: str) -> Upload | None:
        upload, _ = self._held.pop(token, (None, 0.0))
        self._held_bytes -= len(upload.content) if upload else 0
        return upload

    def _token(self, path: str) -> str:
        folder = PurePosixPath(path).parent
        return folder.name if str(folder.parent) == self.root else ""


def open_upload(upload: Upload | None, options: AppOptions) -> Image.Image:
    """Decode an upload to an upright RGB picture without metadata; one that is missing, too large or broken is one line."""
    if upload is None:
        raise ImageError("No image was given; choose, paste or drop one.")
    if len(upload.content) > options.max_bytes:
        raise ImageError(f"{upload.name}: {megabytes(len(upload.content))} is over the limit of {megabytes(options.max_bytes)}")
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
            f"{megabytes(total)} in all are over the limit of {megabytes(options.max_batch_bytes)}; send them in parts"
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


def megabytes(count: int) -> str:
    """Write a number of bytes in MB.

    >>> megabytes(500_000)
    '0.5 MB'
    """
    return f"{count / MEGABYTE:.3g} MB"
