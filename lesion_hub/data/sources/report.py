"""What reading a source found: the result, and the report of what was wrong or worth knowing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from lesion_hub.errors import DataError

if TYPE_CHECKING:
    from lesion_hub.data.schema import AnyDataset
    from lesion_hub.taxonomy import LabelSpace

EXAMPLES = 5

# Kind of finding -> how a line counts one and how it counts more. The order is that of the error line.
PROBLEMS = {
    "missing_images": ("row without an image", "rows without an image"),
    "images_without_row": ("image without a row", "images without a row"),
    "unknown_labels": ("row with an unknown label", "rows with an unknown label"),
    "duplicate_ids": ("row that repeats an image id", "rows that repeat an image id"),
    "conflicting_labels": ("row whose image id carries two labels", "rows whose image id carries two labels"),
    "single_sample_classes": ("class with one sample", "classes with one sample"),
}
NOTES = {
    "unlabelled_images": ("image of a split that has no labels here", "images of a split that has no labels here"),
    "repeated_files": ("more file of an id already served", "more files of ids already served"),
}


@dataclass(frozen=True)
class Finding:
    """One kind of thing found: how often, and the first few examples in reading order."""

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
        return cls(kind, len(everything), tuple(everything[:EXAMPLES]))

    def __str__(self) -> str:
        one, many = PROBLEMS.get(self.kind) or NOTES[self.kind]
        return f"{self.count:,} {one if self.count == 1 else many} (first: {self.examples[0]})"


@dataclass(frozen=True)
class ReadReport:
    """Counts of one reading. ``rows`` were listed by the source and ``kept`` made it into the data set.

    A streamed source is not counted: ``rows`` and ``kept`` are None.
    """

    source: str
    place: str
    rows: int | None
    kept: int | None
    problems: tuple[Finding, ...] = ()
    notes: tuple[Finding, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The report as plain JSON values.

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
    such a split (and more than one part of it is here), else it is None.
    """

    dataset: AnyDataset = field(repr=False)
    space: LabelSpace
    official_split: dict[str, str] | None = field(repr=False)
    report: ReadReport
