"""Bulk scoring: any number of images into Parquet shards, over any number of processes, resumable wherever it was cut off.

Rows are numbered by their source (`rows.open_rows`); shard s holds rows s * size .. (s + 1) * size - 1 and belongs to process s
modulo their number. A shard appears whole or not at all, so a run that was killed is simply started again, with as many
processes as you like: no row is lost, none is there twice. Nothing is exchanged between processes. A file that cannot be
read is a row with an error.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field, model_validator

from lesion_hub.config import Options, ProperShare
from lesion_hub.errors import DataError, ImageError
from lesion_hub.files import read_json, remove_leftovers, write_bytes, write_json
from lesion_hub.inference.decisions import MOST_PROBABLE, Decide, Prior
from lesion_hub.inference.label_sets import COVERAGE
from lesion_hub.inference.predictor import PredictOptions, Predictor, in_chunks
from lesion_hub.inference.preprocess import OpenedImage, open_image
from lesion_hub.inference.results import Prediction
from lesion_hub.inference.rows import Row, RowSource
from lesion_hub.inference.rules import check_rules
from lesion_hub.progress import Progress

SCORES_NAME = "scores.json"
_SHARD = re.compile(r"shard-(\d{6})\.parquet")


class ScoreOptions(Options):
    """How to score: images in a batch, rows in a shard (a multiple of it), views to average; how answers are read.

    ``coverage``, ``decide``, ``prior`` and ``abstain`` are those of ``PredictOptions``.
    """

    batch_size: Annotated[int, Field(ge=1)] = 32
    shard_size: Annotated[int, Field(ge=1)] = 1024
    tta: Annotated[int, Field(ge=1, le=8)] = 1
    coverage: ProperShare = COVERAGE
    decide: Decide = MOST_PROBABLE
    prior: Prior | None = None
    abstain: ProperShare | None = None

    @property
    def rules(self) -> dict[str, Any]:
        """The options that say how answers are read, as JSON holds them; of the default ones none."""
        return self.model_dump(mode="json", include={"coverage", "decide", "prior", "abstain"}, exclude_defaults=True)

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
    """What one process did: rows it scored, how many of them have an error, and rows of its own that were there before.

    ``complete`` says whether all shards are there, those of other processes too.
    """

    folder: str
    scored: int
    errors: int
    already_there: int
    complete: bool

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def score_in_bulk(
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
        source: rows (see ``open_rows``), walked without decoding those of other processes.
        out: folder of the shards; one that holds another run's is refused.
        options: batch and shard sizes, views.
        process: this process's rank among those that share the work.
        progress: called with (rows done here, rows in all or None).

    >>> score_in_bulk(model, open_rows("images/"), "scores/").complete  # doctest: +SKIP
    True
    """
    chosen, mine = options or ScoreOptions(), process or Process()
    size = chosen.shard_size
    predict = PredictOptions(tta=chosen.tta, batch_size=chosen.batch_size, **chosen.rules)
    check_rules(predict, model.space, model.operating_points, model.rules)
    folder = ShardFolder(out)
    folder.claim(_manifest(model, source, chosen))
    done = folder.done()
    seen = 0

    def wanted() -> Iterator[Row]:
        nonlocal seen
        for row in source:
            seen = row.index + 1
            shard = row.index // size
            if shard % mine.count == mine.rank and shard not in done:
                yield row

    def opened(row: Row) -> tuple[Row, OpenedImage | None, str | None]:
        try:
            return row, open_image(row.image, framings), None
        except ImageError as error:
            return row, None, str(error)

    framings, schema = model.framings, _schema(model, chosen)
    scored = errors = 0
    pending: list[dict[str, Any]] = []
    for chunk in in_chunks(wanted(), opened, chosen.batch_size):
        readable = [(image, row.patient) for row, image, _ in chunk if image is not None]
        predictions = iter(model.predict_opened([image for image, _ in readable], predict, [known for _, known in readable]))
        pending += [_record(schema, row, error, None if image is None else next(predictions)) for row, image, error in chunk]
        scored += len(chunk)
        errors += len(chunk) - len(readable)
        # Batches fill shards exactly (see ScoreOptions), so none reaches over the end of one.
        if len(pending) == size:
            folder.write(pending[0]["index"] // size, pending, schema)
            pending = []
        if progress:
            progress(scored, source.total)
    if pending:
        folder.write(pending[0]["index"] // size, pending, schema)

    own = [shard for shard in done if shard % mine.count == mine.rank]
    already_there = sum(max(0, min(seen - shard * size, size)) for shard in own)
    complete = folder.done() >= set(range(-(-seen // size)))
    return ScoreReport(str(folder.root), scored, errors, already_there, complete)


def _record(schema: pa.Schema, row: Row, error: str | None, prediction: Prediction | None) -> dict[str, Any]:
    """Return a row of a shard: of an image that cannot be read, the error alone."""
    record = {"index": row.index, "image_id": row.image_id, "truth": row.truth, "group": row.group, "error": error}
    if prediction is None:
        return record
    return {
        **record,
        "label": prediction.label,
        "malignancy": prediction.malignancy,
        "disagreement": prediction.disagreement,
        "flags": list(prediction.flags),
        **({"label_set": list(prediction.label_set().labels)} if "label_set" in schema.names else {}),
        **({"most_probable": prediction.most_probable} if "most_probable" in schema.names else {}),
        **({"abstains": prediction.abstains} if "abstains" in schema.names else {}),
        **({"scope": prediction.scope.verdict, "scope_score": prediction.scope.score} if prediction.scope else {}),
        **{f"p_{label}": value for label, value in prediction.probabilities.items()},
        **{f"suspicious_{name}": decision for name, decision in prediction.decisions.items()},
    }


def _schema(model: Predictor, options: ScoreOptions) -> pa.Schema:
    """Return the columns of a shard, which are the keys of ``_record``; rules add theirs where model or call have them."""
    sets = model.rules is not None and model.rules.label_sets is not None
    return pa.schema(
        [
            ("index", pa.int64()),
            *((name, pa.string()) for name in ("image_id", "truth", "group", "error", "label")),
            ("malignancy", pa.float64()),
            ("disagreement", pa.float64()),
            ("flags", pa.list_(pa.string())),
            *([("label_set", pa.list_(pa.string()))] if sets else []),
            *([("most_probable", pa.string())] if options.decide != MOST_PROBABLE else []),
            *([("abstains", pa.bool_())] if options.abstain is not None else []),
            *([("scope", pa.string()), ("scope_score", pa.float64())] if model.gates else []),
            *((f"p_{label}", pa.float64()) for label in model.labels),
            *((f"suspicious_{name}", pa.bool_()) for name in model.operating_points),
        ]
    )


def _manifest(model: Predictor, source: RowSource, options: ScoreOptions) -> dict[str, Any]:
    """List all that must be equal for a run to be continued; the batch size need not be."""
    return {
        "format_version": 1,
        "model": model.name,
        "revision": model.revision,
        "weights_sha256": weights_fingerprint(model),
        "labels": list(model.labels),
        "operating_points": {name: point.threshold for name, point in model.operating_points.items()},
        **({"precision": "int8"} if any(member.eight_bits for member in model.members) else {}),
        **({"gates": gates_fingerprint(model)} if model.gates else {}),
        "data": source.identity,
        "shard_size": options.shard_size,
        "tta": options.tta,
        **({"rules": options.rules} if options.rules else {}),
    }


def weights_fingerprint(model: Predictor) -> str:
    """Hash all members' weights and how they are combined: 64 hex digits of sha256."""
    combination = model.combination
    digest = hashlib.sha256(repr((combination.weights, combination.combine, combination.temperature)).encode())
    for member in model.members:
        digest.update(member.name.encode())
        for key, tensor in member.classifier.network.state_dict().items():
            digest.update(key.encode())
            digest.update(tensor.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def gates_fingerprint(model: Predictor) -> str:
    """Hash all members' input gates and their limits: 64 hex digits of sha256."""
    digest = hashlib.sha256()
    for gate in model.gates:
        digest.update(repr((gate.weights.reads, gate.weights.bias, gate.refuse_below, gate.accept_from)).encode())
        digest.update(gate.weights.outputs.numpy().tobytes())
    return digest.hexdigest()


# ------------------------------------------------------------------------------------------------ shards


class ShardFolder:
    """Shards of equal size, numbered from 0; the last one may be shorter."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root).expanduser()

    def claim(self, manifest: Mapping[str, Any]) -> None:
        """Write the run's manifest into the folder, or continue the run whose manifest is there; another run's is refused."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"{self.root}: cannot be made ({error.strerror}); choose another folder") from None
        path = self.root / SCORES_NAME
        if not path.is_file():
            if self.done():
                raise DataError(f"{self.root}: holds shards without {SCORES_NAME}; choose another folder")
            write_json(path, manifest)
            return
        held = read_json(path)
        differing = sorted(key for key in {*held, *manifest} if held.get(key) != manifest.get(key))
        if differing:
            raise DataError(f"{self.root}: holds scores of another run ({differing[0]} differs); choose another folder")

    def path(self, shard: int) -> Path:
        return self.root / f"shard-{shard:06d}.parquet"

    def done(self) -> set[int]:
        """List the numbers of the shards that are there."""
        found = (_SHARD.fullmatch(entry.name) for entry in self.root.iterdir())
        return {int(match.group(1)) for match in found if match}

    def write(self, shard: int, rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> None:
        """Write a shard whole or not at all; what an earlier killed writer left of it is removed."""
        path = self.path(shard)
        remove_leftovers(self.root, path.name)
        buffer = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), buffer, compression="zstd")
        write_bytes(path, buffer.getvalue())

    def table(self) -> pa.Table:
        """Read all rows, in the source's order."""
        paths = [self.path(shard) for shard in sorted(self.done())]
        if not paths:
            raise DataError(f"{self.root}: holds no shard; score into it first")
        return pa.concat_tables([pq.read_table(path) for path in paths])
