"""What strangers send: bytes with a name that is not to be trusted, and the picture in them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import PureWindowsPath

from PIL import Image

from lesion_hub.app.options import MEGABYTE, AppOptions
from lesion_hub.data.images import load_rgb
from lesion_hub.errors import ImageError

NAME_LENGTH = 80
_UNSAFE = re.compile(r"[^\w .()+-]+")
_FORMULA = ("=", "+", "-", "@", "\t", "\r")


@dataclass(frozen=True)
class Upload:
    """A file that somebody sent: the name as it may be shown and written, and the bytes."""

    name: str
    content: bytes = field(repr=False)


def safe_name(name: str) -> str:
    """The last part of a file name, of letters, digits and a few signs only, at most 80 characters.

    >>> safe_name("../../etc/pass wd<script>.jpg"), safe_name("C:\\\\photos\\\\mole.jpg"), safe_name("..")
    ('pass wd_script_.jpg', 'mole.jpg', 'image')
    """
    last = PureWindowsPath(str(name)).name
    clean = _UNSAFE.sub("_", last).strip(" .")
    if len(clean) > NAME_LENGTH:
        stem, dot, ending = clean.rpartition(".")
        ending = dot + ending if dot and len(ending) <= 5 else ""
        clean = (stem or clean)[: NAME_LENGTH - len(ending)] + ending
    return clean or "image"


def safe_cell(text: str) -> str:
    """Text for a spreadsheet, which would run what looks like a formula.

    >>> safe_cell("=1+1"), safe_cell("mole.jpg")
    ("'=1+1", 'mole.jpg')
    """
    return f"'{text}" if text.startswith(_FORMULA) else text


def open_upload(upload: Upload | None, options: AppOptions) -> Image.Image:
    """The upright RGB picture in an upload, without any metadata; one line where there is none or it is over a limit."""
    if upload is None:
        raise ImageError("No image was given; choose, paste or drop one.")
    if len(upload.content) > options.max_bytes:
        raise ImageError(
            f"{upload.name}: {_megabytes(len(upload.content))} is over the limit of {_megabytes(options.max_bytes)}"
        )
    return load_rgb(upload.content, max_pixels=options.max_pixels, name=upload.name)


def check_batch(uploads: list[Upload], options: AppOptions) -> None:
    """Refuse a batch that is empty or over a limit."""
    if not uploads:
        raise ImageError("No files were given; choose one or more images.")
    if len(uploads) > options.max_files:
        raise ImageError(f"{len(uploads)} files are over the limit of {options.max_files}; send them in parts")
    total = sum(len(upload.content) for upload in uploads)
    if total > options.max_batch_bytes:
        raise ImageError(
            f"{_megabytes(total)} in all are over the limit of {_megabytes(options.max_batch_bytes)}; send them in parts"
        )


def _megabytes(count: int) -> str:
    return f"{count / MEGABYTE:.3g} MB"
