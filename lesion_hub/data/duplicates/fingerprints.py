"""Fingerprints of images: hashes of file and pixels, a small gray thumbnail, and a descriptor to search by.

`fingerprint` computes those of a set of images; a store on disk keeps them, so that no image is read twice.
"""

from __future__ import annotations

import hashlib
import logging
import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.fft import dctn

from lesion_hub.data.images import ImageSource, load_rgb
from lesion_hub.data.quality import luminance
from lesion_hub.data.scan import scan, source_parts
from lesion_hub.errors import DataError, ImageError
from lesion_hub.files import replacing
from lesion_hub.progress import Progress

logger = logging.getLogger(__name__)

THUMB = 64
TERMS = 20

# What a random crop by 5 % changes each kind of number by (root mean square, dermoscopic images, rounded): dividing by
# it makes Euclidean distances comparable across kinds, so that a cropped copy lies about sqrt(TERMS) from its original.
_RED_NOISE, _BLUE_NOISE = 0.008, 0.004
_CONTRAST_NOISE = 0.07
_COARSEST_NOISE, _PATTERN_NOISE = 0.06, 0.035

_HASH = np.dtype("V32")
_COLUMNS = ("file", "pixels", "gray", "terms")
_STORE_VERSION = 1


@dataclass(frozen=True)
class Fingerprint:
    """One image. ``file`` and ``pixels`` are sha256 digests; ``gray`` (THUMB, THUMB) uint8; ``terms`` (TERMS,)."""

    file: bytes
    pixels: bytes
    gray: NDArray[np.uint8] = field(repr=False)
    terms: NDArray[np.float32] = field(repr=False)


@dataclass(frozen=True)
class Fingerprints:
    """N images, in the order of their sources.

    ``file`` and ``pixels`` (N,) hold sha256 digests as 32-byte voids, ``gray`` (N, THUMB, THUMB) uint8 thumbnails and
    ``terms`` (N, TERMS) float32 descriptors. ``failures`` maps the position of each unreadable image, whose row is
    zero, to the line that says why.
    """

    file: NDArray[np.void] = field(repr=False)
    pixels: NDArray[np.void] = field(repr=False)
    gray: NDArray[np.uint8] = field(repr=False)
    terms: NDArray[np.float32] = field(repr=False)
    failures: dict[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.file)

    @property
    def readable(self) -> NDArray[np.bool_]:
        """Mask (N,), False where the image could not be read."""
        mask = np.ones(len(self), bool)
        mask[list(self.failures)] = False
        return mask

    @classmethod
    def empty(cls, count: int) -> Fingerprints:
        """Return ``count`` zero rows, to be filled with `put`."""
        return cls(
            np.zeros(count, _HASH),
            np.zeros(count, _HASH),
            np.zeros((count, THUMB, THUMB), np.uint8),
            np.zeros((count, TERMS), np.float32),
        )

    def put(self, row: int, found: Fingerprint | ImageError) -> None:
        """Fill one row, while the table is being built."""
        if isinstance(found, ImageError):
            self.failures[row] = str(found)
            return
        self.file[row] = np.frombuffer(found.file, _HASH)[0]
        self.pixels[row] = np.frombuffer(found.pixels, _HASH)[0]
        self.gray[row] = found.gray
        self.terms[row] = found.terms


def fingerprint(
    sources: Sequence[ImageSource],
    *,
    store: str | os.PathLike[str] | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Fingerprints:
    """Fingerprint every image once, over ``workers`` processes (default: one per core).

    ``sources`` are paths, encoded bytes or ``{"path", "bytes"}`` mappings. With ``store``, an ``.npz`` file, images
    that it knows (by path, size and time of change, or by hash where there is no file) are not read again, and new ones
    are added to it; a store that cannot be written is reported and done without. ``progress(done, total)`` counts the
    images that are read.

    >>> prints = fingerprint([b"no image"])
    >>> len(prints), list(prints.failures)
    (1, [0])
    """
    table = Fingerprints.empty(len(sources))
    wanted = list(range(len(sources)))
    if store is not None:
        keys = [source_key(source) for source in sources]
        stored = _read_store(Path(store))
        known = [row for row, key in enumerate(keys) if key in stored.rows]
        wanted = [row for row, key in enumerate(keys) if key not in stored.rows]
        for column in _COLUMNS:
            getattr(table, column)[known] = getattr(stored.prints, column)[[stored.rows[keys[row]] for row in known]]
    found = scan(fingerprint_file, _Chosen(sources, wanted), workers=workers, progress=progress)
    for row, result in zip(wanted, found, strict=True):
        table.put(row, result)
    if store is not None and wanted:
        try:
            _add_to_store(Path(store), stored, keys, table)
        except OSError as error:
            logger.warning("%s: cannot be written (%s); the images are fingerprinted again next time", store, error.strerror)
    return table


class _Chosen(Sequence[ImageSource]):
    """Some of ``sources``, each fetched only when asked for."""

    def __init__(self, sources: Sequence[ImageSource], rows: Sequence[int]) -> None:
        self._sources, self._rows = sources, rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, position: Any) -> Any:
        return self._sources[self._rows[position]]


# ------------------------------------------------------------------------------------------------ one image


def fingerprint_file(encoded: bytes, name: str) -> Fingerprint:
    """Fingerprint an encoded image; raises `ImageError` naming ``name``."""
    return fingerprint_image(load_rgb(encoded, name=name), encoded)


def fingerprint_image(image: Image.Image, encoded: bytes) -> Fingerprint:
    """Fingerprint a decoded RGB image whose file held ``encoded``.

    >>> fingerprint_image(Image.new("RGB", (90, 60)), b"file").gray.shape
    (64, 64)
    """
    pixels = hashlib.sha256(repr(image.size).encode())
    pixels.update(image.tobytes())
    # Squashed to a square, so that a quarter turn of the image is one of the thumbnail.
    resampling = Image.Resampling.BOX if min(image.size) >= 2 * THUMB else Image.Resampling.LANCZOS
    thumb = np.asarray(image.resize((THUMB, THUMB), resampling))
    gray = luminance(thumb).round().astype(np.uint8)
    return Fingerprint(hashlib.sha256(encoded).digest(), pixels.digest(), gray, descriptors(thumb[None])[0])


def descriptors(thumbs: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Return descriptors (N, TERMS) of square RGB thumbnails (N, THUMB, THUMB, 3), images of any aspect squashed into them.

    >>> flat = np.full((1, THUMB, THUMB, 3), 120, np.uint8)
    >>> descriptors(flat).shape
    (1, 20)
    """
    gray = luminance(thumbs)
    mean, spread = gray.mean((1, 2)), gray.std((1, 2))
    normalised = (gray - mean[:, None, None]) / np.maximum(spread, 2.0)[:, None, None]
    contrast = np.log((spread + 1) / (mean + 4))
    coarsest, *patterns = _pattern_terms(_spectrum(normalised, 7))
    columns = [
        *(term / _RED_NOISE for term in _colour_terms(thumbs, 0)),
        *(term / _BLUE_NOISE for term in _colour_terms(thumbs, 2)),
        contrast / _CONTRAST_NOISE,
        coarsest / _COARSEST_NOISE,
        *(pattern / _PATTERN_NOISE for pattern in patterns),
    ]
    return np.stack(columns, axis=1).astype(np.float32)


def _spectrum(fields: NDArray[np.floating], size: int) -> NDArray[np.floating]:
    """Return the ``size`` x ``size`` coarsest cosine coefficients of fields (N, THUMB, THUMB), in the fields' own unit."""
    centred = fields - fields.mean((1, 2), keepdims=True)
    return np.asarray(dctn(centred, axes=(1, 2), norm="ortho")[:, :size, :size] / THUMB)


def _colour_terms(thumbs: NDArray[np.uint8], channel: int) -> list[NDArray[np.floating]]:
    """Compare a channel with green (log ratio, so brightness cancels): level, spread, two symmetric patterns."""
    values, green = thumbs[..., channel].astype(np.float32), thumbs[..., 1].astype(np.float32)
    level = np.log((values.mean((1, 2)) + 4) / (green.mean((1, 2)) + 4))
    ratio = np.log((values + 8) / (green + 8))
    spectrum = _spectrum(ratio, 3)
    return [level, ratio.std((1, 2)), spectrum[:, 2, 0] + spectrum[:, 0, 2], spectrum[:, 2, 2]]


def _pattern_terms(c: NDArray[np.floating]) -> list[NDArray[np.floating]]:
    """Combine cosine coefficients (N, 7, 7) into eleven terms (N,) that the symmetries of the square leave alone.

    A flip changes the sign of coefficients of odd frequency along its axis, a transposition swaps the two frequencies.
    So (even, even) sums stay, differences and (odd, odd) coefficients keep their size, (odd, even) pairs their norm.
    """
    half = np.sqrt(0.5)
    sums = [(c[:, u, v] + c[:, v, u]) * half for u, v in ((2, 0), (4, 0), (4, 2), (6, 2))]
    differences = [np.abs(c[:, u, v] - c[:, v, u]) * half for u, v in ((2, 0), (4, 0))]
    diagonal = [c[:, 2, 2], c[:, 4, 4], np.abs(c[:, 1, 1]), np.abs(c[:, 3, 1] + c[:, 1, 3]) * half]
    return [*sums, *differences, *diagonal, np.hypot(c[:, 1, 0], c[:, 0, 1])]


# ------------------------------------------------------------------------------------------------ the store


def source_key(source: ImageSource) -> bytes:
    """Hash what identifies the content of ``source`` without decoding it: path, size and time of change, or the content.

    >>> source_key(b"abc") == source_key({"path": "elsewhere.jpg", "bytes": b"abc"})
    True
    """
    path, content = source_parts(source)
    if content is not None or path is None:
        return hashlib.sha256(content or b"").digest()
    try:
        status = Path(path).stat()
    except OSError:
        return hashlib.sha256(f"missing\0{path}".encode()).digest()
    return hashlib.sha256(f"{Path(path).absolute()}\0{status.st_size}\0{status.st_mtime_ns}".encode()).digest()


@dataclass(frozen=True)
class _Store:
    """What an ``.npz`` file of fingerprints holds: ``rows`` maps a `source_key` to its row in ``prints``."""

    rows: dict[bytes, int]
    prints: Fingerprints


def _read_store(path: Path) -> _Store:
    """Read the store at ``path``; one that is not there, or of another version, is empty."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            if int(arrays["version"]) != _STORE_VERSION:
                return _Store({}, Fingerprints.empty(0))
            rows = {key.tobytes(): row for row, key in enumerate(arrays["keys"])}
            file, pixels = (arrays[f"{column}_sha256"].view(_HASH)[:, 0] for column in ("file", "pixels"))
            return _Store(rows, Fingerprints(file, pixels, arrays["gray"], arrays["terms"]))
    except FileNotFoundError:
        return _Store({}, Fingerprints.empty(0))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        raise DataError(f"{path}: not a store of fingerprints; delete it, or name another file") from None


def _add_to_store(path: Path, stored: _Store, keys: Sequence[bytes], table: Fingerprints) -> None:
    """Write ``stored`` and the readable rows of ``table``. Unreadable images are not kept: they may be mended."""
    new = {keys[row]: row for row in np.flatnonzero(table.readable).tolist()}
    kept = {key: row for key, row in stored.rows.items() if key not in new}
    if not new and not kept:
        return
    columns: dict[str, Any] = {}
    for column in _COLUMNS:
        old, added = getattr(stored.prints, column), getattr(table, column)
        columns[column] = np.concatenate([old[list(kept.values())], added[list(new.values())]])
    for column in ("file", "pixels"):
        columns[f"{column}_sha256"] = columns.pop(column).view(np.uint8).reshape(-1, 32)
    all_keys = np.frombuffer(b"".join([*kept, *new]), np.uint8).reshape(-1, 32)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as stream:
        np.savez(stream, version=np.int64(_STORE_VERSION), keys=all_keys, **columns)
