"""What the readers share: the caller's options, the files of a folder, tables and their columns, and the rows they give."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import pandas as pd

from lesion_hub.data.images import IMAGE_SUFFIXES, is_image_name, utf8_name
from lesion_hub.data.schema import OLDEST_AGE
from lesion_hub.errors import DataError, one_line
from lesion_hub.taxonomy import LabelSpace, nearest

TABLE_SUFFIXES = frozenset({".csv", ".tsv", ".tab", ".parquet"})
ROW_FIELDS = ("image_id", "label", "group", "age", "sex", "site", "source", "split")

# How sources write the parts of their splits -> how we write them.
PART_NAMES_IN_SOURCES = MappingProxyType(
    {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
)

# What a column of the schema may be called in a table when the caller maps nothing to it.
USUAL_NAMES = MappingProxyType(
    {
        "image": ("image", "path", "file_name", "image_path"),
        "image_id": ("image_id", "isic_id", "image_name", "img_id", "id"),
        "label": ("label", "diagnosis", "dx", "class"),
        "group": ("group", "patient_id", "lesion_id"),
        "age": ("age", "age_approx"),
        "sex": ("sex", "gender"),
        "site": ("site", "localization", "anatom_site_general"),
        "source": ("source",),
        "split": ("split",),
    }
)


@dataclass(frozen=True)
class ReadOptions:
    """What the caller of `lesion_hub.data.read` asked for, beyond the place itself; the options are described there."""

    space: LabelSpace | None = None
    columns: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    labels: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    images: tuple[Path, ...] = ()
    allow_missing: bool = False
    revision: str | None = None
    subset: str | None = None
    split: str | None = None
    streaming: bool = False

    def __post_init__(self) -> None:
        for name in self.columns:
            if name not in USUAL_NAMES:
                raise DataError(f"column map: {name!r} is no column of the schema; {nearest(name, USUAL_NAMES)}")
        if self.split is not None and self.split not in PART_NAMES_IN_SOURCES.values():
            raise DataError(f"split {self.split!r} is none of train, val, test; name one of them")

    def relabelled(self, word: object) -> str:
        """Return a label of the source, stripped, and replaced where ``labels`` says so."""
        text = str(word).strip()
        return self.labels.get(text, text)


@dataclass(frozen=True)
class Rows:
    """The rows that a reader found, still in the words of the source.

    ``table`` has the columns of `ROW_FIELDS` (see `frame`) and, where the source says which file holds the image, ``path``
    (absolute) and ``unclear``, the files among which a name does not decide. ``others`` are the columns of the source that
    are not read, row by row. ``native`` is the label space of the words, None where the words themselves make the space;
    ``default`` the space to read into when the caller names none. ``images`` are the image files of the folder that
    belong to the source (relative to it, POSIX), and ``image_id_of`` turns such a path into the id of its image, or
    None for an image that is no member of the source.
    """

    table: pd.DataFrame
    native: LabelSpace | None
    default: LabelSpace | None
    images: tuple[str, ...]
    image_id_of: Callable[[str], str | None]
    others: pd.DataFrame | None = None


def frame(**columns: object) -> pd.DataFrame:
    """Make a table with all of `ROW_FIELDS`, None in those not given.

    >>> list(frame(image_id=["a"], label=["nv"]).columns) == list(ROW_FIELDS)
    True
    """
    given = {name: pd.Series(values, dtype=object).reset_index(drop=True) for name, values in columns.items()}
    return pd.DataFrame(given).reindex(columns=[*ROW_FIELDS, *(name for name in given if name not in ROW_FIELDS)])


# ------------------------------------------------------------------------------------------------ files of a folder


@dataclass(frozen=True)
class Inventory:
    """The images and tables below ``root``, as sorted POSIX paths relative to it.

    ``misnamed`` are images that no text can name, for their file names are not UTF-8; they are written as `utf8_name` does.
    """

    root: Path
    images: tuple[str, ...]
    tables: tuple[str, ...]
    misnamed: tuple[str, ...] = ()

    def find(self, pattern: str) -> list[tuple[Path, re.Match[str]]]:
        """Return the tables whose file name matches ``pattern`` in full, case ignored; of equal names the shallowest alone."""
        found: dict[str, tuple[Path, re.Match[str]]] = {}
        for table in sorted(self.tables, key=lambda path: (path.count("/"), path)):
            name = table.rpartition("/")[2]
            match = re.fullmatch(pattern, name, re.IGNORECASE)
            if match:
                found.setdefault(name.lower(), (self.root / table, match))
        return [found[name] for name in sorted(found)]


def take_inventory(root: Path) -> Inventory:
    """List what lies below ``root`` but hidden files and archive debris; links to folders are followed, never in circles.

    Pipes, sockets and devices that are named like tables are left out; those named like images are images that cannot be read.
    """
    images: list[str] = []
    tables: list[str] = []
    misnamed: list[str] = []
    place = os.fspath(root)
    if utf8_name(place) != place:
        raise DataError(f"{utf8_name(place)}: the name is not UTF-8; rename the folder")
    try:
        for path in _files(place, "", set()):
            name = path.rpartition("/")[2]
            if is_image_name(name):
                text = utf8_name(path)
                (images if text == path else misnamed).append(text)
            elif Path(name).suffix.lower() in TABLE_SUFFIXES and not name.startswith(".") and (root / path).is_file():
                tables.append(path)
    except OSError as error:
        raise DataError(f"{error.filename or root}: cannot be listed ({error.strerror}); check its permissions") from None
    return Inventory(root, tuple(sorted(images)), tuple(sorted(tables)), tuple(sorted(misnamed)))


def _files(folder: str, prefix: str, seen: set[tuple[int, int]]) -> Iterator[str]:
    identity = Path(folder).stat()
    if (identity.st_dev, identity.st_ino) in seen:
        return
    seen.add((identity.st_dev, identity.st_ino))
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(".") or entry.name == "__MACOSX":
                continue
            try:
                is_folder = entry.is_dir()
            except OSError:  # a link to itself
                is_folder = False
            if is_folder:
                yield from _files(entry.path, f"{prefix}{entry.name}/", seen)
            else:
                yield prefix + entry.name


# ------------------------------------------------------------------------------------------------ tables and names


class Dialect(NamedTuple):
    """How a text table is written: its separator, the lines above its first row, and the words of that row."""

    separator: str
    skipped: int
    words: tuple[str, ...]


def dialect(path: Path) -> Dialect:
    """Tell the separator of a text table by its first row: a comma, a tab, or the semicolon of Excel in much of Europe.

    A first line ``sep=;``, which Excel writes too, says it outright.
    """
    with path.open(encoding="utf-8-sig", errors="replace") as lines:
        first = lines.readline()
        stated = re.fullmatch(r'"?sep=(.)"?\s*', first)
        if stated:
            first = lines.readline()
    usual = "\t,;" if path.suffix.lower() in (".tsv", ".tab") else ",;\t"
    unquoted = re.sub(r'"[^"]*"', "", first)
    # Of equal counts the first, which is the one that the file's name promises.
    separator = stated[1] if stated else max(usual, key=unquoted.count)
    return Dialect(separator, int(bool(stated)), tuple(word.strip().strip('"') for word in first.split(separator)))


def read_table(path: Path, *, header: bool = True) -> pd.DataFrame:
    """Read a csv, tab-separated or Parquet file: a text table as strings (missing: NaN), column names stripped."""
    try:
        if path.suffix.lower() == ".parquet":
            table = pd.read_parquet(path)
        else:
            table = pd.read_csv(
                path,
                sep=(found := dialect(path)).separator,
                skiprows=found.skipped,
                dtype=str,
                header=0 if header else None,
                encoding="utf-8-sig",
                skipinitialspace=True,
            )
    except pd.errors.EmptyDataError:
        raise DataError(f"{path}: the file is empty; fetch it again") from None
    except (OSError, ValueError) as error:
        why = one_line(error)
        raise DataError(f"{path}: cannot be read as a table ({why}); fetch it again or save it as UTF-8 csv") from None
    table.columns = [str(name).strip() for name in table.columns]
    if table.empty:
        raise DataError(f"{path}: the table has no rows; fetch it again")
    return table


def column(table: pd.DataFrame, path: Path, *names: str) -> pd.Series:
    """Return the first of ``names`` that the table has, case ignored; `DataError` names the file and its columns."""
    found = optional_column(table, *names)
    if found is None:
        fix = nearest(names[0], [str(name) for name in table.columns])
        raise DataError(f"{path}: no column {names[0]!r}; {fix}")
    return found


def optional_column(table: pd.DataFrame, *names: str) -> pd.Series | None:
    """Return the first of ``names`` that the table has, case ignored, or None."""
    known = {str(name).lower(): name for name in table.columns}
    return next((table[known[name.lower()]] for name in names if name.lower() in known), None)


def age_years(value: object) -> float | None:
    """Return an age in years, None where it is missing, no number, or no age that a person reaches.

    >>> age_years("45.0"), age_years("45,5"), age_years("unknown"), age_years(-1)
    (45.0, 45.5, None, None)
    """
    try:
        years = float(str(value).replace(",", "."))
    except ValueError:
        return None
    return years if 0 <= years <= OLDEST_AGE else None


def without_suffix(name: str) -> str:
    """Return a file name without its folder and image suffix; other dots stay.

    >>> without_suffix("imgs/PAT_8.1.png"), without_suffix("PAT_8.1")
    ('PAT_8.1', 'PAT_8.1')
    """
    name = name.rpartition("/")[2]
    stem, dot, suffix = name.rpartition(".")
    return stem if dot and f".{suffix.lower()}" in IMAGE_SUFFIXES else name


def archive_id(name: str) -> str | None:
    """Return the ISIC archive's id of an image file or csv cell; None for masks and superpixels, which are no photographs.

    >>> archive_id("ISIC_0000002_downsampled.jpg"), archive_id("ISIC_0000002_superpixels.png")
    ('ISIC_0000002', None)
    """
    stem = without_suffix(name).strip()
    if re.search(r"_(superpixels|segmentation|attribute_\w+)$", stem, re.IGNORECASE):
        return None
    return re.sub(r"_downsampled$", "", stem, flags=re.IGNORECASE)
