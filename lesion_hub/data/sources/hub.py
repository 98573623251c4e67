"""Data sets that carry their images with them: any id on the Hub, a local copy of one, or a Parquet file.

Loading is `datasets.load_dataset`; here its columns are brought to the schema without touching an image byte.
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
    with_known_ids,
)
from lesion_hub.data.sources.rows import (
    PART_NAMES_IN_SOURCES,
    ROW_FIELDS,
    USUAL_NAMES,
    ReadOptions,
    Rows,
    age_years,
    frame,
    without_suffix,
)
from lesion_hub.errors import DataError
from lesion_hub.taxonomy import ABSTAIN, LabelSpace, canonical_sex, canonical_site, nearest, space_from_names

if TYPE_CHECKING:
    from datasets import Dataset, Features, IterableDataset


def has_pixels(path: Path) -> bool:
    """Return whether a table file is Parquet that holds encoded images, not just words about them."""
    import pyarrow.parquet
    import pyarrow.types

    if path.suffix.lower() != ".parquet":
        return False
    try:
        types = pyarrow.parquet.read_schema(path).types
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: no readable Parquet file ({_first_line(error)}); fetch it again") from None
    return any(
        pyarrow.types.is_binary(type_)
        or pyarrow.types.is_large_binary(type_)
        or (pyarrow.types.is_struct(type_) and type_.get_field_index("bytes") >= 0)
        for type_ in types
    )


def read_hub(place: str, options: ReadOptions) -> ReadResult:
    """Read a Hub id, a folder laid out as a Hub data set, or a Parquet file, whole or as a stream."""
    if options.images:
        raise DataError(f"{place}: its images are inside it, and --images names a folder of others; leave --images out")
    parts = _load(place, options)
    if options.split is not None:
        parts = {name: part for name, part in parts.items() if PART_NAMES_IN_SOURCES.get(name.lower()) == options.split}
        if not parts:
            raise DataError(f"{place}: no split {options.split!r} there; leave split out to read all")
    if not options.streaming:
        return _read_whole(place, parts, options)
    if len(parts) > 1:
        raise DataError(f"{place}: a stream is of one split; choose one of {', '.join(sorted(parts))} with split=")
    return _read_stream(place, next(iter(parts.values())), options)


def _load(place: str, options: ReadOptions) -> dict[str, Any]:
    from datasets import load_dataset
    from datasets.exceptions import DatasetsError
    from huggingface_hub.errors import HfHubHTTPError

    local = Path(place)
    path, files = ("parquet", place) if local.is_file() else (place, None)
    try:
        loaded = load_dataset(
            path, name=options.subset, data_files=files, revision=options.revision, streaming=options.streaming
        )
    except (DatasetsError, HfHubHTTPError, OSError, ValueError, RuntimeError) as error:
        where = "" if local.exists() else " neither a folder here nor"
        raise DataError(
            f"{place}:{where} a data set that can be loaded ({_first_line(error)}); check its name, revision and access"
        ) from None
    return {str(name): part for name, part in loaded.items()}


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__


# ------------------------------------------------------------------------------------------------ columns


def _columns(place: str, found: Features, options: ReadOptions) -> tuple[dict[str, str], list[str] | None]:
    """Return column of the schema -> column of the source, and the class names where the labels are numbered.

    Columns are found by the caller's map, else by usual names.
    """
    from datasets import ClassLabel, Image, Value

    lower = {name.lower(): name for name in found}
    columns = {}
    for name, usual in USUAL_NAMES.items():
        wanted = [options.columns[name]] if name in options.columns else usual
        present = [lower[word.lower()] for word in wanted if word.lower() in lower]
        if present:
            columns[name] = present[0]
        elif name in options.columns:
            raise DataError(f"{place}: no column {options.columns[name]!r}; {nearest(options.columns[name], found)}")
    for name in ("image", "label"):
        if name not in columns:
            raise DataError(f"{place}: no column {name!r} among {', '.join(found)}; map one with --column {name}=NAME")
    column = columns["image"]
    feature = found[column]
    struct = isinstance(feature, Mapping) and set(feature) >= {"bytes", "path"}
    binary = isinstance(feature, Value) and feature.dtype in ("binary", "large_binary")
    if not (isinstance(feature, Image) or struct or binary):
        raise DataError(f"{place}: column {column!r} holds no images but {feature}; map the one that does to 'image'")
    label = found[columns["label"]]
    return columns, list(label.names) if isinstance(label, ClassLabel) else None


def _word(value: Any, names: list[str] | None) -> str | None:
    """Return the label as a word, a class index by its name; None for -1 and for no label."""
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return None
    if names is None:
        return str(value)
    return names[int(value)] if 0 <= int(value) < len(names) else None


# ------------------------------------------------------------------------------------------------ whole


def _read_whole(place: str, parts: dict[str, Dataset], options: ReadOptions) -> ReadResult:
    from datasets import Dataset, Features, Image, concatenate_datasets

    found = next(iter(parts.values())).features
    columns, class_names = _columns(place, found, options)
    try:
        everything = concatenate_datasets(list(parts.values()))
        images = everything.select_columns([columns["image"]]).rename_columns({columns["image"]: "image"})
        images = images.cast_column("image", Image())
    except ValueError as error:
        raise DataError(f"{place}: its splits differ in columns ({_first_line(error)}); read one with split=") from None
    splits = [name for name, part in parts.items() for _ in range(len(part))]
    table, present = _table(everything, images, columns, class_names, splits)
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
    facts = Dataset.from_dict(schema_columns(judged, place, everywhere), features=words)
    dataset = concatenate_datasets([images, facts], axis=1).select_columns(list(COLUMNS))
    if not judged.keep.all():
        dataset = dataset.select(np.flatnonzero(judged.keep))
    return ReadResult(dataset, judged.space, official_split(judged), report)


def _other_words(everything: Dataset, columns: dict[str, str]) -> pd.DataFrame | None:
    """Return the columns of plain values that nothing was mapped to, None where there are none."""
    from datasets import Value

    kinds = ("string", "large_string", "int", "float")
    plain = [name for name, kind in everything.features.items() if isinstance(kind, Value) and kind.dtype.startswith(kinds)]
    others = [name for name in plain if name not in columns.values()]
    return everything.select_columns(others).to_pandas() if others else None


def _table(
    everything: Dataset, images: Dataset, columns: dict[str, str], class_names: list[str] | None, splits: list[str]
) -> tuple[pd.DataFrame, np.ndarray]:
    """Return the words of every row, and a mask (N,) of the rows that have an image; no image byte is read."""
    import pyarrow.compute as pc

    facts = [name for name in columns if name != "image"]
    raw = everything.select_columns(sorted({columns[name] for name in facts})).to_pandas()
    cells = {name: raw[columns[name]] for name in facts}
    cells["label"] = pd.Series([_word(value, class_names) for value in cells["label"]], dtype=object)
    if "split" in cells:
        cells["split"] = cells["split"].map(lambda word: PART_NAMES_IN_SOURCES.get(str(word).lower()), na_action="ignore")
    else:
        cells["split"] = pd.Series([PART_NAMES_IN_SOURCES.get(name.lower()) for name in splits], dtype=object)
    stored = images.data.column("image")
    stored_paths, contents = pc.struct_field(stored, "path"), pc.struct_field(stored, "bytes")
    present = pc.and_(stored.is_valid(), pc.or_(stored_paths.is_valid(), contents.is_valid())).to_numpy()
    if "image_id" not in cells:
        stems = stored_paths.to_pandas().astype(object).map(without_suffix, na_action="ignore")
        numbered = pd.Series([f"{name}-{row:07d}" for row, name in enumerate(splits)], dtype=object)
        cells["image_id"] = stems if stems.notna().all() and stems.is_unique else numbered
    cells["image_id"] = cells["image_id"].map(str, na_action="ignore")
    return with_known_ids(frame(**{name: cells[name] for name in ROW_FIELDS if name in cells})), present


# ------------------------------------------------------------------------------------------------ stream


def _read_stream(place: str, stream: IterableDataset, options: ReadOptions) -> ReadResult:
    from datasets import Image

    stream = stream if stream.features is not None else stream._resolve_features()
    found = stream.features
    columns, names = _columns(place, found, options)
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
    image, word = cells["image"], _word(cells["label"], names)
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
