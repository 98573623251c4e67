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
from lesion_hub.data.sources.assemble import age_years, judge, label_index, official_split, schema_columns, with_known_ids
from lesion_hub.data.sources.report import ReadReport, ReadResult
from lesion_hub.data.sources.rows import FIELDS, SPLITS, USUAL_NAMES, ReadOptions, Rows, frame, without_suffix
from lesion_hub.errors import DataError
from lesion_hub.taxonomy import ABSTAIN, LabelSpace, canonical_sex, canonical_site, nearest, space_from_names

if TYPE_CHECKING:
    from datasets import Dataset, Features, IterableDataset


def has_pixels(path: Path) -> bool:
    """Whether a Parquet file holds encoded images, not just words about them."""
    import pyarrow.parquet
    import pyarrow.types

    try:
        types = pyarrow.parquet.read_schema(path).types
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: no readable Parquet file ({_first_line(error)}); fetch it again") from None
    structs = [type_ for type_ in types if pyarrow.types.is_struct(type_)]
    return any(map(pyarrow.types.is_binary, types)) or any(s.get_field_index("bytes") >= 0 for s in structs)


def read_hub(place: str, options: ReadOptions) -> ReadResult:
    """Read a Hub id, a folder laid out as a Hub data set, or a Parquet file, whole or as a stream."""
    parts = _load(place, options)
    if options.split is not None:
        parts = {name: part for name, part in parts.items() if SPLITS.get(name, name) == options.split}
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


def _columns(place: str, found: Features, options: ReadOptions) -> dict[str, str]:
    """Column of the schema -> column of the source, by the caller's map, else by usual names."""
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
    return columns


def _check_images(place: str, found: Features, column: str) -> None:
    from datasets import Image, Value

    feature = found[column]
    struct = isinstance(feature, Mapping) and set(feature) >= {"bytes", "path"}
    binary = isinstance(feature, Value) and feature.dtype in ("binary", "large_binary")
    if not (isinstance(feature, Image) or struct or binary):
        raise DataError(f"{place}: column {column!r} holds no images but {feature}; map the one that does to 'image'")


def _label_names(found: Features, column: str) -> list[str] | None:
    from datasets import ClassLabel

    feature = found[column]
    return list(feature.names) if isinstance(feature, ClassLabel) else None


def _word(value: Any, names: list[str] | None) -> str | None:
    """The label as a word: class indices by their names, -1 and None as no label."""
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return None
    if names is None:
        return str(value)
    return names[int(value)] if 0 <= int(value) < len(names) else None


# ------------------------------------------------------------------------------------------------ whole


def _read_whole(place: str, parts: dict[str, Dataset], options: ReadOptions) -> ReadResult:
    from datasets import Dataset, Features, Image, concatenate_datasets

    found = next(iter(parts.values())).features
    columns = _columns(place, found, options)
    _check_images(place, found, columns["image"])
    try:
        everything = concatenate_datasets(list(parts.values()))
        images = everything.select_columns([columns["image"]]).rename_columns({columns["image"]: "image"})
        images = images.cast_column("image", Image())
    except ValueError as error:
        raise DataError(f"{place}: its splits differ in columns ({_first_line(error)}); read one with split=") from None
    names = [name for name, part in parts.items() for _ in range(len(part))]
    table, present = _table(everything, images, columns, names)
    label_names = _label_names(found, columns["label"])
    default = space_from_names(map(options.relabelled, label_names)) if label_names else None
    judged = judge(table, Rows(table, None, default, (), without_suffix), options, present)
    report = ReadReport("hub", place, len(table), int(judged.keep.sum()), judged.problems)
    report.raise_unless(options.allow_missing)
    words = Features({name: feature for name, feature in features(judged.space).items() if name != "image"})
    everywhere = np.ones(len(table), dtype=bool)
    facts = Dataset.from_dict(schema_columns(judged, place, everywhere), features=words)
    dataset = concatenate_datasets([images, facts], axis=1).select_columns(list(COLUMNS))
    if not judged.keep.all():
        dataset = dataset.select(np.flatnonzero(judged.keep))
    return ReadResult(dataset, judged.space, official_split(judged), report)


def _table(
    everything: Dataset, images: Dataset, columns: dict[str, str], split_names: list[str]
) -> tuple[pd.DataFrame, np.ndarray]:
    """The words of every row, and a mask of the rows that have an image; no image byte is read."""
    facts = [name for name in columns if name != "image"]
    raw = everything.select_columns(sorted({columns[name] for name in facts})).to_pandas()
    cells = {name: raw[columns[name]] for name in facts}
    names = _label_names(everything.features, columns["label"])
    cells["label"] = pd.Series([_word(value, names) for value in cells["label"]], dtype=object)
    if "split" in cells:
        cells["split"] = cells["split"].map(lambda word: SPLITS.get(str(word).lower()), na_action="ignore")
    else:
        cells["split"] = pd.Series([SPLITS.get(name.lower()) for name in split_names], dtype=object)
    paths, present = _stored(images)
    if "image_id" not in cells:
        stems = paths.map(without_suffix, na_action="ignore")
        numbered = pd.Series([f"{name}-{row:07d}" for row, name in enumerate(split_names)], dtype=object)
        cells["image_id"] = stems if stems.notna().all() and stems.is_unique else numbered
    cells["image_id"] = cells["image_id"].map(str, na_action="ignore")
    return with_known_ids(frame(**{name: cells[name] for name in FIELDS if name in cells})), present


def _stored(images: Dataset) -> tuple[pd.Series, np.ndarray]:
    """The file name stored with each image (missing: None), and whether there is an image at all."""
    import pyarrow.compute as pc

    stored = images.data.column("image")
    paths, contents = pc.struct_field(stored, "path"), pc.struct_field(stored, "bytes")
    present = pc.and_(stored.is_valid(), pc.or_(paths.is_valid(), contents.is_valid()))
    return paths.to_pandas().astype(object), present.to_numpy()


# ------------------------------------------------------------------------------------------------ stream


def _read_stream(place: str, stream: IterableDataset, options: ReadOptions) -> ReadResult:
    stream = stream if stream.features is not None else stream._resolve_features()
    found = stream.features
    columns = _columns(place, found, options)
    _check_images(place, found, columns["image"])
    names = _label_names(found, columns["label"])
    if options.space is None and names is None:
        raise DataError(f"{place}: a stream cannot be searched for its labels; name their label space with space=")
    space = options.space or space_from_names(map(options.relabelled, names or ()))
    convert = partial(_schema_row, place=place, columns=columns, names=names, space=space, options=options)
    from datasets import Image

    rows = stream.cast_column(columns["image"], Image(decode=False)).map(
        convert, with_indices=True, remove_columns=list(found), features=undecoded_features(space)
    )
    rows = rows.filter(_is_whole).cast_column("image", Image())
    return ReadResult(rows, space, None, ReadReport("hub", place, None, None))


def undecoded_features(space: LabelSpace) -> Features:
    """The schema for ``space`` with images left as they are stored."""
    from datasets import Image

    schema = features(space)
    schema["image"] = Image(decode=False)
    return schema


def _is_whole(row: Mapping[str, Any]) -> bool:
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
