"""Assess one set of predictions: measures with intervals, operating points judged, and results by group.

Groups are bins of traits: of the patient (age, sex, body site), of the source, and of the image itself (its size, and a rough
estimate of skin tone). The result is plain JSON values: a section of ``metrics.json``, from which reports and cards are made.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from lesion_hub.config import OperatingPoint
from lesion_hub.evaluation import metrics, operating_points
from lesion_hub.evaluation.intervals import LEAST_GROUPS, RESAMPLES, bootstrap
from lesion_hub.evaluation.predictions import Predictions, check_predictions
from lesion_hub.taxonomy import LabelSpace

BIN_MEASURES = ("balanced_accuracy", "accuracy", "malignancy.auroc")
LEAST_OF_EACH = 10
TRAITS = {
    "sex": "Sex",
    "age": "Age",
    "site": "Body site",
    "size": "Image size (shorter side)",
    "skin_tone": "Skin-tone estimate (rim colour; rough)",
    "source": "Source",
}
_UNKNOWN = "unknown"
# Bands of a number: the end, which is outside the band, and the name.
_AGES = ((30, "under 30"), (45, "30 to 44"), (60, "45 to 59"), (75, "60 to 74"), (np.inf, "75 and over"))
_SIDES = ((256, "under 256 px"), (512, "256 to 511 px"), (1024, "512 to 1023 px"), (np.inf, "1024 px and over"))
# The customary limits of the individual typology angle, dark to light.
_TONES = ((-30, "dark"), (10, "brown"), (28, "tan"), (41, "intermediate"), (55, "light"), (np.inf, "very light"))
_THUMBNAIL = 96
_RIM = 0.12
_LEAST_PIXELS = 40
_FRAME_LIGHTNESS = 25.0  # darker rims are a dermatoscope's, not skin
_TO_XYZ = np.array([[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]])
_WHITE = np.array([0.95047, 1.0, 1.08883])


def assess(
    probabilities: ArrayLike,
    labels: ArrayLike,
    groups: Sequence[Any] | NDArray[Any],
    space: LabelSpace,
    *,
    points: Mapping[str, OperatingPoint] | None = None,
    facts: pd.DataFrame | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Any]:
    """Measure (N, C) ``probabilities`` against (N,) ``labels``: a ``metrics.compute`` result with more keys.

    These are ``groups_count``, ``intervals`` (dotted name: value, low, high, defined), ``operating_points`` (each judged on
    these data, which did not choose it; empty where the labels say nothing of malignancy) and, given ``facts`` of the images,
    ``by_group`` (trait, bin, results).

    >>> from lesion_hub.taxonomy import label_space
    >>> chances = [[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.1, 0.9]]
    >>> found = assess(chances, [0, 1, 1, 1], list("abcd"), label_space("binary"), resamples=50)
    >>> found["accuracy"], sorted(found["intervals"]["accuracy"])
    (0.75, ['defined', 'high', 'low', 'value'])
    """
    predictions = check_predictions(probabilities, labels, space)
    names = np.asarray(groups)
    result = metrics.compute(predictions.probabilities, predictions.labels, space)
    result["groups_count"] = len(set(groups))
    intervals = bootstrap(predictions.probabilities, predictions.labels, groups, space, resamples, seed)
    result["intervals"] = {name: interval.to_dict() for name, interval in intervals.items()}
    result["operating_points"] = {}
    malignancy = predictions.malignancy()
    if malignancy is not None and points and len(malignancy.truth):
        judged = operating_points.judge_points(
            points, malignancy.scores, malignancy.truth, names[malignancy.kept], resamples=resamples, seed=seed
        )
        for name, found in judged.items():
            point = points[name]
            origin = {"metric": point.metric, "target": point.target, "chosen_on": point.chosen_on}
            result["operating_points"][name] = found | origin
    if facts is not None:
        result["by_group"] = {
            trait: {name: _assess_bin(predictions, names, rows, resamples, seed) for name, rows in found.items()}
            for trait, found in trait_bins(facts).items()
        }
    return result


def _assess_bin(
    predictions: Predictions, groups: NDArray[Any], rows: NDArray[np.int64], resamples: int, seed: int
) -> dict[str, Any]:
    """Measure the (M,) ``rows`` of a bin, with a ``warning`` where they are too few to tell."""
    part = Predictions(predictions.probabilities[rows], predictions.labels[rows], predictions.space)
    wanted = [name for name in BIN_MEASURES if name in metrics.names(part.space)]
    intervals = bootstrap(part.probabilities, part.labels, groups[rows], part.space, resamples, seed, metrics=wanted)
    malignancy = part.malignancy()
    counts = {}
    if malignancy is not None:
        counts = {"malignant": int(malignancy.truth.sum()), "benign": int((~malignancy.truth).sum())}
    lesions = len(set(groups[rows].tolist()))
    warning = None
    if lesions < LEAST_GROUPS:
        warning = f"{lesions} lesion{'s' * (lesions != 1)} or patient{'s' * (lesions != 1)}, too few to tell"
    elif rare := next((kind for kind, count in counts.items() if count < LEAST_OF_EACH), None):
        warning = f"{counts[rare]} {rare} image{'s' * (counts[rare] != 1)}, too few to tell"
    return {
        "images": len(part),
        "groups": lesions,
        **counts,
        "intervals": {name: interval.to_dict() for name, interval in intervals.items()},
        "warning": warning,
    }


def points_that_fit(points: Mapping[str, OperatingPoint], model: LabelSpace, used: LabelSpace) -> dict[str, OperatingPoint]:
    """Return the points whose thresholds hold in the space ``used``: all, or none where it counts other labels as malignant."""
    conventions = [mapping and mapping.target for mapping in (model.malignancy_map, used.malignancy_map)]
    return dict(points) if conventions[0] == conventions[1] else {}


def trait_bins(facts: pd.DataFrame) -> dict[str, dict[str, NDArray[np.int64]]]:
    """Sort rows into the bins of each trait, in reading order; a trait of one bin says nothing and is left out.

    ``facts`` has a row per image and the columns sex, age, site, source, width, height and skin_tone.

    >>> facts = pd.DataFrame({"sex": ["male", None], "age": [20.0, 40.0], "site": [None] * 2, "source": ["a"] * 2,
    ...     "width": [9, 9], "height": [9, 9], "skin_tone": [None] * 2})
    >>> {trait: list(rows) for trait, rows in trait_bins(facts).items()}
    {'sex': ['male', 'unknown'], 'age': ['under 30', '30 to 44']}
    """
    found = {
        "sex": _bins(facts["sex"]),
        "age": _bands(facts["age"], _AGES),
        "site": _bins(facts["site"]),
        "size": _bands(facts[["width", "height"]].min(axis=1), _SIDES),
        "skin_tone": _bands(facts["skin_tone"], _TONES),
        "source": _bins(facts["source"]),
    }
    return {trait: rows for trait, rows in found.items() if len(rows) > 1}


def _bands(column: pd.Series, bands: Sequence[tuple[float, str]]) -> dict[str, NDArray[np.int64]]:
    ends, names = zip(*bands, strict=True)
    values = pd.to_numeric(column, errors="coerce")
    return _bins(pd.cut(values, [-np.inf, *ends], right=False, labels=names), names)


def _bins(column: pd.Series, order: Sequence[str] | None = None) -> dict[str, NDArray[np.int64]]:
    """Return the rows of each name, in the ``order`` given or else alphabetically, the unknown ones last."""
    names = column.astype(object).where(column.notna(), _UNKNOWN).to_numpy()
    present = set(names.tolist())
    listed = [name for name in order or sorted(present - {_UNKNOWN}) if name in present]
    return {name: np.flatnonzero(names == name) for name in (*listed, *({_UNKNOWN} & present))}


@dataclass(frozen=True)
class ImageTraits:
    """Size in pixels (upright), and the skin-tone angle in degrees in [-90, 90], None where no skin shows."""

    width: int
    height: int
    skin_tone: float | None


def image_traits(image: Image.Image) -> ImageTraits:
    """Return the size and the skin-tone angle of an RGB image.

    >>> image_traits(Image.new("RGB", (40, 30), (224, 172, 150))).width
    40
    """
    return ImageTraits(image.width, image.height, skin_tone_angle(image))


def skin_tone_angle(image: Image.Image) -> float | None:
    """Estimate the individual typology angle of the median rim colour, in degrees; None where the rim is a dark frame.

    >>> light, dark = (Image.new("RGB", (40, 30), colour) for colour in ((240, 205, 190), (90, 60, 45)))
    >>> skin_tone_angle(light) > skin_tone_angle(dark)
    True
    """
    small = np.asarray(image.reduce(max(1, min(image.size) // _THUMBNAIL)), dtype=np.float64)
    depth = max(1, round(min(small.shape[:2]) * _RIM))
    inner = np.zeros(small.shape[:2], dtype=bool)
    inner[depth:-depth, depth:-depth] = True
    lab = _to_lab(small[~inner])
    skin = lab[lab[:, 0] > _FRAME_LIGHTNESS]
    if len(skin) < min(_LEAST_PIXELS, len(lab)):
        return None
    lightness, _, yellow = np.median(skin, axis=0)
    return float(np.degrees(np.arctan2(lightness - 50, max(yellow, 1e-6))))


def _to_lab(rgb: NDArray[np.float64]) -> NDArray[np.float64]:
    """Convert (N, 3) sRGB in 0..255 to CIE L*a*b* under D65."""
    share = rgb / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    ratio = linear @ _TO_XYZ.T / _WHITE
    root = np.where(ratio > (6 / 29) ** 3, np.cbrt(ratio), ratio / (3 * (6 / 29) ** 2) + 4 / 29)
    x, y, z = root.T
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=1)
