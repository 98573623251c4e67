"""Files in memory: what is uploaded, until its request takes it, and what is sent back, until it is fetched.

Gradio keeps uploads and results in a folder, named after their content. Here they never reach a disk, two people who
send the same picture do not share a file, and taking one out is the end of it.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from lesion_hub.app.intake import Upload, safe_name


@dataclass(frozen=True)
class _Kept:
    upload: Upload
    until: float = field(compare=False)


class Vault:
    """At most ``capacity`` bytes, each file for at most ``keep_seconds``; the oldest make room for new ones.

    Files go by paths below ``root``, a folder that does not hold them, because Gradio's clients speak of files by path.

    >>> vault = Vault("/nowhere", capacity=10, keep_seconds=60)
    >>> path = vault.put("mole.jpg", b"12345")
    >>> vault.take(path).content, vault.take(path)
    (b'12345', None)
    """

    def __init__(self, root: str, *, capacity: int, keep_seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.root = root
        self.capacity = capacity
        self.keep_seconds = keep_seconds
        self._clock = clock
        self._kept: dict[str, _Kept] = {}
        self._lock = threading.Lock()

    def put(self, name: str, content: bytes) -> str:
        """Keep a file; the path by which it can be taken, once."""
        upload = Upload(safe_name(name), content)
        token = secrets.token_urlsafe(18)
        with self._lock:
            self._kept[token] = _Kept(upload, self._clock() + self.keep_seconds)
            self._make_room()
        return f"{self.root}/{token}/{upload.name}"

    def take(self, path: str) -> Upload | None:
        """The file, which is gone from here then; None where there is none by that path."""
        with self._lock:
            self._make_room()
            kept = self._kept.pop(self._token(path), None)
        return kept.upload if kept else None

    def __len__(self) -> int:
        with self._lock:
            self._make_room()
            return len(self._kept)

    def _token(self, path: str) -> str:
        parts = PurePosixPath(path)
        return parts.parent.name if str(parts.parent.parent) == self.root else ""

    def _make_room(self) -> None:
        """Drop what is too old, then the oldest until the rest fits. Entries lie in the order in which they came."""
        now = self._clock()
        for token in [token for token, kept in self._kept.items() if kept.until <= now]:
            del self._kept[token]
        total = sum(len(kept.upload.content) for kept in self._kept.values())
        for token in list(self._kept):
            if total <= self.capacity:
                return
            total -= len(self._kept.pop(token).upload.content)
