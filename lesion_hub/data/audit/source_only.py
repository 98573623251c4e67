"""The source-only baseline: how well the label is guessed from everything but the lesion.

Where a camera, an archive or a habit of naming files goes with a diagnosis, a classifier learns that instead of skin. So
a forest guesses the label from technical traits alone; far above chance (.5), the scores of any model on these data say
little.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import RandomForestClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedGroupKFold

from lesion_hub.data.audit.measure import Measured

_FOLDS = 5
_TREES = 60
# Beyond these many, a pattern or source is rare enough to be "other".
_MOST_CATEGORIES = 30
_LEAST_GROUPS = 5
_WORTH_THREADS = 2_000

Traits = Mapping[str, NDArray[np.floating]]


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


def traits_of(measured: Sequence[Measured], sources: Sequence[str | None]) -> Traits:
    """The technical traits of N images, each kind a matrix (N, columns)."""
    sizes = np.array([image.facts.upright_size for image in measured], float)
    tables = [image.facts.quantization for image in measured]
    sums = [[sum(table) for table in found[:2]] + [0] * (2 - len(found[:2])) if found else [-1, -1] for found in tables]
    return {
        "size": np.column_stack([sizes, sizes[:, 0] / sizes[:, 1]]),
        "compression": np.column_stack(
            [np.array(sums, float), _codes([image.facts.format + repr(image.facts.quantization) for image in measured])]
        ),
        "border colour": np.array([image.border for image in measured], float),
        "file name": _codes([image.name_pattern for image in measured]),
        "source": _codes([source or "" for source in sources]),
    }


def _codes(words: Sequence[str]) -> NDArray[np.floating]:
    """(N, K) 0/1 columns of the most frequent words; the others are all 0."""
    frequent = sorted(Counter(words).items(), key=lambda item: (-item[1], item[0]))[:_MOST_CATEGORIES]
    words_array = np.array(words, dtype=object)
    return np.column_stack([words_array == word for word, _ in frequent]).astype(float)


def source_only(
    traits: Traits,
    labels: NDArray[np.integer],
    groups: NDArray[np.integer],
    names: Sequence[str],
    *,
    workers: int | None = None,
    seed: int = 0,
) -> SourceOnly | None:
    """Guess ``labels`` (N,), indices into ``names``, from ``traits``; folds keep ``groups`` (N,) whole.

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

    def macro(x: NDArray[np.floating], target: NDArray[np.integer]) -> NDArray[np.floating]:
        return _aurocs(_out_of_fold(x, target, units, workers, seed), target)

    per_class = macro(everything, y)
    varying = {kind: matrix for kind, matrix in kinds.items() if (np.ptp(matrix, axis=0) > 0).any()}
    return SourceOnly(
        auroc=_rounded(per_class.mean()),
        permuted=_rounded(macro(everything, _permuted(y, units, seed)).mean()),
        by_trait={kind: _rounded(macro(varying[kind], y).mean()) if kind in varying else 0.5 for kind in kinds},
        by_class={names[label]: _rounded(value) for label, value in zip(usable, per_class, strict=True)},
        left_out=tuple(names[label] for label in np.unique(labels) if label not in usable),
    )


def _out_of_fold(
    x: NDArray[np.floating], y: NDArray[np.integer], units: NDArray[np.integer], workers: int | None, seed: int
) -> NDArray[np.floating]:
    """Probabilities (N, C), each image scored by a forest that saw nothing of its group."""
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


def _aurocs(scores: NDArray[np.floating], y: NDArray[np.integer]) -> NDArray[np.floating]:
    return np.array([roc_auc_score(y == label, scores[:, label]) for label in range(scores.shape[1]) if (y == label).any()])


def _permuted(y: NDArray[np.integer], units: NDArray[np.integer], seed: int) -> NDArray[np.integer]:
    """``y`` shuffled between groups, each group keeping one label: its first image's, passed on to another group."""
    _, first, inverse = np.unique(units, return_index=True, return_inverse=True)
    return np.random.default_rng(seed).permutation(y[first])[inverse.reshape(-1)]


def _rounded(value: float) -> float:
    return round(float(value), 4)
