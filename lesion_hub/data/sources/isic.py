"""The ISIC challenge csv layouts, 2016 to 2020: one ground-truth csv per split, images in a folder beside it.

The years differ in file names, in how a label is written and in the metadata; `LAYOUTS` holds those facts, the code
below them is common.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from lesion_hub.data.sources.inventory import Inventory
from lesion_hub.data.sources.rows import (
    SPLITS,
    Reader,
    ReadOptions,
    Rows,
    archive_id,
    column,
    frame,
    optional_column,
    read_table,
)
from lesion_hub.errors import DataError
from lesion_hub.taxonomy import label_space


def _one_hot(labels: tuple[str, ...], table: pd.DataFrame, path: Path) -> pd.Series:
    """The name of the one column that holds 1; missing where none or several do."""
    marks = np.stack([_marked(table, path, label) for label in labels], axis=1)
    words = pd.Series(np.array(labels, dtype=object)[marks.argmax(axis=1)], dtype=object)
    return words.where(marks.sum(axis=1) == 1)


def _two_marks(table: pd.DataFrame, path: Path) -> pd.Series:
    """ISIC 2017: melanoma, seborrheic keratosis, or, with neither marked, nevus."""
    melanoma, keratosis = _marked(table, path, "melanoma"), _marked(table, path, "seborrheic_keratosis")
    words = np.select([melanoma & keratosis, melanoma, keratosis], ["", "mel", "sk"], "nv")
    return pd.Series(words, dtype=object).replace("", None)


def _marked(table: pd.DataFrame, path: Path, label: str) -> np.ndarray:
    return (pd.to_numeric(column(table, path, label), errors="coerce") == 1).to_numpy()


def _malignancy(names: tuple[str, ...], table: pd.DataFrame, path: Path) -> pd.Series:
    """``benign`` / ``malignant``, which some files write as 0 / 1."""
    words = column(table, path, *names).str.strip().str.lower()
    return words.replace({"0": "benign", "0.0": "benign", "1": "malignant", "1.0": "malignant"})


@dataclass(frozen=True)
class Layout:
    """One year: patterns of its files (``split`` is a named part of each), and how its labels read."""

    name: str
    looks_for: str
    truth: str
    labels: Callable[[pd.DataFrame, Path], pd.Series]
    native: str
    default: str
    metadata: str | None = None
    header: bool = True
    needs: tuple[str, ...] = ()


LAYOUTS = (
    Layout(
        name="isic2016",
        looks_for="ISBI2016_ISIC_Part3_Training_GroundTruth.csv",
        truth=r"ISBI2016_ISIC_Part3B?_(?P<split>Training|Test)_GroundTruth\.csv",
        labels=partial(_malignancy, ("label",)),
        native="binary",
        default="binary",
        header=False,
    ),
    Layout(
        name="isic2017",
        looks_for="ISIC-2017_Training_Part3_GroundTruth.csv",
        truth=r"ISIC-2017_(?P<split>Training|Validation|Test)(_v2)?_Part3_GroundTruth\.csv",
        labels=_two_marks,
        native="isic2017",
        default="isic2017",
        metadata=r"ISIC-2017_(?P<split>Training|Validation|Test)(_v2)?_Data_metadata\.csv",
    ),
    Layout(
        name="isic2018",
        looks_for="ISIC2018_Task3_Training_GroundTruth.csv",
        truth=r"ISIC2018_Task3_(?P<split>Training|Validation|Test)_GroundTruth\.csv",
        labels=partial(_one_hot, tuple(label.upper() for label in label_space("ham7").labels)),
        native="ham7",
        default="ham7",
        metadata=r"ISIC2018_Task3_(?P<split>Training|Validation|Test)_LesionGroupings.*\.csv",
    ),
    Layout(
        name="isic2019",
        looks_for="ISIC_2019_Training_GroundTruth.csv",
        truth=r"ISIC_2019_(?P<split>Training|Test)_GroundTruth\.csv",
        labels=partial(_one_hot, tuple(label.upper() for label in label_space("isic9").labels)),
        native="isic9",
        default="isic8",
        metadata=r"ISIC_2019_(?P<split>Training|Test)_Metadata\.csv",
    ),
    Layout(
        name="isic2020",
        looks_for="ISIC_2020_Training_GroundTruth.csv or Kaggle's train.csv",
        truth=r"ISIC_2020_(?P<split>Training)_GroundTruth(_v2)?\.csv|train\.csv",
        labels=partial(_malignancy, ("benign_malignant", "target")),
        native="binary",
        default="binary",
        needs=("image_name", "patient_id", "benign_malignant"),
    ),
)


def _truths(layout: Layout, inventory: Inventory) -> dict[str, Path]:
    """Split -> ground-truth csv; of two versions of one split the later name wins."""
    found = {}
    for path, match in inventory.find(layout.truth):
        if not layout.needs or _has_columns(path, layout.needs):
            found[SPLITS[(match["split"] or "training").lower()]] = path
    return found


def _has_columns(path: Path, names: tuple[str, ...]) -> bool:
    # A file called train.csv may be anybody's: only its columns tell.
    try:
        with path.open(encoding="utf-8-sig", errors="replace") as lines:
            header = {word.strip().strip('"').lower() for word in lines.readline().split(",")}
    except OSError:
        return False
    return header.issuperset(names)


def _read(layout: Layout, inventory: Inventory, options: ReadOptions) -> Rows:
    truths = _truths(layout, inventory)
    if not truths:
        raise DataError(f"{inventory.root}: no {layout.looks_for}; give the folder that holds it")
    parts = [_split_rows(layout, split, path) for split, path in sorted(truths.items())]
    rows = pd.concat(parts, ignore_index=True)
    for path, _ in inventory.find(layout.metadata) if layout.metadata else []:
        rows = _joined(rows, path)
    return Rows(rows, label_space(layout.native), label_space(layout.default), inventory.images, archive_id)


def _split_rows(layout: Layout, split: str, path: Path) -> pd.DataFrame:
    table = read_table(path, header=layout.header)
    if not layout.header:
        if table.shape[1] != 2:
            raise DataError(f"{path}: {table.shape[1]} columns where image id and label are due; fetch it again")
        table.columns = ["image_id", "label"]
    rows = _described(table, path)
    rows["label"] = layout.labels(table, path)
    rows["split"] = split
    return rows


def _described(table: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Id and patient facts of any ISIC table, under the names that the years have used for them."""
    return frame(
        image_id=column(table, path, "image_id", "image", "image_name", "isic_id").map(archive_id, na_action="ignore"),
        group=optional_column(table, "patient_id", "lesion_id"),
        age=optional_column(table, "age_approx", "age_approximate", "age"),
        sex=optional_column(table, "sex"),
        site=optional_column(table, "anatom_site_general", "anatom_site_general_challenge"),
    )


def _joined(rows: pd.DataFrame, path: Path) -> pd.DataFrame:
    """``rows`` with their gaps filled from a metadata table, matched by image id."""
    facts = _described(read_table(path), path).drop_duplicates("image_id").set_index("image_id")
    joined = rows.copy()
    for name in ("group", "age", "sex", "site"):
        joined[name] = rows[name].fillna(rows["image_id"].map(facts[name].dropna()))
    return joined


def _reader(layout: Layout) -> Reader:
    return Reader(layout.name, layout.looks_for, lambda inventory: bool(_truths(layout, inventory)), partial(_read, layout))


READERS = tuple(_reader(layout) for layout in LAYOUTS)
