"""Graphs that take seconds to make, kept in ``$LESION_HUB_CACHE/graphs``."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable

from lesion_hub.errors import FileWriteError
from lesion_hub.files import cache_root, write_bytes

logger = logging.getLogger(__name__)


def kept_graph(key: str, make: Callable[[], bytes]) -> bytes:
    """Return what ``make`` writes. It is made once, and again where the file is damaged; ``key`` says what it is made of.

    The file's name ends in the sha256 of what it holds. Where the folder cannot be written, nothing is kept.
    """
    folder = cache_root() / "graphs"
    for path in folder.glob(f"{key}-*.onnx"):
        data = path.read_bytes()
        if path.stem.endswith(hashlib.sha256(data).hexdigest()):
            return data
        logger.info("%s: is damaged, and made anew", path)
    data = make()
    try:
        write_bytes(folder / f"{key}-{hashlib.sha256(data).hexdigest()}.onnx", data)
    except FileWriteError as error:
        logger.info("%s: a graph is not kept: %s", folder, error)
    return data
