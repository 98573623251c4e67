"""The results of an audit, as values that a program, a terminal and a page can show."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesion_hub.data.audit.source_only import SourceOnly
from lesion_hub.data.splits import IdPair, Leaks

# A source-only AUROC above this is more than chance gives in a small set.
CONFOUNDED = 0.65
LEAVE_OUT = "mend or remove what is broken, or leave it out of training by allow_missing: true in the recipe (data.train)"
_QUANTILES = {"min": 0.0, "p05": 0.05, "median": 0.5, "p95": 0.95, "max": 1.0}


@dataclass(frozen=True)
class SharedWithOther:
    """What the audited set shares with another at ``place``: ids, and pairs (id here, id there) of duplicates."""

    place: str
    ids: tuple[str, ...] = ()
    exact: tuple[IdPair, ...] = ()
    near: tuple[IdPair, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.ids or self.exact or self.near)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {
            "place": self.place,
            "shared_ids": list(self.ids),
            "exact_duplicate_pairs": _lists(self.exact),
            "near_duplicate_pairs": _lists(self.near),
        }


@dataclass(frozen=True)
class Conflict:
    """Images that belong together but are labelled differently; ``what`` is a group, or how two images are duplicates."""

    what: str
    images: tuple[str, ...]
    labels: tuple[str, ...]


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
    ``odd`` map ids to what is wrong; ``leaks`` is None when there is no split to judge. ``columns`` maps each measure
    (sharpness, brightness, contrast and skin share as `lesion_hub.data.quality` has them; width, height) to one value per
    readable image (M,); ``blurred`` are the least sharp images. ``reading`` are lines on what was left out in reading the
    set, and on columns that could be read.
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
    overlap: SharedWithOther | None
    conflicts: tuple[Conflict, ...]
    unreadable: Mapping[str, str]
    odd: Mapping[str, tuple[str, ...]]
    columns: Mapping[str, NDArray[np.floating]] = field(repr=False)
    blurred: tuple[str, ...]
    source_only: SourceOnly | None
    reading: tuple[str, ...] = ()

    @property
    def quality(self) -> dict[str, dict[str, float]]:
        """Quantiles of every measure; empty where no image could be read."""
        return {
            name: {word: round(float(np.quantile(values, share)), 4) for word, share in _QUANTILES.items()}
            for name, values in self.columns.items()
            if len(values)
        }

    @property
    def failures(self) -> tuple[str, ...]:
        """One line per reason why a score on this data would be too high."""
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
        """One line per finding to look into that is no failure."""
        lines = []
        if self.unreadable:
            first = next(iter(self.unreadable.values()))
            lines.append(f"{self._unreadable_images} (first: {first}); {LEAVE_OUT}")
        if self.conflicts:
            conflict = self.conflicts[0]
            lines.append(f"{len(self.conflicts):,} label conflicts (first: {conflict.what} is {' and '.join(conflict.labels)})")
        if self.near_across_groups:
            a, b = self.near_across_groups[0]
            lines.append(f"{len(self.near_across_groups):,} near duplicates in different groups (first: {a} and {b})")
        if self.source_only is not None and self.source_only.auroc > CONFOUNDED:
            lines.append(f"the label is guessed without looking at the lesion: source-only AUROC {self.source_only.auroc:.3f}")
        return (*lines, *self.reading)

    @property
    def _unreadable_images(self) -> str:
        count = len(self.unreadable)
        return f"{count:,} {'image' if count == 1 else 'images'} cannot be read"

    @property
    def verdict(self) -> str:
        """One line: whether a score on this data can be believed, and what stops a training run."""
        if not self.ok:
            return "FAILED: " + "; ".join(self.failures)
        return f"ok, but {self._unreadable_images}: {LEAVE_OUT}" if self.unreadable else "ok"

    @property
    def ok(self) -> bool:
        """Whether nothing leaks."""
        return not self.failures

    def to_dict(self) -> dict[str, Any]:
        """Return the report as plain JSON values, in a fixed order."""
        leaks: list[dict[str, Any]] = []
        if self.leaks is not None:
            # One entry per leak, so that no leak is an empty list.
            leaks += [{"kind": "group", "group": group, "parts": list(parts)} for group, parts in self.leaks.groups.items()]
            leaks += [{"kind": "exact", "images": list(pair)} for pair in self.leaks.exact]
            leaks += [{"kind": "near", "images": list(pair)} for pair in self.leaks.near]
        baseline = self.source_only
        return {
            "ok": self.ok,
            "verdict": self.verdict,
            "failures": list(self.failures),
            "warnings": list(self.warnings),
            "place": self.place,
            "space": self.space,
            "images": self.images,
            "groups": self.groups,
            "classes": dict(self.classes),
            "counts": {name: dict(values) for name, values in self.counts.items()},
            "exact_duplicate_pairs": _lists(self.exact),
            "near_duplicate_pairs": _lists(self.near),
            "near_duplicate_pairs_across_groups": _lists(self.near_across_groups),
            "split": self.split,
            "leaks": leaks,
            "overlap": self.overlap.to_dict() if self.overlap is not None else None,
            "conflicts": [{"what": c.what, "images": list(c.images), "labels": list(c.labels)} for c in self.conflicts],
            "unreadable": dict(self.unreadable),
            "odd": {image_id: list(texts) for image_id, texts in self.odd.items()},
            "quality": self.quality,
            "blurred": list(self.blurred),
            "source_only_auroc": baseline.auroc if baseline is not None else None,
            "source_only": {**asdict(baseline), "left_out": list(baseline.left_out)} if baseline is not None else None,
        }

    def tables(self) -> tuple[Table, ...]:
        """Return what a terminal shows: a summary, the classes, the other counts, the source-only baseline."""
        leaks = "no split to judge" if self.leaks is None else str(self.leaks)
        summary = (
            ("images", f"{self.images:,}"),
            ("groups (lesions or patients)", f"{self.groups:,}"),
            ("exact duplicate pairs", f"{len(self.exact):,}"),
            ("near duplicate pairs", f"{len(self.near):,}"),
            ("of them in different groups", f"{len(self.near_across_groups):,}"),
            (f"leaks across the {self.split} split" if self.split else "leaks", leaks),
            ("label conflicts", f"{len(self.conflicts):,}"),
            ("unreadable images", f"{len(self.unreadable):,}"),
            ("odd files", f"{len(self.odd):,}"),
            ("verdict", self.verdict),
        )
        tables = [Table(f"Audit of {self.place}", ("what", "found"), summary)]
        counted = {"class": self.classes, **{name: values for name, values in self.counts.items() if len(values) > 1}}
        for name, values in counted.items():
            shares = ((value, f"{count:,}", f"{count / max(self.images, 1):.1%}") for value, count in values.items())
            title = "Classes" if name == "class" else name.capitalize()
            tables.append(Table(title, (name, "images", "share"), tuple(shares)))
        if self.source_only is not None:
            aurocs = {
                "all traits": self.source_only.auroc,
                **{f"{kind} alone": value for kind, value in self.source_only.by_trait.items()},
                "all traits, labels shuffled": self.source_only.permuted,
                "chance": self.source_only.chance,
            }
            lines = tuple((name, f"{value:.3f}") for name, value in aurocs.items())
            tables.append(Table("Label guessed without the lesion (source-only AUROC)", ("from", "AUROC"), lines))
        return tuple(tables)


def _lists(pairs: Iterable[IdPair]) -> list[list[str]]:
    return [list(pair) for pair in pairs]
