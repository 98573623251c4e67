"""From the rows of any reader to the schema: find the images, map the labels, judge the rows, build the data set."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa

from lesion_hub.data.schema import COLUMNS, features
from lesion_hub.data.sources.inventory import Inventory, take_inventory
from lesion_hub.data.sources.report import Finding, ReadReport, ReadResult
from lesion_hub.data.sources.rows import SPLITS, ReadOptions, Rows
from lesion_hub.taxonomy import ABSTAIN, DIAGNOSES, LabelSpace, canonical_sex, canonical_site, space_from_names

OLDEST = 120.0
_SPLIT_WORD = re.compile(r"(?<![a-z])(train|training|test|validation|valid|val)(?![a-z])", re.IGNORECASE)


@dataclass(frozen=True)
class Judged:
    """Rows with their target ``space``, the label index of each (ABSTAIN: none), which to keep, and what was wrong."""

    table: pd.DataFrame
    space: LabelSpace
    labels: np.ndarray
    keep: np.ndarray
    problems: tuple[Finding, ...]


def assemble(rows: Rows, reader: str, inventory: Inventory, options: ReadOptions) -> ReadResult:
    """The data set of the rows whose images lie below ``inventory`` or in one of the extra image folders."""
    from datasets import Dataset

    table = with_known_ids(rows.table)
    paths, strays, repeated = _locate(table, rows, inventory, options)
    judged = judge(table, rows, options, paths.notna().to_numpy(), strays.problem)
    report = ReadReport(
        source=reader,
        place=str(inventory.root),
        rows=len(table),
        kept=int(judged.keep.sum()),
        problems=judged.problems,
        notes=tuple(note for note in (Finding.of("unlabelled_images", strays.held_out), repeated) if note.count),
    )
    report.raise_unless(options.allow_missing)
    columns = {"image": pa.array(paths[judged.keep], pa.string()), **schema_columns(judged, reader, judged.keep)}
    arrays = {name: columns[name] for name in COLUMNS}
    dataset = Dataset.from_dict(arrays, features=features(judged.space))
    return ReadResult(dataset, judged.space, official_split(judged), report)


def with_known_ids(table: pd.DataFrame) -> pd.DataFrame:
    """``table`` with a name made from its place for every row that has no image id."""
    places = pd.Series([f"(row {number} has no image id)" for number in range(1, len(table) + 1)], dtype=object)
    return table.assign(image_id=table["image_id"].where(table["image_id"].notna(), places).astype(str).astype(object))


# ------------------------------------------------------------------------------------------------ finding the images


@dataclass(frozen=True)
class _Strays:
    """Images without a row: a problem, unless they sit in the folder of a split that has no labels here."""

    problem: list[str]
    held_out: list[str]


def _locate(table: pd.DataFrame, rows: Rows, inventory: Inventory, options: ReadOptions) -> tuple[pd.Series, _Strays, Finding]:
    """The absolute image path of each row (missing: None), the images no row claims, the files that repeat an id."""
    own, repeated = _by_id(inventory.root, rows.images, rows)
    index = dict(own)
    for folder in options.images:
        index = {**_by_id(folder, take_inventory(folder).images, rows)[0], **index}
    paths = table["image_id"].map(index).astype(object)
    if "path" in table:
        paths = table["path"].astype(object).fillna(paths)
    strays = _strays(own.values(), paths, table, str(inventory.root.absolute()))
    return paths.where(paths.notna(), None), strays, Finding.of("repeated_files", repeated)


def _by_id(root: Path, images: Iterable[str], rows: Rows) -> tuple[dict[str, str], list[str]]:
    """Image id -> absolute path of its first file below ``root``, and the further files of ids already served."""
    index: dict[str, str] = {}
    repeated = []
    base = root.absolute().as_posix()
    for image in images:
        image_id = rows.image_id_of(image)
        if image_id in index:
            repeated.append(image)
        elif image_id is not None:
            index[image_id] = f"{base}/{image}"
    return index, repeated


def _strays(own: Iterable[str], paths: pd.Series, table: pd.DataFrame, base: str) -> _Strays:
    claimed, splits = set(paths.dropna()), set(table["split"].dropna())
    strays = _Strays([], [])
    for path in own:
        if path not in claimed:
            place = path[len(base) + 1 :]
            word = _SPLIT_WORD.search(place.rpartition("/")[0])
            held_out = bool(splits) and word is not None and SPLITS[word[0].lower()] not in splits
            (strays.held_out if held_out else strays.problem).append(place)
    return strays


# ------------------------------------------------------------------------------------------------ judging the rows


def judge(table: pd.DataFrame, rows: Rows, options: ReadOptions, present: np.ndarray, strays: Iterable[str] = ()) -> Judged:
    """Map the labels and decide which rows to keep; ``present`` says of each row whether its image was found."""
    words = table["label"].map(options.relabelled, na_action="ignore")
    space, by_word = _label_indices(words, rows, options)
    labels = words.map(by_word).fillna(ABSTAIN).to_numpy(dtype=np.int64)
    ids = table["image_id"]
    known = labels != ABSTAIN
    repeats = ids.duplicated(keep="first").to_numpy()
    conflicts = (pd.Series(labels).groupby(ids.to_numpy()).transform("nunique") > 1).to_numpy()
    keep = present & known & ~repeats & ~conflicts
    counts = np.bincount(labels[keep], minlength=len(space))
    # One sample cannot be split; where one part of a split is asked for, nothing is to be split any more.
    single = keep & (counts == 1)[np.where(known, labels, 0)] & (options.split is None)
    problems = (
        Finding.of("missing_images", ids[~present]),
        Finding.of("images_without_row", strays),
        Finding.of("unknown_labels", (f"{i}: {_shown(w)}" for i, w in zip(ids[~known], words[~known], strict=True))),
        Finding.of("duplicate_ids", ids[repeats & ~conflicts]),
        Finding.of("conflicting_labels", ids[conflicts]),
        Finding.of("single_sample_classes", (space.labels[label] for label in labels[single])),
    )
    return Judged(table, space, labels, keep & ~single, tuple(problem for problem in problems if problem.count))


def _shown(word: object) -> str:
    return "no label" if pd.isna(word) else repr(word)


def _label_indices(words: pd.Series, rows: Rows, options: ReadOptions) -> tuple[LabelSpace, dict[str, int]]:
    """The space to read into, and the index in it of every word that has one."""
    distinct = sorted({str(word) for word in words.dropna()})
    if rows.native is not None:
        target = options.space or rows.default or rows.native
        indices = rows.native.map_to(target).indices
        return target, {word: indices[rows.native.index(word)] for word in distinct if word in rows.native}
    target = options.space or rows.default or space_from_names(distinct)
    return target, {word: index for word in distinct if (index := label_index(target, word)) is not None}


def label_index(space: LabelSpace, word: str) -> int | None:
    """The place of a free word in ``space``, None where it has none.

    A diagnosis of the taxonomy that ``space`` would have to split raises `TaxonomyError`: leaving it out would pass for
    reading it.

    >>> from lesion_hub.taxonomy import label_space
    >>> label_index(label_space("binary"), "Melanoma"), label_index(label_space("ham7"), "eczema")
    (1, None)
    """
    if word in space:
        return space.index(word)
    for diagnosis in DIAGNOSES.values():
        alone = LabelSpace(diagnosis.name, (diagnosis,))
        if word in alone and any(diagnosis.entities & row.entities for row in space.rows):
            return alone.map_to(space).indices[0]
    return None


# ------------------------------------------------------------------------------------------------ building the data set


def schema_columns(judged: Judged, source: str, where: np.ndarray) -> dict[str, pa.Array]:
    """Every column of the schema but the image, for the rows that the mask ``where`` selects."""
    kept = judged.table[where]
    ids = kept["image_id"]
    return {
        "label": pa.array(judged.labels[where], pa.int64()),
        "image_id": pa.array(ids, pa.string()),
        "group": pa.array(_filled(kept["group"], ids), pa.string()),
        "age": pa.array([age_years(value) for value in kept["age"]], pa.float32()),
        "sex": pa.array([canonical_sex(word) for word in _words(kept["sex"])], pa.string()),
        "site": pa.array([canonical_site(word) for word in _words(kept["site"])], pa.string()),
        "source": pa.array(_filled(kept["source"], pd.Series(source, ids.index, dtype=object)), pa.string()),
    }


def _filled(column: pd.Series, otherwise: pd.Series) -> list[str]:
    return [str(value) for value in column.where(column.notna(), otherwise)]


def _words(column: pd.Series) -> list[object]:
    return [None if pd.isna(word) else word for word in column]


def age_years(value: object) -> float | None:
    """An age in years, None where it is missing, no number, or no age that a person reaches.

    >>> age_years("45.0"), age_years("unknown"), age_years(-1)
    (45.0, None, None)
    """
    try:
        years = float(str(value))
    except ValueError:
        return None
    return years if 0 <= years <= OLDEST else None


def official_split(judged: Judged) -> dict[str, str] | None:
    """Image id -> split of the rows kept, or None where the source has no split or one part of it alone."""
    kept = judged.table[judged.keep]
    splits = kept["split"].dropna()
    if splits.nunique() < 2:
        return None
    return dict(zip(kept["image_id"][splits.index], splits, strict=True))
