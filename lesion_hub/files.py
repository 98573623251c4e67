"""Files: written whole or not at all, hashed, read and written as JSON; and the folders that travel inside the wheel."""

from __future__ import annotations

import hashlib
import json
import math
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from lesion_hub.errors import ConfigError, FileWriteError, StoreError

CACHE_VARIABLE = "LESION_HUB_CACHE"

_ASIDE = ".tmp-"
_BLOCK = 1 << 20
_DIGITS = 18  # of an integer that always fits 64 bits


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Open a stream whose content becomes ``path``, whole and durable, when the block ends well; else nothing is left.

    Errors of the disk pass through as ``OSError``; `write_bytes` and its kin turn them into one line.
    """
    aside = path.with_name(f".{path.name}{_ASIDE}{uuid.uuid4().hex}")
    try:
        with aside.open("xb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_bytes(path: Path, data: bytes) -> None:
    """Write ``data`` and the folders above it. On a full disk the old file stays and the error is one line."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as stream:
            stream.write(data)
    except OSError as error:
        why = error.strerror or error
        raise FileWriteError(f"{path}: cannot be written ({why}); free some space or choose another folder") from None


def require_new_folder(folder: Path) -> None:
    """Raise one line unless ``folder`` is yet to be made, or empty."""
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise StoreError(f"{folder}: exists and is not an empty folder; choose a new one")


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8, as `write_bytes` does."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, data: Any) -> None:
    """Write `json_text` of ``data``, as `write_bytes` does."""
    write_text(path, json_text(data))


def remove_leftovers(folder: Path, name: str = "*") -> None:
    """Delete what killed writers of ``name`` (a glob) left in ``folder``; call it only where nobody writes now."""
    for path in folder.glob(f".{name}{_ASIDE}*"):
        path.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make the names in ``folder`` durable."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def json_text(data: Any) -> str:
    """Give the JSON text of ``data`` as our files hold it: two-space indent, UTF-8 as it is, NaN refused, a final newline.

    >>> json_text({"site": "back"})
    '{\\n  "site": "back"\\n}\\n'
    """
    return json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def read_json(path: Path, *, missing_ok: bool = False, largest: int = 1 << 28) -> dict[str, Any]:
    """Read a JSON object of at most ``largest`` bytes, as `json_text` writes them: text, and numbers that are finite.

    A broken file is one ConfigError line, and so is a missing one unless ``missing_ok`` (then {}).
    """
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for
            raise ConfigError(f"{path}: is no regular file; restore it from where it was published")
        if path.stat().st_size > largest:
            raise ConfigError(f"{path}: is larger than {largest >> 20} MiB; restore it from where it was published")
        text = path.read_text(encoding="utf-8")
        data = json.loads(text, parse_constant=_finite, parse_float=_finite, parse_int=_whole)
        if "\\ud" in text.lower():  # half a surrogate pair, which can be written nowhere
            json.dumps(data, ensure_ascii=False).encode("utf-8")
    except FileNotFoundError:
        if missing_ok:
            return {}
        raise ConfigError(f"{path}: no such file; a model folder holds config.json or ensemble.json") from None
    except (OSError, UnicodeDecodeError, ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: not readable as JSON ({error}); restore it from where it was published") from None
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: holds a {type(data).__name__}, not an object; restore the file")
    return data


def _finite(text: str) -> float:
    """Read a JSON number; NaN, and what is too large, is none."""
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is not a finite number")
    return value


def _whole(text: str) -> int:
    if len(text) > _DIGITS:
        raise ValueError(f"{text[:_DIGITS]}… is not a number of 64 bits")
    return int(text)


def sha256_of(path: Path) -> str:
    """Hash a file, read in pieces: 64 hex digits; ``OSError`` passes through."""
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def sha256_of_json(values: Any) -> str:
    """Hash plain values, whatever the order of their keys: 64 hex digits."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def cache_root() -> Path:
    """Find the folder for what can be made again: ``$LESION_HUB_CACHE``, else ``~/.cache/lesion-hub``."""
    return Path(os.environ.get(CACHE_VARIABLE) or "~/.cache/lesion-hub").expanduser()


def packaged_folder(inside: str, beside: str) -> Path:
    """Find the folder ``inside`` the package where it is installed, ``beside`` it in a checkout.

    >>> packaged_folder("_model_cards", "model_cards").is_dir()
    True
    """
    package = Path(__file__).resolve().parent
    installed = package / inside
    return installed if installed.is_dir() else package.parent / beside
