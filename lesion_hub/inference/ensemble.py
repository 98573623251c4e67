"""Making an ensemble of published models: a folder of its own that pins every member by version and sha256."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from lesion_hub.config import (
    MEMBER_REVISION,
    DataSource,
    EnsembleConfig,
    EnsembleMember,
    ModelConfig,
    OperatingPoint,
    Training,
    dump_json,
    validated,
)
from lesion_hub.errors import ConfigError, StoreError
from lesion_hub.hub.atomic import write_text
from lesion_hub.hub.format import read_model
from lesion_hub.hub.layout import CARD_NAME, ENSEMBLE_NAME, METRICS_NAME, SPLIT_NAME, is_ensemble, load_config
from lesion_hub.hub.licences import strictest
from lesion_hub.hub.store import Resolved, resolve_published
from lesion_hub.inference.combine import Combination
from lesion_hub.inference.fitting import Fit
from lesion_hub.inference.members import Member
from lesion_hub.taxonomy import LabelSpace, label_space


@dataclass(frozen=True)
class PinnedModel:
    """A published model that shall become a member: where it stands and what its config says."""

    found: Resolved
    config: ModelConfig

    @property
    def pin(self) -> EnsembleMember:
        digest = self.config.lesion_hub.weights_sha256
        return EnsembleMember(name=self.found.name, revision=str(self.found.revision), weights_sha256=digest)

    def load(self) -> Member:
        """The member itself, its weights checked."""
        return Member(self.found.name, read_model(self.found.folder)[0])


def pin_member(name: str, *, registry: str | Path | None = None, token: str | None = None) -> PinnedModel:
    """Find ``name`` or ``name@v1.0.0``; without a version the highest is taken, and pinned."""
    plain, _, revision = name.partition("@")
    found = resolve_published(plain, revision or None, registry=registry, token=token)
    if not MEMBER_REVISION.fullmatch(str(found.revision)):
        raise StoreError(f"{plain}: has no published version to pin; publish one, or name a commit ({plain}@<40 hex digits>)")
    if is_ensemble(found.folder):
        raise ConfigError(f"{plain}: is an ensemble itself; name its members instead")
    config = load_config(found.folder)
    assert isinstance(config, ModelConfig)
    return PinnedModel(found, config)


def create_ensemble(
    out: str | Path,
    members: Sequence[str | PinnedModel],
    *,
    weights: Sequence[float] | None = None,
    fit: Fit | None = None,
    combine: Literal["probabilities", "logits"] = "probabilities",
    temperature: float = 1.0,
    space: LabelSpace | str | None = None,
    operating_points: Mapping[str, OperatingPoint] | None = None,
    registry: str | Path | None = None,
    token: str | None = None,
) -> EnsembleConfig:
    """Write an ensemble's folder, ready to be evaluated and published.

    Args:
        out: new folder; its name becomes the card's title.
        members: registry names or Hub ids, each with ``@version`` where the highest is not meant.
        weights: one each, summing to 1; None takes those of ``fit``, else equal ones.
        fit: weights and temperature fitted on validation data (``fitting.fit_ensemble``).
        combine: the weighted mean of ``probabilities``, or of ``logits``.
        temperature: divides the log of the mean; ``fit``'s own where that is given.
        space: label space to answer in; None is the finest that every member maps into.
        operating_points: malignancy thresholds chosen on validation data.
        registry: registry root.
        token: Hub token.

    >>> create_ensemble("trio", ["lite0", "lite1", "lite2@v1.1.0"], weights=[0.3, 0.3, 0.4])  # doctest: +SKIP
    """
    folder = Path(out).expanduser()
    if folder.exists() and any(folder.iterdir()):
        raise StoreError(f"{folder}: is not empty; choose a new folder")
    pinned = [
        member if isinstance(member, PinnedModel) else pin_member(member, registry=registry, token=token) for member in members
    ]
    if not pinned:
        raise ConfigError("an ensemble needs members; name at least one published model")
    combination = Combination.of(
        [member.config.space for member in pinned],
        _weights(len(pinned), weights, fit),
        space=label_space(space) if isinstance(space, str) else space,
        combine=combine,
        temperature=fit.temperature if fit else temperature,
    )
    config = _config(folder.name, pinned, combination, operating_points or {})
    _write(folder, config, pinned, fit)
    return config


def _weights(count: int, weights: Sequence[float] | None, fit: Fit | None) -> Sequence[float]:
    if weights is not None and fit is not None:
        raise ConfigError("give weights or fit them, not both")
    return weights if weights is not None else fit.weights if fit else [1 / count] * count


def _config(
    name: str, pinned: Sequence[PinnedModel], combination: Combination, points: Mapping[str, OperatingPoint]
) -> EnsembleConfig:
    facts = {
        "label_space": combination.space.name,
        "label_names": combination.space.labels,
        "members": tuple(member.pin for member in pinned),
        "weights": combination.weights,
        "combine": combination.combine,
        "temperature": combination.temperature,
        "operating_points": dict(points),
        "training": _training(name, pinned),
    }
    return validated(EnsembleConfig, facts, ENSEMBLE_NAME)


def _training(name: str, pinned: Sequence[PinnedModel]) -> Training | None:
    """The members' data together: their licences bind the ensemble."""
    known = [member.config.lesion_hub.training for member in pinned]
    sources: dict[tuple[str | None, ...], DataSource] = {
        (source.name, source.revision, source.through): source for training in known if training for source in training.data
    }
    if not sources or not all(known):
        return None
    hashes = {training.split_hash for training in known if training}
    return Training(recipe=name, data=tuple(sources.values()), split_hash=hashes.pop() if len(hashes) == 1 else None)


def _write(folder: Path, config: EnsembleConfig, pinned: Sequence[PinnedModel], fit: Fit | None) -> None:
    """``ensemble.json`` comes last: a folder that was interrupted is no ensemble."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / METRICS_NAME, _json({"ensemble_fit": fit.to_dict()} if fit else {}))
    write_text(folder / SPLIT_NAME, _split(pinned))
    if config.training is not None:
        write_text(folder / CARD_NAME, _provisional_card(folder.name, config, config.training))
    write_text(folder / ENSEMBLE_NAME, dump_json(config))


def _split(pinned: Sequence[PinnedModel]) -> str:
    """The members' common split where they share one, else each member's own by name."""
    files = {member.found.name: member.found.folder / SPLIT_NAME for member in pinned}
    texts = {name: path.read_text(encoding="utf-8") for name, path in files.items() if path.is_file()}
    if len(texts) == len(files) and len(set(texts.values())) == 1:
        return next(iter(texts.values()))
    return _json({"members": {name: json.loads(text) for name, text in texts.items()}})


def _provisional_card(name: str, config: EnsembleConfig, training: Training) -> str:
    """A card that claims nothing, until an evaluation fills in the real one."""
    members = "\n".join(
        f"- {member.name} {member.revision}, weight {weight:g}"
        for member, weight in zip(config.members, config.weights, strict=True)
    )
    return (
        f"---\nlicense: {strictest(source.license for source in training.data)}\nlibrary_name: lesion-hub\n---\n\n"
        f"# {name}\n\n**Not a medical device.** An ensemble that has not been evaluated yet.\n\n{members}\n"
    )


def _json(data: Any) -> str:
    return json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
