"""What a synthetic sample set holds: the spec a user fills in, the images that follow from it, and the planted flaws.

The plan draws no pixel. Every random choice has a stream of its own under the spec's seed, so image ``i`` is the same however
many follow it, and a planted flaw moves none of the images that were there without it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from typing import Any

import numpy as np

from lesion_hub.data.artefacts import Size, unknown_name, width_height
from lesion_hub.data.synthetic.canvas import skin_of
from lesion_hub.data.synthetic.diagnoses import Patient, patient_of
from lesion_hub.data.synthetic.drawing import drawable_size
from lesion_hub.errors import DataError
from lesion_hub.taxonomy import label_space

# The layouts a set can be written in, and the label space of those that hold only one.
SAMPLE_LAYOUTS: dict[str, str | None] = {"ham10000": "ham7", "isic2019": "isic8", "splits": None, "folders": None}
CONFOUNDS = ("size", "quality", "border", "name")


@dataclass(frozen=True)
class SampleSpace:
    """A label space that can be drawn.

    ``layout`` is its usual one; ``shares`` how frequent each label is in a natural set; ``drawn`` the diagnoses that are
    drawn for a label, and how often; a label that is a diagnosis itself is not listed there.
    """

    layout: str
    shares: dict[str, int]
    drawn: dict[str, dict[str, float]] = field(default_factory=dict)


# The shares are those of HAM10000, of ISIC 2019, of HAM10000 as two classes, and of a clinic.
SAMPLE_SPACES = {
    "ham7": SampleSpace(
        layout="ham10000",
        shares={"nv": 6705, "mel": 1113, "bkl": 1099, "bcc": 514, "akiec": 327, "vasc": 142, "df": 115},
        drawn={"akiec": {"scc": 0.6, "ak": 0.4}},
    ),
    "isic8": SampleSpace(
        layout="isic2019",
        shares={"nv": 12875, "mel": 4522, "bcc": 3323, "bkl": 2624, "ak": 867, "scc": 628, "vasc": 253, "df": 239},
    ),
    "binary": SampleSpace(
        layout="splits",
        shares={"benign": 8061, "malignant": 1954},
        drawn={
            "benign": {"nv": 0.832, "bkl": 0.136, "df": 0.014, "vasc": 0.018},
            "malignant": {"mel": 0.57, "bcc": 0.263, "scc": 0.10, "ak": 0.067},
        },
    ),
    "clinical6": SampleSpace(
        layout="splits",
        shares={"eczema": 28, "infectious": 24, "benign_pigmented": 16, "acne": 13, "pigment": 10, "malignant": 9},
        drawn={"benign_pigmented": {"nv": 0.65, "bkl": 0.35}, "malignant": {"mel": 0.4, "bcc": 0.35, "scc": 0.25}},
    ),
}

# How many views a lesion has: as in HAM10000, mostly one.
VIEW_SHARES = (0.68, 0.22, 0.07, 0.03)

# Lesion by lesion within a label: the first three already reach every split.
_SPLIT_ROUND = ("train", "val", "test", "train", "train", "train", "train")

# The set opens with this many lesions of every label, so that even a rare one can be split three ways.
_OPENING_ROUNDS = 3

_GOLDEN = (5**0.5 - 1) / 2

COPY_KINDS = ("exact", "resized", "recompressed", "flipped", "rotated", "cropped")
LEAK_KINDS = ("view", *COPY_KINDS)

# Where the numbers of planted images and lesions begin: far beyond those of any drawn set.
_FIRST_DUPLICATE, _FIRST_LEAK = 5_000_000, 7_000_000

# A view that no lesion of the plan has.
_LEAKED_VIEW = 100

# In a confounded set this share of the images comes from the clinic of its label, the others from any.
_OWN_CLINIC_SHARE = 0.9

# The file names and border colours of the made-up clinics, one row per clinic.
_CLINICS = (
    ("ISIC_{:d}", (0, 0, 0)),
    ("IMG_{:d}", (255, 255, 255)),
    ("derm{:d}", (128, 128, 128)),
    ("PH-{:d}", (24, 32, 96)),
    ("case_{:07d}a", (220, 210, 180)),
    ("DSC{:d}", (60, 0, 0)),
    ("pat{:07d}-1", (0, 70, 60)),
    ("scan_{:d}", (190, 190, 255)),
)


@dataclass(frozen=True)
class SampleSpec:
    """The spec of a synthetic sample set, which determines all of it.

    ``space`` is ham7, isic8, clinical6 or binary; ``count`` the number of images before any planted ones; ``size`` a side
    or (width, height); ``layout`` one of ``SAMPLE_LAYOUTS``, else the usual one of the space (``splits`` is
    train/val/test/class, ``folders`` is class only). Image ``i`` depends on ``seed`` and ``i`` alone, but for the planted
    flaws: ``duplicates`` and ``leaks`` add copies within and across lesions, ``label_noise`` is the share of lesions with
    a wrong label, ``confound`` names the technical traits (``CONFOUNDS``) that go with the label.

    >>> SampleSpec(space="ham7", count=20).layout_used
    'ham10000'
    """

    space: str = "ham7"
    count: int = 200
    size: Size = 128
    seed: int = 0
    balanced: bool = False
    layout: str | None = None
    artefacts: bool = True
    duplicates: int = 0
    leaks: int = 0
    label_noise: float = 0.0
    confound: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        named = [("label space", self.space, SAMPLE_SPACES), *(("confound", trait, CONFOUNDS) for trait in self.confound)]
        if self.layout is not None:
            named.append(("layout", self.layout, SAMPLE_LAYOUTS))
        for kind, name, known in named:
            if name not in known:
                raise unknown_name(kind, name, known)
        only_space = SAMPLE_LAYOUTS[self.layout_used]
        if only_space not in (None, self.space):
            raise DataError(f"layout {self.layout!r} holds {only_space} labels, not {self.space}; use 'splits' or 'folders'")
        drawable_size(self.size)
        if self.count < 1:
            raise DataError(f"count {self.count} is too small; give 1 or more images")
        for name in ("seed", "duplicates", "leaks"):
            if getattr(self, name) < 0:
                raise DataError(f"{name} {getattr(self, name)} is negative; give 0 or more")
        if not 0 <= self.label_noise <= 1:
            raise DataError(f"label_noise {self.label_noise} is not a share; give a number from 0 to 1")

    @classmethod
    def for_classes(cls, classes: int, *, confound: bool = False, **options: Any) -> SampleSpec:
        """Return the spec for a number of classes: 7 (ham7), 8 (isic8), 6 (clinical6) or 2 (binary).

        >>> SampleSpec.for_classes(2, count=10, confound=True).confound
        ('size', 'quality', 'border', 'name')
        """
        by_classes = {len(space.shares): name for name, space in SAMPLE_SPACES.items()}
        if classes not in by_classes:
            raise DataError(f"no sample set has {classes} classes; choose 7, 8, 6 or 2")
        return cls(space=by_classes[classes], confound=CONFOUNDS if confound else (), **options)

    @property
    def labels(self) -> tuple[str, ...]:
        return label_space(self.space).labels

    @property
    def layout_used(self) -> str:
        return self.layout or SAMPLE_SPACES[self.space].layout

    def as_json(self) -> dict[str, Any]:
        """Return the spec as plain JSON values, with what was left to default filled in."""
        return asdict(self) | {
            "size": list(width_height(self.size)),
            "layout": self.layout_used,
            "confound": list(self.confound),
        }


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
    clinic: str | None = None
    copy_of: str | None = None
    copy_kind: str | None = None


@dataclass(frozen=True)
class Clinic:
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
    clinics: dict[str, Clinic]
    planted: dict[str, Any]


def plan_sample_set(spec: SampleSpec) -> SamplePlan:
    """Plan a whole set, flaws included; nothing is drawn.

    >>> plan = plan_sample_set(SampleSpec(count=30, duplicates=2, leaks=1))
    >>> len(plan.images), [entry["kind"] for entry in plan.planted["duplicates"]]
    (33, ['exact', 'resized'])
    """
    clinics = _clinics(spec)
    originals = [_from_clinic(spec, _mislabelled(spec, image), index, clinics) for index, image in enumerate(plan_images(spec))]
    duplicates = _copies(spec, originals, clinics, COPY_KINDS, spec.duplicates, first=_FIRST_DUPLICATE, stream=22)
    # A leak passes as another lesion and lies, where the set is split, in another split than its original.
    leaks = [
        replace(
            copy,
            lesion_id=f"HAM_{_scattered(spec.seed + 1, _FIRST_LEAK + number):d}",
            split="test" if copy.split == "train" else "train",
            view=_LEAKED_VIEW + number if copy.copy_kind == "view" else copy.view,
        )
        for number, copy in enumerate(_copies(spec, originals, clinics, LEAK_KINDS, spec.leaks, first=_FIRST_LEAK, stream=23))
    ]
    images = (*originals, *duplicates, *leaks)
    return SamplePlan(images, clinics, _planted(spec, images, duplicates, leaks, clinics))


# ------------------------------------------------------------------------------------------------- images without flaws


@dataclass(frozen=True)
class _PlannedLesion:
    number: int
    label: str
    views: int
    split: str


def plan_images(spec: SampleSpec) -> list[PlannedImage]:
    """Plan the first ``spec.count`` images of the set, without any planted flaw.

    >>> small, large = plan_images(SampleSpec(count=5)), plan_images(SampleSpec(count=9))
    >>> small == large[:5]
    True
    """
    views = islice(_balanced_views(spec) if spec.balanced else _natural_views(spec), spec.count)
    return [_planned_image(spec, index, lesion, view) for index, (lesion, view) in enumerate(views)]


def _natural_views(spec: SampleSpec) -> Iterator[tuple[_PlannedLesion, int]]:
    """Yield lesions as frequent as in a natural set, each with all its views."""
    shares = np.array([SAMPLE_SPACES[spec.space].shares[label] for label in spec.labels], float)
    steps = np.cumsum(shares / shares.sum())
    opening = list(np.random.default_rng((spec.seed, 10)).permutation(list(spec.labels) * _OPENING_ROUNDS))
    offset = np.random.default_rng((spec.seed, 11)).random()
    seen = dict.fromkeys(spec.labels, 0)
    number = 0
    while True:
        # Multiples of the golden ratio fill [0, 1) evenly: the shares hold in every stretch of the set.
        place = int(np.searchsorted(steps, (offset + number * _GOLDEN) % 1, side="right"))
        label = str(opening[number]) if number < len(opening) else spec.labels[min(place, len(spec.labels) - 1)]
        split = _SPLIT_ROUND[seen[label] % len(_SPLIT_ROUND)]
        lesion = _PlannedLesion(number, label, _view_count(spec, number), split)
        seen[label] += 1
        number += 1
        yield from ((lesion, view) for view in range(lesion.views))


def _balanced_views(spec: SampleSpec) -> Iterator[tuple[_PlannedLesion, int]]:
    """Yield rounds of one lesion per label, all with as many views, so that no label is ever more than one image ahead."""
    turn = 0
    while True:
        order = np.random.default_rng((spec.seed, 12, turn)).permutation(len(spec.labels))
        views, split = _view_count(spec, turn), _SPLIT_ROUND[turn % len(_SPLIT_ROUND)]
        for view in range(views):
            for place in order:
                number = turn * len(spec.labels) + int(place)
                yield _PlannedLesion(number, spec.labels[place], views, split), view
        turn += 1


def _view_count(spec: SampleSpec, number: int) -> int:
    return 1 + int(np.random.default_rng((spec.seed, 13, number)).choice(len(VIEW_SHARES), p=VIEW_SHARES))


def _planned_image(spec: SampleSpec, index: int, lesion: _PlannedLesion, view: int) -> PlannedImage:
    rng = np.random.default_rng((spec.seed, 14, lesion.number))
    mixture = SAMPLE_SPACES[spec.space].drawn.get(lesion.label, {lesion.label: 1.0})
    weights = np.array(list(mixture.values()))
    diagnosis = str(rng.choice(list(mixture), p=weights / weights.sum()))
    lesion_seed = int(rng.integers(2**62))
    return PlannedImage(
        image_id=f"ISIC_{_scattered(spec.seed, index):d}",
        lesion_id=f"HAM_{_scattered(spec.seed + 1, lesion.number):d}",
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


def _scattered(seed: int, index: int) -> int:
    """Return a number of eight digits for ``index``: all different, in no order that a label could follow.

    Real archives number with seven, so that a drawn lesion is never taken for an image that a model was trained on.
    """
    # The multiplier has no factor in common with 10**7, which makes this a permutation.
    return 10**7 + (index * 4142137 + seed * 7368787 + 2718281) % 10**7


# -------------------------------------------------------------------------------------------------------- planted flaws


def _mislabelled(spec: SampleSpec, image: PlannedImage) -> PlannedImage:
    """Give the image a wrong label if its lesion is one of those that get one: all its views get the same."""
    if not spec.label_noise:
        return image
    rng = np.random.default_rng((spec.seed, 20, image.lesion_seed))
    if rng.random() >= spec.label_noise:
        return image
    return replace(image, label=str(rng.choice([label for label in spec.labels if label != image.label])))


def _clinics(spec: SampleSpec) -> dict[str, Clinic]:
    """Make up one clinic per label, each with its own technical traits; none without a confound."""
    traits = spec.confound
    clinics = [
        Clinic(
            name=f"source_{number}",
            scale=(1 - 0.05 * number, 1 - 0.03 * (number % 3)) if "size" in traits else None,
            quality=95 - 8 * number if "quality" in traits else None,
            border=border if "border" in traits else None,
            file_name=file_name if "name" in traits else None,
        )
        for number, (file_name, border) in enumerate(_CLINICS[: len(spec.labels)] if traits else ())
    ]
    return {clinic.name: clinic for clinic in clinics}


def _from_clinic(spec: SampleSpec, image: PlannedImage, index: int, clinics: dict[str, Clinic]) -> PlannedImage:
    if not clinics:
        return image
    rng = np.random.default_rng((spec.seed, 21, index))
    number = int(rng.integers(len(clinics)))
    if rng.random() < _OWN_CLINIC_SHARE:
        number = spec.labels.index(image.label)
    return _delivered(image, clinics[f"source_{number}"])


def _delivered(image: PlannedImage, clinic: Clinic) -> PlannedImage:
    """Return ``image`` as that clinic would have delivered it: its compression and file name."""
    number = int(image.image_id.removeprefix("ISIC_"))
    return replace(
        image,
        clinic=clinic.name,
        quality=clinic.quality or image.quality,
        image_id=clinic.file_name.format(number) if clinic.file_name else image.image_id,
    )


def _copies(
    spec: SampleSpec,
    originals: list[PlannedImage],
    clinics: dict[str, Clinic],
    kinds: tuple[str, ...],
    count: int,
    *,
    first: int,
    stream: int,
) -> list[PlannedImage]:
    """Copy ``count`` originals, in each kind in turn; copies stay in their lesion and are numbered from ``first``."""
    order = np.random.default_rng((spec.seed, stream)).permutation(len(originals))
    copies = []
    for number in range(count):
        original = originals[order[number % len(order)]]
        copy = replace(original, image_id=f"ISIC_{_scattered(spec.seed, first + number):d}")
        if original.clinic:
            copy = _delivered(copy, clinics[original.clinic])
        copies.append(replace(copy, copy_of=original.image_id, copy_kind=kinds[number % len(kinds)]))
    return copies


def _planted(
    spec: SampleSpec,
    images: tuple[PlannedImage, ...],
    duplicates: list[PlannedImage],
    leaks: list[PlannedImage],
    clinics: dict[str, Clinic],
) -> dict[str, Any]:
    """Return the record of the flaws, as ``planted.json`` holds it."""
    lesions = {image.image_id: image.lesion_id for image in images}

    def copies(images: list[PlannedImage]) -> list[dict[str, Any]]:
        return [
            {
                "image": copy.image_id,
                "of": copy.copy_of,
                "kind": copy.copy_kind,
                "lesion": copy.lesion_id,
                "of_lesion": lesions[str(copy.copy_of)],
                "split": copy.split,
            }
            for copy in images
        ]

    return {
        "duplicates": copies(duplicates),
        "leaks": copies(leaks),
        "label_noise": [
            {"image": image.image_id, "lesion": image.lesion_id, "true": image.drawn_label, "recorded": image.label}
            for image in images
            if image.label != image.drawn_label
        ],
        "confound": {
            "aspects": list(spec.confound),
            "sources": {name: vars(clinic) for name, clinic in clinics.items()},
            "images": {image.image_id: image.clinic for image in images if image.clinic},
        },
    }
