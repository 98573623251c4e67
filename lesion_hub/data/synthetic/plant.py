"""Flaws put into a sample set on purpose, and the record of them that an audit can be tested against."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lesion_hub.data.synthetic.plan import PlannedImage, plan_images, scattered
from lesion_hub.data.synthetic.spec import SampleSpec

COPY_KINDS = ("exact", "resized", "recompressed", "flipped", "rotated", "cropped")
LEAK_KINDS = ("view", *COPY_KINDS)

# Where the numbers of planted images and lesions begin: far beyond those of any drawn set.
_FIRST_DUPLICATE, _FIRST_LEAK = 5_000_000, 7_000_000

# A view that no lesion of the plan has.
_LEAKED_VIEW = 100

# An image betrays its label through its source this often.
_SOURCE_LOYALTY = 0.9

_NAMES = (
    "ISIC_{:d}",
    "IMG_{:d}",
    "derm{:d}",
    "PH-{:d}",
    "case_{:07d}a",
    "DSC{:d}",
    "pat{:07d}-1",
    "scan_{:d}",
)
_BORDERS = (
    (0, 0, 0),
    (255, 255, 255),
    (128, 128, 128),
    (24, 32, 96),
    (220, 210, 180),
    (60, 0, 0),
    (0, 70, 60),
    (190, 190, 255),
)


@dataclass(frozen=True)
class Source:
    """A made-up clinic of a confounded set; a trait that the confound leaves out is None."""

    name: str
    scale: tuple[float, float] | None
    quality: int | None
    border: tuple[int, int, int] | None
    file_name: str | None


@dataclass(frozen=True)
class SamplePlan:
    """All images of a set, planted ones last, and the record of what was planted (JSON values)."""

    images: tuple[PlannedImage, ...]
    sources: dict[str, Source]
    planted: dict[str, Any]


def plan_sample_set(spec: SampleSpec) -> SamplePlan:
    """Plan a whole set, flaws included; nothing is drawn.

    >>> plan = plan_sample_set(SampleSpec(count=30, duplicates=2, leaks=1))
    >>> len(plan.images), [entry["kind"] for entry in plan.planted["duplicates"]]
    (33, ['exact', 'resized'])
    """
    drawn = _with_label_noise(spec, plan_images(spec))
    sources = _sources(spec)
    originals = [_from_source(spec, image, index, sources) for index, image in enumerate(drawn)]
    duplicates, leaks = _duplicates(spec, originals, sources), _leaks(spec, originals, sources)
    images = (*originals, *duplicates, *leaks)
    return SamplePlan(images, sources, _record(spec, images, duplicates, leaks, sources))


def _with_label_noise(spec: SampleSpec, images: list[PlannedImage]) -> list[PlannedImage]:
    """Some lesions get a wrong label, the same on all their views."""
    if not spec.label_noise:
        return images
    noisy = []
    for image in images:
        chance = np.random.default_rng((spec.seed, 20, image.lesion_seed))
        wrong = [label for label in spec.labels if label != image.label]
        hit, label = chance.random() < spec.label_noise, str(chance.choice(wrong))
        noisy.append(replace(image, label=label) if hit else image)
    return noisy


def _sources(spec: SampleSpec) -> dict[str, Source]:
    """One source per label, each with its own technical traits."""
    if not spec.confound:
        return {}
    traits = set(spec.confound)
    return {
        f"source_{number}": Source(
            name=f"source_{number}",
            scale=(1 - 0.05 * number, 1 - 0.03 * (number % 3)) if "size" in traits else None,
            quality=95 - 8 * number if "quality" in traits else None,
            border=_BORDERS[number] if "border" in traits else None,
            file_name=_NAMES[number] if "name" in traits else None,
        )
        for number in range(len(spec.labels))
    }


def _from_source(spec: SampleSpec, image: PlannedImage, index: int, sources: dict[str, Source]) -> PlannedImage:
    if not sources:
        return image
    chance = np.random.default_rng((spec.seed, 21, index))
    number = int(chance.integers(len(sources)))
    loyal = chance.random() < _SOURCE_LOYALTY
    return _as_of(image, sources[f"source_{spec.labels.index(image.label) if loyal else number}"])


def _as_of(image: PlannedImage, source: Source | None) -> PlannedImage:
    """``image`` as that source would have delivered it: its compression and file name."""
    if source is None:
        return image
    number = int(image.image_id.removeprefix("ISIC_"))
    return replace(
        image,
        source=source.name,
        quality=source.quality or image.quality,
        image_id=source.file_name.format(number) if source.file_name else image.image_id,
    )


def _duplicates(spec: SampleSpec, originals: list[PlannedImage], sources: dict[str, Source]) -> list[PlannedImage]:
    """Copies of images within their own lesion."""
    order = np.random.default_rng((spec.seed, 22)).permutation(len(originals))
    copies = []
    for number in range(spec.duplicates):
        original = originals[order[number % len(order)]]
        kind = COPY_KINDS[number % len(COPY_KINDS)]
        copies.append(_copy(spec, original, kind, _FIRST_DUPLICATE + number, sources))
    return copies


def _leaks(spec: SampleSpec, originals: list[PlannedImage], sources: dict[str, Source]) -> list[PlannedImage]:
    """Copies, or other views, that pass as another lesion and, where the set is split, lie in another split."""
    order = np.random.default_rng((spec.seed, 23)).permutation(len(originals))
    leaks = []
    for number in range(spec.leaks):
        original = originals[order[number % len(order)]]
        kind = LEAK_KINDS[number % len(LEAK_KINDS)]
        leak = _copy(spec, original, kind, _FIRST_LEAK + number, sources)
        leaks.append(
            replace(
                leak,
                lesion_id=f"HAM_{scattered(spec.seed + 1, _FIRST_LEAK + number):d}",
                split="test" if original.split == "train" else "train",
                view=_LEAKED_VIEW + number if kind == "view" else original.view,
            )
        )
    return leaks


def _copy(spec: SampleSpec, original: PlannedImage, kind: str, number: int, sources: dict[str, Source]) -> PlannedImage:
    named = replace(original, image_id=f"ISIC_{scattered(spec.seed, number):d}")
    source = sources.get(original.source) if original.source else None
    return replace(_as_of(named, source), copy_of=original.image_id, copy_kind=kind)


def _record(
    spec: SampleSpec,
    images: Iterable[PlannedImage],
    duplicates: list[PlannedImage],
    leaks: list[PlannedImage],
    sources: dict[str, Source],
) -> dict[str, Any]:
    images = list(images)
    lesions = {image.image_id: image.lesion_id for image in images}
    mislabelled = [image for image in images if image.label != image.drawn_label]
    return {
        "duplicates": [_pair(copy, lesions) for copy in duplicates],
        "leaks": [_pair(leak, lesions) for leak in leaks],
        "label_noise": [
            {"image": image.image_id, "lesion": image.lesion_id, "true": image.drawn_label, "recorded": image.label}
            for image in mislabelled
        ],
        "confound": {
            "aspects": list(spec.confound),
            "sources": {name: vars(source) for name, source in sources.items()},
            "images": {image.image_id: image.source for image in images if image.source},
        },
    }


def _pair(copy: PlannedImage, lesions: dict[str, str]) -> dict[str, Any]:
    assert copy.copy_of is not None
    return {
        "image": copy.image_id,
        "of": copy.copy_of,
        "kind": copy.copy_kind,
        "lesion": copy.lesion_id,
        "of_lesion": lesions[copy.copy_of],
        "split": copy.split,
    }
