"""Making an ensemble of published models: pin the members, fit how they are combined, write the folder.

`pin_member` fixes each member's version and sha256; `fit_ensemble` fits weights and a temperature to validation data, which
is optional; `create_ensemble` writes the folder, ready to be evaluated and published.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from lesion_hub.config import (
    AnswerRules,
    DataSource,
    EnsembleConfig,
    EnsembleMember,
    FittedOn,
    ModelConfig,
    OperatingPoint,
    Training,
    dump_json,
    validated,
)
from lesion_hub.errors import ConfigError, DataError
from lesion_hub.files import json_text, require_new_folder, write_json, write_text
from lesion_hub.hub.bundle import write_bundle
from lesion_hub.hub.card import provisional_card
from lesion_hub.hub.format import read_model
from lesion_hub.hub.layout import CARD_NAME, ENSEMBLE_NAME, METRICS_NAME, SPLIT_NAME, load_config
from lesion_hub.hub.licences import strictest
from lesion_hub.hub.store import Resolved, resolve_pinned
from lesion_hub.inference.gate import Gate
from lesion_hub.inference.members import SMALLEST_PROBABILITY, Combination, Combine, Member, Probabilities, member_names
from lesion_hub.inference.predictor import Predictor
from lesion_hub.inference.rows import RowSource
from lesion_hub.models.joint import shared_input
from lesion_hub.progress import Progress
from lesion_hub.taxonomy import LabelSpace, label_space

_DECIMALS = 4
_LOG_TEMPERATURE_BOUND = 3.0  # as `evaluation.calibration.TEMPERATURE_BOUNDS`: 0.05 to 20
_AT_BOUND = 1e-3
_ROUNDING = 1e-3  # nats that weights of _DECIMALS may cost


# ------------------------------------------------------------------------------------------------ members


@dataclass(frozen=True)
class PinnedModel:
    """A published model that shall become a member: its folder and version, and its config."""

    found: Resolved
    config: ModelConfig

    @property
    def pin(self) -> EnsembleMember:
        """What ``ensemble.json`` says of the member."""
        digest = self.config.lesion_hub.weights_sha256
        return EnsembleMember(name=self.found.name, revision=str(self.found.revision), weights_sha256=digest)


def pin_member(name: str, *, registry: str | Path | None = None, token: str | None = None) -> PinnedModel:
    """Find ``name`` or ``name@v1.0.0``; without a version the highest is taken, and pinned. An ensemble is refused."""
    found = resolve_pinned(name, registry=registry, token=token)
    config = load_config(found.folder)
    if not isinstance(config, ModelConfig):
        raise ConfigError(f"{found.name}: is an ensemble itself; name its members instead")
    return PinnedModel(found, config)


def load_members(pinned: Sequence[PinnedModel]) -> list[Member]:
    """Load the members and their input gates, their weights checked."""
    names, folders = member_names([model.pin for model in pinned]), [model.found.folder for model in pinned]
    return [
        Member(name, read_model(folder)[0], gate=Gate.read(folder, model.config))
        for name, folder, model in zip(names, folders, pinned, strict=True)
    ]


# ------------------------------------------------------------------------------------------------ weights and temperature


@dataclass(frozen=True)
class Fit:
    """Fitted weights and temperature, and the negative log-likelihoods (nats per image) that speak for them.

    ``probabilities`` (N, C), ``labels`` (N,), the members' ``disagreement`` (N,) and ``scope`` (N,), the scores of those that
    have a gate, are the ensemble's on the fitting data, for choosing operating points and rules.
    ``fitted_on`` says which images these are, so that no evaluation measures on them.
    """

    weights: tuple[float, ...]
    temperature: float
    images: int
    nll: float
    nll_equal_weights: float
    nll_by_member: dict[str, float]
    probabilities: Probabilities = field(repr=False, compare=False)
    labels: NDArray[np.int64] = field(repr=False, compare=False)
    disagreement: Probabilities | None = field(default=None, repr=False, compare=False)
    scope: Probabilities | None = field(default=None, repr=False, compare=False)
    fitted_on: FittedOn | None = field(default=None, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers, without the predictions and the images."""
        left_out = ("probabilities", "labels", "disagreement", "scope", "fitted_on")
        return {key: value for key, value in asdict(self).items() if key not in left_out}


def fit_ensemble(
    members: Sequence[Member],
    source: RowSource,
    *,
    space: LabelSpace | None = None,
    combine: Combine = "probabilities",
    progress: Progress | None = None,
) -> Fit:
    """Score validation images with every member and fit how they are combined. Rows without a known label are left out."""
    equal = Combination.of([m.space for m in members], [1 / len(members)] * len(members), space=space, combine=combine)
    rows = [row for row in source if row.truth is not None and row.truth in equal.space]
    if not rows:
        raise DataError(f"no image has a label of {equal.space.name!r}; fit on labelled validation data of that space")
    predictor = Predictor(members, equal)
    patients = [row.patient for row in rows]
    found = list(predictor.stream([row.image for row in rows], metadata=patients, progress=progress))
    by_member = [np.array([list(one.members[member.name].values()) for one in found]) for member in members]
    labels = np.array([equal.space.index(str(row.truth)) for row in rows])
    fit = fit_combination([member.name for member in members], equal, by_member, labels)
    scopes = [one.scope.score for one in found if one.scope is not None]
    return replace(fit, scope=np.array(scopes)) if scopes else fit


def fit_combination(
    names: Sequence[str], equal: Combination, by_member: Sequence[Probabilities], labels: NDArray[np.int64]
) -> Fit:
    """Minimise the negative log-likelihood over the weights' simplex and the temperature.

    Args:
        names: the members' names.
        equal: how they are combined before fitting: space, maps and mode are kept.
        by_member: each member's (N, C_m) probabilities.
        labels: (N,) truth in ``equal.space``.
    """

    def combination(values: NDArray[np.float64], decimals: int | None = None) -> Combination:
        odds = np.exp(values[:-1] - values[:-1].max())
        weights, temperature = odds / odds.sum(), float(np.exp(values[-1]))
        if decimals is not None:
            # Weights a person can read, that still sum to 1: the largest takes the rest.
            weights, temperature = weights.round(decimals), round(temperature, decimals)
            weights[weights.argmax()] += round(1 - weights.sum(), decimals)
        return Combination(equal.space, equal.maps, tuple(map(float, weights)), equal.combine, temperature)

    start = np.zeros(len(names) + 1)
    bounds = [(-8.0, 8.0)] * len(names) + [(-_LOG_TEMPERATURE_BOUND, _LOG_TEMPERATURE_BOUND)]
    best = minimize(lambda v: mean_nll(combination(v)(by_member), labels), start, method="L-BFGS-B", bounds=bounds)
    chosen = combination(best.x, _DECIMALS)
    probabilities = chosen(by_member)
    before, after = mean_nll(equal(by_member), labels), mean_nll(probabilities, labels)
    if (probabilities.argmax(axis=1) == labels).all():
        raise DataError(
            f"together the members are right on all of the {len(labels)} images, so that no temperature fits; give more "
            "images, and check that no member was trained on them"
        )
    if abs(best.x[-1]) >= _LOG_TEMPERATURE_BOUND - _AT_BOUND or after > before + _ROUNDING:
        raise DataError(
            f"the temperature that fits the {len(labels)} images is {chosen.temperature:.4g}, at the end of its range, or fits "
            f"them worse than none (NLL {before:.4g} before, {after:.4g} after); check that their labels are right and the "
            "members' own, and give more images"
        )
    return Fit(
        weights=chosen.weights,
        temperature=chosen.temperature,
        images=len(labels),
        nll=after,
        nll_equal_weights=before,
        nll_by_member={
            name: mean_nll(mapping.probabilities(rows), labels)
            for name, mapping, rows in zip(names, equal.maps, by_member, strict=True)
        },
        probabilities=probabilities,
        labels=labels,
        disagreement=chosen.disagreement(by_member),
    )


def mean_nll(probabilities: Probabilities, labels: NDArray[np.int64]) -> float:
    """Compute the mean negative log-likelihood, in nats per image, of (N, C) ``probabilities``."""
    return float(-np.log(np.maximum(probabilities[np.arange(len(labels)), labels], SMALLEST_PROBABILITY)).mean())


# ------------------------------------------------------------------------------------------------ the folder


def create_ensemble(
    out: str | Path,
    members: Sequence[str | PinnedModel],
    *,
    weights: Sequence[float] | None = None,
    fit: Fit | None = None,
    combine: Combine = "probabilities",
    temperature: float = 1.0,
    space: LabelSpace | str | None = None,
    operating_points: Mapping[str, OperatingPoint] | None = None,
    rules: AnswerRules | None = None,
    bundle: bool = False,
    registry: str | Path | None = None,
    token: str | None = None,
) -> EnsembleConfig:
    """Write an ensemble's folder, ready to be evaluated and published.

    Args:
        out: new folder; its name becomes the card's title.
        members: registry names or Hub ids, each with ``@version`` where the highest is not meant.
        weights: one each, summing to 1; None takes those of ``fit``, else equal ones.
        fit: weights and temperature fitted on validation data (``fit_ensemble``).
        combine: the weighted mean of ``probabilities``, or of ``logits``.
        temperature: divides the log of the mean; ``fit``'s own where that is given.
        space: label space to answer in; None is the finest that every member maps into.
        operating_points: malignancy thresholds chosen on validation data.
        rules: label sets, the balanced decision and abstention, fitted on validation data.
        bundle: put the members' weights into the folder too, so that transformers and timm load it as one network.
        registry: registry root.
        token: Hub token.

    >>> create_ensemble("trio", ["lite0", "lite1", "lite2@v1.2.0"], weights=[0.3, 0.3, 0.4])  # doctest: +SKIP
    """
    folder = Path(out).expanduser()
    pinned = [
        member if isinstance(member, PinnedModel) else pin_member(member, registry=registry, token=token) for member in members
    ]
    check_ensemble(folder, pinned, weights=weights, fit=fit is not None, bundle=bundle)
    if weights is None:
        weights = fit.weights if fit else [1 / len(pinned)] * len(pinned)
    combination = Combination.of(
        [member.config.space for member in pinned],
        weights,
        space=label_space(space) if isinstance(space, str) else space,
        combine=combine,
        temperature=fit.temperature if fit else temperature,
    )
    facts = {
        "label_space": combination.space.name,
        "label_names": combination.space.labels,
        "members": tuple(member.pin for member in pinned),
        "weights": combination.weights,
        "combine": combination.combine,
        "temperature": combination.temperature,
        "operating_points": dict(operating_points or {}),
        "rules": rules,
        "training": _united_training(folder.name, pinned),
        "fitted_on": fit.fitted_on if fit else None,
    }
    config = validated(EnsembleConfig, facts, ENSEMBLE_NAME)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / METRICS_NAME, {"ensemble_fit": fit.to_dict()} if fit else {})
    write_text(folder / SPLIT_NAME, _common_split(pinned))
    if config.training is not None:
        write_text(folder / CARD_NAME, _provisional_card(folder.name, config, config.training))
    if bundle:
        config = write_bundle(folder, config, [member.found.folder for member in pinned])
    # The last one: a folder that was interrupted is no ensemble.
    write_text(folder / ENSEMBLE_NAME, dump_json(config))
    return config


def check_ensemble(
    out: Path, pinned: Sequence[PinnedModel], *, weights: Sequence[float] | None, fit: bool, bundle: bool
) -> None:
    """Raise one line where these members make no ensemble in ``out``, before they are fitted or anything is written."""
    require_new_folder(out)
    if not pinned:
        raise ConfigError("an ensemble needs members; name at least one published model")
    names = member_names([member.pin for member in pinned])
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ConfigError(f"{twice} is a member twice; name it once and weigh it more with --weights")
    if weights is not None and fit:
        raise ConfigError("give weights or fit them, not both")
    if bundle:
        shared_input([member.config.pretrained_cfg for member in pinned], num_classes=1)


def _united_training(name: str, pinned: Sequence[PinnedModel]) -> Training | None:
    """Unite the members' training data, whose licences bind the ensemble; None where a member's are not known."""
    known = [member.config.lesion_hub.training for member in pinned]
    sources: dict[tuple[str | None, ...], DataSource] = {
        (source.name, source.revision, source.through): source for training in known if training for source in training.data
    }
    if not sources or not all(known):
        return None
    hashes = {training.split_hash for training in known if training}
    return Training(recipe=name, data=tuple(sources.values()), split_hash=hashes.pop() if len(hashes) == 1 else None)


def _common_split(pinned: Sequence[PinnedModel]) -> str:
    """Return the text of the members' common split where they share one, else of each member's own by name."""
    names = member_names([member.pin for member in pinned])
    files = {name: member.found.folder / SPLIT_NAME for name, member in zip(names, pinned, strict=True)}
    texts = {name: path.read_text(encoding="utf-8") for name, path in files.items() if path.is_file()}
    if len(texts) == len(files) and len(set(texts.values())) == 1:
        return next(iter(texts.values()))
    return json_text({"members": {name: json.loads(text) for name, text in texts.items()}})


def _provisional_card(name: str, config: EnsembleConfig, training: Training) -> str:
    """Write the card that names the members until an evaluation fills in the real one."""
    members = "\n".join(
        f"- {member.name} {member.revision}, weight {weight:g}"
        for member, weight in zip(config.members, config.weights, strict=True)
    )
    words = f"An ensemble that has not been evaluated yet.\n\n{members}"
    return provisional_card(name, strictest(source.license for source in training.data), "lesion-hub", words)
