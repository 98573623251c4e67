"""What passes between the readers and the assembly: the request, the rows a reader found, and the reader itself."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType

import pandas as pd

from lesion_hub.data.images import IMAGE_SUFFIXES
from lesion_hub.data.sources.inventory import Inventory
from lesion_hub.errors import DataError
from lesion_hub.taxonomy import LabelSpace, nearest

FIELDS = ("image_id", "label", "group", "age", "sex", "site", "source", "split")

# How the parts of a split are written -> how we write them.
SPLITS = MappingProxyType(
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
    """What the caller asked for, beyond the place itself."""

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
        if self.split is not None and self.split not in SPLITS.values():
            raise DataError(f"split {self.split!r} is none of train, val, test; name one of them")

    def relabelled(self, word: object) -> str:
        """A label as the caller wants it read: stripped, and replaced where ``labels`` says so."""
        text = str(word).strip()
        return self.labels.get(text, text)


@dataclass(frozen=True)
class Rows:
    """The rows that a reader found, still in the words of the source.

    ``table`` has the columns of `FIELDS` (see `frame`) and, where the source says which file holds the image, ``path``
    (absolute). ``native`` is the label space of the words, None where the words themselves make the space;
    ``default`` the space to read into when the caller names none. ``images`` are the image files of the folder that
    belong to the source (relative to it, POSIX), and ``image_id_of`` turns such a path into the id that it serves, or
    None for an image that is no member of the source.
    """

    table: pd.DataFrame
    native: LabelSpace | None
    default: LabelSpace | None
    images: tuple[str, ...]
    image_id_of: Callable[[str], str | None]


@dataclass(frozen=True)
class Reader:
    """A layout: how it is recognised and how its rows are read."""

    name: str
    looks_for: str
    recognises: Callable[[Inventory], bool]
    read: Callable[[Inventory, ReadOptions], Rows]


def frame(**columns: object) -> pd.DataFrame:
    """A table with all of `FIELDS`, None in those not given.

    >>> list(frame(image_id=["a"], label=["nv"]).columns) == list(FIELDS)
    True
    """
    given = {name: pd.Series(values, dtype=object).reset_index(drop=True) for name, values in columns.items()}
    return pd.DataFrame(given).reindex(columns=[*FIELDS, *(name for name in given if name not in FIELDS)])


def read_table(path: Path, *, header: bool = True) -> pd.DataFrame:
    """A csv, tab-separated or Parquet file as a frame of strings (missing: NaN), column names stripped."""
    try:
        if path.suffix.lower() == ".parquet":
            table = pd.read_parquet(path)
        else:
            separator = "\t" if path.suffix.lower() in (".tsv", ".tab") else ","
            first = 0 if header else None
            table = pd.read_csv(path, sep=separator, dtype=str, header=first, encoding="utf-8-sig", skipinitialspace=True)
    except pd.errors.EmptyDataError:
        raise DataError(f"{path}: the file is empty; fetch it again") from None
    except (OSError, ValueError) as error:
        why = " ".join(str(error).split())
        raise DataError(f"{path}: cannot be read as a table ({why}); fetch it again or save it as UTF-8 csv") from None
    table.columns = [str(column).strip() for column in table.columns]
    if table.empty:
        raise DataError(f"{path}: the table has no rows; fetch it again")
    return table


def column(table: pd.DataFrame, path: Path, *names: str) -> pd.Series:
    """The first of ``names`` that the table has, case ignored; `DataError` names the file and its columns."""
    found = optional_column(table, *names)
    if found is None:
        fix = nearest(names[0], [str(name) for name in table.columns])
        raise DataError(f"{path}: no column {names[0]!r}; {fix}")
    return found


def optional_column(table: pd.DataFrame, *names: str) -> pd.Series | None:
    """The first of ``names`` that the table has, case ignored, or None."""
    known = {str(name).lower(): name for name in table.columns}
    for name in names:
        if name.lower() in known:
            return table[known[name.lower()]]
    return None


def without_suffix(name: str) -> str:
    """A file name without its folder and image suffix; other dots stay.

    >>> without_suffix("imgs/PAT_8.1.png"), without_suffix("PAT_8.1")
    ('PAT_8.1', 'PAT_8.1')
    """
    name = name.rpartition("/")[2]
    stem, dot, suffix = name.rpartition(".")
    return stem if dot and f".{suffix.lower()}" in IMAGE_SUFFIXES else name


def archive_id(name: str) -> str | None:
    """The ISIC archive's id of an image file or csv cell; None for masks and superpixels, which are no photographs.

    >>> archive_id("ISIC_0000002_downsampled.jpg"), archive_id("ISIC_0000002_superpixels.png")
    ('ISIC_0000002', None)
    """
    stem = without_suffix(name).strip()
    if re.search(r"_(superpixels|segmentation|attribute_\w+)$", stem, re.IGNORECASE):
        return None
    return re.sub(r"_downsampled$", "", stem, flags=re.IGNORECASE)
