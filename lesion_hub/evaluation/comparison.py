"""Compare two models on the same images: paired differences with intervals, and McNemar's test."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lesion_hub.config import validated
from lesion_hub.data.sources import ReadResult, read
from lesion_hub.errors import DataError
from lesion_hub.evaluation import metrics
from lesion_hub.evaluation.assessment import trait_bins
from lesion_hub.evaluation.intervals import RESAMPLES, difference, mcnemar
from lesion_hub.evaluation.run import EvaluateOptions, load_input, make_folder, score_input
from lesion_hub.evaluation.scoring import Scored, shared_space
from lesion_hub.files import write_json
from lesion_hub.hub.measures import COMPARISON_MEASURES
from lesion_hub.hub.store import Resolved
from lesion_hub.hub.versions import split_revision
from lesion_hub.progress import Progress

COMPARISON_NAME = "comparison.json"
GROUP_MEASURES = ("balanced_accuracy", "malignancy.auroc")


@dataclass(frozen=True)
class Comparison:
    """The names of two models, and what ``compare`` measured; a difference is the first's measure less the second's."""

    first: str
    second: str
    content: Mapping[str, Any] = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Return the names and the content as plain JSON values."""
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
    engine: str = "auto",
    progress: Progress | None = None,
    **options: Any,
) -> Comparison:
    """Compare two models on images that neither has seen.

    ``options`` are those of ``EvaluateOptions``; the images are those of the part that is common to both. ``out`` is a
    folder for comparison.json. Models are given as ``name`` or ``name@revision``.

        compare("dermoscopy-trio", "dermoscopy-lite0@v2.0.0", "data/ham10000").to_dict()["differences"]["accuracy"]
    """
    chosen = validated(EvaluateOptions, options, "compare")
    if out is not None:
        make_folder(Path(out))
    source = data if isinstance(data, ReadResult) else read(data)
    one, two = (
        load_input(*split_revision(name), source, chosen, registry=registry, token=token, device=device, engine=engine)
        for name in (first, second)
    )
    rows = np.intersect1d(one.choice.rows, two.choice.rows)
    if not len(rows):
        raise DataError("the two models' own splits share no image of this part; compare them with --split all, or other data")
    space = shared_space(shared_space(one.predictor.space, two.predictor.space), source.space, chosen.as_space)
    dataset = source.dataset.select(rows)
    left, right = (score_input(given, dataset, space, chosen, progress) for given in (one, two))
    content = compare_scored(left, right, chosen.resamples, chosen.seed)
    content["forced"] = bool(one.overlap or two.overlap)
    done = Comparison(_title(one.found), _title(two.found), content)
    if out is not None:
        write_json(Path(out) / COMPARISON_NAME, done.to_dict())
    return done


def compare_scored(first: Scored, second: Scored, resamples: int = RESAMPLES, seed: int = 0) -> dict[str, Any]:
    """Compare paired predictions: differences of all measures, overall and for each bin of each trait, and McNemar's test."""
    if list(first.facts["image_id"]) != list(second.facts["image_id"]) or first.space != second.space:
        raise DataError("the two models were not scored on the same images in the same labels; compare them anew")
    one, two = (part.probabilities.argmax(axis=1) == part.labels for part in (first, second))
    # By lesion, each has one vote, for the model that has more of its images right: images of a lesion are not independent.
    group = np.unique(first.groups, return_inverse=True)[1]
    lead = np.bincount(group, weights=one.astype(float) - two.astype(float))
    return {
        "images": len(first),
        "groups": len(set(first.groups)),
        "label_space": first.space.name,
        "differences": _differences(first, second, np.arange(len(first)), COMPARISON_MEASURES, resamples, seed),
        "mcnemar": {**mcnemar(one, two)._asdict(), "by_lesion": mcnemar(lead > 0, lead < 0)._asdict()},
        "by_group": {
            trait: {
                name: {"images": len(rows), "differences": _differences(first, second, rows, GROUP_MEASURES, resamples, seed)}
                for name, rows in found.items()
            }
            for trait, found in trait_bins(first.facts).items()
        },
    }


def _differences(
    first: Scored, second: Scored, rows: NDArray[np.int64], wanted: tuple[str, ...], resamples: int, seed: int
) -> dict[str, Any]:
    known = metrics.names(first.space)
    names = [name for name in wanted if name in known]
    groups = np.array(first.groups, dtype=object)[rows]
    one, two = first.probabilities[rows], second.probabilities[rows]
    found = difference(one, two, first.labels[rows], groups, first.space, resamples, seed, metrics=names)
    return {name: interval.to_dict() for name, interval in found.items()}


def _title(found: Resolved) -> str:
    return f"{found.display_name}@{found.revision}" if found.revision else found.display_name
