"""What a run was made from, kept in its folder, so that it does not go on with other images, labels or starting weights.

Which identity an image has: size and time of change would miss a file that was overwritten with its time kept, and would refuse
one that was merely copied; hashing whole files reads gigabytes at every start. So an image is known by its size and the hash of
three blocks of its content, first, middle and last: another picture in a compressed format differs in them (a PNG ends in
checksums, the bits of a JPEG shift). An edit of a few pixels of a large uncompressed file may lie between the blocks, and is
missed. Ten thousand files take less than a second. Paths are not compared: a data set may move.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from pathlib import Path
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq
from accelerate import Accelerator

from lesion_hub.config import CONFIG_NAME, ENSEMBLE_NAME
from lesion_hub.data.images import ImageSource
from lesion_hub.data.scan import source_parts
from lesion_hub.data.shards import ShardedImages
from lesion_hub.errors import ConfigError
from lesion_hub.files import sha256_of, write_bytes
from lesion_hub.hub.layout import is_ensemble
from lesion_hub.training.claims import from_first
from lesion_hub.training.data import Part, RunData
from lesion_hub.training.run_folder import RunFolder
from lesion_hub.training.start import Lineage

# Bytes; what is no larger than three blocks is hashed whole.
BLOCK = 4096
# Images that are looked at together: embedded ones are in memory meanwhile.
_TOGETHER = 256

WORDS = ("label", "group", "age", "sex", "site")


def keep_inputs(folder: RunFolder, data: RunData, lineage: Lineage, accelerator: Accelerator) -> None:
    """Keep what the run is made from, or where it goes on refuse what has changed; the first process looks, all refuse.

    A run that was begun before inputs were kept goes on without the check.
    """
    change = None
    if accelerator.is_main_process:
        if not folder.started:
            _save(folder.inputs_file, inputs_of(data), lineage)
        elif folder.inputs_file.is_file():
            change = _change(folder.inputs_file, inputs_of(data), lineage)
    change = from_first(change, accelerator)
    if change is not None:
        raise ConfigError(
            f"{folder.path}: since this run began {change}; put back what was there, --restart, or choose another --out"
        )


def inputs_of(data: RunData) -> pa.Table:
    """Return what the parts hold: a row per image with its id, content, part and words. The content of streamed images is null:
    their shards are compared as the index is read.
    """
    return pa.concat_tables(_rows(part) for part in data.parts.values())


def content_of(source: ImageSource) -> str:
    """Return what the content of an image is known by, as 32 hex digits; ``unreadable`` where there is no file to read.

    >>> content_of(b"abc") == content_of({"path": "elsewhere.jpg", "bytes": b"abc"})
    True
    """
    path, content = source_parts(source)
    if content is not None or path is None:
        return _sampled(BytesIO(content or b""), len(content or b""))
    try:
        # Unbuffered: of a file that lies on a server no more than the blocks is asked for.
        with Path(path).open("rb", buffering=0) as stream:
            return _sampled(stream, stream.seek(0, 2))
    except OSError:
        return "unreadable"


def _sampled(stream: IO[bytes], size: int) -> str:
    digest = hashlib.sha256(str(size).encode())
    starts = (0,) if size <= 3 * BLOCK else (0, (size - BLOCK) // 2, size - BLOCK)
    for start in starts:
        stream.seek(start)
        digest.update(stream.read(BLOCK if len(starts) > 1 else size))
    return digest.hexdigest()[:32]


def _contents(images: Sequence[ImageSource]) -> list[str | None]:
    if isinstance(images, ShardedImages):
        return [None] * len(images)
    found: list[str | None] = []
    with ThreadPoolExecutor(8) as pool:
        for first in range(0, len(images), _TOGETHER):
            found += pool.map(content_of, images[first : first + _TOGETHER])
    return found


def _rows(part: Part) -> pa.Table:
    facts = {} if part.dataset is None else {word: part.dataset[word][:] for word in WORDS[2:]}
    labels = [part.space.labels[label] for label in part.labels.tolist()]
    columns = {"label": labels, "group": part.groups, **{word: [str(value) for value in facts[word]] for word in facts}}
    own = {"image_id": part.ids, "content": pa.array(_contents(part.images), pa.string()), "part": [part.name] * len(part)}
    return pa.table({**own, **columns})


def _hashes(lineage: Lineage) -> dict[str, str | None]:
    """Hash the file that the run starts from (fresh weights, and what timm downloads, have none), and what states its teacher.

    The config of a published model states the sha256 of its weights.
    """
    given, teacher = lineage.start.weights, lineage.teacher
    weights = None if isinstance(given, bool) or not Path(given).is_file() else sha256_of(Path(given))
    if teacher is None:
        return {"weights": weights}
    folder = teacher.found.folder
    return {"weights": weights, "teacher": sha256_of(folder / (ENSEMBLE_NAME if is_ensemble(folder) else CONFIG_NAME))}


def _save(file: Path, inputs: pa.Table, lineage: Lineage) -> None:
    content = BytesIO()
    pq.write_table(inputs.replace_schema_metadata({"lesion_hub": json.dumps(_hashes(lineage))}), content)
    write_bytes(file, content.getvalue())


def _change(file: Path, now: pa.Table, lineage: Lineage) -> str | None:
    """Say what differs from the inputs kept in ``file``: images, the weights, or the teacher; None if nothing."""
    current = _hashes(lineage)
    try:
        kept = pq.read_table(file)
        hashes = json.loads(kept.schema.metadata[b"lesion_hub"])
        others = [kind for kind, found in current.items() if found != hashes[kind]]
        before, after = ({row["image_id"]: row for row in table.to_pylist()} for table in (kept, now))
    except (OSError, ValueError, KeyError, TypeError):
        raise ConfigError(f"{file}: what the run was made from is damaged; train anew with --restart") from None
    changed = [image_id for image_id in {**before, **after} if before.get(image_id) != after.get(image_id)]
    if changed:
        first = changed[0]
        old, new = before.get(first), after.get(first)
        if old is None or new is None:
            how = "is new" if old is None else "is gone"
        else:
            columns = [column for column in old if old[column] != new.get(column)]
            how = "has other content" if "content" in columns else f"has another {' and '.join(columns)}"
        return f"image {first} {how}" if len(changed) == 1 else f"{len(changed):,} images have changed (image {first} {how})"
    if "weights" in others:
        return f"the weights that it started from have changed ({lineage.start.weights})"
    if others and lineage.teacher is not None:
        return f"its teacher has changed ({lineage.teacher.title})"
    return None
