"""The single decoder: any image file, bytes or Pillow image becomes an upright 8-bit RGB image.

What cannot be read raises `ImageError` with one line. The size is judged from the header, before any pixel is decoded,
against ``max_pixels``; Pillow's process-wide settings (`MAX_IMAGE_PIXELS`, `LOAD_TRUNCATED_IMAGES`) are never changed.
"""

from __future__ import annotations

import inspect
import os
import re
import stat
import struct
import zlib
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import IO, Any, TypeAlias

import numpy as np
from PIL import Image

from lesion_hub.errors import ImageError, one_line

ImageSource: TypeAlias = str | os.PathLike[str] | bytes | Mapping[str, Any] | Image.Image
"""What data sets hold."""

AnyImage: TypeAlias = ImageSource | bytearray | memoryview | IO[bytes]
"""What callers give."""

ACCEPTED = "a path, a file opened with 'rb', the bytes of an image file, a Pillow image or a uint8 array"
"""What an image may be given as, in the words of error messages. Arrays become Pillow images in ``inference.preprocess``."""
MAX_PIXELS = 80_000_000
IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".jp2", ".avif", ".ppm"})

# A closed list: among Pillow's other formats some start programs (EPS runs Ghostscript) and none holds photographs.
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "JPEG2000", "AVIF", "PPM")
_READABLE = "JPEG, PNG, WebP, BMP, GIF, TIFF, JPEG 2000, AVIF or PPM"

# What Pillow's decoders have been seen to raise on damaged files, beside the OSError that they document.
_DECODER_ERRORS = (
    OSError,
    EOFError,
    SyntaxError,
    ValueError,
    TypeError,
    AttributeError,
    LookupError,
    ArithmeticError,
    RuntimeError,
    MemoryError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
)

# One slash: that is what pathlib leaves of two.
_URL = re.compile(r"(https?|ftp|s3|gs|hf|file):/|data:", re.IGNORECASE)

_ORIENTATION_TAG = 0x0112
_TRANSPOSITIONS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


@dataclass(frozen=True)
class ImageFacts:
    """The header of an image file, its pixels undecoded.

    ``width`` and ``height`` are as stored; ``orientation`` is the EXIF one (1..8, 1 = upright). ``quantization`` holds
    the JPEG quantisation tables (each 64 ints), None for other formats.
    """

    width: int
    height: int
    mode: str
    format: str
    orientation: int
    quantization: tuple[tuple[int, ...], ...] | None

    @property
    def upright_size(self) -> tuple[int, int]:
        """The (width, height) once the EXIF orientation is applied, as `load_rgb` returns it."""
        return (self.height, self.width) if self.orientation >= 5 else (self.width, self.height)


def load_rgb(
    source: AnyImage,
    *,
    max_pixels: int = MAX_PIXELS,
    name: str | None = None,
    at_least: tuple[int, int] | None = None,
) -> Image.Image:
    """Decode ``source`` to an upright RGB image (8 bits per channel), free of EXIF and other metadata.

    16-bit gray is scaled to 8 bits, transparency is laid over white, of an animation the first frame is taken.
    ``source`` is a path, a binary file object (read from its start, and left open), the encoded bytes, a Pillow image (left
    untouched) or the ``{"path", "bytes"}`` mapping of an undecoded `datasets` image column; never a URL. ``name`` replaces
    the file name in messages. ``at_least`` (width, height) permits decoding a JPEG at 1/2, 1/4 or 1/8 of its size, which is
    faster, as long as neither upright side falls below it.
    Raises `ImageError`.

    >>> load_rgb(Image.new("L", (4, 3), 255)).getpixel((0, 0))
    (255, 255, 255)
    """
    name = _printable(name or _name_of(source))
    if isinstance(source, Image.Image):
        _check_size(source, max_pixels, name)
        return _decode(source, name)
    with closing(_stream(source, name)) as stream:
        image = _open(stream, name)
        _check_size(image, max_pixels, name)
        if at_least is not None and image.format in ("JPEG", "MPO"):
            image.draft(None, at_least[::-1] if _orientation(image) >= 5 else at_least)
        return _decode(image, name)


def probe(source: AnyImage, *, name: str | None = None) -> ImageFacts:
    """Read the header of ``source`` without decoding its pixels; raises `ImageError` as `load_rgb` does.

    >>> from io import BytesIO
    >>> stream = BytesIO()
    >>> Image.new("RGB", (4, 3)).save(stream, "PNG")
    >>> probe(stream.getvalue()).upright_size
    (4, 3)
    """
    name = _printable(name or _name_of(source))
    if isinstance(source, Image.Image):
        return _facts(source)
    with closing(_stream(source, name)) as stream:
        return _facts(_open(stream, name))


def is_image_name(name: str) -> bool:
    """Return whether a file of this name is taken for an image, judged by its suffix alone.

    >>> is_image_name("ISIC_0024306.JPG"), is_image_name("._ISIC_0024306.jpg"), is_image_name("notes.txt")
    (True, False, False)
    """
    return Path(name).suffix.lower() in IMAGE_SUFFIXES and not name.startswith(".")


def utf8_name(name: str) -> str:
    r"""Return the name of a file as text that can be printed and stored: bytes of it that are not UTF-8 become ``\xff``.

    >>> utf8_name("mole_\udce9.jpg") == r"mole_\xe9.jpg", utf8_name("Läsion.jpg")
    (True, 'Läsion.jpg')
    """
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


def open_image_file(path: str | os.PathLike[str], name: str) -> IO[bytes]:
    """Open a regular file for reading, `ImageError` where it is none: reading a pipe or a device could wait for ever."""
    try:
        if not stat.S_ISREG(kind := Path(path).stat().st_mode) and not stat.S_ISDIR(kind):
            raise ImageError(f"{name}: is a pipe, socket or device and not a file; remove it")
        return Path(path).open("rb")
    except FileNotFoundError:
        raise ImageError(f"{name}: no such file; check the path") from None
    except IsADirectoryError:
        raise ImageError(f"{name}: is a folder; name one image file in it") from None
    except (OSError, ValueError) as error:
        raise ImageError(f"{name}: cannot be opened ({_reason(error)}); check its name and permissions") from None


def _facts(image: Image.Image) -> ImageFacts:
    tables: dict[int, list[int]] | None = getattr(image, "quantization", None)
    quantization = tuple(tuple(table) for _, table in sorted(tables.items())) if tables else None
    return ImageFacts(*image.size, image.mode, image.format or "", _orientation(image), quantization)


def _name_of(source: AnyImage) -> str:
    if isinstance(source, Image.Image):
        return str(getattr(source, "filename", "") or "image")
    if isinstance(source, Mapping):
        return str(source.get("path") or "image")
    named = os.fspath(source) if isinstance(source, (str, os.PathLike)) else getattr(source, "name", None)
    return named if isinstance(named, str) and named else "image"


def _stream(source: Any, name: str) -> IO[bytes]:
    if isinstance(source, Mapping):
        content = source.get("bytes") or source.get("path")
        if content is None:
            raise ImageError(f"{name}: the row holds neither image bytes nor a path; drop the row or add its image")
        return _stream(content, name)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return BytesIO(source)
    if hasattr(source, "read"):
        return BytesIO(_content(source, name))
    if not isinstance(source, (str, os.PathLike)):
        raise ImageError(f"{'None' if source is None else type(source).__name__} is no image; give {ACCEPTED}")
    if _URL.match(os.fspath(source)):
        raise ImageError(f"{name[:80]}: is a URL; download it first, then give the file")
    return open_image_file(source, name)


def _content(file: Any, name: str) -> bytes:
    """Read all of a caller's file from its start. It is the caller's to close, so it is never handed to Pillow."""
    if inspect.iscoroutinefunction(file.read):
        raise ImageError(f"{type(file).__name__} is read asynchronously; give its .file, or the bytes that it holds")
    try:
        if not hasattr(file, "seekable") or file.seekable():
            file.seek(0)
        content = file.read()
    except (OSError, ValueError, AttributeError) as error:  # ValueError: it is closed
        raise ImageError(f"{name}: cannot be read ({_reason(error)}); give an open file") from None
    if not isinstance(content, bytes):
        raise ImageError(f"{name}: is opened as text; open it with mode 'rb'")
    return content


@cache
def _openers() -> tuple[tuple[Any, Any], ...]:
    Image.init()
    return tuple(Image.OPEN[format_] for format_ in _FORMATS if format_ in Image.OPEN)


def _open(stream: IO[bytes], name: str) -> Image.Image:
    """Identify the image and read its header.

    Not by `Image.open`, which checks Pillow's process-wide pixel limit; ``max_pixels`` replaces it.
    """
    prefix = stream.read(16)
    if not prefix:
        raise ImageError(f"{name}: the file is empty; remove it or fetch it again")
    damage: Exception | None = None
    for factory, accept in _openers():
        accepted = accept(prefix) if accept else True
        if not accepted or isinstance(accepted, str):  # a string says why Pillow, as it was built, cannot decode this format
            continue
        try:
            stream.seek(0)
            image: Image.Image = factory(stream, "")
        except _DECODER_ERRORS as error:
            damage = error
        else:
            return image
    if damage is not None:
        raise ImageError(f"{name}: the image is damaged ({_reason(damage)}); remove it or fetch it again")
    raise ImageError(f"{name}: not an image that can be read; give {_READABLE}")


def _check_size(image: Image.Image, max_pixels: int, name: str) -> None:
    width, height = image.size
    if width * height > max_pixels:
        raise ImageError(f"{name}: {width}x{height} is over the limit of {max_pixels:,} pixels; shrink it or raise max_pixels")
    if width * height == 0:
        raise ImageError(f"{name}: the image has no pixels; remove it or fetch it again")


def _decode(image: Image.Image, name: str) -> Image.Image:
    try:
        image.load()
        orientation = _orientation(image)
        upright = image if orientation == 1 else image.transpose(_TRANSPOSITIONS[orientation])
        pixels = _to_rgb(upright, name)
    except _DECODER_ERRORS as error:
        raise ImageError(f"{name}: the image is damaged ({_reason(error)}); remove it or fetch it again") from None
    # A copy where this is the caller's own image, or one of Pillow's classes that keep their file open.
    clean = pixels if pixels is not image and type(pixels) is Image.Image else pixels.copy()
    clean.info = {}
    return clean


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 where it is absent, unreadable or invalid: damaged EXIF must not cost the image."""
    try:
        # The base class's method: that of PNG files would decode the pixels to look for EXIF behind them.
        orientation = Image.Image.getexif(image).get(_ORIENTATION_TAG, 1)
    except _DECODER_ERRORS:
        return 1
    return orientation if orientation in _TRANSPOSITIONS else 1


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode.startswith("I"):
        return _eight_bits(image, name).convert("RGB")
    if image.mode == "F":
        raise ImageError(f"{name}: floating-point pixels have no known range; save it with 8 or 16 bits per channel")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        layer = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
    return image.convert("RGB")


def _eight_bits(image: Image.Image, name: str) -> Image.Image:
    """Scale 0..65535 to 0..255, rounding; Pillow's own conversion would clip or truncate, depending on its version."""
    values = np.asarray(image).astype(np.int64)
    if values.min() < 0 or values.max() > 65535:
        raise ImageError(f"{name}: 32-bit pixels have no known range; save it with 8 or 16 bits per channel")
    return Image.fromarray(((values + 128) // 257).astype(np.uint8))


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text)


def _reason(error: Exception) -> str:
    return _printable(one_line(error)) or type(error).__name__
