"""Write any source as shards, Parquet files or tar archives (WebDataset), from which training can stream.

Every shard is whole or absent, and what is in which follows from the data and the seed: a writer that was interrupted goes on.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lesion_hub.data.images import ImageSource, probe
from lesion_hub.data.scan import encoded, image_sources
from lesion_hub.data.schema import features, not_streamed
from lesion_hub.data.shards import ShardedImages
from lesion_hub.errors import ConfigError, DataError, FileWriteError
from lesion_hub.files import remove_leftovers, replacing, sha256_of_json, write_json
from lesion_hub.progress import Progress
from lesion_hub.taxonomy import LabelSpace, nearest

if TYPE_CHECKING:
    from lesion_hub.data.sources import ReadResult

# Hidden: beside it the folder holds shards alone.
PLAN_NAME = ".shards.json"

# As `datasets` does it for images: what is read at once stays small.
_ROW_GROUP = 100

# Pillow's names of the formats whose usual suffix is another.
_SUFFIXES = MappingProxyType({"JPEG": "jpg", "MPO": "jpg", "JPEG2000": "jp2", "TIFF": "tif"})

Row = dict[str, Any]


def write_shards(
    result: ReadResult,
    out: Path,
    *,
    format: str = "parquet",
    shard_size: int = 1000,
    seed: int = 0,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write what `lesion_hub.data.read` read into ``out``, ``shard_size`` images a shard, and say what was written.

    The rows are shuffled by ``seed``: a stream is shuffled but a stretch at a time, and sources are often sorted by class. An
    official split names the shards: ``train-00000-of-00008.parquet``. Image files are kept byte for byte. ``format`` is a
    key of `FORMATS`. Shards that are there are kept; a folder of shards of other data, or in other pieces, is refused.
    """
    if format not in FORMATS:
        raise ConfigError(f"format {format!r}: {nearest(format, FORMATS)}")
    if shard_size < 1:
        raise ConfigError(f"shard size {shard_size}: must be at least 1")
    dataset = not_streamed(result.dataset)
    ids, labels = list(dataset["image_id"]), list(dataset["label"])
    official = result.official_split or {}
    plan = {
        "format": format,
        "shard_size": shard_size,
        "seed": seed,
        "images": len(ids),
        "hash": sha256_of_json([result.space.name, ids, labels, [official.get(image_id) for image_id in ids]]),
    }
    pieces = list(_pieces([official.get(image_id, "train") for image_id in ids], shard_size, seed, format))
    sources = image_sources(dataset)
    facts = dataset.remove_columns("image")
    done = 0
    try:
        _claim(out, plan)
        for name, rows in pieces:
            if not (out / name).is_file():
                with replacing(out / name) as stream:
                    FORMATS[format](stream, _rows(facts, sources, rows), result.space)
            done += len(rows)
            if progress is not None:
                progress(done, len(ids))
    except OSError as error:
        raise FileWriteError(f"{out}: cannot be written ({error.strerror or error}); free some space and run again") from None
    return {"folder": str(out), "format": format, "images": len(ids), "shards": len(pieces)}


def _pieces(parts: Sequence[str], size: int, seed: int, suffix: str) -> Iterator[tuple[str, NDArray[np.int64]]]:
    """Yield the name and the rows of every shard."""
    order = np.random.default_rng(seed).permutation(len(parts))
    places = np.asarray(parts, dtype=object)[order]
    for part in dict.fromkeys(parts):
        rows = order[places == part]
        count = -(-len(rows) // size)
        for number in range(count):
            name = f"{part}-{number:05d}-of-{count:05d}.{'tar' if suffix == 'webdataset' else suffix}"
            yield name, rows[number * size : (number + 1) * size]


def _claim(out: Path, plan: Mapping[str, Any]) -> None:
    """Note in ``out`` what is written there; refuse a folder that holds anything else."""
    out.mkdir(parents=True, exist_ok=True)
    noted = out / PLAN_NAME
    if noted.is_file():
        if json.loads(noted.read_text("utf-8")) != plan:
            raise DataError(f"{out}: holds shards of other data or in other pieces; choose another --out")
        remove_leftovers(out)
    elif any(out.iterdir()):
        raise DataError(f"{out}: is not empty; choose another --out")
    else:
        write_json(noted, plan)


def _rows(facts: Any, sources: Sequence[ImageSource], rows: NDArray[np.int64]) -> Iterator[Row]:
    """Yield the facts of ``rows`` with the encoded image and its usual suffix; a group that says nothing is left out."""
    images = sources.in_order(rows) if isinstance(sources, ShardedImages) else (sources[row] for row in rows.tolist())
    for fact, source in zip(facts.select(rows), images, strict=True):
        content, name = encoded(source)
        kind = probe(content, name=name).format
        group = None if fact["group"] == fact["image_id"] else fact["group"]
        yield {**fact, "group": group, "content": content, "suffix": _SUFFIXES.get(kind, kind.lower())}


def _write_parquet(stream: IO[bytes], rows: Iterator[Row], space: LabelSpace) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    # With the metadata by which `datasets` knows an image and the names of the classes.
    schema = features(space).arrow_schema
    batch: list[Row] = []
    with pq.ParquetWriter(stream, schema) as writer:

        def flush() -> None:
            writer.write_table(pa.Table.from_pylist(batch, schema=schema))
            batch.clear()

        for row in rows:
            name = f"{row['image_id'].replace('/', '_')}.{row.pop('suffix')}"
            batch.append({**row, "image": {"bytes": row.pop("content"), "path": name}})
            if len(batch) == _ROW_GROUP:
                flush()
        if batch:
            flush()


def _write_tar(stream: IO[bytes], rows: Iterator[Row], space: LabelSpace) -> None:
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for number, row in enumerate(rows):
            # A number, not the id: an id may hold dots and slashes, which mean something in a key.
            members = {row.pop("suffix"): row.pop("content")}
            told = {name: value for name, value in row.items() if value is not None}
            members["json"] = json.dumps({**told, "label": space.labels[row["label"]]}, ensure_ascii=False).encode()
            for suffix, content in members.items():
                member = tarfile.TarInfo(f"{number:06d}.{suffix}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))


FORMATS: Mapping[str, Callable[[IO[bytes], Iterator[Row], LabelSpace], None]] = MappingProxyType(
    {"parquet": _write_parquet, "webdataset": _write_tar}
)
"""Name of a format -> what writes the rows of one shard."""
