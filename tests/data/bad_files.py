"""A corpus of image files as the world makes them: broken ones, and odd ones that must nevertheless read right.

Other tests put these files where images are expected. `BROKEN` must raise ImageError; `ODD` must decode to the colour that
stands beside each. Everything is generated, small, and the same each time.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

SIZE = (24, 16)
RED, WHITE, GRAY = (200, 30, 30), (255, 255, 255), (128, 128, 128)


def _encoded(image: Image.Image, format_: str, **options: object) -> bytes:
    stream = BytesIO()
    image.save(stream, format_, **options)
    return stream.getvalue()


def good_jpeg(colour: tuple[int, int, int] = RED, size: tuple[int, int] = SIZE) -> bytes:
    return _encoded(Image.new("RGB", size, colour), "JPEG", quality=95)


def _noisy(size: tuple[int, int] = (64, 64)) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8))


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _png_bomb(width: int, height: int) -> bytes:
    """A PNG of a few hundred bytes whose header promises ``width`` x ``height`` pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = zlib.compress(b"\0" * 100_000)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", header) + _chunk(b"IDAT", body) + _chunk(b"IEND", b"")


def _jpeg_bomb() -> bytes:
    """A good JPEG whose frame header is rewritten to 65,000 x 65,000."""
    content = bytearray(good_jpeg())
    start = content.index(b"\xff\xc0")
    content[start + 5 : start + 9] = struct.pack(">HH", 65_000, 65_000)
    return bytes(content)


def _png_with_bad_checksum() -> bytes:
    content = bytearray(_encoded(_noisy(), "PNG"))
    content[content.index(b"IDAT") + 40] ^= 0xFF
    return bytes(content)


def _sixteen_bits(value: int) -> Image.Image:
    return Image.fromarray(np.full(SIZE[::-1], value, dtype=np.uint16))


def _half_transparent(mode: str) -> Image.Image:
    return Image.new("RGBA", SIZE, (0, 0, 0, 0)).convert(mode)


def _animation() -> tuple[Image.Image, list[Image.Image]]:
    return Image.new("RGB", SIZE, RED), [Image.new("RGB", SIZE, (0, 0, 255))]


def _animated(format_: str, **options: object) -> bytes:
    first, rest = _animation()
    return _encoded(first, format_, save_all=True, append_images=rest, duration=50, **options)


def _rotated() -> bytes:
    """Stored 16 x 24 and lying on its side: upright it is 24 x 16, red on its left half and white on its right."""
    upright = Image.new("RGB", SIZE, WHITE)
    upright.paste(RED, (0, 0, SIZE[0] // 2, SIZE[1]))
    exif = Image.Exif()
    exif[0x0112] = 6
    return _encoded(upright.transpose(Image.Transpose.ROTATE_90), "JPEG", quality=95, subsampling=0, exif=exif)


def _palette_with_transparency() -> bytes:
    image = Image.new("P", SIZE, 1)
    image.putpalette([*RED, 0, 0, 255])
    return _encoded(image, "PNG", transparency=1)


BROKEN: dict[str, Callable[[], bytes]] = {
    "zero_byte.jpg": lambda: b"",
    "one_byte.jpg": lambda: b"\xff",
    "text.jpg": lambda: b"this is no image\n" * 20,
    "page.png": lambda: b"<!doctype html><html><title>404</title></html>",
    "program.jpg": lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n",
    "truncated.jpg": lambda: _encoded(_noisy(), "JPEG")[:700],
    "header_only.jpg": lambda: good_jpeg()[:20],
    "truncated.png": lambda: _encoded(_noisy(), "PNG")[:2000],
    "bad_checksum.png": _png_with_bad_checksum,
    "truncated.gif": lambda: _encoded(_noisy().convert("P"), "GIF")[:900],
    "truncated.webp": lambda: _encoded(_noisy(), "WEBP")[:300],
    "truncated.tif": lambda: _encoded(_noisy(), "TIFF")[:600],
    "bomb.png": lambda: _png_bomb(60_000, 60_000),
    "small_bomb.png": lambda: _png_bomb(10_000, 10_000),
    "bomb.jpg": _jpeg_bomb,
    "float.tif": lambda: _encoded(Image.new("F", SIZE, 0.5), "TIFF"),
    "bits32.tif": lambda: _encoded(Image.new("I", SIZE, 1_000_000), "TIFF"),
}

ODD: dict[str, tuple[Callable[[], bytes], tuple[int, int, int]]] = {
    "cmyk.jpg": (lambda: _encoded(Image.new("CMYK", SIZE, (0, 0, 0, 127)), "JPEG", quality=95), GRAY),
    "gray.jpg": (lambda: _encoded(Image.new("L", SIZE, 128), "JPEG"), GRAY),
    "one_bit.png": (lambda: _encoded(Image.new("1", SIZE, 1), "PNG"), WHITE),
    "bits16.png": (lambda: _encoded(_sixteen_bits(128 * 257), "PNG"), GRAY),
    "bits16.tif": (lambda: _encoded(_sixteen_bits(128 * 257), "TIFF"), GRAY),
    "palette.png": (lambda: _encoded(Image.new("RGB", SIZE, RED).quantize(8), "PNG"), RED),
    "palette_transparent.png": (_palette_with_transparency, WHITE),
    "alpha.png": (lambda: _encoded(_half_transparent("RGBA"), "PNG"), WHITE),
    "gray_alpha.png": (lambda: _encoded(_half_transparent("LA"), "PNG"), WHITE),
    "colour_key.png": (lambda: _encoded(Image.new("RGB", SIZE, RED), "PNG", transparency=RED), WHITE),
    "animated.gif": (lambda: _animated("GIF"), RED),
    "animated.webp": (lambda: _animated("WEBP", lossless=True), RED),
    "animated.png": (lambda: _animated("PNG"), RED),
    "rotated.jpg": (_rotated, RED),
    "really_png.jpg": (lambda: _encoded(Image.new("RGB", SIZE, RED), "PNG"), RED),
    "damaged_exif.jpg": (lambda: _encoded(Image.new("RGB", SIZE, RED), "JPEG", quality=95, exif=b"Exif\0\0MM\0*\xff\xff"), RED),
    "bitmap.bmp": (lambda: _encoded(Image.new("RGB", SIZE, RED), "BMP"), RED),
}


def write_broken(folder: Path) -> list[Path]:
    """Write every file of `BROKEN` into ``folder``; their paths."""
    return _write(folder, BROKEN)


def write_odd(folder: Path) -> list[Path]:
    """Write every file of `ODD` into ``folder``; their paths."""
    return _write(folder, {name: make for name, (make, _) in ODD.items()})


def _write(folder: Path, files: dict[str, Callable[[], bytes]]) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    for name, make in files.items():
        (folder / name).write_bytes(make())
    return [folder / name for name in files]
