"""Dividing a run's images into training, validation and test, with no lesion and no picture on two sides."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from lesion_hub.data.duplicates import Duplicates, find_duplicates, fingerprint
from lesion_hub.data.images import ImageSource
from lesion_hub.data.splits import Images, SplitManifest, SplitOptions, split_images
from lesion_hub.errors import DataError
from training.recipe import Split

logger = logging.getLogger(__name__)

ORDER = ("train", "val", "test")


def duplicates_among(images: Sequence[ImageSource], store: Path) -> Duplicates:
    """Exact and near duplicates among undecoded ``images``; ``store`` keeps their fingerprints for the next run."""
    store.parent.mkdir(parents=True, exist_ok=True)
    return find_duplicates(fingerprint(images, store=store))


def divide(images: Images, given: Mapping[str, str], split: Split, duplicates: Duplicates | None = None) -> SplitManifest:
    """The split of ``images``.

    ``given`` maps image ids to the part (train, val, test) that they came in; the others are free. Training images that
    share a lesion or a picture with a given later part are dropped; what the recipe's shares still lack is cut from the rest.

    >>> from lesion_hub.taxonomy import label_space
    >>> images = Images(list("abcdef"), [0, 1, 0, 1, 0, 1], list("pqrstu"), label_space("binary"))
    >>> divide(images, {"a": "test", "b": "test"}, Split(validation=0.5)).part_of["a"]
    'test'
    """
    shares = _missing_shares(split, set(given.values()))
    options = SplitOptions(_fractions(shares), seed=split.seed, allow_absent=split.allow_absent)
    if not set(given.values()) - {"train"}:
        return split_images(images, options, duplicates=duplicates)
    # First what came apart is made disjoint, then training gives up what is still missing.
    parts = {image_id: given.get(image_id, "train") for image_id in images.ids}
    kept = split_images(images, SplitOptions(respect_official=True, drop_leaks=True), duplicates=duplicates, official=parts)
    if not shares:
        return kept
    _warn_of_dropped(kept)
    train = [row for row, image_id in enumerate(images.ids) if kept.part_of.get(image_id) == "train"]
    units = dict(zip(kept.ids, kept.units, strict=True))
    united = replace(_rows(images, train), groups=[str(units[images.ids[row]]) for row in train])
    cut = split_images(united, options)
    return _composed(images, kept, cut, split)


def _missing_shares(split: Split, given: set[str]) -> dict[str, float]:
    """The parts that are still to be cut from training, with their share of it."""
    shares = {}
    if "val" not in given:
        shares["val"] = split.validation
    if "test" not in given and split.kind == "grouped":
        shares["test"] = split.test
    if shares.get("val") == 0:
        raise DataError("split.validation is 0 and the data set brings no validation part; every run needs one to choose by")
    return {part: share for part, share in shares.items() if share}


def _fractions(shares: Mapping[str, float]) -> tuple[float, float, float]:
    if not shares:
        return SplitOptions().fractions
    validation, test = shares.get("val", 0.0), shares.get("test", 0.0)
    return (1 - validation - test, validation, test)


def _composed(images: Images, kept: SplitManifest, cut: SplitManifest, split: Split) -> SplitManifest:
    """One manifest of the given parts and those cut from the training part."""
    parts = {**kept.part_of, **cut.part_of}
    units = dict(zip(kept.ids, kept.units, strict=True))
    rows = [row for row, image_id in enumerate(images.ids) if image_id in parts]
    united = replace(_rows(images, rows), groups=[str(units[images.ids[row]]) for row in rows])
    whole = split_images(united, SplitOptions(respect_official=True, seed=split.seed), official=parts)
    given = " and ".join(part for part in kept.parts if part != "train")
    return replace(
        whole, method=f"{given} as given, what leaks dropped; the rest {cut.method}", warnings=cut.warnings, leaks=kept.leaks
    )


def _rows(images: Images, rows: Sequence[int]) -> Images:
    return Images(
        [images.ids[row] for row in rows],
        [int(np.asarray(images.labels)[row]) for row in rows],
        [images.groups[row] for row in rows],
        images.space,
    )


def _warn_of_dropped(kept: SplitManifest) -> None:
    dropped = kept.leaks.get("dropped", 0)
    if dropped:
        logger.warning("%d training images share a lesion or a picture with validation or test and are left out", dropped)
