"""Data sets in shards, Parquet or tar, on this disk or on the Hub: an index of their words, without a pixel.

`read_index` reads ids, labels, groups and patients of every image, judges them as those of any source, and gives a data set
whose image column says where each image lies (see `lesion_hub.data.shards`): what a split and a training order are made from
when the images themselves fit nowhere. `read_tars` reads tar shards as an ordinary source, through the same index.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa

from lesion_hub.data.schema import COLUMNS, features
from lesion_hub.data.shards import (
    SHARD_SUFFIXES,
    ShardedImages,
    ShardWords,
    parquet_features,
    parquet_words,
    shard_state,
    tar_words,
)
from lesion_hub.data.sources.assemble import (
    Judged,
    ReadReport,
    ReadResult,
    judge,
    official_split,
    propose_columns,
    schema_columns,
)
from lesion_hub.data.sources.columns import chosen_parts, first_line, source_columns, words_table
from lesion_hub.data.sources.rows import USUAL_NAMES, ReadOptions, Rows, without_suffix
from lesion_hub.errors import DataError
from lesion_hub.progress import Progress
from lesion_hub.taxonomy import space_from_names

if TYPE_CHECKING:
    from datasets import DatasetBuilder

# The file in which WebDataset keeps a label, where a table would have a column.
_LABEL_FILES = ("cls", "txt")


def find_builder(place: str, options: ReadOptions) -> DatasetBuilder:
    """Have `datasets` find the files of a Hub id, a folder or a file; those on the Hub at one commit."""
    from datasets import load_dataset_builder
    from datasets.exceptions import DatasetsError
    from huggingface_hub.errors import HfHubHTTPError

    local = Path(place)
    format_ = "webdataset" if local.suffix == ".tar" else "parquet"
    path, files = (format_, place) if local.is_file() else (place, None)
    try:
        return load_dataset_builder(path, name=options.subset, data_files=files, revision=options.revision)
    except (DatasetsError, HfHubHTTPError, OSError, ValueError, RuntimeError) as error:
        where = "" if local.exists() else " neither a folder here nor"
        raise DataError(
            f"{place}:{where} a data set that can be loaded ({first_line(error)}); check its name, revision and access"
        ) from None


def shard_files(builder: DatasetBuilder, suffix: str | tuple[str, ...] = SHARD_SUFFIXES) -> dict[str, list[str]]:
    """Return part -> its shards, in order; nothing where the data set has files of other kinds than ``suffix``."""
    parts = {str(name): [str(file) for file in files] for name, files in (builder.config.data_files or {}).items()}
    return parts if all(file.endswith(suffix) for files in parts.values() for file in files) else {}


# ------------------------------------------------------------------------------------------------ the index


def read_index(place: str, options: ReadOptions, progress: Progress | None = None) -> ReadResult:
    """Read the words of a data set in shards; ``progress`` is called with (shards done, shards in all)."""
    builder = find_builder(place, options)
    files = shard_files(builder)
    if not files:
        raise DataError(
            f"{place}: holds no Parquet or tar shards, which is what can be streamed; write some with lesion-hub data shards, "
            "or read it without streaming"
        )
    judged = _judged(place, chosen_parts(place, files, options.split), builder.info.features, options, progress)
    return _index(place, *judged, allow_missing=options.allow_missing)


def _judged(
    place: str,
    parts: Mapping[str, Sequence[str]],
    declared: Any,
    options: ReadOptions,
    progress: Progress | None = None,
) -> tuple[Rows, Judged, list[str]]:
    """Return the rows of all shards, the same judged, and the place of each one's image."""
    from datasets import Features, Image, Value

    shards = [(part, url) for part, urls in parts.items() for url in urls]
    tar = shards[0][1].endswith(".tar")
    found = None if tar else declared or parquet_features(shards[0][1])
    columns, class_names = ({}, None) if found is None else source_columns(place, found, options)
    facts = [column for name, column in columns.items() if name != "image"]
    read: list[ShardWords] = []
    splits: list[str] = []
    for done, (part, url) in enumerate(shards, start=1):
        read.append(tar_words(url) if tar else parquet_words(url, columns["image"], facts))
        splits += [part] * len(read[-1].places)
        if progress is not None:
            progress(done, len(shards))
    raw = pd.concat([words.cells for words in read], ignore_index=True)
    if tar:
        raw = _with_label(raw, options)
        found = Features({"image": Image(), **{name: Value("string") for name in raw.columns if name != "image"}})
        columns, _ = source_columns(place, found, options)
    table = words_table(raw, columns, class_names, splits, [name for words in read for name in words.names])
    default = space_from_names(map(options.relabelled, class_names)) if class_names else None
    present = np.array([there for words in read for there in words.present], dtype=bool)
    unread = [name for name in raw.columns if name not in columns.values()]
    rows = Rows(table, None, default, (), without_suffix, raw[unread] if unread else None)
    return rows, judge(table, rows, options, present), [where for words in read for where in words.places]


def _with_label(raw: pd.DataFrame, options: ReadOptions) -> pd.DataFrame:
    """Call the column of a ``.cls`` or ``.txt`` file ``label``, where no other column is one."""
    known = {str(name).lower() for name in raw.columns}
    if "label" in options.columns or known & set(USUAL_NAMES["label"]):
        return raw
    return raw.rename(columns={next((name for name in _LABEL_FILES if name in known), "label"): "label"})


def _index(place: str, rows: Rows, judged: Judged, places: Sequence[str], *, allow_missing: bool) -> ReadResult:
    """Make the data set of the rows kept, of which the image column holds the places."""
    from datasets import Dataset

    report = ReadReport(
        source="shards",
        place=place,
        rows=len(judged.table),
        kept=int(judged.keep.sum()),
        problems=judged.problems,
        labels=judged.words,
        proposals=propose_columns(judged, rows),
    )
    report.raise_unless(allow_missing)
    kept = [where for where, keep in zip(places, judged.keep.tolist(), strict=True) if keep]
    columns = {"image": pa.array(kept, pa.string()), **schema_columns(judged, place, judged.keep)}
    dataset = Dataset.from_dict({name: columns[name] for name in COLUMNS}, features=features(judged.space))
    return ReadResult(dataset, judged.space, official_split(judged), report, allow_missing)


# ------------------------------------------------------------------------------------------------ tar shards, as any source


def read_tars(place: str, files: Mapping[str, Sequence[str]], options: ReadOptions) -> ReadResult:
    """Read tar shards whole, which copies their images into the cache of `datasets`, or as a stream, which copies nothing."""
    from datasets import Dataset, Features, Image, IterableDataset, concatenate_datasets

    rows, judged, places = _judged(place, chosen_parts(place, files, options.split), None, options)
    index = _index(place, rows, judged, places, allow_missing=options.allow_missing)
    words = index.dataset.remove_columns("image")
    kept = [where for where, keep in zip(places, judged.keep.tolist(), strict=True) if keep]
    if options.streaming:
        stream = IterableDataset.from_generator(
            _rows, features=index.dataset.features, gen_kwargs={"places": [kept], "words": [words]}
        )
        return replace(index, dataset=stream)
    # The states are there for the cache's sake: other files are another copy.
    states = [shard_state(url) for urls in files.values() for url in urls]
    images = Dataset.from_generator(
        _images, features=Features({"image": Image()}), gen_kwargs={"places": tuple(kept), "states": tuple(map(str, states))}
    )
    return replace(index, dataset=concatenate_datasets([images, words], axis=1).select_columns(list(COLUMNS)))


def _images(places: tuple[str, ...], states: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    for image in ShardedImages(places):
        yield {"image": image}


def _rows(places: list[list[str]], words: list[Any]) -> Iterator[dict[str, Any]]:
    # Lists of one: `datasets` takes every list for as many shards as it has entries.
    for image, row in zip(ShardedImages(places[0]), words[0], strict=True):
        yield {"image": image, **row}
