"""What an image is recognised by: hashes of file and pixels, a small gray thumbnail, and a descriptor to search by."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lesion_hub.data.duplicates.descriptor import TERMS, THUMB, describe, luminance
from lesion_hub.data.images import load_rgb
from lesion_hub.errors import ImageError

_HASH = np.dtype("V32")


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
        """(N,) False where the image could not be read."""
        mask = np.ones(len(self), bool)
        mask[list(self.failures)] = False
        return mask

    @classmethod
    def empty(cls, count: int) -> Fingerprints:
        """``count`` zero rows, to be filled with `put`."""
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


def thumbnail(image: Image.Image) -> Image.Image:
    """``image`` squashed to THUMB x THUMB, so that a quarter turn of the image is one of the thumbnail."""
    return image.resize((THUMB, THUMB), Image.Resampling.BOX if min(image.size) >= 2 * THUMB else Image.Resampling.LANCZOS)


def fingerprint_image(image: Image.Image, encoded: bytes) -> Fingerprint:
    """The fingerprint of a decoded RGB image whose file held ``encoded``.

    >>> fingerprint_image(Image.new("RGB", (90, 60)), b"file").gray.shape
    (64, 64)
    """
    digest = hashlib.sha256(repr(image.size).encode())
    digest.update(image.tobytes())
    rgb = np.asarray(thumbnail(image))
    gray = luminance(rgb).round().astype(np.uint8)
    return Fingerprint(hashlib.sha256(encoded).digest(), digest.digest(), gray, describe(rgb[None])[0])


def fingerprint_file(encoded: bytes, name: str) -> Fingerprint:
    """The fingerprint of an encoded image; raises `ImageError` naming ``name``."""
    return fingerprint_image(load_rgb(encoded, name=name), encoded)
