"""Readers of folders: HAM10000, the ISIC challenges year by year, a folder per class, and tables of any other kind.

A layout is one row of `READERS`, at the end of this file.
"""

from __future__ import annotations

import filecmp
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pandas as pd

from lesion_hub.data.sources.rows import (
    PART_NAMES_IN_SOURCES,
    USUAL_NAMES,
    Inventory,
    ReadOptions,
    Rows,
    archive_id,
    column,
    dialect,
    frame,
    optional_column,
    read_table,
    without_suffix,
)
from lesion_hub.errors import DataError
from lesion_hub.taxonomy import label_space


@dataclass(frozen=True)
class Reader:
    """A layout: what recognises it, and what reads its rows.

    ``looks_for`` names its files in messages. A ``generic`` layout fits many folders and is tried when no other fits.
    ``labelled_by`` says where its labels come from; only the layout that leaves that to the caller has ``columns``.
    """

    looks_for: str
    recognises: Callable[[Inventory], bool]
    read: Callable[[Inventory, ReadOptions], Rows]
    labelled_by: str = "columns of their own"
    generic: bool = False
    columns: bool = False


# ------------------------------------------------------------------------------------------------ HAM10000
# As its authors and Kaggle ship it: one metadata csv and one or two image folders.

_HAM_METADATA = r"HAM10000_metadata\.(csv|tab|tsv)"
_HAM_IMAGE_FOLDER = re.compile(r"HAM10000_images(_part_\d)?", re.IGNORECASE)


def _read_ham(inventory: Inventory, options: ReadOptions) -> Rows:
    tables = inventory.find(_HAM_METADATA)
    if not tables:
        raise DataError(f"{inventory.root}: no HAM10000_metadata.csv; give the folder that holds it")
    path = tables[0][0]
    table = read_table(path)
    # dx_type, how the diagnosis was confirmed, is left unread: it all but gives the label away.
    rows = frame(
        image_id=column(table, path, "image_id").map(archive_id, na_action="ignore"),
        label=column(table, path, "dx"),
        group=column(table, path, "lesion_id"),
        age=optional_column(table, "age"),
        sex=optional_column(table, "sex"),
        site=optional_column(table, "localization"),
    )
    # Where there are HAM10000's image folders, only their images count: other sets may lie beside them.
    inside = tuple(path for path in inventory.images if any(map(_HAM_IMAGE_FOLDER.fullmatch, path.split("/")[:-1])))
    return Rows(rows, label_space("ham7"), label_space("ham7"), inside or inventory.images, archive_id)


# ------------------------------------------------------------------------------------------------ ISIC challenges


def _one_hot(labels: tuple[str, ...], table: pd.DataFrame, path: Path) -> pd.Series:
    """Return the name of the one column that holds 1; missing where none or several do."""
    marks = np.stack([_marked(table, path, label) for label in labels], axis=1)
    words = pd.Series(np.array(labels, dtype=object)[marks.argmax(axis=1)], dtype=object)
    return words.where(marks.sum(axis=1) == 1)


def _two_marks(table: pd.DataFrame, path: Path) -> pd.Series:
    """Return the labels of ISIC 2017: melanoma, seborrheic keratosis, or, with neither marked, nevus."""
    melanoma, keratosis = _marked(table, path, "melanoma"), _marked(table, path, "seborrheic_keratosis")
    words = np.select([melanoma & keratosis, melanoma, keratosis], ["", "mel", "sk"], "nv")
    return pd.Series(words, dtype=object).replace("", None)


def _marked(table: pd.DataFrame, path: Path, label: str) -> np.ndarray:
    return (pd.to_numeric(column(table, path, label), errors="coerce") == 1).to_numpy()


def _malignancy(names: tuple[str, ...], table: pd.DataFrame, path: Path) -> pd.Series:
    """Return ``benign`` / ``malignant``, which some files write as 0 / 1."""
    words = column(table, path, *names).str.strip().str.lower()
    return words.replace({"0": "benign", "0.0": "benign", "1": "malignant", "1.0": "malignant"})


@dataclass(frozen=True)
class IsicLayout:
    """One year: patterns of its files (``split`` is a named part of each), and how its labels read.

    ``space`` is the label space of the words, and the default to read into unless ``default`` is another. ``needs`` are
    the columns by which a file is known whose name says too little.
    """

    looks_for: str
    truth: str
    labels: Callable[[pd.DataFrame, Path], pd.Series]
    space: str
    default: str | None = None
    metadata: str | None = None
    header: bool = True
    needs: tuple[str, ...] = ()


ISIC_LAYOUTS: Mapping[str, IsicLayout] = MappingProxyType(
    {
        "isic2016": IsicLayout(
            looks_for="ISBI2016_ISIC_Part3_Training_GroundTruth.csv",
            truth=r"ISBI2016_ISIC_Part3B?_(?P<split>Training|Test)_GroundTruth\.csv",
            labels=partial(_malignancy, ("label",)),
            space="binary",
            header=False,
        ),
        "isic2017": IsicLayout(
            looks_for="ISIC-2017_Training_Part3_GroundTruth.csv",
            truth=r"ISIC-2017_(?P<split>Training|Validation|Test)(_v2)?_Part3_GroundTruth\.csv",
            labels=_two_marks,
            space="isic2017",
            metadata=r"ISIC-2017_(?P<split>Training|Validation|Test)(_v2)?_Data_metadata\.csv",
        ),
        "isic2018": IsicLayout(
            looks_for="ISIC2018_Task3_Training_GroundTruth.csv",
            truth=r"ISIC2018_Task3_(?P<split>Training|Validation|Test)_GroundTruth\.csv",
            labels=partial(_one_hot, tuple(label.upper() for label in label_space("ham7").labels)),
            space="ham7",
            metadata=r"ISIC2018_Task3_(?P<split>Training|Validation|Test)_LesionGroupings.*\.csv",
        ),
        "isic2019": IsicLayout(
            looks_for="ISIC_2019_Training_GroundTruth.csv",
            truth=r"ISIC_2019_(?P<split>Training|Test)_GroundTruth\.csv",
            labels=partial(_one_hot, tuple(label.upper() for label in label_space("isic9").labels)),
            space="isic9",
            default="isic8",
            metadata=r"ISIC_2019_(?P<split>Training|Test)_Metadata\.csv",
        ),
        "isic2020": IsicLayout(
            looks_for="ISIC_2020_Training_GroundTruth.csv or Kaggle's train.csv",
            truth=r"ISIC_2020_(?P<split>Training)_GroundTruth(_v2)?\.csv|train\.csv",
            labels=partial(_malignancy, ("benign_malignant", "target")),
            space="binary",
            needs=("image_name", "patient_id", "benign_malignant"),
        ),
    }
)


def _read_isic(layout: IsicLayout, inventory: Inventory, options: ReadOptions) -> Rows:
    truths = _ground_truths(layout, inventory)
    if not truths:
        raise DataError(f"{inventory.root}: no {layout.looks_for}; give the folder that holds it")
    parts = []
    for split, path in sorted(truths.items()):
        table = read_table(path, header=layout.header)
        if not layout.header:
            if table.shape[1] != 2:
                raise DataError(f"{path}: {table.shape[1]} columns where image id and label are due; fetch it again")
            table.columns = ["image_id", "label"]
        parts.append(_isic_rows(table, path).assign(label=layout.labels(table, path), split=split))
    rows = pd.concat(parts, ignore_index=True)
    for path, _ in inventory.find(layout.metadata) if layout.metadata else []:
        # The gaps of the rows are filled from the metadata table, matched by image id.
        facts = _isic_rows(read_table(path), path).drop_duplicates("image_id").set_index("image_id")
        for name in ("group", "age", "sex", "site"):
            rows[name] = rows[name].fillna(rows["image_id"].map(facts[name].dropna()))
    default = label_space(layout.default or layout.space)
    return Rows(rows, label_space(layout.space), default, inventory.images, archive_id)


def _ground_truths(layout: IsicLayout, inventory: Inventory) -> dict[str, Path]:
    """Return the ground-truth csv of every split; of two versions of one split the later name wins."""
    found = {}
    for path, match in inventory.find(layout.truth):
        if not layout.needs or _has_columns(path, layout.needs):
            found[PART_NAMES_IN_SOURCES[(match["split"] or "training").lower()]] = path
    return found


def _has_columns(path: Path, names: tuple[str, ...]) -> bool:
    # Many data sets have a file called train.csv: only its columns tell whose it is.
    try:
        return {word.lower() for word in dialect(path).words}.issuperset(names)
    except OSError:
        return False


def _isic_rows(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Return id and patient facts of any ISIC table, under the names that the years have used for them."""
    return frame(
        image_id=column(table, path, "image_id", "image", "image_name", "isic_id").map(archive_id, na_action="ignore"),
        group=optional_column(table, "patient_id", "lesion_id"),
        age=optional_column(table, "age_approx", "age_approximate", "age"),
        sex=optional_column(table, "sex"),
        site=optional_column(table, "anatom_site_general", "anatom_site_general_challenge"),
    )


def _isic_reader(layout: IsicLayout) -> Reader:
    return Reader(layout.looks_for, lambda inventory: bool(_ground_truths(layout, inventory)), partial(_read_isic, layout))


# ------------------------------------------------------------------------------------------------ a folder per class

# Image folders of known data sets: without their csv they look like classes, and must not be read as such.
_NOT_CLASSES = re.compile(r".*(_part_\d+|_input|_data|_images)|images?|imgs.*", re.IGNORECASE)


def _is_tree(inventory: Inventory) -> bool:
    names = class_folders(inventory)
    return len(names) >= 2 and not any(_NOT_CLASSES.fullmatch(name) for name in names)


def class_folders(inventory: Inventory) -> list[str]:
    """Return the names of the folders that would be classes, sorted."""
    return sorted({label for _, label in _split_and_class(inventory.images) if label is not None})


def _read_tree(inventory: Inventory, options: ReadOptions) -> Rows:
    places = zip(inventory.images, _split_and_class(inventory.images), strict=True)
    labelled = [(path, split, label) for path, (split, label) in places if label is not None]
    if len({label for _, _, label in labelled}) < 2:
        raise DataError(f"{inventory.root}: fewer than two class folders with images; put each class in its own folder")
    base = inventory.root.absolute().as_posix()
    rows = frame(
        image_id=[_tree_id(path) for path, _, _ in labelled],
        label=[label for _, _, label in labelled],
        split=[split for _, split, _ in labelled],
        path=[f"{base}/{path}" for path, _, _ in labelled],
    )
    return Rows(rows, None, None, inventory.images, _tree_id)


def _tree_id(path: str) -> str:
    """Return an archive id where the file bears one, so that sets can be compared; else the path, unique in the tree."""
    stem = archive_id(path) or ""
    return stem if re.fullmatch(r"ISIC_\d{7}", stem) else path


def _split_and_class(images: tuple[str, ...]) -> list[tuple[str | None, str | None]]:
    """Return (split, class) of every image path, None for what its place does not say."""
    depth = _wrapping_folders(images)
    folders = [path.split("/")[depth:-1] for path in images]
    if not any(inside and inside[0].lower() in PART_NAMES_IN_SOURCES for inside in folders):
        return [(None, inside[0] if inside else None) for inside in folders]
    places: list[tuple[str | None, str | None]] = []
    for inside in folders:
        split = PART_NAMES_IN_SOURCES.get(inside[0].lower()) if inside else None
        places.append((split, inside[1] if split is not None and len(inside) > 1 else None))
    return places


def _wrapping_folders(images: tuple[str, ...]) -> int:
    """Count the folders, such as an unpacked archive leaves, that all images share above the classes or splits."""
    depth = 0
    while True:
        heads = {tuple(path.split("/")[depth : depth + 2]) for path in images}
        names = {head[0] for head in heads}
        inside_folder = all(len(head) == 2 for head in heads)
        if len(names) != 1 or not inside_folder or names.pop().lower() in PART_NAMES_IN_SOURCES:
            return depth
        depth += 1


# ------------------------------------------------------------------------------------------------ a single table


def _read_one_table(inventory: Inventory, options: ReadOptions) -> Rows:
    tables = inventory.find(".*")
    if len(tables) != 1:
        raise DataError(f"{inventory.root}: {len(tables)} tables where one is due; name the csv or Parquet file itself")
    return read_table_rows(tables[0][0], inventory, options)


def read_table_rows(path: Path, inventory: Inventory, options: ReadOptions) -> Rows:
    """Read the rows of the table at ``path``, its images below the root of ``inventory``."""
    table = read_table(path)
    cells = {
        name: column(table, path, options.columns[name]) if name in options.columns else optional_column(table, *usual)
        for name, usual in USUAL_NAMES.items()
    }
    read = {str(values.name) for values in cells.values() if values is not None}
    files, image_ids = cells.pop("image"), cells["image_id"]
    named = image_ids if files is None else files
    if named is None:
        raise DataError(f"{path}: no column of image ids or paths; map one with --column image_id=NAME")
    cells["image_id"] = _distinct_ids(named if image_ids is None else image_ids)
    if cells["split"] is not None:
        cells["split"] = cells["split"].map(_split_word, na_action="ignore")
    cells["label"] = column(table, path, "label") if cells["label"] is None else cells["label"]
    found = ImageFinder(inventory, path.parent)
    paths, unclear = zip(*(found(str(cell)) if pd.notna(cell) else (None, None) for cell in named), strict=True)
    rows = frame(**{name: values for name, values in cells.items() if values is not None}, path=paths, unclear=unclear)
    others = table[[name for name in table.columns if name not in read]].reset_index(drop=True)
    return Rows(rows, None, None, inventory.images, without_suffix, others)


def _distinct_ids(named: pd.Series) -> pd.Series:
    """Return the id of every image: its name without folder and suffix, with the folder where names repeat in several."""
    texts = named.map(lambda cell: str(cell).strip().replace("\\", "/"), na_action="ignore")
    stems = texts.map(without_suffix, na_action="ignore")
    whole = texts.map(_whole_id, na_action="ignore")
    return stems.where(~stems.duplicated(keep=False), whole)


def _whole_id(text: str) -> str:
    folder, slash, name = text.rpartition("/")
    return folder + slash + without_suffix(name)


def _starts_of_names(folder: str) -> list[int]:
    """Return where each name of a path starts; none of an empty one."""
    return [0, *(place.end() for place in re.finditer("/", folder))] if folder else []


def _split_word(cell: object) -> str:
    word = str(cell).strip().lower()
    if word not in PART_NAMES_IN_SOURCES:
        raise DataError(f"split {cell!r} is none of train, val, test; rename it or map the split column elsewhere")
    return PART_NAMES_IN_SOURCES[word]


class ImageFinder:
    """Finds the image that a cell of a table names: by its path, or by its name in any folder, with or without suffix.

    A path starts at the table's folder ``beside`` or at the root of ``inventory``, or is absolute.
    """

    def __init__(self, inventory: Inventory, beside: Path) -> None:
        self.root = inventory.root.absolute()
        below = beside.absolute().relative_to(self.root).as_posix()
        self.bases = ("",) if below == "." else (f"{below}/", "")
        self.images = frozenset(inventory.images)
        folders = {image.rpartition("/")[0].casefold() for image in inventory.images}
        self.folder_endings = {folder[start:] for folder in folders for start in _starts_of_names(folder)}
        self.by_name: dict[str, list[str]] = {}
        for image in inventory.images:
            self.by_name.setdefault(without_suffix(image).casefold(), []).append(image)

    def __call__(self, cell: str) -> tuple[str | None, str | None]:
        """Return the absolute path of the image, None where there is none; and files among which the name does not decide."""
        text = cell.strip().replace("\\", "/").removeprefix("./")
        for base in self.bases:
            if base + text in self.images:
                return f"{self.root.as_posix()}/{base}{text}", None
            if text.startswith(("/", "../")) and (place := Path(os.path.normpath(self.root / base / text))).is_file():
                return str(place), None
        folder, _, name = _whole_id(text).casefold().rpartition("/")
        homes = self.by_name.get(name, [])
        if folder in self.folder_endings:
            homes = [image for image in homes if f"/{image.rpartition('/')[0]}".casefold().endswith(f"/{folder}")]
        if len(homes) > 1:
            homes = self._best(homes, text)
        if len(homes) > 1:
            return None, ", ".join(homes[:3])
        return (f"{self.root.as_posix()}/{homes[0]}" if homes else None), None

    def _best(self, images: list[str], text: str) -> list[str]:
        """Narrow down several images of one name: by suffix, then case; of those left, if they are copies, take the first."""
        images = [image for image in images if image.rpartition("/")[2] == text.rpartition("/")[2]] or images
        images = [image for image in images if without_suffix(image) == without_suffix(text)] or images
        return images[:1] if self._same(images) else images

    def _same(self, images: list[str]) -> bool:
        first, *others = (self.root / image for image in images)
        return all(first.is_file() and o.is_file() and filecmp.cmp(first, o, shallow=False) for o in others)


# ------------------------------------------------------------------------------------------------ the table of readers

READERS: Mapping[str, Reader] = MappingProxyType(
    {
        "ham10000": Reader("HAM10000_metadata.csv", lambda folder: bool(folder.find(_HAM_METADATA)), _read_ham),
        **{name: _isic_reader(layout) for name, layout in ISIC_LAYOUTS.items()},
        "folders": Reader(
            "two or more class folders (or train/ and test/ with them)",
            _is_tree,
            _read_tree,
            labelled_by="the names of its folders",
            generic=True,
        ),
        "table": Reader(
            "a single csv, tsv or Parquet table",
            lambda folder: len(folder.find(".*")) == 1,
            _read_one_table,
            generic=True,
            columns=True,
        ),
    }
)
"""Source name -> reader, in the order in which messages name them."""
