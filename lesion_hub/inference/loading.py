"""``from_pretrained``: a folder, a registry name or a Hub id to a Predictor."""

from __future__ import annotations

from pathlib import Path

import torch

from lesion_hub.config import EnsembleMember, load_ensemble_config
from lesion_hub.errors import LesionHubError, StoreError
from lesion_hub.hub.format import read_model
from lesion_hub.hub.layout import is_ensemble
from lesion_hub.hub.store import Resolved, resolve, resolve_published
from lesion_hub.inference.combine import Combination
from lesion_hub.inference.members import Member
from lesion_hub.inference.predictor import Predictor


def from_pretrained(
    repo_or_path: str | Path,
    *,
    revision: str | None = None,
    registry: str | Path | None = None,
    token: str | None = None,
    device: str | torch.device = "cpu",
) -> Predictor:
    """Load a model or an ensemble, checked by sha256.

    Args:
        repo_or_path: Hub id (``org/name``), model folder, or registry name.
        revision: version tag (``v1.0.0``), commit or branch; None is the highest version.
        registry: registry root; None is ``LESION_HUB_REGISTRY``, else the packaged one.
        token: Hub token; None takes the one that you are logged in with, or ``HF_TOKEN``.
        device: where to put the networks.

    >>> model = from_pretrained("ham10000-trio", revision="v1.0.0")  # doctest: +SKIP
    """
    found = resolve(repo_or_path, revision, registry=registry, token=token)
    predictor = _ensemble(found, registry, token) if is_ensemble(found.folder) else _model(found)
    return predictor.to(device)


def _model(found: Resolved) -> Predictor:
    classifier, config = read_model(found.folder)
    points = config.lesion_hub.operating_points
    return Predictor.of(classifier, found.name, operating_points=points, revision=found.revision)


def _ensemble(found: Resolved, registry: str | Path | None, token: str | None) -> Predictor:
    config = load_ensemble_config(found.folder)
    members = [_member(found, member, registry, token) for member in config.members]
    combination = Combination.of(
        [member.space for member in members],
        config.weights,
        space=config.space,
        combine=config.combine,
        temperature=config.temperature,
    )
    return Predictor(members, combination, config.operating_points, name=found.name, revision=found.revision)


def _member(found: Resolved, pinned: EnsembleMember, registry: str | Path | None, token: str | None) -> Member:
    """A member exactly as pinned; one that is missing or differs is an error that names it."""
    try:
        place = resolve_published(pinned.name, pinned.revision, registry=registry, token=token)
        classifier, config = read_model(place.folder)
    except LesionHubError as error:
        raise StoreError(f"{found.name}: member {pinned.name} {pinned.revision} cannot be loaded: {error}") from None
    if config.lesion_hub.weights_sha256 != pinned.weights_sha256:
        raise StoreError(
            f"{found.name}: member {pinned.name} {pinned.revision} is not the one the ensemble was made of "
            f"(sha256 {config.lesion_hub.weights_sha256[:12]}…, expected {pinned.weights_sha256[:12]}…); restore that version"
        )
    return Member(pinned.name, classifier)
