"""Audit a data set: measure every image in one pass, then find duplicates, leaks and label conflicts, and run the baseline."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from datasets import Dataset

from lesion_hub.data.audit.report import AuditReport, Conflict, SharedWithOther
from lesion_hub.data.audit.source_only import ImageFindings, SourceOnly, measure_image, source_only, traits_of
from lesion_hub.data.duplicates import Duplicates, Fingerprints, find_duplicates, find_duplicates_between, fingerprint
from lesion_hub.data.scan import image_sources, scan
from lesion_hub.data.schema import not_streamed
from lesion_hub.data.sources import ReadResult, read
from lesion_hub.data.splits import IdPair, SplitImages, SplitManifest, check_manifest, find_leaks, load_manifest, united_units
from lesion_hub.errors import ImageError
from lesion_hub.progress import Progress

OFFICIAL = "official"
_BLURRED_SHOWN = 12


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
    dataset = not_streamed(result.dataset)
    images = SplitImages.of(result)
    ids, groups = images.ids, images.groups
    parts, split_name = _parts(result, split)
    prints, findings = Fingerprints.empty(len(ids)), {}
    for row, found in enumerate(scan(measure_image, image_sources(dataset), workers=workers, progress=progress)):
        if isinstance(found, ImageError):
            prints.put(row, found)
        else:
            print_, findings[row] = found
            prints.put(row, print_)
    duplicates = find_duplicates(prints, workers=workers, progress=progress)
    classes = Counter(images.labels)
    by_sharpness = sorted(findings, key=lambda row: (findings[row].quality.sharpness, ids[row]))

    def named(pairs: Iterable[tuple[int, int]]) -> tuple[IdPair, ...]:
        return tuple((ids[a], ids[b]) for a, b in pairs)

    return AuditReport(
        place=result.report.place,
        space=result.space.name,
        images=len(ids),
        groups=len(set(groups)),
        classes={label: classes[number] for number, label in enumerate(images.space.labels)},
        counts=_counts(dataset, parts),
        ages=tuple(float(age) for age in dataset["age"] if age is not None and age == age),
        exact=named(duplicates.exact),
        near=named(duplicates.near),
        near_across_groups=named((a, b) for a, b in duplicates.near if groups[a] != groups[b]),
        split=split_name,
        leaks=find_leaks(ids, parts, groups, duplicates) if parts is not None else None,
        overlap=_shared_with(against, prints, ids, workers, progress) if against is not None else None,
        conflicts=tuple(_conflicts(images, duplicates)),
        unreadable={ids[row]: why for row, why in sorted(prints.failures.items())},
        odd={ids[row]: found.oddities for row, found in findings.items() if found.oddities},
        columns={
            **{
                name: np.array([getattr(found.quality, name) for found in findings.values()])
                for name in ("sharpness", "brightness", "contrast", "skin_share")
            },
            "width": np.array([found.facts.upright_size[0] for found in findings.values()]),
            "height": np.array([found.facts.upright_size[1] for found in findings.values()]),
        },
        blurred=tuple(ids[row] for row in by_sharpness[:_BLURRED_SHOWN]),
        source_only=_baseline(images, dataset, findings, duplicates, workers),
        reading=(*(f"left out: {problem}" for problem in result.report.problems), *map(str, result.report.proposals)),
    )


def _parts(
    result: ReadResult, split: str | os.PathLike[str] | SplitManifest | None
) -> tuple[list[str | None] | None, str | None]:
    """Return the part of every row, and what to call the split."""
    dataset = not_streamed(result.dataset)
    ids = dataset["image_id"]
    if split is None or (split == OFFICIAL and result.official_split is None):
        return None, None
    if split == OFFICIAL:
        return [(result.official_split or {}).get(image_id) for image_id in ids], OFFICIAL
    # The report lists the leaks, so they must not stop the loading.
    manifest = split if isinstance(split, SplitManifest) else load_manifest(split, allow_leaks=True)
    name = "given" if isinstance(split, SplitManifest) else Path(split).name
    check_manifest(manifest, dataset, name=name, groups=False)
    return [manifest.part_of.get(image_id) for image_id in ids], name


def _counts(dataset: Dataset, parts: Sequence[str | None] | None) -> dict[str, dict[str, int]]:
    """Count the images of each value of the split, sex, site and source, the most frequent first."""
    columns: dict[str, Sequence[str | None]] = {} if parts is None else {"split": parts}
    columns |= {name: list(dataset[name]) for name in ("sex", "site", "source")}
    counts = {}
    for name, values in columns.items():
        found = Counter("unknown" if value is None else value for value in values)
        counts[name] = dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))
    return counts


def _shared_with(
    against: str | os.PathLike[str] | ReadResult,
    prints: Fingerprints,
    ids: Sequence[str],
    workers: int | None,
    progress: Progress | None,
) -> SharedWithOther:
    """Find the ids and pictures that are also in the data set ``against``."""
    other = against if isinstance(against, ReadResult) else read(against)
    theirs = list(not_streamed(other.dataset)["image_id"])
    others = fingerprint(image_sources(other.dataset), workers=workers, progress=progress)
    found = find_duplicates_between(prints, others, workers=workers, progress=progress)
    exact, near = (tuple((ids[a], theirs[b]) for a, b in pairs) for pairs in (found.exact, found.near))
    return SharedWithOther(other.report.place, tuple(sorted(set(ids) & set(theirs))), exact, near)


def _conflicts(images: SplitImages, duplicates: Duplicates) -> Iterator[Conflict]:
    """Yield groups with several labels, then duplicates of different groups and labels."""
    members: dict[str, list[int]] = {}
    for row, group in enumerate(images.groups):
        members.setdefault(group, []).append(row)
    together = [(f"group {group}", rows) for group, rows in sorted(members.items())]
    for kind, pairs in (("exact duplicates", duplicates.exact), ("near duplicates", duplicates.near)):
        apart = ((a, b) for a, b in pairs if images.groups[a] != images.groups[b])
        together.extend((f"{kind} {images.ids[a]} and {images.ids[b]}", [a, b]) for a, b in apart)
    for what, rows in together:
        labels = {images.labels[row] for row in rows}
        if len(labels) > 1:
            codes = tuple(images.space.labels[label] for label in sorted(labels))
            yield Conflict(what, tuple(images.ids[row] for row in rows), codes)


def _baseline(
    images: SplitImages, dataset: Dataset, findings: Mapping[int, ImageFindings], duplicates: Duplicates, workers: int | None
) -> SourceOnly | None:
    """Run the source-only baseline on the readable images, united as a split would unite them."""
    if not findings:
        return None
    # Forests depend on the order of the rows; the report must not.
    rows = sorted(findings, key=lambda row: images.ids[row])
    sources = list(dataset["source"])
    traits = traits_of([findings[row] for row in rows], [sources[row] for row in rows])
    units = united_units(images, duplicates)[rows]
    return source_only(traits, np.asarray(images.labels)[rows], units, images.space.labels, workers=workers)
