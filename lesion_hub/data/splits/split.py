"""Make a split, and find what its parts share.

Images are grouped by lesion or patient united with near duplicates, and dealt out by class; or the official split is kept.
"""

from __future__ import annotations

import hashlib
import logging
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from lesion_hub.data.duplicates import Duplicates, find_duplicates, fingerprint, unite
from lesion_hub.data.scan import image_sources
from lesion_hub.data.schema import not_streamed
from lesion_hub.data.sources import ReadResult
from lesion_hub.data.splits.manifest import SplitManifest
from lesion_hub.errors import ConfigError, DataError
from lesion_hub.progress import Progress
from lesion_hub.taxonomy import LabelSpace

logger = logging.getLogger(__name__)

IdPair = tuple[str, str]

_PARTS = ("train", "val", "test")


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
        if len(self.fractions) != len(_PARTS) or min(self.fractions) < 0 or abs(sum(self.fractions) - 1) > 1e-6:
            raise ConfigError(f"fractions are {self.fractions}; give three for train, val and test that sum to 1")
        if self.folds is None and max(self.fractions) == 1:
            raise ConfigError(f"fractions are {self.fractions}, which leaves one part; give two parts some of the images")

    def shares(self) -> dict[str, float]:
        """Return the share of every part.

        >>> SplitOptions(folds=2).shares()
        {'fold0': 0.5, 'fold1': 0.5}
        """
        if self.folds is not None:
            return {f"fold{fold}": 1 / self.folds for fold in range(self.folds)}
        return {part: share for part, share in zip(_PARTS, self.fractions, strict=True) if share > 0}


@dataclass(frozen=True)
class SplitImages:
    """The images to split, as columns of N: unique ``ids``, ``labels`` (indices into ``space``), ``groups``."""

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
    def of(cls, result: ReadResult) -> SplitImages:
        """Take the columns of what `lesion_hub.data.read` read."""
        dataset = not_streamed(result.dataset)
        return cls(list(dataset["image_id"]), list(dataset["label"]), list(dataset["group"]), result.space)


def split_source(
    result: ReadResult,
    options: SplitOptions,
    *,
    store: str | os.PathLike[str] | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> SplitManifest:
    """Split what `lesion_hub.data.read` read, keeping near duplicates together.

    ``store`` is an ``.npz`` file that keeps fingerprints for reuse.

        manifest = split_source(read("data/ham10000"), SplitOptions(folds=5))
        manifest.save("split.json")
    """
    images = SplitImages.of(result)
    prints = fingerprint(image_sources(result.dataset), store=store, workers=workers, progress=progress)
    found = find_duplicates(prints, workers=workers, progress=progress)
    return split_images(images, options, duplicates=found, official=result.official_split)


def split_images(
    images: SplitImages,
    options: SplitOptions,
    *,
    duplicates: Duplicates | None = None,
    official: Mapping[str, str] | None = None,
) -> SplitManifest:
    """Split ``images``; those that share a group, or a cluster of ``duplicates``, stay together.

    >>> from lesion_hub.taxonomy import label_space
    >>> images = SplitImages(["a", "b", "c", "d"], [0, 1, 0, 1], ["p", "q", "r", "s"], label_space("binary"))
    >>> sorted(split_images(images, SplitOptions(folds=2)).part_of.values())
    ['fold0', 'fold0', 'fold1', 'fold1']
    """
    units = united_units(images, duplicates)
    if options.respect_official:
        return _official(images, units, options, duplicates, official)
    shares = options.shares()
    labels = np.asarray(images.labels, np.int64)
    warnings = _absent_classes(labels, units, images.space, len(shares), options.allow_absent)
    places = assign(images.ids, labels, units, list(shares.values()), options.seed)
    if options.folds is not None:
        method = f"{options.folds} folds"
    else:
        method = " / ".join(f"{part} {share:g}" for part, share in shares.items())
    method += ", grouped by lesion or patient" + (" and near duplicate" if duplicates is not None else "")
    return _manifest(images, units, places, tuple(shares), method, options, warnings=warnings)


def united_units(images: SplitImages, duplicates: Duplicates | None) -> NDArray[np.int64]:
    """Number what must stay together: (N,) components of groups and duplicate clusters, in the order of the sorted ids."""
    order = np.argsort(np.array(images.ids, dtype=object), kind="stable")
    groupings: list[Sequence[object]] = [[images.groups[row] for row in order]]
    if duplicates is not None:
        groupings.append(duplicates.clusters[order].tolist())
    units = np.empty(len(order), np.int64)
    units[order] = unite(*groupings)
    return units


def _absent_classes(
    labels: NDArray[np.int64], units: NDArray[np.int64], space: LabelSpace, parts: int, allowed: bool
) -> tuple[str, ...]:
    """Return a line for every class with fewer units than there are parts; `DataError` unless they are allowed."""
    lines = []
    for label in np.unique(labels):
        count = len(np.unique(units[labels == label]))
        if count < parts:
            lines.append(f"class {space.labels[label]!r} has {count} group{'s' * (count > 1)} for {parts} parts")
    if lines and not allowed:
        raise DataError(f"{lines[0]}; use fewer parts, add images, or allow absent classes")
    for line in lines:
        logger.warning("%s; it is absent from some", line)
    return tuple(lines)


def _official(
    images: SplitImages,
    units: NDArray[np.int64],
    options: SplitOptions,
    duplicates: Duplicates | None,
    official: Mapping[str, str] | None,
) -> SplitManifest:
    if not official:
        raise DataError("the source ships no split; leave out --respect-official to make one")
    parts = tuple(part for part in _PARTS if part in set(official.values()))
    places = np.array([parts.index(official[image_id]) if image_id in official else -1 for image_id in images.ids])
    unassigned = int((places < 0).sum())
    counts: dict[str, int] = {"unassigned": unassigned} if unassigned else {}
    if options.drop_leaks:
        # Of what a unit has in several parts only the latest part's images stay.
        latest = np.full(int(units.max()) + 1, -1)
        np.maximum.at(latest, units, places)
        dropped = (places >= 0) & (places != latest[units])
        places[dropped] = -1
        if dropped.any():
            counts |= {"dropped": int(dropped.sum())}
    else:
        leaks = find_leaks(images.ids, [parts[place] if place >= 0 else None for place in places], images.groups, duplicates)
        if leaks:
            counts |= {"groups": len(leaks.groups), "exact": len(leaks.exact), "near": len(leaks.near)}
            logger.warning("the official split leaks: %s", leaks)
    if not (places >= 0).any():
        raise DataError("no image of the data set is in the official split; check the data set")
    method = "official" + (", what leaks dropped" if options.drop_leaks else "")
    return _manifest(images, units, places, parts, method, options, leaks=counts)


def _manifest(
    images: SplitImages,
    units: NDArray[np.int64],
    places: NDArray[np.int64],
    parts: tuple[str, ...],
    method: str,
    options: SplitOptions,
    *,
    warnings: tuple[str, ...] = (),
    leaks: Mapping[str, int] | None = None,
) -> SplitManifest:
    """Make the manifest of the images that have a place, which is not negative."""
    order = sorted(np.flatnonzero(places >= 0).tolist(), key=images.ids.__getitem__)
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


# ------------------------------------------------------------------------------------------------ dealing out


def assign(
    ids: Sequence[str],
    labels: NDArray[np.integer],
    units: NDArray[np.integer],
    shares: Sequence[float],
    seed: int,
) -> NDArray[np.int64]:
    """Return the part (N,) 0..len(shares)-1 of each of N images; a unit is never cut.

    ``ids`` are unique; ``labels`` (N,) are 0..C-1; ``units`` (N,) number what must stay together; ``shares`` sum to 1.
    Classes are dealt from the rarest on, of each the largest units first, each to the part that lacks most images of
    the class. While a part has none of a class, it comes first as soon as no more units are left than such parts.
    The result depends on what the rows say and on ``seed``, not on their order.

    >>> assign(["a", "b", "c", "d"], np.zeros(4, int), np.array([0, 0, 1, 2]), [0.5, 0.5], seed=0).tolist()
    [0, 0, 1, 1]
    """
    counts = np.zeros((int(units.max()) + 1, int(labels.max()) + 1), np.int64)  # images per unit and class
    np.add.at(counts, (units, labels), 1)
    # Plain lists: half a million times a handful of numbers is where numpy calls cost more than they do.
    classes = [np.flatnonzero(row).tolist() for row in counts]
    lack = [[share * total for total in counts.sum(0).tolist()] for share in shares]  # images of each class, by part
    room = [share * int(counts.sum()) for share in shares]  # images, by part
    without = [set(range(len(shares))) for _ in range(counts.shape[1])]  # by class, the parts that have none of it
    units_left = (counts > 0).sum(0).tolist()  # by class

    part_of = np.zeros(len(counts), np.int64)
    for unit, rarest in _dealing_order(ids, units, counts, seed):
        candidates: Iterable[int] = range(len(shares))
        for label in (rarest, *classes[unit]):
            if without[label] and units_left[label] <= len(without[label]):
                candidates = sorted(without[label])
                break
        # The part that lacks most of the class; of equals the one with most room, then the first.
        part = -max((lack[p][rarest], room[p], -p) for p in candidates)[2]
        for label in classes[unit]:
            number = int(counts[unit, label])
            lack[part][label] -= number
            room[part] -= number
            without[label].discard(part)
            units_left[label] -= 1
        part_of[unit] = part
    return part_of[units]


def _dealing_order(
    ids: Sequence[str], units: NDArray[np.integer], counts: NDArray[np.int64], seed: int
) -> list[tuple[int, int]]:
    """Return (unit, rarest class in it) in the order of being dealt; ties are broken by a hash of seed and first id."""
    names: dict[int, str] = {}
    for unit, image_id in zip(units.tolist(), ids, strict=True):
        names[unit] = min(names.get(unit, image_id), image_id)
    rank = np.empty(counts.shape[1], np.int64)
    rank[np.lexsort((np.arange(counts.shape[1]), counts.sum(0)))] = np.arange(counts.shape[1])
    rarest = np.where(counts > 0, rank, counts.shape[1]).argmin(1)

    def key(unit: int) -> tuple[int, int, int, bytes]:
        label = rarest[unit]
        chance = hashlib.sha256(f"{seed}\0{names[unit]}".encode()).digest()
        return int(rank[label]), -int(counts[unit, label]), -int(counts[unit].sum()), chance

    return [(unit, int(rarest[unit])) for unit in sorted(names, key=key)]


# ------------------------------------------------------------------------------------------------ what parts share


@dataclass(frozen=True)
class Leaks:
    """What the parts of a split share: lesions or patients, the same file, nearly the same picture.

    ``groups`` maps each shared group to the parts that hold it; pairs are ids of images in two parts.
    """

    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    exact: tuple[IdPair, ...] = ()
    near: tuple[IdPair, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.groups or self.exact or self.near)

    def __str__(self) -> str:
        return f"{len(self.groups):,} shared groups, {len(self.exact):,} exact and {len(self.near):,} near duplicate pairs"


def find_leaks(
    ids: Sequence[str], parts: Sequence[str | None], groups: Sequence[str], duplicates: Duplicates | None = None
) -> Leaks:
    """Find what the parts of a split share; ``parts`` names the part of each image, None for images in no part.

    >>> find_leaks(["a", "b"], ["train", "test"], ["lesion1", "lesion1"]).groups
    {'lesion1': ('test', 'train')}
    """
    holders: dict[str, set[str]] = {}
    for group, part in zip(groups, parts, strict=True):
        if part is not None:
            holders.setdefault(group, set()).add(part)

    def crossing(pairs: Iterable[tuple[int, int]]) -> tuple[IdPair, ...]:
        apart = ((a, b) for a, b in pairs if None not in (parts[a], parts[b]) and parts[a] != parts[b])
        return tuple((ids[a], ids[b]) for a, b in apart)

    shared = {group: tuple(sorted(found)) for group, found in sorted(holders.items()) if len(found) > 1}
    if duplicates is None:
        return Leaks(shared)
    return Leaks(shared, crossing(duplicates.exact), crossing(duplicates.near))
