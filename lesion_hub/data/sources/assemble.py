"""From the rows of any reader to the result: find the images, map the labels, judge the rows, build the data set, report.

`ReadResult` is what `lesion_hub.data.read` returns: the data set in the schema, and a `ReadReport` of what was wrong or worth
knowing. `summarise` counts what is in it.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa

from lesion_hub.data.schema import COLUMNS, features
from lesion_hub.data.sources.proposals import Proposal, propose
from lesion_hub.data.sources.rows import PART_NAMES_IN_SOURCES, Inventory, ReadOptions, Rows, age_years, take_inventory
from lesion_hub.errors import DataError
from lesion_hub.taxonomy import ABSTAIN, DIAGNOSES, LabelSpace, canonical_sex, canonical_site, resolve, space_from_names

if TYPE_CHECKING:
    from lesion_hub.data.schema import AnyDataset

# How many examples of a finding are kept.
_EXAMPLES = 5

# Kind of finding -> how a line counts one and how it counts more. The order is that of the error line.
_PROBLEMS = {
    "missing_images": ("row without an image", "rows without an image"),
    "unclear_images": ("row whose image may be one of several files", "rows whose image may be one of several files"),
    "misnamed_images": ("image whose file name is not UTF-8", "images whose file names are not UTF-8"),
    "images_without_row": ("image without a row", "images without a row"),
    "unknown_labels": ("row with an unknown label", "rows with an unknown label"),
    "duplicate_ids": ("row that repeats an image id", "rows that repeat an image id"),
    "conflicting_labels": ("row whose image id carries two labels", "rows whose image id carries two labels"),
    "single_sample_classes": ("class with one sample", "classes with one sample"),
}
_NOTES = {
    "unlabelled_images": ("image of a split that has no labels here", "images of a split that has no labels here"),
    "repeated_files": ("more file of an id already served", "more files of ids already served"),
}


@dataclass(frozen=True)
class Finding:
    """One kind of problem or note: how often it was found, and the first few examples in reading order."""

    kind: str
    count: int
    examples: tuple[str, ...]

    @classmethod
    def of(cls, kind: str, examples: Iterable[str]) -> Finding:
        """Count ``examples`` and keep the first few.

        >>> Finding.of("duplicate_ids", ["a", "b"]).count
        2
        """
        everything = list(examples)
        return cls(kind, len(everything), tuple(everything[:_EXAMPLES]))

    def __str__(self) -> str:
        one, many = _PROBLEMS.get(self.kind) or _NOTES[self.kind]
        return f"{self.count:,} {one if self.count == 1 else many} (first: {self.examples[0]})"


@dataclass(frozen=True)
class LabelWord:
    """A label as the source writes it, and what it was read as.

    ``label`` is its label in the space that was read into, ``diagnosis`` its code in the table of diagnoses; None where there
    is none. ``malignant`` follows the space, or else the table. ``images`` counts the rows that bear it, ``how`` says how the
    diagnosis was found or why it was not.
    """

    word: str
    label: str | None
    diagnosis: str | None
    malignant: bool | None
    images: int
    how: str


@dataclass(frozen=True)
class ReadReport:
    """Counts of one reading. ``rows`` were listed by the source and ``kept`` made it into the data set.

    ``labels`` say what each label of the source was taken for, ``proposals`` what more its columns could give. A streamed
    source is not counted: ``rows`` and ``kept`` are None, and its labels are not listed.
    """

    source: str
    place: str
    rows: int | None
    kept: int | None
    problems: tuple[Finding, ...] = ()
    notes: tuple[Finding, ...] = ()
    labels: tuple[LabelWord, ...] = ()
    proposals: tuple[Proposal, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain JSON values.

        >>> ReadReport("isic2019", "data/isic2019", 2, 2).to_dict()["problems"]
        {}
        """

        def plain(findings: tuple[Finding, ...]) -> dict[str, Any]:
            return {f.kind: {"count": f.count, "examples": list(f.examples)} for f in findings}

        return {
            "source": self.source,
            "place": self.place,
            "rows": self.rows,
            "kept": self.kept,
            "problems": plain(self.problems),
            "notes": plain(self.notes),
            "labels": [asdict(label) for label in self.labels],
            "proposals": [{**asdict(proposal), "line": str(proposal)} for proposal in self.proposals],
        }

    def raise_unless(self, allow_missing: bool) -> None:
        """Raise one line that counts every problem, unless they may be left out; an empty data set always raises."""
        found = "; ".join(str(problem) for problem in self.problems)
        if self.problems and not allow_missing:
            elsewhere = "name their folder with --images, " if self.problems[0].kind == "missing_images" else ""
            raise DataError(f"{self.place}: {found}; {elsewhere}mend them, or leave them out with --allow-missing")
        if not self.kept:
            why = f" ({found})" if found else ""
            raise DataError(f"{self.place}: no image with a label is left{why}; check the folder and its images")


@dataclass(frozen=True)
class ReadResult:
    """A source in the one schema.

    ``official_split`` maps every image id to ``train``, ``val`` or ``test`` where the authors of the source published
    such a split (and more than one part of it is here), else it is None. ``allow_missing`` says that rows without an image
    were left out; whoever opens the images then leaves out those that cannot be decoded, too.
    """

    dataset: AnyDataset = field(repr=False)
    space: LabelSpace
    official_split: dict[str, str] | None = field(repr=False)
    report: ReadReport
    allow_missing: bool = False


# ------------------------------------------------------------------------------------------------ finding the images

_SPLIT_WORD = re.compile(r"(?<![a-z])(train|training|test|validation|valid|val)(?![a-z])", re.IGNORECASE)


def assemble(rows: Rows, reader: str, inventory: Inventory, options: ReadOptions) -> ReadResult:
    """Build the data set of the rows whose images lie below ``inventory`` or in one of the extra image folders."""
    from datasets import Dataset

    table = with_known_ids(rows.table)
    own, repeated = _files_by_id(inventory.root, rows.images, rows)
    # A reader that says where its images lie has searched the folder itself: an id must not find another file there.
    files = {} if "path" in table else dict(own)
    for folder in options.images:
        files = {**_files_by_id(folder, take_inventory(folder).images, rows)[0], **files}
    paths = table["image_id"].map(files).astype(object)
    if "path" in table:
        paths = table["path"].astype(object).fillna(paths)
    paths = paths.where(paths.notna(), None)
    strays, held_out = _without_row(own.values(), paths, table, inventory.root)
    judged = judge(table, rows, options, paths.notna().to_numpy(), strays, inventory.misnamed)
    served = set(paths.dropna())
    repeated = [image for image in repeated if f"{inventory.root.absolute().as_posix()}/{image}" not in served]
    notes = (Finding.of("unlabelled_images", held_out), Finding.of("repeated_files", repeated))
    report = ReadReport(
        source=reader,
        place=str(inventory.root),
        rows=len(table),
        kept=int(judged.keep.sum()),
        problems=judged.problems,
        notes=tuple(note for note in notes if note.count),
        labels=judged.words,
        proposals=propose_columns(judged, rows),
    )
    report.raise_unless(options.allow_missing)
    columns = {"image": pa.array(paths[judged.keep], pa.string()), **schema_columns(judged, reader, judged.keep)}
    dataset = Dataset.from_dict({name: columns[name] for name in COLUMNS}, features=features(judged.space))
    return ReadResult(dataset, judged.space, official_split(judged), report, options.allow_missing)


def with_known_ids(table: pd.DataFrame) -> pd.DataFrame:
    """Return ``table`` with a name made from its place for every row that has no image id."""
    places = pd.Series([f"(row {number} has no image id)" for number in range(1, len(table) + 1)], dtype=object)
    return table.assign(image_id=table["image_id"].where(table["image_id"].notna(), places).astype(str).astype(object))


def _files_by_id(root: Path, images: Iterable[str], rows: Rows) -> tuple[dict[str, str], list[str]]:
    """Return image id -> absolute path of its first file below ``root``, and the further files of ids that have one."""
    files: dict[str, str] = {}
    repeated = []
    base = root.absolute().as_posix()
    for image in images:
        image_id = rows.image_id_of(image)
        if image_id in files:
            repeated.append(image)
        elif image_id is not None:
            files[image_id] = f"{base}/{image}"
    return files, repeated


def _without_row(own: Iterable[str], paths: pd.Series, table: pd.DataFrame, root: Path) -> tuple[list[str], list[str]]:
    """Return the images that no row names: those that are a problem, and those of a split that has no labels here."""
    claimed, splits = set(paths.dropna()), set(table["split"].dropna())
    base = str(root.absolute())
    strays: list[str] = []
    held_out: list[str] = []
    for path in own:
        if path not in claimed:
            place = path[len(base) + 1 :]
            word = _SPLIT_WORD.search(place.rpartition("/")[0])
            unlabelled = bool(splits) and word is not None and PART_NAMES_IN_SOURCES[word[0].lower()] not in splits
            (held_out if unlabelled else strays).append(place)
    return strays, held_out


# ------------------------------------------------------------------------------------------------ judging the rows


@dataclass(frozen=True)
class Judged:
    """N rows with their target ``space``, the label index of each (ABSTAIN: none), which to keep, and what was wrong.

    ``words`` are the labels of the source, the most frequent first.
    """

    table: pd.DataFrame
    space: LabelSpace
    labels: np.ndarray
    keep: np.ndarray
    problems: tuple[Finding, ...]
    words: tuple[LabelWord, ...]


def judge(
    table: pd.DataFrame,
    rows: Rows,
    options: ReadOptions,
    present: np.ndarray,
    strays: Iterable[str] = (),
    misnamed: Iterable[str] = (),
) -> Judged:
    """Map the labels and decide which rows to keep; ``present`` (N,) bool says of each row whether its image was found.

    ``strays`` are images without a row, ``misnamed`` those whose file name is not UTF-8.
    """
    words = table["label"].map(options.relabelled, na_action="ignore")
    space, by_word = _label_indices(words, rows, options)
    labels = words.map(by_word).fillna(ABSTAIN).to_numpy(dtype=np.int64)
    ids = table["image_id"]
    known = labels != ABSTAIN
    unclear = (table["unclear"].notna() if "unclear" in table else pd.Series(False, index=table.index)).to_numpy()
    present = present & ~unclear
    repeats = ids.duplicated(keep="first").to_numpy()
    conflicts = (pd.Series(labels).groupby(ids.to_numpy()).transform("nunique") > 1).to_numpy()
    keep = present & known & ~repeats & ~conflicts
    counts = np.bincount(labels[keep], minlength=len(space))
    # One sample cannot be split; where one part of a split is asked for, nothing is to be split any more.
    single = keep & (counts == 1)[np.where(known, labels, 0)] & (options.split is None)
    unlabelled = (
        f"{image_id}: {word!r}" if isinstance(word, str) else f"{image_id}: no label"
        for image_id, word in zip(ids[~known], words[~known], strict=True)
    )
    problems = (
        Finding.of("missing_images", ids[~present & ~unclear]),
        Finding.of("unclear_images", (f"{row.image_id}: {row.unclear}" for row in table[unclear].itertuples())),
        Finding.of("misnamed_images", misnamed),
        Finding.of("images_without_row", strays),
        Finding.of("unknown_labels", unlabelled),
        Finding.of("duplicate_ids", ids[repeats & ~conflicts]),
        Finding.of("conflicting_labels", ids[conflicts]),
        Finding.of("single_sample_classes", (space.labels[label] for label in labels[single])),
    )
    found = tuple(problem for problem in problems if problem.count)
    return Judged(table, space, labels, keep & ~single, found, _label_words(table["label"], options, space, labels))


def _label_words(written: pd.Series, options: ReadOptions, space: LabelSpace, labels: np.ndarray) -> tuple[LabelWord, ...]:
    """Say of every label of the source what it was read as, the most frequent first."""
    pairs = Counter((str(word).strip(), int(label)) for word, label in zip(written, labels, strict=True) if pd.notna(word))
    mapping = space.malignancy_map
    found = []
    for (word, index), images in pairs.most_common():
        renamed = options.relabelled(word)
        known = resolve(renamed)
        code, how = known.code, known.how if renamed == word else f"as {renamed!r}: {known.how}"
        label, malignant = None, None if known.diagnosis is None else known.diagnosis.malignant
        if index != ABSTAIN:
            row = space.rows[index]
            label = row.code
            if code is None and label in DIAGNOSES:
                code, how = label, f"a label of {space.name}"
            if mapping is not None and mapping.indices[index] != ABSTAIN:
                malignant = mapping.target.rows[mapping.indices[index]].malignant
        found.append(LabelWord(word, label, code, malignant, images, how))
    return tuple(found)


def propose_columns(judged: Judged, rows: Rows) -> tuple[Proposal, ...]:
    """Return what the columns that were not read could add to the rows that are kept."""
    return propose(judged.table[judged.keep], None if rows.others is None else rows.others[judged.keep])


def _label_indices(words: pd.Series, rows: Rows, options: ReadOptions) -> tuple[LabelSpace, dict[str, int]]:
    """Return the space to read into, and the index in it of every word that has one."""
    distinct = sorted({str(word) for word in words.dropna()})
    if rows.native is not None:
        target = options.space or rows.default or rows.native
        indices = rows.native.map_to(target).indices
        return target, {word: indices[rows.native.index(word)] for word in distinct if word in rows.native}
    target = options.space or rows.default or space_from_names(distinct)
    return target, {word: index for word in distinct if (index := label_index(target, word)) is not None}


def label_index(space: LabelSpace, word: str) -> int | None:
    """Return the place of a free word in ``space``, None where it has none.

    A diagnosis of the taxonomy that ``space`` would have to split raises `TaxonomyError`: leaving it out would pass for
    reading it.

    >>> from lesion_hub.taxonomy import label_space
    >>> label_index(label_space("binary"), "Melanoma"), label_index(label_space("ham7"), "eczema")
    (1, None)
    """
    if word in space:
        return space.index(word)
    known = resolve(word).diagnosis
    if known is None or not any(known.entities & row.entities for row in space.rows):
        return None
    return LabelSpace(known.name, (known,)).map_to(space).indices[0]


# ------------------------------------------------------------------------------------------------ building the data set


def schema_columns(judged: Judged, source: str, where: np.ndarray) -> dict[str, pa.Array]:
    """Return every column of the schema but the image, for the rows that the mask ``where`` (N,) selects."""
    kept = judged.table[where]
    ids = kept["image_id"]

    def words(name: str) -> list[object]:
        return [None if pd.isna(word) else word for word in kept[name]]

    return {
        "label": pa.array(judged.labels[where], pa.int64()),
        "image_id": pa.array(ids, pa.string()),
        "group": pa.array([str(group) for group in kept["group"].where(kept["group"].notna(), ids)], pa.string()),
        "age": pa.array([age_years(value) for value in kept["age"]], pa.float32()),
        "sex": pa.array([canonical_sex(word) for word in words("sex")], pa.string()),
        "site": pa.array([canonical_site(word) for word in words("site")], pa.string()),
        "source": pa.array([source if pd.isna(name) else str(name) for name in kept["source"]], pa.string()),
    }


def official_split(judged: Judged) -> dict[str, str] | None:
    """Return image id -> split of the rows kept, or None where the source has no split or one part of it alone."""
    kept = judged.table[judged.keep]
    splits = kept["split"].dropna()
    if splits.nunique() < 2:
        return None
    return dict(zip(kept["image_id"][splits.index], splits, strict=True))


# ------------------------------------------------------------------------------------------------ summary


def summarise(result: ReadResult) -> dict[str, Any]:
    """Count everything but pixels, as plain JSON values.

    ``classes`` counts images per label in the order of the space (0 for a label without images); ``groups`` says how
    many lesions or patients there are and how large the largest is; ``missing`` how many rows lack a patient fact. A
    stream has none of these counts.
    """
    from datasets import IterableDataset

    summary = {
        "source": result.report.source,
        "place": result.report.place,
        "space": result.space.name,
        "labels": list(result.space.labels),
        "malignancy": None if (mapping := result.space.malignancy_map) is None else mapping.target.name,
    }
    if isinstance(result.dataset, IterableDataset):
        return {**summary, "report": result.report.to_dict()}
    facts = result.dataset.select_columns(["label", "group", "age", "sex", "site", "source"]).to_pandas()
    labels = facts["label"].value_counts()
    group_sizes = facts["group"].value_counts()
    ages = facts["age"].dropna()

    def tally(column: str) -> dict[str, int]:
        return {str(word): int(count) for word, count in facts[column].value_counts().items()}

    return {
        **summary,
        "images": len(facts),
        "classes": {name: int(labels.get(index, 0)) for index, name in enumerate(result.space.labels)},
        "groups": {
            "count": len(group_sizes),
            "largest": int(group_sizes.max()),
            "with_several_images": int((group_sizes > 1).sum()),
        },
        "splits": dict(sorted(Counter(result.official_split.values()).items())) if result.official_split else None,
        "age": {name: float(getattr(ages, name)()) for name in ("min", "median", "max")} if len(ages) else None,
        "sex": tally("sex"),
        "site": tally("site"),
        "sources": tally("source"),
        "missing": {name: int(facts[name].isna().sum()) for name in ("age", "sex", "site")},
        "report": result.report.to_dict(),
    }
