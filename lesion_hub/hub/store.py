"""Find, list, publish, pull and describe models, in the same way in a folder, the local registry and the Hugging Face Hub."""

from __future__ import annotations

import os
import shutil
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from lesion_hub.config import MEMBER_REVISION, REGISTRY_NAME, REPO_ID, EnsembleConfig, ModelConfig
from lesion_hub.errors import LesionHubError, StoreError
from lesion_hub.files import read_json, require_new_folder
from lesion_hub.hub.layout import METRICS_NAME, is_model_folder, load_config, own_section, require_own_files
from lesion_hub.hub.licences import card_licence
from lesion_hub.hub.measures import rules_in_words
from lesion_hub.hub.registry import Registries
from lesion_hub.hub.release import Published, prepare_release
from lesion_hub.hub.remote import Hub
from lesion_hub.hub.versions import notes_in, split_revision, version_tags, without_revision

# ------------------------------------------------------------------------------------------------------------- find one


@dataclass(frozen=True)
class Resolved:
    """A model or ensemble found: its folder on this machine, and which version it is (None for a bare folder).

    ``registry`` is the root of the registry that it is from, None for a bare folder and for the Hub.
    """

    name: str
    folder: Path
    revision: str | None
    registry: Path | None = None

    @property
    def pin(self) -> str:
        """``name@revision``, by which a Space names its models."""
        return f"{self.name}@{self.revision}"

    @property
    def display_name(self) -> str:
        """What to show for it: its name; for a bare folder its last part, or the last two where that is a version."""
        if self.revision is not None:
            return self.name
        place = self.folder.resolve()
        return f"{place.parent.name} {place.name}" if version_tags([place.name]) else place.name


def resolve(
    name: str | Path, revision: str | None = None, *, registry: str | Path | None = None, token: str | None = None
) -> Resolved:
    """Find a model by folder, registry name or Hub id (``org/name``), fetching it if need be.

    A revision may stand in the name (``name@v1.0.0``); without any the highest version is taken. A folder on disk wins over
    a Hub id of the same spelling.
    """
    plain, wanted = split_revision(name, revision)
    folder = Path(plain).expanduser()
    if folder.is_dir() and is_model_folder(folder):
        if wanted is not None:
            raise StoreError(f"{folder} is a folder, which has no versions; leave out revision {wanted!r}")
        return Resolved(plain, folder, None)
    return resolve_published(plain, wanted, registry=registry, token=token)


def resolve_published(
    name: str, revision: str | None = None, *, registry: str | Path | None = None, token: str | None = None
) -> Resolved:
    """Find a registry name or Hub id, never a folder of that name: what an ensemble pins is the same wherever it is loaded."""
    return _fetch(name, revision, _registries_or_hub(name, registry, token))


def _fetch(name: str, revision: str | None, place: Registries | Hub) -> Resolved:
    folder, version = place.fetch(name, revision)
    return Resolved(name, folder, version, folder.parents[1] if isinstance(place, Registries) else None)


def resolve_pinned(name: str, *, registry: str | Path | None = None, token: str | None = None) -> Resolved:
    """Find ``name@v1.0.0`` or ``name@<commit id>``, which never move; without a revision the highest version is taken."""
    plain, revision = split_revision(name)
    if revision and not MEMBER_REVISION.fullmatch(revision):
        raise StoreError(f"{name}: {revision!r} may move; pin a version (v1.0.0) or a full commit id")
    found = resolve_published(plain, revision, registry=registry, token=token)
    if not MEMBER_REVISION.fullmatch(str(found.revision)):
        raise StoreError(f"{plain}: has no published version to pin; publish one, or name a commit ({plain}@<40 hex digits>)")
    return found


def resolve_members(owner: Resolved, *, registry: str | Path | None = None, token: str | None = None) -> list[Resolved]:
    """Find the members whose weights an ensemble needs, first in its own registry, fetching them if need be.

    A single model has none, nor has an ensemble that carries their weights.
    """
    config = load_config(owner.folder)
    found: list[Resolved] = []
    if isinstance(config, ModelConfig) or config.weights_sha256 is not None:
        return found
    for member in config.members:
        try:
            place = _registries_or_hub(member.name, registry, token)
            if isinstance(place, Registries):
                place = place.starting_with(owner.registry)
            found.append(_fetch(member.name, member.revision, place))
        except LesionHubError as error:
            raise StoreError(f"{owner.name}: member {member.name} {member.revision} cannot be found: {error}") from None
    return found


def list_versions(name: str, *, registry: str | Path | None = None, token: str | None = None) -> list[str]:
    """List the version tags of a registry name or Hub id, lowest first.

    >>> list_versions("dermoscopy-trio")  # doctest: +SKIP
    ['v1.0.0']
    """
    plain = without_revision(name, "all versions are listed: {name}")
    return _registries_or_hub(plain, registry, token).versions(plain)


def registry_of(name: str, *, registry: str | Path | None = None) -> Path | None:
    """Return the root of the registry that a model of that name is taken from; None for one of the Hub."""
    return None if REPO_ID.fullmatch(name) else Registries(registry).holding(name)[0].root


def _registries_or_hub(name: str, registry: str | Path | None, token: str | None, *, private: bool = False) -> Registries | Hub:
    if REPO_ID.fullmatch(name):
        return Hub(token, private=private)
    if REGISTRY_NAME.fullmatch(name):
        return Registries(registry)
    raise StoreError(
        f"{name!r}: neither a model folder (with config.json or ensemble.json), nor a Hub id (org/name), nor a registry name"
    )


# ----------------------------------------------------------------------------------------------------- publish and pull


def publish(
    folder: str | Path,
    name: str,
    *,
    version: str,
    notes: str,
    registry: str | Path | None = None,
    private: bool = False,
    token: str | None = None,
    force_licence: bool = False,
) -> Published:
    """Publish a model folder as one immutable version.

    Args:
        folder: a run folder or any folder that holds a model's files; only those are published.
        name: ``org/name`` for the Hub, a plain name for the registry.
        version: ``X.Y.Z``; one that exists and holds anything else is refused.
        notes: what changed; they go on top of the repo's CHANGELOG.md.
        registry: folder, or several, of which the first that can be written into is taken; else ``LESION_HUB_REGISTRY``.
        private: create the Hub repo as a private one.
        token: Hub token; by default the one that you are logged in with, or ``HF_TOKEN``.
        force_licence: publish although the card's licence is more permissive than the training data's.
    """
    plain = without_revision(name, "publish {name}, and say which version beside it (--version {revision})")
    path = Path(folder).expanduser()
    bare = Resolved(str(path), path, None)
    members = [] if force_licence else resolve_members(bare, registry=registry, token=token)
    places = [member.folder for member in members]
    release = prepare_release(path, version, notes, members=places, force_licence=force_licence)
    return _registries_or_hub(plain, registry, token, private=private).publish(release, plain)


def pull(
    name: str,
    revision: str | None = None,
    *,
    to: str | Path | None = None,
    registry: str | Path | None = None,
    token: str | None = None,
) -> Resolved:
    """Fetch a version, and for an ensemble its members where their weights are not in it, so that it loads offline.

    Without ``to`` it stays in the Hub cache; with it the files are also copied into that new folder.
    """
    found = resolve(name, revision, registry=registry, token=token)
    resolve_members(found, registry=registry, token=token)
    if to is None:
        return found
    target = Path(to).expanduser()
    _copy_whole(found.folder, target)
    return replace(found, folder=target)


def _copy_whole(source: Path, target: Path) -> None:
    """Copy a version's files into a new folder, which appears with all of them or not at all."""
    require_new_folder(target)
    entries = [path.relative_to(source) for path in source.rglob("*") if path.is_symlink() or not path.is_dir()]
    require_own_files(source, [str(path) for path in entries if not path.name.startswith(".")])
    staging = target.with_name(f".{target.name}.tmp-{os.getpid()}")
    try:
        shutil.copytree(source, staging, ignore=shutil.ignore_patterns(".*"))
        staging.replace(target)
    except (OSError, shutil.Error) as error:
        reason = error.args[0][0][2] if isinstance(error, shutil.Error) else error.strerror
        raise StoreError(f"{target}: cannot be written ({reason}); free some space or choose another folder") from None
    finally:
        shutil.rmtree(staging, ignore_errors=True)


# ---------------------------------------------------------------------------------------------------------------- facts


@dataclass(frozen=True)
class ModelInfo:
    """What ``lesion-hub info`` shows of a version.

    ``registry`` is the root that it is from; ``also_in`` are those that hold a model of the same name, and come after it.
    """

    name: str
    kind: str
    version: str | None
    versions: list[str]
    label_space: str
    labels: list[str]
    licence: str | None
    size_bytes: int
    temperature: float | None
    architecture: str | None = None
    weights_sha256: str | None = None
    members: list[str] = field(default_factory=list)
    operating_points: dict[str, float] = field(default_factory=dict)
    rules: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    registry: str | None = None
    also_in: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return asdict(self)


def info(
    name: str | Path, revision: str | None = None, *, registry: str | Path | None = None, token: str | None = None
) -> ModelInfo:
    """Read facts about a version from its files.

    >>> info("dermoscopy-trio").label_space  # doctest: +SKIP
    'ham7'
    """
    found = resolve(name, revision, registry=registry, token=token)
    config = load_config(found.folder)
    section = own_section(config)
    model = config if isinstance(config, ModelConfig) else None
    others = Registries(registry).holding(found.name) if found.registry else []
    return ModelInfo(
        name=found.name,
        kind="model" if model else "ensemble",
        version=found.revision,
        versions=list_versions(found.name, registry=registry, token=token) if found.revision else [],
        label_space=section.label_space,
        labels=list(config.label_names),
        licence=card_licence(found.folder),
        size_bytes=sum(path.stat().st_size for path in found.folder.rglob("*") if path.is_file()),
        temperature=section.temperature,
        architecture=model.architecture if model else None,
        weights_sha256=section.weights_sha256,
        members=[f"{m.name}@{m.revision}" for m in config.members] if isinstance(config, EnsembleConfig) else [],
        operating_points={key: point.threshold for key, point in section.operating_points.items()},
        rules=rules_in_words(section.rules),
        metrics=read_json(found.folder / METRICS_NAME, missing_ok=True),
        notes=notes_in(found.folder),
        registry=str(found.registry) if found.registry else None,
        also_in=[str(other.root) for other in others if other.root != found.registry],
    )
