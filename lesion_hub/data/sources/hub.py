"""Data sets that carry their images with them: any id on the Hub, a local copy of one, a Parquet file or a tar archive.

Loading is that of `datasets`; here its columns are brought to the schema without touching an image byte.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from lesion_hub.data.schema import COLUMNS, features
from lesion_hub.data.sources.assemble import (
    ReadReport,
    ReadResult,
    judge,
    label_index,
    official_split,
    propose_columns,
    schema_columns,
)
from lesion_hub.data.sources.columns import chosen_parts, first_line, label_word, source_columns, words_table
from lesion_hub.data.sources.rows import ReadOptions, Rows, age_years, without_suffix
from lesion_hub.data.sources.sharded import find_builder, read_tars, shard_files
from lesion_hub.errors import DataError
from lesion_hub.taxonomy import ABSTAIN, LabelSpace, canonical_sex, canonical_site, space_from_names

if TYPE_CHECKING:
    from datasets import Dataset, DatasetBuilder, IterableDataset


def has_pixels(path: Path) -> bool:
    """Return whether a table file is Parquet that holds encoded images, not just words about them."""
    import pyarrow.parquet
    import pyarrow.types

    if path.suffix.lower() != ".parquet":
        return False
    try:
        types = pyarrow.parquet.read_schema(path).types
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: no readable Parquet file ({first_line(error)}); fetch it again") from None
    return any(
        pyarrow.types.is_binary(type_)
        or pyarrow.types.is_large_binary(type_)
        or (pyarrow.types.is_struct(type_) and type_.get_field_index("bytes") >= 0)
        for type_ in types
    )


def read_hub(place: str, options: ReadOptions) -> ReadResult:
    """Read a Hub id, a folder laid out as a Hub data set, or a file of one, whole or as a stream."""
    if options.images:
        raise DataError(f"{place}: its images are inside it, and --images names a folder of others; leave --images out")
    builder = find_builder(place, options)
    if tars := shard_files(builder, ".tar"):
        return read_tars(place, tars, options)
    parts = chosen_parts(place, _load(place, builder, options), options.split)
    if not options.streaming:
        return _read_whole(place, parts, options)
    if len(parts) > 1:
        raise DataError(f"{place}: a stream is of one split; choose one of {', '.join(sorted(parts))} with split=")
    return _read_stream(place, next(iter(parts.values())), options)


def _load(place: str, builder: DatasetBuilder, options: ReadOptions) -> dict[str, Any]:
    from datasets.exceptions import DatasetsError
    from huggingface_hub.errors import HfHubHTTPError

    try:
        if not options.streaming:
            builder.download_and_prepare()
        loaded = builder.as_streaming_dataset() if options.streaming else builder.as_dataset()
    except (DatasetsError, HfHubHTTPError, OSError, ValueError, RuntimeError) as error:
        raise DataError(f"{place}: cannot be loaded ({first_line(error)}); check its files, and the connection") from None
    return {str(name): part for name, part in loaded.items()}


# ------------------------------------------------------------------------------------------------ whole


def _read_whole(place: str, parts: dict[str, Dataset], options: ReadOptions) -> ReadResult:
    import pyarrow.compute as pc
    from datasets import Dataset, Features, Image, concatenate_datasets

    found = next(iter(parts.values())).features
    columns, class_names = source_columns(place, found, options)
    try:
        everything = concatenate_datasets(list(parts.values()))
        images = everything.select_columns([columns["image"]]).rename_columns({columns["image"]: "image"})
        images = images.cast_column("image", Image())
    except ValueError as error:
        raise DataError(f"{place}: its splits differ in columns ({first_line(error)}); read one with split=") from None
    splits = [name for name, part in parts.items() for _ in range(len(part))]
    facts = everything.select_columns(sorted({column for name, column in columns.items() if name != "image"}))
    stored = images.data.column("image")
    paths, contents = pc.struct_field(stored, "path"), pc.struct_field(stored, "bytes")
    present = pc.and_(stored.is_valid(), pc.or_(paths.is_valid(), contents.is_valid())).to_numpy()
    table = words_table(facts.to_pandas(), columns, class_names, splits, paths.to_pylist())
    default = space_from_names(map(options.relabelled, class_names)) if class_names else None
    rows = Rows(table, None, default, (), without_suffix, _other_words(everything, columns))
    judged = judge(table, rows, options, present)
    report = ReadReport(
        source="hub",
        place=place,
        rows=len(table),
        kept=int(judged.keep.sum()),
        problems=judged.problems,
        labels=judged.words,
        proposals=propose_columns(judged, rows),
    )
    report.raise_unless(options.allow_missing)
    words = Features({name: feature for name, feature in features(judged.space).items() if name != "image"})
    everywhere = np.ones(len(table), dtype=bool)
    known = Dataset.from_dict(schema_columns(judged, place, everywhere), features=words)
    dataset = concatenate_datasets([images, known], axis=1).select_columns(list(COLUMNS))
    if not judged.keep.all():
        dataset = dataset.select(np.flatnonzero(judged.keep))
    return ReadResult(dataset, judged.space, official_split(judged), report, options.allow_missing)


def _other_words(everything: Dataset, columns: dict[str, str]) -> pd.DataFrame | None:
    """Return the columns of plain values that nothing was mapped to, None where there are none."""
    from datasets import Value

    kinds = ("string", "large_string", "int", "float")
    plain = [name for name, kind in everything.features.items() if isinstance(kind, Value) and kind.dtype.startswith(kinds)]
    others = [name for name in plain if name not in columns.values()]
    return everything.select_columns(others).to_pandas() if others else None


# ------------------------------------------------------------------------------------------------ stream


def _read_stream(place: str, stream: IterableDataset, options: ReadOptions) -> ReadResult:
    from datasets import Image

    stream = stream if stream.features is not None else stream._resolve_features()
    found = stream.features
    columns, names = source_columns(place, found, options)
    if options.space is None and names is None:
        raise DataError(f"{place}: a stream cannot be searched for its labels; name their label space with space=")
    space = options.space or space_from_names(map(options.relabelled, names or ()))
    # A partial of a module's function, not a closure: worker processes of a data loader must be able to pickle the stream.
    convert = partial(_schema_row, place=place, columns=columns, names=names, space=space, options=options)
    schema = features(space)
    schema["image"] = Image(decode=False)
    rows = stream.cast_column(columns["image"], Image(decode=False))
    rows = rows.map(convert, with_indices=True, remove_columns=list(found), features=schema)
    rows = rows.filter(_has_image_and_label).cast_column("image", Image())
    return ReadResult(rows, space, None, ReadReport("hub", place, None, None))


def _has_image_and_label(row: Mapping[str, Any]) -> bool:
    return row["label"] != ABSTAIN and row["image"] is not None


def _schema_row(
    row: Mapping[str, Any],
    number: int,
    *,
    place: str,
    columns: dict[str, str],
    names: list[str] | None,
    space: LabelSpace,
    options: ReadOptions,
) -> dict[str, Any]:
    cells = {name: row[column] for name, column in columns.items()}
    image, word = cells["image"], label_word(cells["label"], names)
    stored_name = without_suffix(image["path"]) if image and image.get("path") else None
    image_id = str(cells.get("image_id") or stored_name or f"{number:07d}")
    index = label_index(space, options.relabelled(word)) if word is not None else None
    if not options.allow_missing and (index is None or index == ABSTAIN or image is None):
        what = "the image is missing" if image is None else f"label {word!r} is not in {space.name!r}"
        raise DataError(f"{place}: row {number} ({image_id}): {what}; mend it, or leave it out with --allow-missing")
    return {
        "image": image,
        "label": ABSTAIN if index is None else index,
        "image_id": image_id,
        "group": str(cells.get("group") or image_id),
        "age": age_years(cells.get("age")),
        "sex": canonical_sex(cells.get("sex")),
        "site": canonical_site(cells.get("site")),
        "source": str(cells.get("source") or place),
    }
