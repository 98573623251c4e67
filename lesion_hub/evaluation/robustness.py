"""Measure robustness: accuracy, changes of scores and flips of answers when images are disturbed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lesion_hub.config import OperatingPoint
from lesion_hub.data.corruptions import CORRUPTIONS, corrupt
from lesion_hub.data.images import load_rgb
from lesion_hub.data.scan import image_sources
from lesion_hub.errors import ConfigError, DataError
from lesion_hub.evaluation.intervals import Interval, bootstrap, bootstrap_means, group_numbers
from lesion_hub.evaluation.predictions import Predictions
from lesion_hub.evaluation.scoring import patients_of
from lesion_hub.evaluation.weighting import Array
from lesion_hub.inference import Predictor
from lesion_hub.inference.predictor import in_chunks
from lesion_hub.progress import Progress
from lesion_hub.taxonomy import ABSTAIN, LabelSpace, nearest

if TYPE_CHECKING:
    from datasets import Dataset

CONDITIONS = ("defocus_blur", "jpeg", "brighten", "darken", "hair", "ruler", "ink", "dark_corners")
MEASURED_SEVERITIES = (1, 3, 5)  # of the five that there are
MOST_IMAGES = 500
_CLEAN = ("clean", 0)
_RESAMPLES = 1000  # half of an evaluation's: there are many conditions, and they are measured on fewer images
_BATCH = 16


@dataclass(frozen=True, eq=False)
class Stressed:
    """Predictions of the same images, clean and under each (condition, severity); ``groups`` (N,) their lesions."""

    clean: Predictions
    groups: Sequence[str]
    worse: Mapping[tuple[str, int], Predictions]


def stress(
    predictor: Predictor,
    dataset: Dataset,
    truth: LabelSpace,
    space: LabelSpace,
    *,
    conditions: Sequence[str] = CONDITIONS,
    severities: Sequence[int] = MEASURED_SEVERITIES,
    most: int = MOST_IMAGES,
    seed: int = 0,
    progress: Progress | None = None,
) -> Stressed:
    """Score at most ``most`` images of ``dataset``, evenly drawn from its labels, clean and under every condition."""
    for name in conditions:
        if name not in CORRUPTIONS:
            raise ConfigError(f"unknown condition {name!r}; {nearest(name, CORRUPTIONS)}")
    labels = truth.map_to(space).labels(np.asarray(dataset.with_format("numpy")["label"][:], dtype=np.int64))
    rows = evenly_drawn(labels, most)
    chosen = dataset.select(rows)
    cases = [_CLEAN, *((name, severity) for name in conditions for severity in severities)]
    found: dict[tuple[str, int], list[Array]] = {case: [] for case in cases}
    mapping, patients = predictor.space.map_to(space), patients_of(chosen)
    done = 0
    for chunk in in_chunks(image_sources(chosen), lambda source: np.asarray(load_rgb(source)), _BATCH):
        for case in cases:
            images = chunk
            if case != _CLEAN:
                images = [corrupt(image, *case, seed + done + i) for i, image in enumerate(chunk)]
            answers = predictor.predict(images, batch_size=_BATCH, metadata=patients[done : done + len(chunk)])
            native = np.array([list(answer.probabilities.values()) for answer in answers])
            found[case].append(mapping.probabilities(native / native.sum(axis=1, keepdims=True)))
        done += len(chunk)
        if progress is not None:
            progress(done, len(rows))
    scored = {case: Predictions(np.concatenate(parts), labels[rows], space) for case, parts in found.items()}
    return Stressed(scored.pop(_CLEAN), list(chosen["group"][:]), scored)


def evenly_drawn(labels: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """Draw at most ``most`` rows with the shares of the labels kept; rows that abstain are left out. Sorted.

    >>> evenly_drawn(np.array([0, 0, 0, 0, 1, 1]), 3).tolist()
    [0, 2, 4]
    """
    known = np.flatnonzero(labels != ABSTAIN)
    if not len(known):
        raise DataError("no image has a label that the model knows; evaluate on other data")
    by_label = known[np.argsort(labels[known], kind="stable")]
    places = np.linspace(0, len(by_label), min(most, len(by_label)), endpoint=False).astype(np.int64)
    return np.sort(by_label[places])


def summarise_robustness(
    stressed: Stressed, points: Mapping[str, OperatingPoint] | None = None, seed: int = 0
) -> dict[str, Any]:
    """Return JSON-able results: for each condition and severity the measures of its effect, with intervals.

    These are balanced accuracy; the share of images whose top label flips; the mean change of the malignant probability, and
    the mean size of that change; and the share of images whose call at each operating point flips.
    """
    clean, group = stressed.clean, group_numbers(stressed.groups, len(stressed.clean))
    conditions: dict[str, Any] = {}
    for (name, severity), worse in stressed.worse.items():
        entry = conditions.setdefault(name, {"description": CORRUPTIONS[name].description, "by_severity": {}})
        effect = _effect(clean, worse, group, points or {}, seed)
        entry["by_severity"][str(severity)] = {measure: interval.to_dict() for measure, interval in effect.items()}
    return {
        "images": len(clean),
        "groups": int(group.max()) + 1,
        "clean": {name: interval.to_dict() for name, interval in _accuracy(clean, group, seed).items()},
        "conditions": conditions,
    }


def _accuracy(found: Predictions, group: NDArray[np.int64], seed: int) -> dict[str, Interval]:
    wanted = ("balanced_accuracy",)
    return bootstrap(found.probabilities, found.labels, group, found.space, _RESAMPLES, seed, metrics=wanted)


def _effect(
    clean: Predictions, worse: Predictions, group: NDArray[np.int64], points: Mapping[str, OperatingPoint], seed: int
) -> dict[str, Interval]:
    """Measure the effect of one disturbance; ``summarise_robustness`` names the measures."""
    values: dict[str, NDArray[Any]] = {"flip_rate": clean.predicted != worse.predicted}
    before, after = clean.malignancy(), worse.malignancy()
    if before is not None and after is not None and before.kept.all():
        shift = after.scores - before.scores
        values |= {"malignancy_shift": shift, "malignancy_shift_size": np.abs(shift)}
        for name, point in points.items():
            values[f"{name}_flip_rate"] = (before.scores >= point.threshold) != (after.scores >= point.threshold)
    every = np.ones(len(group), dtype=bool)
    means = bootstrap_means({name: (one, every) for name, one in values.items()}, group, _RESAMPLES, seed)
    return {**_accuracy(worse, group, seed), **means}


def result_rows(summary: Mapping[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield (condition, severity, results) of a ``summarise_robustness`` result, in order."""
    for name, condition in summary["conditions"].items():
        for severity, results in condition["by_severity"].items():
            yield name, severity, results
