"""Ensembles whose members' weights travel with them, so that transformers and timm load the repo as one network.

Beside ``ensemble.json``, which stays what our own loader goes by, such a folder holds what a single model's does:
``model.safetensors`` with every member's tensors as they were published, their input gates, ``modeling_lesion.py``, and a
``config.json`` that is made of ``ensemble.json`` and of the members' own configs, which it keeps whole.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from safetensors.torch import save
from torch import Tensor

from lesion_hub.config import (
    CONFIG_NAME,
    ENSEMBLE_NAME,
    MOST_MEMBERS,
    EnsembleConfig,
    LesionHubSection,
    ModelConfig,
    dump_json,
    load_ensemble_config,
    load_model_config,
    validated,
)
from lesion_hub.errors import StoreError
from lesion_hub.files import write_bytes, write_text
from lesion_hub.hub.format import load_strictly
from lesion_hub.hub.gate_file import gate_bytes, read_gate
from lesion_hub.hub.layout import AUTO_MAP, MEMBER_GATES, MODELING_NAME, WEIGHTS_NAME, modeling_source, verify_weights
from lesion_hub.models import LesionClassifier
from lesion_hub.models.joint import JOINT_ARCHITECTURE, joint_arguments, shared_input
from lesion_hub.models.zoo import read_weights


def write_bundle(folder: Path, ensemble: EnsembleConfig, places: Sequence[Path]) -> EnsembleConfig:
    """Put the weights and gates of the members in ``places`` into ``folder``; return the config with the weights' sha256.

    ``ensemble.json`` is left to the caller, who writes it last.
    """
    members = [load_model_config(place) for place in places]
    tensors: dict[str, Tensor] = {}
    for i, (place, member) in enumerate(zip(places, members, strict=True)):
        verify_weights(place, member)
        tensors |= {f"members.{i}.{key}": value for key, value in read_weights(place / WEIGHTS_NAME).items()}
        gate = read_gate(place, member)
        if gate is not None:
            write_bytes(folder / MEMBER_GATES.format(i), gate_bytes(gate))
    blob = save(tensors, metadata={"format": "pt"})
    bundled = ensemble.model_copy(update={"weights_sha256": hashlib.sha256(blob).hexdigest()})
    config = bundle_config(bundled, members)
    write_text(folder / MODELING_NAME, modeling_source())
    write_bytes(folder / WEIGHTS_NAME, blob)
    write_text(folder / CONFIG_NAME, dump_json(config))
    return bundled


def write_ensemble(folder: Path, ensemble: EnsembleConfig) -> None:
    """Write ``ensemble.json``, and where the weights travel with it the ``config.json`` that follows from it."""
    if ensemble.weights_sha256 is not None:
        write_text(folder / CONFIG_NAME, dump_json(bundle_config(ensemble, bundled_members(folder))))
    write_text(folder / ENSEMBLE_NAME, dump_json(ensemble))


def bundle_config(ensemble: EnsembleConfig, members: Sequence[ModelConfig]) -> ModelConfig:
    """Make the ``config.json`` by which others load the whole as one network; members that share no input are one line."""
    given = shared_input([member.pretrained_cfg for member in members], len(ensemble.label_names))
    args = joint_arguments(
        [member.model_dump(mode="json", exclude_none=True) for member in members],
        given,
        [member.space.map_to(ensemble.space) for member in members],
        weights=ensemble.weights,
        combine=ensemble.combine,
        temperature=ensemble.temperature,
    )
    return ModelConfig(
        architecture=JOINT_ARCHITECTURE,
        num_classes=len(ensemble.label_names),
        num_features=sum(member.num_features for member in members),
        label_names=ensemble.label_names,
        label_descriptions=dict(zip(ensemble.label_names, ensemble.space.descriptions, strict=True)),
        model_args=args,
        pretrained_cfg=given,
        auto_map=AUTO_MAP,
        lesion_hub=LesionHubSection(
            label_space=ensemble.label_space,
            temperature=ensemble.temperature,
            operating_points=ensemble.operating_points,
            rules=ensemble.rules,
            training=ensemble.training,
            weights_sha256=str(ensemble.weights_sha256),
        ),
    )


def bundled_members(folder: Path) -> list[ModelConfig]:
    """Read the members' own configs out of a bundle's ``config.json``."""
    path = folder / CONFIG_NAME
    members = load_model_config(folder).model_args.get("members")
    if not isinstance(members, list) or len(members) > MOST_MEMBERS:
        raise StoreError(f"{path}: names no members; make the ensemble again")
    return [validated(ModelConfig, member, f"{path}: member") for member in members]


def read_bundle(folder: Path) -> list[LesionClassifier]:
    """Read the members of a bundle, in evaluation mode, as strictly as ``read_model`` reads a single model.

    The weights' sha256 is checked, the members must be those that ``ensemble.json`` pins, and ``config.json`` must say what
    follows from it: whoever loads the folder in another way gets the same answers.
    """
    ensemble = load_ensemble_config(folder)
    verify_weights(folder, ensemble)
    members = bundled_members(folder)
    pinned = [pin.weights_sha256 for pin in ensemble.members]
    there = [member.lesion_hub.weights_sha256 for member in members]
    if there != pinned or load_model_config(folder) != bundle_config(ensemble, members):
        raise StoreError(f"{folder}: {CONFIG_NAME} does not say what {ENSEMBLE_NAME} says; make the ensemble again")
    weights = read_weights(folder / WEIGHTS_NAME)
    classifiers = []
    for i, member in enumerate(members):
        prefix = f"members.{i}."
        own = {key.removeprefix(prefix): weights.pop(key) for key in list(weights) if key.startswith(prefix)}
        classifiers.append(load_strictly(member, own, folder / WEIGHTS_NAME))
    if weights:
        raise StoreError(f"{folder / WEIGHTS_NAME}: holds {next(iter(weights))}, of no member; make the ensemble again")
    return classifiers
