"""A folder of Parquet shards that fills up shard by shard, each whole or absent, so that work can be cut off anywhere."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from lesion_hub.config import read_json
from lesion_hub.errors import DataError
from lesion_hub.hub.atomic import sync_folder, write_bytes, write_text

MANIFEST_NAME = "scores.json"
_SHARD = re.compile(r"shard-(\d{6})\.parquet")


class ShardFolder:
    """Shards of equal size, numbered from 0; the last one may be shorter."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root).expanduser()

    def claim(self, manifest: Mapping[str, Any]) -> None:
        """Make the folder this work's; one that holds other work is refused, one that holds a part of this is continued."""
        try:
            self.root.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(f"{self.root}: cannot be made ({error.strerror}); choose another folder") from None
        path = self.root / MANIFEST_NAME
        if not path.is_file():
            if any(_SHARD.fullmatch(entry.name) for entry in self.root.iterdir()):
                raise DataError(f"{self.root}: holds shards without {MANIFEST_NAME}; choose another folder")
            write_text(path, json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")
            return
        held = read_json(path)
        differing = sorted(key for key in {*held, *manifest} if held.get(key) != manifest.get(key))
        if differing:
            raise DataError(f"{self.root}: holds scores of another run ({differing[0]} differs); choose another folder")

    def path(self, shard: int) -> Path:
        return self.root / f"shard-{shard:06d}.parquet"

    def done(self) -> set[int]:
        """Numbers of the shards that are there."""
        found = (_SHARD.fullmatch(entry.name) for entry in self.root.iterdir())
        return {int(match.group(1)) for match in found if match}

    def write(self, shard: int, rows: Sequence[Mapping[str, Any]], schema: pa.Schema) -> None:
        """Write a shard aside, fsync, rename; what an earlier killed writer left of it is removed."""
        path = self.path(shard)
        for leftover in self.root.glob(f".{path.name}.tmp-*"):
            leftover.unlink(missing_ok=True)
        buffer = io.BytesIO()
        pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), buffer, compression="zstd")
        write_bytes(path, buffer.getvalue())
        sync_folder(self.root)

    def table(self) -> pa.Table:
        """All rows, in the source's order."""
        paths = [self.path(shard) for shard in sorted(self.done())]
        if not paths:
            raise DataError(f"{self.root}: holds no shard; score into it first")
        return pa.concat_tables([pq.read_table(path) for path in paths])

    def rows(self) -> int:
        """How many rows are there, read from the shards' footers."""
        return sum(pq.read_metadata(self.path(shard)).num_rows for shard in self.done())
