"""Which image is which: for every image of a sample set its lesion, view, label, patient and file, before one is drawn.

Lesions are laid out one after the other from the seed alone, so the plan of a small set is the beginning of that of a
large one, and image ``i`` is the same in both.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import numpy as np

from lesion_hub.data.synthetic.draw import patient_of, skin_of
from lesion_hub.data.synthetic.patients import Patient
from lesion_hub.data.synthetic.spec import DRAWN_FOR, NATURAL_SHARES, SampleSpec

SPLITS = ("train", "val", "test")

# How many views a lesion has: as in HAM10000, mostly one.
VIEW_SHARES = (0.68, 0.22, 0.07, 0.03)

# Lesion by lesion within a label: the first three already reach every split.
_SPLIT_ROUND = ("train", "val", "test", "train", "train", "train", "train")

# Every label opens with this many lesions, so that even a rare one can be split three ways.
_OPENING_ROUNDS = 3

_GOLDEN = (5**0.5 - 1) / 2


@dataclass(frozen=True)
class PlannedImage:
    """One image to be written. ``label`` is what the set records, ``drawn_label`` what the picture shows."""

    image_id: str
    lesion_id: str
    lesion_seed: int
    view: int
    diagnosis: str
    drawn_label: str
    label: str
    split: str
    patient: Patient
    fitzpatrick: int
    quality: int
    source: str | None = None
    copy_of: str | None = None
    copy_kind: str | None = None


@dataclass(frozen=True)
class _Lesion:
    number: int
    label: str
    views: int
    split: str


def plan_images(spec: SampleSpec) -> list[PlannedImage]:
    """The first ``spec.count`` images of the set, without any planted flaw.

    >>> small, large = plan_images(SampleSpec(count=5)), plan_images(SampleSpec(count=9))
    >>> small == large[:5]
    True
    """
    return list(islice(_images(spec), spec.count))


def _images(spec: SampleSpec) -> Iterator[PlannedImage]:
    stream = _balanced_views(spec) if spec.balanced else _natural_views(spec)
    for index, (lesion, view) in enumerate(stream):
        yield _planned(spec, index, lesion, view)


def _natural_views(spec: SampleSpec) -> Iterator[tuple[_Lesion, int]]:
    shares = np.array([NATURAL_SHARES[spec.space][label] for label in spec.labels], float)
    steps = np.cumsum(shares / shares.sum())
    opening = list(np.random.default_rng((spec.seed, 10)).permutation(list(spec.labels) * _OPENING_ROUNDS))
    offset = np.random.default_rng((spec.seed, 11)).random()
    seen = dict.fromkeys(spec.labels, 0)
    number = 0
    while True:
        # Multiples of the golden ratio fill [0, 1) evenly: the shares hold in every stretch of the set.
        place = int(np.searchsorted(steps, (offset + number * _GOLDEN) % 1, side="right"))
        label = str(opening[number]) if number < len(opening) else spec.labels[min(place, len(spec.labels) - 1)]
        lesion = _Lesion(number, label, _view_count(spec, number), _SPLIT_ROUND[seen[label] % len(_SPLIT_ROUND)])
        seen[label] += 1
        number += 1
        yield from ((lesion, view) for view in range(lesion.views))


def _balanced_views(spec: SampleSpec) -> Iterator[tuple[_Lesion, int]]:
    """Rounds of one lesion per label, all with as many views, so that no label is ever more than one image ahead."""
    turn = 0
    while True:
        order = np.random.default_rng((spec.seed, 12, turn)).permutation(len(spec.labels))
        views, split = _view_count(spec, turn), _SPLIT_ROUND[turn % len(_SPLIT_ROUND)]
        for view in range(views):
            for place in order:
                number = turn * len(spec.labels) + int(place)
                yield _Lesion(number, spec.labels[place], views, split), view
        turn += 1


def _view_count(spec: SampleSpec, number: int) -> int:
    return 1 + int(np.random.default_rng((spec.seed, 13, number)).choice(len(VIEW_SHARES), p=VIEW_SHARES))


def _planned(spec: SampleSpec, index: int, lesion: _Lesion, view: int) -> PlannedImage:
    growth = np.random.default_rng((spec.seed, 14, lesion.number))
    mixture = DRAWN_FOR[spec.space].get(lesion.label, {lesion.label: 1.0})
    weights = np.array(list(mixture.values()))
    diagnosis = str(growth.choice(list(mixture), p=weights / weights.sum()))
    lesion_seed = int(growth.integers(2**62))
    return PlannedImage(
        image_id=f"ISIC_{scattered(spec.seed, index):d}",
        lesion_id=f"HAM_{scattered(spec.seed + 1, lesion.number):d}",
        lesion_seed=lesion_seed,
        view=view,
        diagnosis=diagnosis,
        drawn_label=lesion.label,
        label=lesion.label,
        split=lesion.split,
        patient=patient_of(diagnosis, lesion_seed),
        fitzpatrick=skin_of(lesion_seed).fitzpatrick,
        quality=int(np.random.default_rng((spec.seed, 15, index)).integers(86, 96)),
    )


def scattered(seed: int, index: int) -> int:
    """A number of eight digits for ``index``: all different, in no order that a label could follow.

    Real archives number with seven, so that a drawn lesion is never taken for an image that a model was trained on.
    """
    # The multiplier has no factor in common with 10**7, which makes this a permutation.
    return 10**7 + (index * 4142137 + seed * 7368787 + 2718281) % 10**7
