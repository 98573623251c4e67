"""What an audit found, as values that a program, a terminal and a page can show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesion_hub.data.audit.source_only import SourceOnly
from lesion_hub.data.splits import Leaks

IdPair = tuple[str, str]
# Above this the label is betrayed by more than the chance that a small set leaves.
CONFOUNDED = 0.65


@dataclass(frozen=True)
class Overlap:
    """What the audited set shares with another: pairs (id here, id there)."""

    place: str
    ids: tuple[str, ...] = ()
    exact: tuple[IdPair, ...] = ()
    near: tuple[IdPair, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.ids or self.exact or self.near)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "place": self.place,
            "shared_ids": list(self.ids),
            "exact_duplicate_pairs": [list(pair) for pair in self.exact],
            "near_duplicate_pairs": [list(pair) for pair in self.near],
        }


@dataclass(frozen=True)
class Conflict:
    """Images that belong together but are labelled differently; ``what`` is a group, or how two images are duplicates."""

    what: str
    images: tuple[str, ...]
    labels: tuple[str, ...]


@dataclass(frozen=True)
class ImageColumns:
    """One value per readable image (M,), for the plots: its row in the data set, size, sharpness and brightness."""

    rows: NDArray[np.int64]
    width: NDArray[np.int64]
    height: NDArray[np.int64]
    sharpness: NDArray[np.floating]
    brightness: NDArray[np.floating]


@dataclass(frozen=True)
class Table:
    """A titled table of plain values, for a terminal or a page."""

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class AuditReport:
    """Everything that an audit found; ``ok`` is False when a split leaks or another data set overlaps.

    ``counts`` maps split, sex, site and source to {value: images}; ``ages`` holds the known ages; ``unreadable`` and
    ``odd`` map ids to what is wrong; ``leaks`` is None when there is no split to judge.
    """

    place: str
    space: str
    images: int
    groups: int
    classes: Mapping[str, int]
    counts: Mapping[str, Mapping[str, int]]
    ages: tuple[float, ...] = field(repr=False)
    exact: tuple[IdPair, ...]
    near: tuple[IdPair, ...]
    near_across_groups: tuple[IdPair, ...]
    split: str | None
    leaks: Leaks | None
    overlap: Overlap | None
    conflicts: tuple[Conflict, ...]
    unreadable: Mapping[str, str]
    odd: Mapping[str, tuple[str, ...]]
    columns: ImageColumns = field(repr=False)
    quality: Mapping[str, Mapping[str, float]]
    blurred: tuple[str, ...]
    source_only: SourceOnly | None

    @property
    def failures(self) -> tuple[str, ...]:
        """One line per reason why data so arranged would give a dishonest score."""
        lines = []
        if self.leaks:
            lines.append(f"the {self.split} split leaks: {self.leaks}")
        if self.overlap:
            exact, near = len(self.overlap.exact), len(self.overlap.near)
            lines.append(
                f"{self.overlap.place} shares {len(self.overlap.ids):,} ids, {exact:,} exact and {near:,} near duplicates"
            )
        return tuple(lines)

    @property
    def warnings(self) -> tuple[str, ...]:
        """One line per thing worth a look that is no failure."""
        lines = []
        if self.unreadable:
            lines.append(f"{len(self.unreadable):,} images cannot be read (first: {next(iter(self.unreadable.values()))})")
        if self.conflicts:
            first = self.conflicts[0]
            lines.append(f"{len(self.conflicts):,} label conflicts (first: {first.what} is {' and '.join(first.labels)})")
        if self.near_across_groups:
            a, b = self.near_across_groups[0]
            lines.append(f"{len(self.near_across_groups):,} near duplicates in different groups (first: {a} and {b})")
        if self.source_only is not None and self.source_only.auroc > CONFOUNDED:
            lines.append(f"the label is guessed without looking at the lesion: source-only AUROC {self.source_only.auroc:.3f}")
        return tuple(lines)

    @property
    def ok(self) -> bool:
        """Whether nothing leaks."""
        return not self.failures

    def to_dict(self) -> dict[str, Any]:
        """The report as plain JSON values, in a fixed order."""
        baseline = self.source_only
        return {
            "ok": self.ok,
            "failures": list(self.failures),
            "warnings": list(self.warnings),
            "place": self.place,
            "space": self.space,
            "images": self.images,
            "groups": self.groups,
            "classes": dict(self.classes),
            "counts": {name: dict(values) for name, values in self.counts.items()},
            "exact_duplicate_pairs": [list(pair) for pair in self.exact],
            "near_duplicate_pairs": [list(pair) for pair in self.near],
            "near_duplicate_pairs_across_groups": [list(pair) for pair in self.near_across_groups],
            "split": self.split,
            "leaks": _leak_list(self.leaks),
            "overlap": self.overlap.to_dict() if self.overlap is not None else None,
            "conflicts": [{"what": c.what, "images": list(c.images), "labels": list(c.labels)} for c in self.conflicts],
            "unreadable": dict(self.unreadable),
            "odd": {image_id: list(texts) for image_id, texts in self.odd.items()},
            "quality": {name: dict(values) for name, values in self.quality.items()},
            "blurred": list(self.blurred),
            "source_only_auroc": baseline.auroc if baseline is not None else None,
            "source_only": None
            if baseline is None
            else {
                "auroc": baseline.auroc,
                "chance": baseline.chance,
                "permuted": baseline.permuted,
                "by_trait": dict(baseline.by_trait),
                "by_class": dict(baseline.by_class),
                "left_out": list(baseline.left_out),
            },
        }

    def tables(self) -> tuple[Table, ...]:
        """What a terminal shows: a summary, the classes, the other counts, the source-only baseline."""
        tables = [self._summary(), _share_table("Classes", "class", self.classes, self.images)]
        tables.extend(
            _share_table(name.capitalize(), name, values, self.images)
            for name, values in self.counts.items()
            if len(values) > 1
        )
        if self.source_only is not None:
            tables.append(_baseline_table(self.source_only))
        return tuple(tables)

    def _summary(self) -> Table:
        leaks = "no split to judge" if self.leaks is None else str(self.leaks)
        rows = (
            ("images", f"{self.images:,}"),
            ("groups (lesions or patients)", f"{self.groups:,}"),
            ("exact duplicate pairs", f"{len(self.exact):,}"),
            ("near duplicate pairs", f"{len(self.near):,}"),
            ("of them in different groups", f"{len(self.near_across_groups):,}"),
            (f"leaks across the {self.split} split" if self.split else "leaks", leaks),
            ("label conflicts", f"{len(self.conflicts):,}"),
            ("unreadable images", f"{len(self.unreadable):,}"),
            ("odd files", f"{len(self.odd):,}"),
            ("verdict", "ok" if self.ok else "FAILED: " + "; ".join(self.failures)),
        )
        return Table(f"Audit of {self.place}", ("what", "found"), rows)


def _leak_list(leaks: Leaks | None) -> list[dict[str, Any]]:
    """One entry per leak, so that no leak is an empty list."""
    if leaks is None:
        return []
    return [
        *({"kind": "group", "group": group, "parts": list(parts)} for group, parts in leaks.groups.items()),
        *({"kind": "exact", "images": list(pair)} for pair in leaks.exact),
        *({"kind": "near", "images": list(pair)} for pair in leaks.near),
    ]


def _share_table(title: str, column: str, values: Mapping[str, int], total: int) -> Table:
    rows = tuple((str(value), f"{count:,}", f"{count / max(total, 1):.1%}") for value, count in values.items())
    return Table(title, (column, "images", "share"), rows)


def _baseline_table(baseline: SourceOnly) -> Table:
    def line(name: str, value: float) -> tuple[str, str]:
        return name, f"{value:.3f}"

    rows: Sequence[tuple[str, str]] = (
        line("all traits", baseline.auroc),
        *(line(f"{kind} alone", value) for kind, value in baseline.by_trait.items()),
        line("all traits, labels shuffled", baseline.permuted),
        line("chance", baseline.chance),
    )
    return Table("Label guessed without the lesion (source-only AUROC)", ("from", "AUROC"), tuple(rows))
