"""Fit an input gate to a network: training images against pictures without a lesion, on features that the network has anyway.

The gate is a logistic regression on the standardised features (`inference.gate`). In scope are training images, each once as it
is and once as another clinic might have taken it; out of scope are as many drawn pictures (`data.outliers`), and those of a
folder, where there is one, which together weigh the same. Where the verdicts begin is read off images that were not fitted on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import model_validator
from scipy.special import expit, ndtri
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from lesion_hub.config import Count, ModelConfig, NonNegativeCount, Options, Positive, ProperShare, validated
from lesion_hub.data.artefacts import Pixels
from lesion_hub.data.images import ImageSource
from lesion_hub.data.outliers import OUTLIERS, draw_outliers, vary
from lesion_hub.data.scan import image_sources
from lesion_hub.data.sources import ReadResult, read
from lesion_hub.data.splits.manifest import image_digest
from lesion_hub.errors import ConfigError, DataError, ImageError
from lesion_hub.evaluation.overlap import choose_rows, data_name, training_record
from lesion_hub.evaluation.rules import without_results
from lesion_hub.files import read_json, write_json
from lesion_hub.hub.card import card_title, write_card
from lesion_hub.hub.gate_file import GateWeights, write_gate
from lesion_hub.hub.layout import METRICS_NAME, load_config
from lesion_hub.inference import Predictor, from_pretrained
from lesion_hub.inference.gate import pooled
from lesion_hub.inference.members import Member
from lesion_hub.inference.predictor import in_chunks
from lesion_hub.inference.preprocess import Framing, open_image
from lesion_hub.inference.results import VERDICTS, Scope
from lesion_hub.inference.rows import open_rows
from lesion_hub.progress import Progress

REFUSE_BELOW = 0.5
"""The score that a gate is shifted to give where it begins to refuse."""

_BATCH = 32
_HELD_OUT_SEED = 1  # other outliers than those that were fitted on


class GateOptions(Options):
    """How to fit a gate.

    At most ``images`` training images are fitted on, with as many drawn outliers. At most ``held_out`` others set the limits:
    the share ``refused`` of them falls out of scope, and the share ``unsure`` comes next. ``strength`` is the penalty's: the
    smaller, the closer the fit.
    """

    images: Count = 3000
    held_out: Count = 1000
    refused: ProperShare = 0.007
    unsure: ProperShare = 0.03
    strength: Positive = 0.03
    seed: NonNegativeCount = 0

    @model_validator(mode="after")
    def _some_are_in_scope(self) -> GateOptions:
        if self.refused + self.unsure >= 1 or self.refused == 0:
            raise ValueError(f"refused {self.refused:g} must be above 0, and with unsure {self.unsure:g} below 1")
        return self


@dataclass(frozen=True)
class FittedGate:
    """A fitted gate; ``section`` is what metrics.json holds under ``gate``."""

    weights: GateWeights
    refuse_below: float
    accept_from: float
    section: dict[str, Any] = field(repr=False)

    def write(self, folder: Path) -> ModelConfig:
        """Put it beside the weights of the model in ``folder``."""
        return write_gate(folder, self.weights, refuse_below=self.refuse_below, accept_from=self.accept_from)


def fit_gate(
    member: Member,
    training: Sequence[ImageSource],
    held_out: Sequence[ImageSource],
    outliers: Sequence[ImageSource] = (),
    options: GateOptions | None = None,
    *,
    progress: Progress | None = None,
) -> FittedGate:
    """Fit a gate to a member's network.

    Args:
        member: the network with its preprocessing, in evaluation mode.
        training: images that it knows.
        held_out: other images of the kind, by which the limits are set.
        outliers: pictures without a lesion; every fifth is held out.
        options: see there.
        progress: called with (images done, images in all).

    Images that cannot be read are left out and not counted.
    """
    chosen = options or GateOptions()
    seen = _Features(member, progress)
    known, others = _draw(training, chosen.images, chosen.seed), _draw(held_out, chosen.held_out, chosen.seed)
    if not known or not others:
        raise DataError(f"{len(known)} training images and {len(others)} others are too few to fit an input gate on")
    seen.total = 3 * len(known) + 2 * len(others) + len(outliers)

    inside, outside, _ = seen.of_lesions(known, chosen.seed, varied=True)
    inside_held, outside_held, kinds = seen.of_lesions(others, chosen.seed + _HELD_OUT_SEED, varied=False)
    foreign = seen.of(outliers)
    aside = np.arange(len(foreign)) % 5 == 4
    groups = [outside] if not len(foreign) else [outside, foreign[~aside]]
    weights, bias = _separate(inside, groups, chosen.strength)

    def log_odds(features: NDArray[np.float32]) -> NDArray[np.float64]:
        return np.asarray(features.astype(np.float64) @ weights + bias)

    found, drawn, photos = log_odds(inside_held), log_odds(outside_held), log_odds(foreign[aside])
    lower, upper = _limit(found, chosen.refused), _limit(found, chosen.refused + chosen.unsure)
    gate = GateWeights("features" if seen.reads_features else "logits", torch.from_numpy(weights).float(), float(bias - lower))
    scores, accept_from = np.concatenate([found, drawn, photos]), float(expit(upper - lower))
    section: dict[str, Any] = {
        "reads": gate.reads,
        "images": len(inside) // 2,
        "drawn": len(outside),
        "outliers": int((~aside).sum()),
        "refuse_below": REFUSE_BELOW,
        "accept_from": accept_from,
        "held_out": {
            "images": len(found),
            "refused": float((found < lower).mean()),
            "unsure": float(((found >= lower) & (found < upper)).mean()),
            "drawn": len(drawn),
            "drawn_refused": float((drawn < lower).mean()),
            "outliers": len(photos),
            "outliers_refused": float((photos < lower).mean()) if len(photos) else None,
            "auroc": float(roc_auc_score(np.arange(len(scores)) < len(found), scores)),
            "by_kind": {name: float((drawn[kinds == name] < lower).mean()) for name in OUTLIERS if (kinds == name).any()},
        },
    }
    return FittedGate(gate, REFUSE_BELOW, accept_from, section)


class _Features:
    """Computes what the gate reads of a member's network: (N, F) float32 of N images."""

    def __init__(self, member: Member, progress: Progress | None) -> None:
        self.member, self.progress = member, progress
        self.done, self.total = 0, 0
        self.reads_features = gives_features(member)

    def of_lesions(
        self, images: Sequence[ImageSource], seed: int, *, varied: bool
    ) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.str_]]:
        """Return the features of the images, with ``varied`` again as they might have been taken, and of as many outliers.

        The third are the outliers' kinds.
        """
        inside, outside, kinds, first = [], [], [], 0
        for chunk in in_chunks(images, self._crop, _BATCH):
            crops = [crop for crop in chunk if crop is not None]
            if not crops:
                continue
            drawn = list(draw_outliers(crops, len(crops), seed, first=first))
            inside.append(self._compute(crops))
            if varied:
                inside.append(self._compute([vary(crop, seed + first + i) for i, crop in enumerate(crops)]))
            outside.append(self._compute([picture for _, picture in drawn]))
            kinds += [name for name, _ in drawn]
            first += len(crops)
        if not inside:
            raise DataError("none of the images to fit an input gate on can be read")
        return np.concatenate(inside), np.concatenate(outside), np.array(kinds)

    def of(self, images: Sequence[ImageSource]) -> NDArray[np.float32]:
        """Return the features of the images that can be read; (0, F) of none."""
        chunks = ([crop for crop in chunk if crop is not None] for chunk in in_chunks(images, self._crop, _BATCH))
        found = [self._compute(crops) for crops in chunks if crops]
        width = len(self._compute([np.zeros((*self._framing.size, 3), np.uint8)])[0]) if not found else 0
        return np.concatenate(found) if found else np.zeros((0, width), np.float32)

    @property
    def _framing(self) -> Framing:
        return self.member.framing

    def _crop(self, image: ImageSource) -> Pixels | None:
        try:
            return open_image(image, [self._framing]).crops[self._framing]
        except ImageError:
            return None

    @torch.no_grad()
    def _compute(self, crops: Sequence[Pixels]) -> NDArray[np.float32]:
        batch = self.member.normalised(crops)
        logits = self.member.score_and_features(batch) if self.reads_features else (self.member.score(batch), None)
        self.done += len(crops)
        if self.progress is not None:
            self.progress(min(self.done, self.total), self.total)
        return logits[0].float().cpu().numpy() if logits[1] is None else pooled(logits[1])


def gives_features(member: Member) -> bool:
    """Tell whether a member's network can be cut, so that its stem gives features; else its gate reads the logits."""
    batch = member.normalised([np.zeros((*member.framing.size, 3), np.uint8)])
    try:
        return member.score_and_features(batch)[1] is not batch
    except ConfigError:
        return False


def _draw(images: Sequence[ImageSource], count: int, seed: int) -> list[ImageSource]:
    """Draw ``count`` of the images, in their order; all where there are no more."""
    rows = np.arange(len(images))
    if len(images) > count:
        rows = np.sort(np.random.default_rng(seed).choice(rows, count, replace=False))
    return [images[int(row)] for row in rows]


def _separate(
    inside: NDArray[np.float32], outside: Sequence[NDArray[np.float32]], strength: float
) -> tuple[NDArray[np.float64], float]:
    """Fit the weights (F,) and the bias of a logistic regression; both sides weigh the same, and so do all groups of one."""
    features = np.concatenate([inside, *outside]).astype(np.float64)
    mean, deviation = features.mean(axis=0), features.std(axis=0) + 1e-6
    truth = np.arange(len(features)) < len(inside)
    shares = [np.full(len(inside), 0.5 / len(inside))] + [np.full(len(g), 0.5 / len(outside) / len(g)) for g in outside]
    # The penalty is for the mean loss, so that twice as many images make no steeper gate.
    fitted = LogisticRegression(C=1 / strength, max_iter=500)
    fitted.fit((features - mean) / deviation, truth, sample_weight=np.concatenate(shares))
    weights = fitted.coef_[0] / deviation
    return weights, float(fitted.intercept_[0] - weights @ mean)


def _limit(log_odds: NDArray[np.float64], share: float) -> float:
    """Return the log-odds that the share of images like these stays below; of few images, as if they were spread normally."""
    observed = float(np.quantile(log_odds, share))
    if share * len(log_odds) >= 1:
        return observed
    return min(observed, float(log_odds.mean() + ndtri(share) * log_odds.std()))


# ------------------------------------------------------------------------------------------------ a model folder


def fit_gate_of(
    folder: str | Path,
    data: str | Path | ReadResult,
    *,
    outliers: str | Path | None = None,
    manifest: str | Path | None = None,
    device: str = "cpu",
    engine: str = "auto",
    progress: Progress | None = None,
    **options: Any,
) -> FittedGate:
    """Fit a gate to the model in ``folder`` and put it there: the file, the config's hash, the figures, the card.

    Args:
        folder: a run's or a model's folder; an ensemble is refused, for its verdict comes from its members' gates.
        data: the model's training data. Those of its training part are fitted on, and its validation part sets the limits; of
            data of which the model's split says nothing, four fifths of the lesions and the rest.
        outliers: a folder of pictures without a lesion, beside those that are drawn.
        manifest: a split file, where the model's own is not known.
        device, engine: as for ``from_pretrained``.
        options: fields of ``GateOptions``.

        fit_gate_of("runs/mine", "data/ham10000", outliers="data/photos").section["held_out"]
    """
    chosen, place = validated(GateOptions, options, "gate fit"), Path(folder)
    if not isinstance(load_config(place), ModelConfig):
        raise ConfigError(f"{place}: is an ensemble, whose verdict comes from its members' gates; fit those")
    source = data if isinstance(data, ReadResult) else read(data)
    training, held_out, how = _parts(place, source, manifest)
    foreign = pictures_in(outliers) if outliers is not None else []
    predictor = from_pretrained(place, device=device, engine=engine)
    fitted = fit_gate(predictor.members[0], training, held_out, foreign, chosen, progress=progress)
    section = {"data": data_name(source), "selection": how, **fitted.section}
    rules = fitted.write(place).lesion_hub.rules
    metrics = read_json(place / METRICS_NAME, missing_ok=True)
    # What was measured of another gate does not describe this one.
    stale = {"gate", "abstention"} if rules and rules.abstention and rules.abstention.weights.get("scope") else {"gate"}
    kept = {name: value for name, value in without_results(metrics, stale).items() if name != "gate_check"}
    write_json(place / METRICS_NAME, {**kept, "gate": section})
    _write_card(place)
    return FittedGate(fitted.weights, fitted.refuse_below, fitted.accept_from, section)


def pictures_in(folder: str | Path) -> list[Path]:
    """List the image files of a folder, by name, those in folders below it too."""
    return [row.image for row in open_rows(folder) if isinstance(row.image, Path)]


def _parts(
    folder: Path, data: ReadResult, manifest: str | Path | None
) -> tuple[Sequence[ImageSource], Sequence[ImageSource], str]:
    """Choose the images to fit on and those that set the limits, and say in words which they are."""
    record = training_record(str(folder), folder)
    chosen = choose_rows(data, "train", [record], manifest)
    if not chosen.whole:
        rows, rest, how = chosen.rows, choose_rows(data, "val", [record], manifest).rows, chosen.how
    else:
        tested = record.parts["test"].images if "test" in record.parts else frozenset[str]()
        ids, groups = data.dataset["image_id"][:], np.array(data.dataset["group"][:])
        names = np.unique(groups)
        aside = np.isin(groups, np.random.default_rng(0).permutation(names)[: -(-len(names) // 5)])
        free = np.array([image_digest(image_id) not in tested for image_id in ids])
        rows, rest, how = np.flatnonzero(free & ~aside), np.flatnonzero(free & aside), "four fifths of the lesions"
    if not len(rows) or not len(rest):
        raise DataError(f"{data_name(data)}: holds no images to fit an input gate on and to set its limits by; give more")
    return image_sources(data.dataset.select(rows)), image_sources(data.dataset.select(rest)), how


# ------------------------------------------------------------------------------------------------ measuring


def check_gate(
    model: Predictor, images: Sequence[ImageSource], *, batch_size: int = _BATCH, progress: Progress | None = None
) -> list[Scope]:
    """Return the gate's verdict of every image that can be read; a model without a gate is one line."""
    if not model.gates:
        raise ConfigError(f"{model.name}: has no input gate; fit one with lesion-hub gate fit")
    answers = model.try_each(images, batch_size=batch_size, progress=progress)
    return [answer.scope for answer in answers if not isinstance(answer, ImageError) and answer.scope is not None]


def count_verdicts(scopes: Sequence[Scope]) -> dict[str, Any]:
    """Count the verdicts: images, and the share of each verdict."""
    if not scopes:
        raise DataError("no image could be read; name a folder that holds some")
    verdicts = [scope.verdict for scope in scopes]
    shares = {name: verdicts.count(name) / len(verdicts) for name in VERDICTS}
    return {"images": len(scopes), **{name.replace(" ", "_"): share for name, share in shares.items()}}


def scope_auroc(inside: Sequence[Scope], outside: Sequence[Scope]) -> float:
    """Compute the AUROC of the scores: how often an image in scope has a higher one than a picture of something else."""
    scores = [scope.score for scope in (*inside, *outside)]
    return float(roc_auc_score(np.arange(len(scores)) < len(inside), scores))


def record_check(folder: str | Path, pictures: Sequence[dict[str, Any]], auroc: float | None) -> None:
    """Put what was measured of a gate into the folder of its model, and write the card anew.

    Args:
        folder: of a model or an ensemble that is not published yet.
        pictures: what ``count_verdicts`` gives, each with the ``name`` of what was measured.
        auroc: that of the score between them, where there are images that should pass and pictures that should not.
    """
    place = Path(folder)
    load_config(place)
    metrics = read_json(place / METRICS_NAME, missing_ok=True)
    write_json(place / METRICS_NAME, {**metrics, "gate_check": {"pictures": list(pictures), "auroc": auroc}})
    _write_card(place)


def _write_card(folder: Path) -> None:
    """Write the card anew where there are results for one."""
    if any(isinstance(part, dict) and "intervals" in part for part in read_json(folder / METRICS_NAME).values()):
        write_card(folder, name=card_title(folder))
