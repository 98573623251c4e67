"""Audit a data set: one pass over the images, then everything that can be asked of what was noted."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from datasets import Dataset

from lesion_hub.data.audit.measure import Measured, measure
from lesion_hub.data.audit.report import AuditReport, Conflict, IdPair, ImageColumns, Overlap
from lesion_hub.data.audit.source_only import SourceOnly, source_only, traits_of
from lesion_hub.data.duplicates import Duplicates, Fingerprints, find_duplicates, find_duplicates_between, fingerprint
from lesion_hub.data.scan import Progress, image_sources, scan, whole
from lesion_hub.data.sources import ReadResult, read
from lesion_hub.data.splits import Images, SplitManifest, check_manifest, leaks_across, load_manifest
from lesion_hub.data.splits.split import united_units
from lesion_hub.errors import ImageError

OFFICIAL = "official"
_COUNTED = ("sex", "site", "source")
_BLURRED_SHOWN = 12


@dataclass(frozen=True)
class _Scanned:
    """The pass over N images: a fingerprint of each, and the rest for those that could be read, by row."""

    prints: Fingerprints
    measured: Mapping[int, Measured]


def audit(
    data: str | os.PathLike[str] | ReadResult,
    *,
    against: str | os.PathLike[str] | ReadResult | None = None,
    split: str | os.PathLike[str] | SplitManifest | None = OFFICIAL,
    workers: int | None = None,
    progress: Progress | None = None,
) -> AuditReport:
    """Audit a folder (or what `lesion_hub.data.read` made of it).

    ``against`` is a second data set that should share nothing with the first. ``split`` is the split to judge: a
    manifest or its file; by default the one that the source ships, if it ships one; None judges none.

        report = audit("data/ham10000", split="split.json")
        report.ok, report.to_dict()["near_duplicate_pairs"]
    """
    result = data if isinstance(data, ReadResult) else read(data)
    dataset = whole(result.dataset)
    images = Images.of(result)
    parts, split_name = _parts(result, split)
    scanned = _scan(dataset, workers, progress)
    duplicates = find_duplicates(scanned.prints, workers=workers, progress=progress)
    ids = images.ids
    readable = sorted(scanned.measured)
    near = _named(duplicates.near, ids)
    return AuditReport(
        place=result.report.place,
        space=result.space.name,
        images=len(ids),
        groups=len(set(images.groups)),
        classes=_class_counts(images),
        counts=_counts(dataset, parts),
        ages=tuple(float(age) for age in dataset["age"] if age is not None and age == age),
        exact=_named(duplicates.exact, ids),
        near=near,
        near_across_groups=_named(((a, b) for a, b in duplicates.near if images.groups[a] != images.groups[b]), ids),
        split=split_name,
        leaks=leaks_across(images, parts, duplicates) if parts is not None else None,
        overlap=_overlap(scanned.prints, ids, against, workers, progress) if against is not None else None,
        conflicts=tuple(_conflicts(images, duplicates)),
        unreadable={ids[row]: why for row, why in sorted(scanned.prints.failures.items())},
        odd={ids[row]: scanned.measured[row].oddities for row in readable if scanned.measured[row].oddities},
        columns=_columns(scanned, readable),
        quality=_quality(scanned, readable),
        blurred=_blurred(scanned, readable, ids),
        source_only=_baseline(images, dataset, scanned, readable, duplicates, workers),
    )


def _parts(
    result: ReadResult, split: str | os.PathLike[str] | SplitManifest | None
) -> tuple[list[str | None] | None, str | None]:
    """The part of every row, and what to call the split."""
    ids = whole(result.dataset)["image_id"]
    if split is None or (split == OFFICIAL and result.official_split is None):
        return None, None
    if split == OFFICIAL:
        return [(result.official_split or {}).get(image_id) for image_id in ids], OFFICIAL
    # Leaks are for the report to tell, so they must not stop the loading.
    manifest = split if isinstance(split, SplitManifest) else load_manifest(split, allow_leaks=True)
    name = "given" if isinstance(split, SplitManifest) else Path(split).name
    check_manifest(manifest, whole(result.dataset), name=name, groups=False)
    return [manifest.part_of.get(image_id) for image_id in ids], name


def _scan(dataset: Dataset, workers: int | None, progress: Progress | None) -> _Scanned:
    prints, measured = Fingerprints.empty(len(dataset)), {}
    for row, found in enumerate(scan(measure, image_sources(dataset), workers=workers, progress=progress)):
        if isinstance(found, ImageError):
            prints.put(row, found)
            continue
        prints.put(row, found[0])
        measured[row] = found[1]
    return _Scanned(prints, measured)


def _named(pairs: Sequence[tuple[int, int]] | Iterator[tuple[int, int]], ids: Sequence[str]) -> tuple[IdPair, ...]:
    return tuple((ids[a], ids[b]) for a, b in pairs)


def _class_counts(images: Images) -> dict[str, int]:
    found = Counter(images.labels)
    return {label: found[number] for number, label in enumerate(images.space.labels)}


def _counts(dataset: Dataset, parts: Sequence[str | None] | None) -> dict[str, dict[str, int]]:
    columns: dict[str, Sequence[str | None]] = {name: list(dataset[name]) for name in _COUNTED}
    if parts is not None:
        columns = {"split": parts, **columns}
    return {name: _tally(values) for name, values in columns.items()}


def _tally(values: Sequence[str | None]) -> dict[str, int]:
    found = Counter(value if value is not None else "unknown" for value in values)
    return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))


def _overlap(
    prints: Fingerprints,
    ids: Sequence[str],
    against: str | os.PathLike[str] | ReadResult,
    workers: int | None,
    progress: Progress | None,
) -> Overlap:
    other = against if isinstance(against, ReadResult) else read(against)
    theirs = list(whole(other.dataset)["image_id"])
    others = fingerprint(image_sources(other.dataset), workers=workers, progress=progress)
    found = find_duplicates_between(prints, others, workers=workers, progress=progress)

    def named(pairs: Sequence[tuple[int, int]]) -> tuple[IdPair, ...]:
        return tuple((ids[a], theirs[b]) for a, b in pairs)

    return Overlap(other.report.place, tuple(sorted(set(ids) & set(theirs))), named(found.exact), named(found.near))


def _conflicts(images: Images, duplicates: Duplicates) -> Iterator[Conflict]:
    """Groups with several labels, then duplicates whose labels differ though their groups say nothing of it."""
    members: dict[str, list[int]] = {}
    for row, group in enumerate(images.groups):
        members.setdefault(group, []).append(row)
    named = [*((f"group {group}", rows) for group, rows in sorted(members.items()))]
    for kind, pairs in (("exact duplicates", duplicates.exact), ("near duplicates", duplicates.near)):
        apart = ((a, b) for a, b in pairs if images.groups[a] != images.groups[b])
        named.extend((f"{kind} {images.ids[a]} and {images.ids[b]}", [a, b]) for a, b in apart)
    for what, rows in named:
        labels = {images.labels[row] for row in rows}
        if len(labels) > 1:
            codes = tuple(images.space.labels[label] for label in sorted(labels))
            yield Conflict(what, tuple(images.ids[row] for row in rows), codes)


def _columns(scanned: _Scanned, readable: Sequence[int]) -> ImageColumns:
    found = [scanned.measured[row] for row in readable]
    sizes = np.array([image.facts.upright_size for image in found], np.int64).reshape(-1, 2)
    return ImageColumns(
        np.array(readable, np.int64),
        sizes[:, 0],
        sizes[:, 1],
        np.array([image.quality.sharpness for image in found]),
        np.array([image.quality.brightness for image in found]),
    )


def _quality(scanned: _Scanned, readable: Sequence[int]) -> dict[str, dict[str, float]]:
    """Quantiles of every measure of quality."""
    found = [scanned.measured[row] for row in readable]
    if not found:
        return {}
    values = {
        **{name: [getattr(image.quality, name) for image in found] for name in vars(found[0].quality)},
        "width": [image.facts.upright_size[0] for image in found],
        "height": [image.facts.upright_size[1] for image in found],
    }
    quantiles = {"min": 0.0, "p05": 0.05, "median": 0.5, "p95": 0.95, "max": 1.0}
    return {
        name: {word: round(float(np.quantile(numbers, share)), 4) for word, share in quantiles.items()}
        for name, numbers in values.items()
    }


def _blurred(scanned: _Scanned, readable: Sequence[int], ids: Sequence[str]) -> tuple[str, ...]:
    order = sorted(readable, key=lambda row: (scanned.measured[row].quality.sharpness, ids[row]))
    return tuple(ids[row] for row in order[:_BLURRED_SHOWN])


def _baseline(
    images: Images,
    dataset: Dataset,
    scanned: _Scanned,
    readable: Sequence[int],
    duplicates: Duplicates,
    workers: int | None,
) -> SourceOnly | None:
    if not readable:
        return None
    # Forests depend on the order of the rows; the report must not.
    rows = sorted(readable, key=lambda row: images.ids[row])
    sources = list(dataset["source"])
    traits = traits_of([scanned.measured[row] for row in rows], [sources[row] for row in rows])
    units = united_units(images, duplicates)[rows]
    return source_only(traits, np.asarray(images.labels)[rows], units, images.space.labels, workers=workers)
