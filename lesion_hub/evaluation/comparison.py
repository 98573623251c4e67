"""Two models on the same images: paired differences with intervals, and McNemar's test."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesion_hub.config import validated
from lesion_hub.data.sources import ReadResult, read
from lesion_hub.errors import DataError
from lesion_hub.evaluation import metrics, traits
from lesion_hub.evaluation.intervals import difference, mcnemar
from lesion_hub.evaluation.run import EvaluateOptions, Subject, make_folder, select
from lesion_hub.evaluation.scoring import Progress, Scored, score, shared_space, views_of
from lesion_hub.evaluation.selection import memories
from lesion_hub.hub.atomic import write_text
from lesion_hub.hub.store import Resolved, resolve
from lesion_hub.inference import from_pretrained
from lesion_hub.taxonomy import LabelSpace

COMPARISON_NAME = "comparison.json"
MEASURES = ("balanced_accuracy", "accuracy", "macro_f1", "macro_auroc", "malignancy.auroc", "ece", "brier", "nll")
GROUP_MEASURES = ("balanced_accuracy", "malignancy.auroc")


@dataclass(frozen=True)
class Comparison:
    """What ``to_dict`` says, and the names of the two models; a difference is the first's measure less the second's."""

    first: str
    second: str
    content: Mapping[str, Any] = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"first": self.first, "second": self.second, **self.content}


def compare(
    first: str | Path,
    second: str | Path,
    data: str | Path | ReadResult,
    *,
    out: str | Path | None = None,
    registry: str | Path | None = None,
    token: str | None = None,
    device: str = "cpu",
    progress: Progress | None = None,
    **options: Any,
) -> Comparison:
    """Compare two models on images that neither has seen.

    ``options`` are those of ``EvaluateOptions``; the images are those of the part that is common to both. ``out`` is a
    folder for comparison.json. Models are given as ``name`` or ``name@revision``.

        compare("ham10000-trio", "ham10000-lite0@v1.0.0", "data/ham10000").to_dict()["differences"]["accuracy"]
    """
    chosen = validated(EvaluateOptions, options, "compare")
    source = data if isinstance(data, ReadResult) else read(data)
    one, two = (_subject(name, source, chosen, registry, token, device) for name in (first, second))
    rows = np.intersect1d(one.choice.rows, two.choice.rows)
    if not len(rows):
        raise DataError("the two models' own splits share no image of this part; compare them with --split all, or other data")
    space = shared_space(shared_space(one.predictor.space, two.predictor.space), source.space, chosen.as_space)
    left, right = (_scored(subject, rows, space, chosen, progress) for subject in (one, two))
    content = compare_scored(left, right, chosen.resamples, chosen.seed)
    content["forced"] = bool(one.overlap or two.overlap)
    done = Comparison(_title(one.found), _title(two.found), content)
    if out is not None:
        _write(done, Path(out))
    return done


def _subject(
    name: str | Path, data: ReadResult, options: EvaluateOptions, registry: str | Path | None, token: str | None, device: str
) -> Subject:
    """One of the two models on its choice of the images."""
    model, revision = _pinned(name)
    found = resolve(model, revision, registry=registry, token=token)
    known = memories(found, registry=registry, token=token)
    predictor = from_pretrained(model, revision=revision, registry=registry, token=token, device=device)
    return select(found, data, known, options, predictor)


def _scored(
    subject: Subject, rows: NDArray[np.int64], space: LabelSpace, options: EvaluateOptions, progress: Progress | None
) -> Scored:
    return score(
        subject.predictor,
        subject.data.dataset.select(rows),
        subject.data.space,
        space=space,
        tta=views_of(subject.predictor, options.tta),
        batch_size=options.batch_size,
        progress=progress,
    )


def _write(done: Comparison, folder: Path) -> None:
    make_folder(folder)
    text = json.dumps(done.to_dict(), indent=2, ensure_ascii=False, allow_nan=False)
    write_text(folder / COMPARISON_NAME, text + "\n")


def compare_scored(first: Scored, second: Scored, resamples: int = 2000, seed: int = 0) -> dict[str, Any]:
    """Differences of all measures, overall and for each bin of each trait, and McNemar's test, of paired predictions."""
    if list(first.facts["image_id"]) != list(second.facts["image_id"]) or first.space != second.space:
        raise DataError("the two models were not scored on the same images in the same labels; compare them anew")
    everything = np.arange(len(first))
    one, two = (part.probabilities.argmax(axis=1) == part.labels for part in (first, second))
    return {
        "images": len(first),
        "groups": len(set(first.groups)),
        "label_space": first.space.name,
        "differences": _differences(first, second, everything, MEASURES, resamples, seed),
        "mcnemar": {**mcnemar(one, two)._asdict(), "by_lesion": _by_lesion(one, two, first.groups)},
        "by_group": {
            trait: {
                name: {"images": len(rows), "differences": _differences(first, second, rows, GROUP_MEASURES, resamples, seed)}
                for name, rows in found.items()
            }
            for trait, found in traits.bins(first.facts).items()
        },
    }


def _differences(
    first: Scored, second: Scored, rows: NDArray[np.int64], wanted: tuple[str, ...], resamples: int, seed: int
) -> dict[str, Any]:
    known = set(metrics.names(first.space))
    names = [name for name in wanted if name in known]
    groups = np.array(first.groups, dtype=object)[rows]
    one, two = first.probabilities[rows], second.probabilities[rows]
    found = difference(one, two, first.labels[rows], groups, first.space, resamples, seed, metrics=names)
    return {name: interval.to_dict() for name, interval in found.items()}


def _by_lesion(first: NDArray[np.bool_], second: NDArray[np.bool_], groups: list[str]) -> dict[str, Any]:
    """McNemar with one vote per lesion, by which model has more of its images right: images of a lesion are not independent."""
    _, group = np.unique(groups, return_inverse=True)
    lead = np.bincount(group, weights=first.astype(float) - second.astype(float))
    return mcnemar(lead > 0, lead < 0)._asdict()


def _pinned(name: str | Path) -> tuple[str | Path, str | None]:
    """``name@revision`` apart; a folder keeps its @."""
    if isinstance(name, Path) or Path(name).exists() or "@" not in name:
        return name, None
    model, _, revision = name.rpartition("@")
    return model, revision


def _title(found: Resolved) -> str:
    return f"{found.display_name}@{found.revision}" if found.revision else found.display_name
