"""``from_pretrained`` makes a Predictor of a folder, a registry name or a Hub id, ``from_network`` one of a network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lesion_hub.config import EnsembleMember, load_ensemble_config
from lesion_hub.errors import LesionHubError, StoreError
from lesion_hub.hub.bundle import bundled_members, read_bundle
from lesion_hub.hub.format import read_model, require_scores
from lesion_hub.hub.layout import MEMBER_GATES, is_ensemble
from lesion_hub.hub.store import Resolved, resolve, resolve_members
from lesion_hub.inference.device import find_device
from lesion_hub.inference.engine import EngineName, Origin, checked_engine, engine_for
from lesion_hub.inference.gate import Gate
from lesion_hub.inference.members import Combination, Member, member_names
from lesion_hub.inference.predictor import Predictor
from lesion_hub.models import LesionClassifier
from lesion_hub.taxonomy import LabelSpace


def from_pretrained(
    repo_or_path: str | Path,
    *,
    revision: str | None = None,
    registry: str | Path | None = None,
    token: str | None = None,
    device: str | torch.device = "cpu",
    engine: str = "auto",
) -> Predictor:
    """Load a model or an ensemble, checked by sha256.

    Args:
        repo_or_path: Hub id (``org/name``) or registry name, which ``@v1.0.0`` may follow; or a model folder.
        revision: version tag (``v1.0.0``), commit or branch, the same as after the @; None is the highest version.
        registry: registry folder, or several with ``:`` between them, the first one first; None is those of
            ``LESION_HUB_REGISTRY``. The packaged one comes last.
        token: Hub token; None takes the one that you are logged in with, or ``HF_TOKEN``.
        device: where to put the networks: ``cpu``, ``cuda``, ``cuda:1``, ``mps``, or ``auto`` for a GPU where there is one.
        engine: what runs the networks on a CPU: ``torch``, ``onnx`` (ONNX Runtime: the same answers in a fraction of the
            time), ``onnx-int8`` (the 8-bit file that the version was published with, whose answers are near ones), or
            ``auto``, ONNX Runtime where it can be had; ``LESION_HUB_ENGINE``, where it is set, says what auto is.

    >>> model = from_pretrained("dermoscopy-trio@v2.0.0")  # doctest: +SKIP
    """
    place, wanted = find_device(device), checked_engine(engine)
    found = resolve(repo_or_path, revision, registry=registry, token=token)
    made = (
        _load_ensemble(found, wanted, place, registry, token)
        if is_ensemble(found.folder)
        else _load_model(found, wanted, place)
    )
    return made.to(place)


def _load_model(found: Resolved, wanted: EngineName, device: torch.device) -> Predictor:
    """Load a single model; one that is not published is tried on an image first."""
    classifier, config = read_model(found.folder)
    if found.revision is None:
        require_scores(classifier, found.folder)
    return Predictor.of(
        classifier,
        found.name,
        engine=engine_for(wanted, classifier, Origin(found.folder, config), device),
        gate=Gate.read(found.folder, config),
        operating_points=config.lesion_hub.operating_points,
        rules=config.lesion_hub.rules,
        revision=found.revision,
        folder=found.folder,
    )


def _load_ensemble(
    found: Resolved, wanted: EngineName, device: torch.device, registry: str | Path | None, token: str | None
) -> Predictor:
    """Load an ensemble's members, from its own folder where it holds them, and what it makes of them."""
    ensemble = load_ensemble_config(found.folder)
    titles = member_names(ensemble.members)
    if ensemble.weights_sha256 is not None:
        configs = bundled_members(found.folder)
        members = [
            Member(
                title,
                classifier,
                engine_for(wanted, classifier, Origin(found.folder, config, i, ensemble.weights_sha256), device),
                Gate.read(found.folder, config, MEMBER_GATES.format(i)),
            )
            for i, (title, classifier, config) in enumerate(zip(titles, read_bundle(found.folder), configs, strict=True))
        ]
    else:
        others = resolve_members(found, registry=registry, token=token)
        members = [
            _load_member(found.name, title, pin, other.folder, wanted, device)
            for title, pin, other in zip(titles, ensemble.members, others, strict=True)
        ]
    combination = Combination.of(
        [member.space for member in members],
        ensemble.weights,
        space=ensemble.space,
        combine=ensemble.combine,
        temperature=ensemble.temperature,
    )
    return Predictor(
        members,
        combination,
        ensemble.operating_points,
        rules=ensemble.rules,
        name=found.name,
        revision=found.revision,
        folder=found.folder,
    )


def from_network(
    network: nn.Module, labels: LabelSpace | str | Sequence[str], *, name: str = "model", **options: Any
) -> Predictor:
    """Make a Predictor of a network that was trained elsewhere, ready for ``save_pretrained``.

    ``labels`` and ``options`` (``image_size``, ``mean``, ``std``, …) are those of ``LesionClassifier.from_network``.

    >>> import timm
    >>> from_network(timm.create_model("test_resnet", num_classes=2), ["benign", "malignant"], image_size=32).space.name
    'binary'
    """
    return Predictor.of(LesionClassifier.from_network(network, labels, **options), name)


def _load_member(
    ensemble: str, title: str, pinned: EnsembleMember, folder: Path, wanted: EngineName, device: torch.device
) -> Member:
    """Load a member exactly as pinned; one that is broken or differs is an error that names it."""
    try:
        classifier, config = read_model(folder)
        running = engine_for(wanted, classifier, Origin(folder, config), device)
        gate = Gate.read(folder, config)
    except LesionHubError as error:
        raise StoreError(f"{ensemble}: member {pinned.name} {pinned.revision} cannot be loaded: {error}") from None
    if config.lesion_hub.weights_sha256 != pinned.weights_sha256:
        raise StoreError(
            f"{ensemble}: member {pinned.name} {pinned.revision} is not the one the ensemble was made of "
            f"(sha256 {config.lesion_hub.weights_sha256[:12]}…, expected {pinned.weights_sha256[:12]}…); restore that version"
        )
    return Member(title, classifier, running, gate)
