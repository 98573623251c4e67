"""Bulk scoring: any number of images into Parquet shards, over any number of processes, resumable wherever it was cut off.

Rows are numbered by the source; shard s holds rows s * size .. (s + 1) * size - 1 and belongs to process s modulo their
number. A shard appears whole or not at all, so a run that was killed is simply started again, with as many processes as
you like: no row is lost, none is there twice. Nothing is exchanged between processes. A file that cannot be read is a row
with an error.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
from pydantic import Field, model_validator

from lesion_hub.config import Options
from lesion_hub.errors import ImageError
from lesion_hub.inference.framing import Framing
from lesion_hub.inference.inputs import OpenedImage, open_image
from lesion_hub.inference.options import PredictOptions
from lesion_hub.inference.predictor import Predictor
from lesion_hub.inference.reading import in_chunks
from lesion_hub.inference.results import Prediction
from lesion_hub.inference.rows import Row, RowSource
from lesion_hub.inference.shards import ShardFolder

Progress = Callable[[int, int | None], None]


class ScoreOptions(Options):
    """How to score: images in a batch, rows in a shard (a multiple of it), and views to average."""

    batch_size: Annotated[int, Field(ge=1)] = 32
    shard_size: Annotated[int, Field(ge=1)] = 1024
    tta: Annotated[int, Field(ge=1, le=8)] = 1

    @model_validator(mode="after")
    def _batches_fit_shards(self) -> ScoreOptions:
        if self.shard_size % self.batch_size:
            raise ValueError(f"shard_size {self.shard_size} is not a multiple of batch_size {self.batch_size}")
        return self


@dataclass(frozen=True)
class Process:
    """Which of how many processes this one is."""

    rank: int = 0
    count: int = 1


@dataclass(frozen=True)
class ScoreReport:
    """What one process did: rows it scored, how many of them have an error, and rows that stood there before."""

    folder: str
    scored: int
    errors: int
    already_there: int
    complete: bool

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def score(
    model: Predictor,
    source: RowSource,
    out: str | Path,
    options: ScoreOptions | None = None,
    *,
    process: Process | None = None,
    progress: Progress | None = None,
) -> ScoreReport:
    """Score what is not there yet of this process's share of ``source`` into the folder ``out``.

    Args:
        model: the predictor, on the device where it shall work.
        source: rows (see ``rows.rows_of``), walked without decoding those of other processes.
        out: folder of the shards; one that holds another run's is refused.
        options: batch and shard sizes, views.
        process: this process's rank among those that share the work.
        progress: called with (rows done here, rows in all or None).

    >>> score(model, rows_of("images/"), "scores/").complete  # doctest: +SKIP
    True
    """
    chosen, mine = options or ScoreOptions(), process or Process()
    folder = ShardFolder(out)
    folder.claim(_manifest(model, source, chosen))
    done = folder.done()
    walk = _Walk(source, chosen.shard_size, lambda shard: shard % mine.count == mine.rank and shard not in done)
    writer = _ShardWriter(folder, chosen.shard_size, _schema(model))
    predict = PredictOptions(tta=chosen.tta, batch_size=chosen.batch_size)
    for chunk in in_chunks(walk, partial(_open, framings=model.framings), chosen.batch_size):
        writer.add(_records(model, chunk, predict))
        if progress:
            progress(writer.rows, source.total)
    writer.flush()
    shards = -(-walk.seen // chosen.shard_size)
    whole = folder.done() >= set(range(shards))
    return ScoreReport(str(folder.root), writer.rows, writer.errors, walk.skipped_done(done, mine), whole)


@dataclass
class _Walk:
    """Those rows of a source that lie in wanted shards; counts all it passes."""

    source: Iterable[Row]
    size: int
    wanted: Callable[[int], bool]
    seen: int = 0

    def __iter__(self) -> Iterator[Row]:
        for row in self.source:
            self.seen = row.index + 1
            if self.wanted(row.index // self.size):
                yield row

    def skipped_done(self, done: set[int], process: Process) -> int:
        """Rows of this process that were there before."""
        own = [shard for shard in done if shard % process.count == process.rank]
        return sum(max(0, min(self.seen - shard * self.size, self.size)) for shard in own)


@dataclass(frozen=True)
class _OpenedRow:
    row: Row
    image: OpenedImage | None
    error: str | None = None


def _open(row: Row, framings: Iterable[Framing]) -> _OpenedRow:
    try:
        return _OpenedRow(row, open_image(row.image, framings))
    except ImageError as error:
        return _OpenedRow(row, None, str(error))


class _ShardWriter:
    """Collects records and writes each shard when its last row has come. Chunks never reach over the end of a shard."""

    def __init__(self, folder: ShardFolder, size: int, schema: pa.Schema) -> None:
        self.folder, self.size, self.schema = folder, size, schema
        self.rows = self.errors = 0
        self._pending: list[Mapping[str, Any]] = []

    def add(self, records: list[dict[str, Any]]) -> None:
        self.rows += len(records)
        self.errors += sum(record["error"] is not None for record in records)
        self._pending += records
        if len(self._pending) == self.size:
            self.flush()

    def flush(self) -> None:
        if self._pending:
            self.folder.write(self._pending[0]["index"] // self.size, self._pending, self.schema)
            self._pending = []


def _records(model: Predictor, chunk: list[_OpenedRow], options: PredictOptions) -> list[dict[str, Any]]:
    opened = [(item.image, item.row.patient) for item in chunk if item.image is not None]
    predictions = iter(model.predict_opened([image for image, _ in opened], options, [patient for _, patient in opened]))
    return [_record(item, next(predictions) if item.image is not None else None) for item in chunk]


def _record(item: _OpenedRow, prediction: Prediction | None) -> dict[str, Any]:
    row = item.row
    record = {"index": row.index, "image_id": row.image_id, "truth": row.truth, "group": row.group, "error": item.error}
    if prediction is None:
        return record
    return {
        **record,
        "label": prediction.label,
        "malignancy": prediction.malignancy,
        "disagreement": prediction.disagreement,
        "flags": list(prediction.flags),
        **{f"p_{label}": value for label, value in prediction.probabilities.items()},
        **{f"suspicious_{name}": decision for name, decision in prediction.decisions.items()},
    }


def _schema(model: Predictor) -> pa.Schema:
    return pa.schema(
        [
            ("index", pa.int64()),
            *((name, pa.string()) for name in ("image_id", "truth", "group", "error", "label")),
            ("malignancy", pa.float64()),
            ("disagreement", pa.float64()),
            ("flags", pa.list_(pa.string())),
            *((f"p_{label}", pa.float64()) for label in model.labels),
            *((f"suspicious_{name}", pa.bool_()) for name in model.operating_points),
        ]
    )


def _manifest(model: Predictor, source: RowSource, options: ScoreOptions) -> dict[str, Any]:
    """What makes two runs the same work; the batch size is not part of it."""
    return {
        "format_version": 1,
        "model": model.name,
        "revision": model.revision,
        "weights_sha256": weights_fingerprint(model),
        "labels": list(model.labels),
        "operating_points": {name: point.threshold for name, point in model.operating_points.items()},
        "data": source.identity,
        "shard_size": options.shard_size,
        "tta": options.tta,
    }


def weights_fingerprint(model: Predictor) -> str:
    """Hex sha256 over all members' weights and how they are combined."""
    combination = model.combination
    digest = hashlib.sha256(repr((combination.weights, combination.combine, combination.temperature)).encode())
    for member in model.members:
        digest.update(member.name.encode())
        for key, tensor in member.classifier.network.state_dict().items():
            digest.update(key.encode())
            digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()
