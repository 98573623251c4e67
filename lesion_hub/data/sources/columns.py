"""The columns of data sets that carry their images, and their labels as words: what `hub` and `sharded` share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from lesion_hub.data.sources.assemble import with_known_ids
from lesion_hub.data.sources.rows import PART_NAMES_IN_SOURCES, ROW_FIELDS, USUAL_NAMES, ReadOptions, frame, without_suffix
from lesion_hub.errors import DataError
from lesion_hub.taxonomy import nearest

if TYPE_CHECKING:
    from datasets import Features


def first_line(error: Exception) -> str:
    """Return the first line of what an error says, without its full stop."""
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__


def chosen_parts(place: str, parts: Mapping[str, Any], split: str | None) -> dict[str, Any]:
    """Return the parts that ``split`` (train, val or test; None: all) names, by whatever name the source has for it."""
    if split is None:
        return dict(parts)
    chosen = {name: part for name, part in parts.items() if PART_NAMES_IN_SOURCES.get(name.lower()) == split}
    if not chosen:
        raise DataError(f"{place}: no split {split!r} there; leave split out to read all")
    return chosen


def source_columns(place: str, found: Features, options: ReadOptions) -> tuple[dict[str, str], list[str] | None]:
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


def label_word(value: Any, names: list[str] | None) -> str | None:
    """Return the label as a word, a class index by its name; None for -1 and for no label."""
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return None
    if names is None:
        return str(value)
    return names[int(value)] if 0 <= int(value) < len(names) else None


def words_table(
    raw: pd.DataFrame,
    columns: Mapping[str, str],
    class_names: list[str] | None,
    splits: Sequence[str],
    file_names: Sequence[str | None],
) -> pd.DataFrame:
    """Return the words of N rows in the columns of `ROW_FIELDS`.

    ``raw`` holds the columns of the source, which ``columns`` maps the schema's to; ``splits`` names the part that each row
    came in, ``file_names`` the file of its image, from which it has its id where no column gives one.
    """
    cells = {name: raw[column].reset_index(drop=True) for name, column in columns.items() if name != "image"}
    cells["label"] = pd.Series([label_word(value, class_names) for value in cells["label"]], dtype=object)
    if "split" in cells:
        cells["split"] = cells["split"].map(lambda word: PART_NAMES_IN_SOURCES.get(str(word).lower()), na_action="ignore")
    else:
        cells["split"] = pd.Series([PART_NAMES_IN_SOURCES.get(name.lower()) for name in splits], dtype=object)
    if "image_id" not in cells:
        stems = pd.Series(list(file_names), dtype=object).map(without_suffix, na_action="ignore")
        numbered = pd.Series([f"{name}-{row:07d}" for row, name in enumerate(splits)], dtype=object)
        cells["image_id"] = stems if stems.notna().all() and stems.is_unique else numbered
    cells["image_id"] = cells["image_id"].map(str, na_action="ignore")
    return with_known_ids(frame(**{name: cells[name] for name in ROW_FIELDS if name in cells}))
