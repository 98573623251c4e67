"""What a Space of ours holds: the folder ``spaces/lesion-ensemble``, and the models that it answers with, pinned."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from huggingface_hub import SpaceCard, SpaceHardware

from lesion_hub.config import MEMBER_REVISION, REGISTRY_NAME, REPO_ID, EnsembleConfig
from lesion_hub.errors import StoreError
from lesion_hub.hub.content import Content
from lesion_hub.hub.layout import CARD_NAME, load_config
from lesion_hub.hub.licences import strictest
from lesion_hub.hub.packaged import packaged_folder
from lesion_hub.hub.release import card_licence
from lesion_hub.hub.store import Resolved, resolve_published
from lesion_hub.taxonomy import nearest

MODELS_NAME = "models.json"
APP_NAME = "app.py"
REQUIREMENTS_NAME = "requirements.txt"
BUNDLE = "registry"
"""Folder of a Space that holds the models of a local registry, in the registry's own layout."""

_REQUIRED = (APP_NAME, CARD_NAME, MODELS_NAME, REQUIREMENTS_NAME)


def packaged_space() -> Path:
    """The Space's folder that comes with the package."""
    return packaged_folder("_space", "spaces/lesion-ensemble")


@dataclass(frozen=True)
class SpaceModel:
    """A model that a Space answers with, whole on this machine, with the members that it needs."""

    found: Resolved
    members: tuple[Resolved, ...]

    @property
    def pin(self) -> str:
        """``name@revision``, which is how ``models.json`` names it."""
        return f"{self.found.name}@{self.found.revision}"


def pin_model(name: str, *, registry: str | Path | None = None, token: str | None = None) -> SpaceModel:
    """Find ``name@v1.0.0``, fetching it and its members if need be; without a version the highest is taken, and pinned."""
    plain, _, revision = name.partition("@")
    if not (REPO_ID.fullmatch(plain) or REGISTRY_NAME.fullmatch(plain)):
        raise StoreError(
            f"{name!r}: a Space answers with published models, org/name@v1.0.0 or a registry name; publish it first"
        )
    if revision and not MEMBER_REVISION.fullmatch(revision):
        raise StoreError(f"{name}: {revision!r} may move; pin a version (v1.0.0) or a full commit id")
    found = resolve_published(plain, revision or None, registry=registry, token=token)
    if not MEMBER_REVISION.fullmatch(str(found.revision)):
        raise StoreError(f"{plain}: has no published version to pin; publish one, or name a commit ({plain}@<40 hex digits>)")
    config = load_config(found.folder)
    members = config.members if isinstance(config, EnsembleConfig) else ()
    return SpaceModel(
        found, tuple(resolve_published(member.name, member.revision, registry=registry, token=token) for member in members)
    )


def space_content(
    folder: Path, models: Sequence[SpaceModel], *, hardware: str | None = None, hidden: Iterable[str] = ()
) -> Content:
    """The files of the Space, by name.

    A model of the Hub is named with its version, and preloaded when the Space is built; a model of a local registry travels
    within the Space. ``hidden`` are the Hub ids that need a token, which a build does not have.
    """
    parts = list(dict.fromkeys(part for model in models for part in (model.found, *model.members)))
    remote = [part for part in parts if REPO_ID.fullmatch(part.name)]
    content: Content = {name: folder / name for name in _files(folder)}
    for part in parts:
        if part not in remote:
            names = _files(part.folder)
            content |= {f"{BUNDLE}/{part.name}/{part.revision}/{name}": part.folder / name for name in names}
    pins = [model.pin for model in models]
    content[MODELS_NAME] = (json.dumps(pins, indent=2) + "\n").encode()
    bundled = [part for part in parts if part not in remote]
    content[CARD_NAME] = _card(folder / CARD_NAME, remote, bundled, hardware, set(hidden)).encode()
    return content


def checked_hardware(name: str | None) -> SpaceHardware | None:
    """A hardware flavour that huggingface_hub knows; an unknown one is one line."""
    flavours = {flavour.value: flavour for flavour in SpaceHardware}
    if name is not None and name not in flavours:
        raise StoreError(f"hardware {name!r} is not one that Spaces run on; {nearest(name, flavours)}")
    return flavours[name] if name is not None else None


def checked_folder(folder: Path) -> Path:
    """``folder``, once it is sure that it holds a Space."""
    for name in _REQUIRED:
        if not (folder / name).is_file():
            raise StoreError(f"{folder / name}: missing; a Space's folder holds {', '.join(_REQUIRED)} (start from a copy)")
    return folder


def _files(folder: Path) -> list[str]:
    """Names of the files below ``folder``, without caches, hidden ones and a bundle that an earlier run unpacked there."""
    names = [path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file()]
    return [
        name.as_posix()
        for name in names
        if name.parts[0] != BUNDLE and not any(part.startswith(".") or part == "__pycache__" for part in name.parts)
    ]


def _card(path: Path, remote: Sequence[Resolved], bundled: Sequence[Resolved], hardware: str | None, hidden: set[str]) -> str:
    """The Space's README.md with its models in the front matter; weights within the Space bring their licence along."""
    try:
        card = SpaceCard(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise StoreError(f"{path}: the front matter cannot be read ({reason}); mend the YAML between the --- lines") from None
    card.data["models"] = list(dict.fromkeys(part.name for part in remote))
    card.data["preload_from_hub"] = [_preload(part) for part in remote if part.name not in hidden]
    licences = [str(card.data.get("license") or ""), *(card_licence(part.folder) or "" for part in bundled)]
    card.data["license"] = strictest(filter(None, licences)) if any(licences) else None
    if hardware is not None:
        card.data["suggested_hardware"] = hardware
    return str(card)


def _preload(part: Resolved) -> str:
    """``org/name file,file commit``, which is how a Space names what its build shall put into the Hub cache."""
    commit = part.folder.name  # the cache keeps every snapshot in a folder named after its commit
    return f"{part.name} {','.join(_files(part.folder))} {commit}"
