"""Shards: Parquet files and tar archives (WebDataset) that hold images, on this disk or on the Hub.

Words and pixels are read apart: `shard_words` reads all that a shard says of its images and gives each a *place*, a string
that says where its bytes are; `ShardedImages` reads the bytes at such places.
"""

from __future__ import annotations

import json
import re
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, overload
from urllib.parse import quote, unquote

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from lesion_hub.data.images import ImageSource, is_image_name
from lesion_hub.errors import ShardError, one_line

if TYPE_CHECKING:
    from datasets import Features

SHARD_SUFFIXES = (".parquet", ".tar")

# shard:URL#OFFSET+BYTES in a tar archive, shard:URL#ROW:COLUMN in a Parquet file.
_PLACE = re.compile(r"shard:(?P<url>.*)#(?P<at>\d+)(\+(?P<size>\d+)|:(?P<column>[^#]*))", re.DOTALL)

# Images that are decoded from a Parquet file at a time, and bytes of it that are read ahead.
_BATCH = 16
_READ_AHEAD = 1 << 20


def is_place(path: str | None) -> bool:
    """Return whether ``path`` is the place of an image in a shard, and no file."""
    return path is not None and path.startswith("shard:")


# ------------------------------------------------------------------------------------------------ opening


@contextmanager
def open_shard(url: str) -> Iterator[IO[bytes]]:
    """Open a shard by its path or ``hf://`` address; whatever goes wrong in the block is one line, a `ShardError`."""
    import pyarrow as pa
    from huggingface_hub import HfFileSystem
    from huggingface_hub.errors import HfHubHTTPError

    # Its bases are OSError and the error of whichever HTTP client the Hub's library is built on: a broken connection's.
    expected = (*HfHubHTTPError.__bases__, OSError, EOFError, ValueError, tarfile.TarError, pa.ArrowException)

    try:
        with HfFileSystem().open(url, "rb") if url.startswith("hf://") else Path(url).open("rb") as stream:
            yield stream
    except expected as error:
        why = one_line(error) or type(error).__name__
        raise ShardError(f"{url}: reading it failed ({why}); check the file or the connection, and run again") from None


def shard_state(url: str) -> list[int] | None:
    """Return size and modification time of a local shard; None for one on the Hub, whose address names its commit."""
    if url.startswith("hf://"):
        return None
    try:
        found = Path(url).stat()
    except OSError as error:
        raise ShardError(f"{url}: cannot be read ({error.strerror}); put the shard back") from None
    return [found.st_size, found.st_mtime_ns]


# ------------------------------------------------------------------------------------------------ words


@dataclass(frozen=True)
class ShardWords:
    """What a shard says of its N images: ``cells`` (N rows), and of each image its place, its file name, and if it is there."""

    cells: pd.DataFrame
    places: list[str]
    names: list[str | None]
    present: list[bool]


def parquet_features(url: str) -> Features:
    """Return the columns of a Parquet shard and their types, class names included."""
    import pyarrow.parquet as pq
    from datasets import Features

    with open_shard(url) as stream:
        return Features.from_arrow_schema(pq.ParquetFile(stream).schema_arrow)


def parquet_words(url: str, image: str, columns: Iterable[str]) -> ShardWords:
    """Read ``columns`` of a Parquet shard, and the file names beside the images in the column ``image``; no pixels."""
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    wanted = sorted(set(columns))
    with open_shard(url) as stream:
        file = pq.ParquetFile(stream)
        leaves = [file.schema.column(number).path for number in range(len(file.schema.names))]
        pixels = leaves.index(f"{image}.bytes" if f"{image}.bytes" in leaves else image)
        cells = file.read(columns=wanted).to_pandas()
        names: list[str | None] = [None] * len(cells)
        if f"{image}.path" in leaves:
            names = pc.struct_field(file.read(columns=[f"{image}.path"]).column(image), "path").to_pylist()
        present: list[bool] = []
        for number in range(file.num_row_groups):
            group = file.metadata.row_group(number)
            statistics = group.column(pixels).statistics
            if statistics is not None and statistics.has_null_count and statistics.null_count == 0:
                present += [True] * group.num_rows
                continue
            column = file.read_row_group(number, columns=[leaves[pixels]]).column(image)
            values = pc.struct_field(column, "bytes") if leaves[pixels] != image else column
            present += pc.is_valid(values).to_pylist()
    places = [f"shard:{url}#{row}:{quote(image, safe='')}" for row in range(len(cells))]
    return ShardWords(cells, places, names, present)


def tar_words(url: str) -> ShardWords:
    """Read a tar shard but for its images: of each key its ``.json`` object's values, its ``.cls`` or ``.txt``.

    The members of an image follow each other and are called alike up to the first dot of the name, as WebDataset has it.
    """
    rows: list[dict[str, Any]] = []
    keys: list[str] = []
    images: list[tarfile.TarInfo | None] = []
    with open_shard(url) as stream, tarfile.open(fileobj=stream, mode="r:") as archive:
        for member in archive:
            folder, _, name = member.name.rpartition("/")
            stem, _, suffix = name.partition(".")
            if not member.isfile() or name.startswith("."):
                continue
            if not keys or keys[-1] != f"{folder}/{stem}":
                keys.append(f"{folder}/{stem}")
                rows.append({})
                images.append(None)
            if is_image_name(name):
                images[-1] = member
            elif suffix.lower() in ("json", "cls", "txt"):
                content = archive.extractfile(member)
                text = content.read().decode("utf-8") if content is not None else ""
                rows[-1].update(_told(url, member.name, suffix.lower(), text))
            # A member that was read is not kept: an archive may have millions.
            archive.members = []  # type: ignore[attr-defined]
    places = [f"shard:{url}#{one.offset_data}+{one.size}" if one else "" for one in images]
    names = [one.name if one else f"{key}.jpg" for key, one in zip(keys, images, strict=True)]
    return ShardWords(
        pd.DataFrame(rows, index=range(len(rows)), dtype=object), places, list(names), [one is not None for one in images]
    )


def _told(url: str, name: str, suffix: str, text: str) -> dict[str, Any]:
    if suffix != "json":
        return {suffix: text.strip() or None}
    found = json.loads(text)
    if not isinstance(found, dict):
        raise ShardError(f"{url}: {name} holds no JSON object; write one with a label, and what else is known of the image")
    return found


# ------------------------------------------------------------------------------------------------ pixels


class ShardedImages(Sequence[ImageSource]):
    """The encoded images at N places, as ``{"path", "bytes"}``: a lazy sequence that is meant to be walked.

    `in_order` gives any rows in any order and reads each shard once, forwards, holding what it passes and will need. A row
    by its index opens the shard anew. ``shards`` (N,) numbers the shard of every image, in the order of ``urls``.
    """

    def __init__(self, places: Iterable[str]) -> None:
        numbers: dict[str, int] = {}
        shards, starts, sizes = [], [], []
        self.columns: dict[int, str] = {}
        for place in places:
            match = _PLACE.fullmatch(place)
            if match is None:
                raise ShardError(f"{place}: not the place of an image in a shard; read the data set anew")
            shard = numbers.setdefault(match["url"], len(numbers))
            shards.append(shard)
            starts.append(int(match["at"]))
            sizes.append(int(match["size"] or 0))
            if match["column"] is not None:
                self.columns[shard] = unquote(match["column"])
        self.urls = tuple(numbers)
        self.shards = np.asarray(shards, np.int64)
        self._starts = np.asarray(starts, np.int64)
        self._sizes = np.asarray(sizes, np.int64)

    def __len__(self) -> int:
        return len(self.shards)

    @overload
    def __getitem__(self, row: int) -> ImageSource: ...
    @overload
    def __getitem__(self, row: slice) -> Sequence[ImageSource]: ...
    def __getitem__(self, row: int | slice) -> ImageSource | Sequence[ImageSource]:
        if isinstance(row, slice):
            return list(self.in_order(range(*row.indices(len(self)))))
        if not -len(self) <= row < len(self):
            raise IndexError(f"image {row} of {len(self)}: out of range")
        return next(self.in_order([row % len(self)]))

    def __iter__(self) -> Iterator[ImageSource]:
        return self.in_order(range(len(self)))

    def in_order(self, rows: ArrayLike | range) -> Iterator[ImageSource]:
        """Yield the images of ``rows`` in that order; repeats are read once.

        Only rows of ``rows`` are held: as many as lie before an image in its shard and are asked for after it.
        """
        wanted = np.asarray(rows, np.int64)
        uses = np.bincount(wanted, minlength=len(self))
        passed: dict[int, ImageSource] = {}
        reading: dict[int, Iterator[tuple[int, ImageSource]]] = {}
        try:
            for row in wanted.tolist():
                if row not in passed:
                    shard = int(self.shards[row])
                    if shard not in reading:
                        reading[shard] = self._read(shard, np.flatnonzero((self.shards == shard) & (uses > 0)))
                    for other, image in reading[shard]:
                        passed[other] = image
                        if other == row:
                            break
                uses[row] -= 1
                yield passed[row] if uses[row] else passed.pop(row)
        finally:
            for rest in reading.values():
                rest.close()  # type: ignore[attr-defined]

    def _read(self, shard: int, rows: NDArray[np.int64]) -> Iterator[tuple[int, ImageSource]]:
        """Yield (row, image) of ``rows``, which all lie in ``shard``, in the order in which it holds them."""
        url = self.urls[shard]
        rows = rows[np.argsort(self._starts[rows], kind="stable")]
        starts = self._starts[rows]
        with open_shard(url) as stream:
            if shard in self.columns:
                contents = _parquet_images(stream, self.columns[shard], starts)
            else:
                contents = _tar_images(stream, starts, self._sizes[rows])
            for row, start, content in zip(rows.tolist(), starts.tolist(), contents, strict=True):
                if not content:
                    raise ShardError(f"{url}: the image at {start} is gone; the shard has changed since it was first read")
                yield row, {"path": f"{url}#{start}", "bytes": content}


def _tar_images(stream: IO[bytes], starts: NDArray[np.int64], sizes: NDArray[np.int64]) -> Iterator[bytes]:
    for start, size in zip(starts.tolist(), sizes.tolist(), strict=True):
        stream.seek(start)
        content = stream.read(size)
        if len(content) < size:
            raise EOFError(f"it ends after {start + len(content):,} bytes, before the image at {start:,} does")
        yield content


def _parquet_images(stream: IO[bytes], column: str, rows: NDArray[np.int64]) -> Iterator[bytes]:
    """Yield the images of ``rows``, ascending; row groups without any are skipped."""
    import pyarrow.parquet as pq

    file = pq.ParquetFile(stream, buffer_size=_READ_AHEAD, pre_buffer=False)
    first = 0
    for group in range(file.num_row_groups):
        stop = first + file.metadata.row_group(group).num_rows
        if ((rows >= first) & (rows < stop)).any():
            start = first
            for batch in file.iter_batches(_BATCH, row_groups=[group], columns=[column]):
                for row in rows[(rows >= start) & (rows < start + len(batch))].tolist():
                    value = batch.column(0)[row - start].as_py()
                    yield value["bytes"] if isinstance(value, dict) else value
                start += len(batch)
        first = stop
    if len(rows) and rows[-1] >= first:
        raise EOFError(f"it ends after {first:,} images, before that of row {rows[-1]:,}")
