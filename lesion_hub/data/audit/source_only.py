"""The measures that an audit takes of an image, and the source-only baseline, which predicts the label without the lesion.

The baseline sees technical traits alone (size, compression, border colour, file name, source). Where it predicts well, the
label can be told from where an image comes from.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold

from lesion_hub.data.duplicates import Fingerprint, fingerprint_image
from lesion_hub.data.images import ImageFacts, load_rgb, probe
from lesion_hub.data.quality import ImageQuality, judge_quality

_FRAME_SHARE = 0.04
_USUAL_SUFFIXES = {"JPEG": (".jpg", ".jpeg"), "PNG": (".png",), "WEBP": (".webp",), "BMP": (".bmp",), "TIFF": (".tif", ".tiff")}
# Beyond the flags of `lesion_hub.data.quality`: such a file is hardly a photograph of a lesion at all.
_TINY_SIDE = 64
_BLANK_CONTRAST = 2.0

_FOLDS = 5
_TREES = 60
# Beyond these many, a pattern or source is rare enough to be "other".
_MOST_CATEGORIES = 30
_LEAST_GROUPS = 5
_WORTH_THREADS = 2_000

Traits = Mapping[str, NDArray[np.floating]]


@dataclass(frozen=True)
class ImageFindings:
    """The measures of one image: ``border`` is the mean colour of its frame (3 values 0..255), ``name_pattern`` its file
    name with every digit as 9, ``oddities`` what is unusual about the file."""

    facts: ImageFacts
    quality: ImageQuality
    border: tuple[float, float, float]
    name_pattern: str
    oddities: tuple[str, ...]


def measure_image(encoded: bytes, name: str) -> tuple[Fingerprint, ImageFindings]:
    """Fingerprint and measure an encoded image; raises `ImageError` naming ``name``.

    >>> from io import BytesIO
    >>> from PIL import Image
    >>> stream = BytesIO()
    >>> Image.new("RGB", (90, 80), "red").save(stream, "PNG")
    >>> _, findings = measure_image(stream.getvalue(), "mole_07.jpg")
    >>> findings.name_pattern, findings.oddities
    ('mole_99.jpg', ('a PNG file named .jpg', 'blank'))
    """
    facts = probe(encoded, name=name)
    image = load_rgb(encoded, name=name)
    quality = judge_quality(image)

    rgb = np.asarray(image)
    depth = max(1, round(min(rgb.shape[:2]) * _FRAME_SHARE))
    frame = (rgb[:depth], rgb[-depth:], rgb[depth:-depth, :depth], rgb[depth:-depth, -depth:])
    red, green, blue = np.concatenate([side.reshape(-1, 3) for side in frame]).mean(0).tolist()

    suffix = PurePath(name).suffix.lower()
    expected = _USUAL_SUFFIXES.get(facts.format, ())
    checks = (
        (expected and suffix and suffix not in expected, f"a {facts.format} file named {suffix}"),
        (facts.mode != "RGB", f"stored as {facts.mode}, not RGB"),
        (facts.orientation != 1, f"rotated by EXIF orientation {facts.orientation}"),
        (min(facts.width, facts.height) < _TINY_SIDE, f"only {facts.width}x{facts.height} pixels"),
        (quality.contrast < _BLANK_CONTRAST, "blank"),
    )
    findings = ImageFindings(
        facts=facts,
        quality=quality,
        border=(red, green, blue),
        name_pattern=re.sub(r"\d", "9", PurePath(name).name),
        oddities=tuple(text for odd, text in checks if odd),
    )
    return fingerprint_image(image, encoded), findings


def traits_of(findings: Sequence[ImageFindings], sources: Sequence[str | None]) -> Traits:
    """Return the technical traits of N images, each kind a matrix (N, columns)."""
    sizes = np.array([image.facts.upright_size for image in findings], float)
    tables = [image.facts.quantization for image in findings]
    sums = [[sum(table) for table in found[:2]] + [0] * (2 - len(found[:2])) if found else [-1, -1] for found in tables]
    return {
        "size": np.column_stack([sizes, sizes[:, 0] / sizes[:, 1]]),
        "compression": np.column_stack(
            [np.array(sums, float), _codes([image.facts.format + repr(image.facts.quantization) for image in findings])]
        ),
        "border colour": np.array([image.border for image in findings], float),
        "file name": _codes([image.name_pattern for image in findings]),
        "source": _codes([source or "" for source in sources]),
    }


def _codes(words: Sequence[str]) -> NDArray[np.floating]:
    """Return (N, K) 0/1 columns of the most frequent words; the others are all 0."""
    frequent = sorted(Counter(words).items(), key=lambda item: (-item[1], item[0]))[:_MOST_CATEGORIES]
    words_array = np.array(words, dtype=object)
    return np.column_stack([words_array == word for word, _ in frequent]).astype(float)


@dataclass(frozen=True)
class SourceOnly:
    """Macro one-vs-rest AUROC, out of fold and grouped; ``chance`` is .5 and ``permuted`` the same run on labels that
    were shuffled between groups. ``by_trait`` repeats it with one kind of trait alone, ``by_class`` gives each class
    against the rest. ``left_out`` are classes with too few groups to be cross-validated."""

    auroc: float
    permuted: float
    by_trait: Mapping[str, float]
    by_class: Mapping[str, float]
    left_out: tuple[str, ...] = ()
    chance: float = 0.5


def source_only(
    traits: Traits,
    labels: NDArray[np.integer],
    groups: NDArray[np.integer],
    names: Sequence[str],
    *,
    workers: int | None = None,
    seed: int = 0,
) -> SourceOnly | None:
    """Predict ``labels`` (N,), indices into ``names``, from ``traits``; folds keep ``groups`` (N,) whole.

    None where fewer than two classes have five groups.

    >>> rng = np.random.default_rng(0)
    >>> labels = np.arange(200) % 2
    >>> result = source_only({"size": 100.0 + labels[:, None]}, labels, np.arange(200), ["benign", "malignant"])
    >>> result.auroc
    1.0
    """
    usable = [label for label in np.unique(labels) if len(np.unique(groups[labels == label])) >= _LEAST_GROUPS]
    if len(usable) < 2:
        return None
    rows = np.isin(labels, usable)
    y, units = np.searchsorted(usable, labels[rows]), groups[rows]
    kinds = {kind: matrix[rows] for kind, matrix in traits.items()}
    everything = np.column_stack(list(kinds.values()))

    def aurocs(x: NDArray[np.floating], target: NDArray[np.integer]) -> NDArray[np.floating]:
        """Return the AUROC of each class against the rest."""
        scores = _out_of_fold(x, target, units, workers, seed)
        present = [label for label in range(scores.shape[1]) if (target == label).any()]
        return np.array([roc_auc_score(target == label, scores[:, label]) for label in present])

    # Labels shuffled between groups, each group keeping one label: its first image's, passed on to another group.
    _, first, inverse = np.unique(units, return_index=True, return_inverse=True)
    shuffled = np.random.default_rng(seed).permutation(y[first])[inverse.reshape(-1)]

    per_class = aurocs(everything, y)
    # A kind of trait that is the same for all images tells nothing.
    by_trait = {kind: aurocs(x, y).mean() if (np.ptp(x, axis=0) > 0).any() else 0.5 for kind, x in kinds.items()}
    return SourceOnly(
        auroc=_rounded(per_class.mean()),
        permuted=_rounded(aurocs(everything, shuffled).mean()),
        by_trait={kind: _rounded(value) for kind, value in by_trait.items()},
        by_class={names[label]: _rounded(value) for label, value in zip(usable, per_class, strict=True)},
        left_out=tuple(names[label] for label in np.unique(labels) if label not in usable),
    )


def _out_of_fold(
    x: NDArray[np.floating], y: NDArray[np.integer], units: NDArray[np.integer], workers: int | None, seed: int
) -> NDArray[np.floating]:
    """Return probabilities (N, C), each image scored by a forest that saw nothing of its group."""
    scores = np.zeros((len(y), int(y.max()) + 1))
    folds = StratifiedGroupKFold(_FOLDS, shuffle=True, random_state=seed)
    for train, test in folds.split(x, y, units):
        forest = RandomForestClassifier(
            _TREES,
            min_samples_leaf=5,
            max_samples=min(1.0, 20_000 / len(train)),
            class_weight="balanced",
            random_state=seed,
            n_jobs=(-1 if workers is None else workers) if len(train) > _WORTH_THREADS else 1,
        ).fit(x[train], y[train])
        scores[np.ix_(test, forest.classes_)] = forest.predict_proba(x[test])
    return scores


def _rounded(value: float) -> float:
    return round(float(value), 4)
