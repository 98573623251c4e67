"""What a synthetic sample set holds: the spec a user fills in, and the label spaces that can be drawn."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from lesion_hub.data.artefacts import width_height
from lesion_hub.data.synthetic.draw import MAX_SIDE, MIN_SIDE
from lesion_hub.errors import DataError
from lesion_hub.taxonomy import label_space, nearest

LAYOUTS = ("ham10000", "isic2019", "splits", "folders")
CONFOUNDS = ("size", "quality", "border", "name")

# What is drawn for a label, and how often; a label that is a diagnosis itself is not listed.
_HAM_BENIGN = {"nv": 0.832, "bkl": 0.136, "df": 0.014, "vasc": 0.018}
_HAM_MALIGNANT = {"mel": 0.57, "bcc": 0.263, "scc": 0.10, "ak": 0.067}
DRAWN_FOR: dict[str, dict[str, dict[str, float]]] = {
    "ham7": {"akiec": {"scc": 0.6, "ak": 0.4}},
    "isic8": {},
    "binary": {"benign": _HAM_BENIGN, "malignant": _HAM_MALIGNANT},
    "clinical6": {
        "benign_pigmented": {"nv": 0.65, "bkl": 0.35},
        "malignant": {"mel": 0.4, "bcc": 0.35, "scc": 0.25},
    },
}

# The share of each label in a natural set: those of HAM10000, ISIC 2019, a clinic.
NATURAL_SHARES: dict[str, dict[str, float]] = {
    "ham7": {"nv": 6705, "mel": 1113, "bkl": 1099, "bcc": 514, "akiec": 327, "vasc": 142, "df": 115},
    "isic8": {"nv": 12875, "mel": 4522, "bcc": 3323, "bkl": 2624, "ak": 867, "scc": 628, "vasc": 253, "df": 239},
    "binary": {"benign": 8061, "malignant": 1954},
    "clinical6": {
        "eczema": 28,
        "infectious": 24,
        "benign_pigmented": 16,
        "acne": 13,
        "pigment": 10,
        "malignant": 9,
    },
}

_USUAL_LAYOUT = {"ham7": "ham10000", "isic8": "isic2019", "binary": "splits", "clinical6": "splits"}
_SPACE_OF_LAYOUT = {"ham10000": "ham7", "isic2019": "isic8"}
_SPACE_OF_COUNT = {7: "ham7", 8: "isic8", 6: "clinical6", 2: "binary"}


@dataclass(frozen=True)
class SampleSpec:
    """A synthetic sample set, wholly determined by this spec.

    ``space`` is ham7, isic8, clinical6 or binary; ``count`` the number of images before any planted ones; ``size`` a side
    or (width, height); ``layout`` one of ``LAYOUTS``, else the usual one of the space (``splits`` is
    train/val/test/class, ``folders`` is class only). Image ``i`` depends on ``seed`` and ``i`` alone, but for the planted
    flaws: ``duplicates`` and ``leaks`` add copies within and across lesions, ``label_noise`` is the share of lesions with
    a wrong label, ``confound`` names the technical traits (``CONFOUNDS``) that betray the label.

    >>> SampleSpec(space="ham7", count=20).layout_used
    'ham10000'
    """

    space: str = "ham7"
    count: int = 200
    size: int | tuple[int, int] = 128
    seed: int = 0
    balanced: bool = False
    layout: str | None = None
    artefacts: bool = True
    duplicates: int = 0
    leaks: int = 0
    label_noise: float = 0.0
    confound: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _check_choice("label space", self.space, tuple(DRAWN_FOR))
        if self.layout is not None:
            _check_choice("layout", self.layout, LAYOUTS)
            fixed = _SPACE_OF_LAYOUT.get(self.layout, self.space)
            if fixed != self.space:
                raise DataError(f"layout {self.layout!r} holds {fixed} labels, not {self.space}; use 'splits' or 'folders'")
        for aspect in self.confound:
            _check_choice("confound", aspect, CONFOUNDS)
        width, height = width_height(self.size)
        if min(width, height) < MIN_SIDE or max(width, height) > MAX_SIDE:
            raise DataError(f"size {width}x{height} is out of range; give sides of {MIN_SIDE} to {MAX_SIDE} pixels")
        self._check_numbers()

    def _check_numbers(self) -> None:
        if self.count < 1:
            raise DataError(f"count {self.count} is too small; give 1 or more images")
        for name in ("seed", "duplicates", "leaks"):
            if getattr(self, name) < 0:
                raise DataError(f"{name} {getattr(self, name)} is negative; give 0 or more")
        if not 0 <= self.label_noise <= 1:
            raise DataError(f"label_noise {self.label_noise} is not a share; give a number from 0 to 1")

    @classmethod
    def for_classes(cls, classes: int, *, confound: bool = False, **options: Any) -> SampleSpec:
        """The spec for a number of classes: 7 (ham7), 8 (isic8), 6 (clinical6) or 2 (binary).

        >>> SampleSpec.for_classes(2, count=10, confound=True).confound
        ('size', 'quality', 'border', 'name')
        """
        if classes not in _SPACE_OF_COUNT:
            raise DataError(f"no sample set has {classes} classes; choose 7, 8, 6 or 2")
        return cls(space=_SPACE_OF_COUNT[classes], confound=CONFOUNDS if confound else (), **options)

    @property
    def labels(self) -> tuple[str, ...]:
        return label_space(self.space).labels

    @property
    def layout_used(self) -> str:
        return self.layout or _USUAL_LAYOUT[self.space]

    def as_json(self) -> dict[str, Any]:
        """The spec as plain JSON values, with what was left to default filled in."""
        return asdict(self) | {
            "size": list(width_height(self.size)),
            "layout": self.layout_used,
            "confound": list(self.confound),
        }


def _check_choice(kind: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise DataError(f"unknown {kind} {value!r}; {nearest(value, known)}")
