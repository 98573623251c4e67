"""Make a split: group by lesion or patient united with near duplicates, then deal out by class, or keep the official one."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lesion_hub.data.duplicates import Duplicates, find_duplicates, fingerprint, unite
from lesion_hub.data.scan import Progress, image_sources, whole
from lesion_hub.data.sources import ReadResult
from lesion_hub.data.splits.assignment import assign
from lesion_hub.data.splits.leaks import Leaks, find_leaks
from lesion_hub.data.splits.manifest import SplitManifest
from lesion_hub.errors import ConfigError, DataError
from lesion_hub.taxonomy import LabelSpace

logger = logging.getLogger(__name__)

PARTS = ("train", "val", "test")
_ROUNDING = 1e-6


@dataclass(frozen=True)
class SplitOptions:
    """How to split: into ``fractions`` for train, val and test (summing to 1, 0 leaves a part out), or ``folds``.

    ``respect_official`` keeps the split that the source ships; ``drop_leaks`` then leaves out the images of the earlier
    part (train before val before test) that it shares with a later one. ``allow_absent`` accepts that a class with
    fewer groups than parts is missing from some of them, which is an error otherwise.
    """

    fractions: tuple[float, float, float] = (0.7, 0.15, 0.15)
    folds: int | None = None
    seed: int = 0
    respect_official: bool = False
    drop_leaks: bool = False
    allow_absent: bool = False

    def __post_init__(self) -> None:
        if self.folds is not None and self.folds < 2:
            raise ConfigError(f"folds is {self.folds}; use 2 or more")
        if len(self.fractions) != len(PARTS) or min(self.fractions) < 0 or abs(sum(self.fractions) - 1) > _ROUNDING:
            raise ConfigError(f"fractions are {self.fractions}; give three for train, val and test that sum to 1")
        if self.folds is None and max(self.fractions) == 1:
            raise ConfigError(f"fractions are {self.fractions}, which leaves one part; give two parts some of the images")

    def shares(self) -> dict[str, float]:
        """The share of every part.

        >>> SplitOptions(folds=2).shares()
        {'fold0': 0.5, 'fold1': 0.5}
        """
        if self.folds is not None:
            return {f"fold{fold}": 1 / self.folds for fold in range(self.folds)}
        return {part: share for part, share in zip(PARTS, self.fractions, strict=True) if share > 0}


@dataclass(frozen=True)
class Images:
    """What a split is made of, as columns of N: unique ``ids``, ``labels`` (indices into ``space``), ``groups``."""

    ids: Sequence[str]
    labels: Sequence[int]
    groups: Sequence[str]
    space: LabelSpace

    def __post_init__(self) -> None:
        if not self.ids:
            raise DataError("there are no images to split; check the data set")
        repeated, times = Counter(self.ids).most_common(1)[0]
        if times > 1:
            raise DataError(f"image id {repeated} occurs {times} times; give every image its own id")
        unknown = next((row for row, label in enumerate(self.labels) if not 0 <= label < len(self.space)), None)
        if unknown is not None:
            raise DataError(f"image {self.ids[unknown]} has no label of {self.space.name!r}; leave it out or label it")

    @classmethod
    def of(cls, result: ReadResult) -> Images:
        """The columns of what `lesion_hub.data.read` read."""
        dataset = whole(result.dataset)
        return cls(list(dataset["image_id"]), list(dataset["label"]), list(dataset["group"]), result.space)


def split_source(
    result: ReadResult,
    options: SplitOptions,
    *,
    store: str | os.PathLike[str] | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> SplitManifest:
    """Split what `lesion_hub.data.read` read, keeping near duplicates together. ``store`` keeps fingerprints for reuse.

    manifest = split_source(read("data/ham10000"), SplitOptions(folds=5))
    manifest.save("split.json")
    """
    images = Images.of(result)
    prints = fingerprint(image_sources(result.dataset), store=store, workers=workers, progress=progress)
    found = find_duplicates(prints, workers=workers, progress=progress)
    return split_images(images, options, duplicates=found, official=result.official_split)


def split_images(
    images: Images,
    options: SplitOptions,
    *,
    duplicates: Duplicates | None = None,
    official: Mapping[str, str] | None = None,
) -> SplitManifest:
    """Split ``images``; those that share a group, or a cluster of ``duplicates``, stay together.

    >>> from lesion_hub.taxonomy import label_space
    >>> images = Images(["a", "b", "c", "d"], [0, 1, 0, 1], ["p", "q", "r", "s"], label_space("binary"))
    >>> sorted(split_images(images, SplitOptions(folds=2)).part_of.values())
    ['fold0', 'fold0', 'fold1', 'fold1']
    """
    units = united_units(images, duplicates)
    if options.respect_official:
        return _official(images, units, options, duplicates, official)
    shares = options.shares()
    labels = np.asarray(images.labels, np.int64)
    warnings = _absent_classes(images, labels, units, shares, options)
    places = assign(images.ids, labels, units, list(shares.values()), options.seed)
    kind = (
        f"{options.folds} folds"
        if options.folds is not None
        else " / ".join(f"{part} {share:g}" for part, share in shares.items())
    )
    method = f"{kind}, grouped by lesion or patient" + (" and near duplicate" if duplicates is not None else "")
    return _manifest(images, units, places, tuple(shares), method, options, warnings=warnings)


def united_units(images: Images, duplicates: Duplicates | None) -> NDArray[np.int64]:
    """What must stay together: (N,) numbers of the components of groups and clusters, in the order of the sorted ids."""
    order = np.argsort(np.array(images.ids, dtype=object), kind="stable")
    groupings: list[Sequence[object]] = [[images.groups[row] for row in order]]
    if duplicates is not None:
        groupings.append(duplicates.clusters[order].tolist())
    units = np.empty(len(order), np.int64)
    units[order] = unite(*groupings)
    return units


def _absent_classes(
    images: Images, labels: NDArray[np.int64], units: NDArray[np.int64], shares: Mapping[str, float], options: SplitOptions
) -> tuple[str, ...]:
    """The classes with fewer units than there are parts, as lines; `DataError` unless they are allowed."""
    lines = []
    for label in np.unique(labels):
        count = len(np.unique(units[labels == label]))
        if count < len(shares):
            code = images.space.labels[label]
            lines.append(f"class {code!r} has {count} group{'s' * (count > 1)} for {len(shares)} parts")
    if lines and not options.allow_absent:
        raise DataError(f"{lines[0]}; use fewer parts, add images, or allow absent classes")
    for line in lines:
        logger.warning("%s; it is absent from some", line)
    return tuple(lines)


def _official(
    images: Images,
    units: NDArray[np.int64],
    options: SplitOptions,
    duplicates: Duplicates | None,
    official: Mapping[str, str] | None,
) -> SplitManifest:
    if not official:
        raise DataError("the source ships no split; leave out --respect-official to make one")
    parts = tuple(part for part in PARTS if part in set(official.values()))
    places = np.array([parts.index(official[image_id]) if image_id in official else -1 for image_id in images.ids])
    leaks = leaks_across(images, [parts[place] if place >= 0 else None for place in places], duplicates)
    counts = {"groups": len(leaks.groups), "exact": len(leaks.exact), "near": len(leaks.near)} if leaks else {}
    keep = places >= 0
    if options.drop_leaks:
        latest = np.full(int(units.max()) + 1, -1)
        np.maximum.at(latest, units, places)
        kept = keep & (places == latest[units])
        counts = {"dropped": int((keep & ~kept).sum())} if (keep & ~kept).any() else {}
        keep = kept
    elif leaks:
        logger.warning("the official split leaks: %s", leaks)
    chosen = np.flatnonzero(keep).tolist()
    some = Images(
        [images.ids[row] for row in chosen],
        [images.labels[row] for row in chosen],
        [images.groups[row] for row in chosen],
        images.space,
    )
    method = "official" + (", what leaks dropped" if options.drop_leaks else "")
    return _manifest(some, units[chosen], places[chosen], parts, method, options, leaks=counts)


def leaks_across(images: Images, parts: Sequence[str | None], duplicates: Duplicates | None) -> Leaks:
    """What the named ``parts`` of ``images`` share (see `find_leaks`)."""
    if duplicates is None:
        return find_leaks(images.ids, parts, images.groups)
    return find_leaks(images.ids, parts, images.groups, duplicates.exact, duplicates.near)


def _manifest(
    images: Images,
    units: NDArray[np.int64],
    places: NDArray[np.int64],
    parts: tuple[str, ...],
    method: str,
    options: SplitOptions,
    *,
    warnings: tuple[str, ...] = (),
    leaks: Mapping[str, int] | None = None,
) -> SplitManifest:
    order = sorted(range(len(images.ids)), key=images.ids.__getitem__)
    numbers: dict[int, int] = {}
    return SplitManifest(
        seed=options.seed,
        method=method,
        space=images.space.name,
        classes=images.space.labels,
        parts=parts,
        ids=tuple(images.ids[row] for row in order),
        labels=tuple(int(images.labels[row]) for row in order),
        units=tuple(numbers.setdefault(int(units[row]), len(numbers)) for row in order),
        places=tuple(int(places[row]) for row in order),
        warnings=warnings,
        leaks=leaks or {},
    )
