"""One set of verbs for every place a model can stand: a folder, the local registry, the Hugging Face Hub."""

from __future__ import annotations

import os
import shutil
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lesion_hub.config import REGISTRY_NAME, REPO_ID, EnsembleConfig, ModelConfig, read_json
from lesion_hub.errors import LesionHubError, StoreError
from lesion_hub.hub.layout import CHANGELOG_NAME, METRICS_NAME, is_model_folder, load_config
from lesion_hub.hub.registry import Registry
from lesion_hub.hub.release import Published, card_licence, prepare_release
from lesion_hub.hub.remote import Hub
from lesion_hub.hub.versions import changelog_notes, version_tags


@dataclass(frozen=True)
class Resolved:
    """A model or ensemble found: its folder on this machine, and which version it is (None for a bare folder)."""

    name: str
    folder: Path
    revision: str | None

    @property
    def display_name(self) -> str:
        """What to call it: a folder by its last part, a version's by its model too; where it lies is nobody's business."""
        if self.revision is not None:
            return self.name
        place = self.folder.resolve()
        return f"{place.parent.name} {place.name}" if version_tags([place.name]) else place.name


def resolve(
    name: str | Path, revision: str | None = None, *, registry: str | Path | None = None, token: str | None = None
) -> Resolved:
    """Find a model by folder, registry name or Hub id (``org/name``), fetching it if need be.

    No revision means the highest version. A folder on disk wins over a Hub id of the same spelling.
    """
    folder = Path(name).expanduser()
    if folder.is_dir() and is_model_folder(folder):
        if revision is not None:
            raise StoreError(f"{folder} is a folder, which has no versions; leave out revision {revision!r}")
        return Resolved(str(name), folder, None)
    return resolve_published(str(name), revision, registry=registry, token=token)


def resolve_published(
    name: str, revision: str | None = None, *, registry: str | Path | None = None, token: str | None = None
) -> Resolved:
    """``resolve`` for a registry name or Hub id alone: what an ensemble pins is never a folder that happens to be near."""
    folder, version = _place(name, registry, token).fetch(name, revision)
    return Resolved(name, folder, version)


def list_versions(name: str, *, registry: str | Path | None = None, token: str | None = None) -> list[str]:
    """Version tags of a registry name or Hub id, lowest first.

    >>> list_versions("ham10000-trio")  # doctest: +SKIP
    ['v1.0.0']
    """
    return _place(name, registry, token).versions(name)


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
        version: ``X.Y.Z``; one that exists is refused.
        notes: what changed; they go on top of the repo's CHANGELOG.md.
        registry: registry root, else ``LESION_HUB_REGISTRY``, else the packaged one.
        private: create the Hub repo as a private one.
        token: Hub token; by default the one that you are logged in with, or ``HF_TOKEN``.
        force_licence: publish although the card's licence is more permissive than the training data's.
    """
    path = Path(folder).expanduser()
    config = load_config(path)
    members = [] if force_licence else _member_folders(str(path), config, registry, token)
    release = prepare_release(path, version, notes, members=members, force_licence=force_licence)
    return _place(name, registry, token, private=private).publish(release, name)


def pull(
    name: str,
    revision: str | None = None,
    *,
    to: str | Path | None = None,
    registry: str | Path | None = None,
    token: str | None = None,
) -> Resolved:
    """Fetch a version, and for an ensemble its members, so that it loads offline from then on.

    Without ``to`` it stays in the Hub cache; with it the files are also copied into that new folder.
    """
    found = resolve(name, revision, registry=registry, token=token)
    _member_folders(found.name, load_config(found.folder), registry, token)
    if to is None:
        return found
    target = Path(to).expanduser()
    _copy_whole(found.folder, target)
    return Resolved(found.name, target, found.revision)


def _member_folders(
    owner: str, config: ModelConfig | EnsembleConfig, registry: str | Path | None, token: str | None
) -> list[Path]:
    """The folders of an ensemble's members, fetched if need be; none for a single model."""
    members = config.members if isinstance(config, EnsembleConfig) else ()
    folders = []
    for member in members:
        try:
            folders.append(resolve_published(member.name, member.revision, registry=registry, token=token).folder)
        except LesionHubError as error:
            raise StoreError(f"{owner}: member {member.name} {member.revision} cannot be found: {error}") from None
    return folders


def _copy_whole(source: Path, target: Path) -> None:
    """Copy a version's files into a new folder, which appears with all of them or not at all."""
    if target.exists() and not (target.is_dir() and not any(target.iterdir())):
        raise StoreError(f"{target}: exists and is not an empty folder; choose a new one")
    staging = target.with_name(f".{target.name}.tmp-{os.getpid()}")
    try:
        shutil.copytree(source, staging, ignore=shutil.ignore_patterns(".*"))
        staging.replace(target)
    except (OSError, shutil.Error) as error:
        reason = error.args[0][0][2] if isinstance(error, shutil.Error) else error.strerror
        raise StoreError(f"{target}: cannot be written ({reason}); free some space or choose another folder") from None
    finally:
        shutil.rmtree(staging, ignore_errors=True)


@dataclass(frozen=True)
class ModelInfo:
    """What ``lesion-hub info`` shows of a version."""

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
    metrics: dict[str, Any] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def info(
    name: str | Path, revision: str | None = None, *, registry: str | Path | None = None, token: str | None = None
) -> ModelInfo:
    """Facts about a version, read from its files.

    >>> info("ham10000-trio").label_space  # doctest: +SKIP
    'ham7'
    """
    found = resolve(name, revision, registry=registry, token=token)
    config = load_config(found.folder)
    versions = list_versions(str(name), registry=registry, token=token) if found.revision else []
    section = config.lesion_hub if isinstance(config, ModelConfig) else config
    size = sum(path.stat().st_size for path in found.folder.rglob("*") if path.is_file())
    common: dict[str, Any] = {
        "name": found.name,
        "version": found.revision,
        "versions": versions,
        "label_space": section.label_space,
        "labels": list(config.label_names),
        "licence": card_licence(found.folder),
        "size_bytes": size,
        "temperature": section.temperature,
        "operating_points": {key: point.threshold for key, point in section.operating_points.items()},
        "metrics": _json_or_empty(found.folder / METRICS_NAME),
        "notes": _notes(found.folder),
    }
    if isinstance(config, EnsembleConfig):
        return ModelInfo(kind="ensemble", members=[f"{m.name}@{m.revision}" for m in config.members], **common)
    digest = config.lesion_hub.weights_sha256
    return ModelInfo(kind="model", architecture=config.architecture, weights_sha256=digest, **common)


def _place(name: str, registry: str | Path | None, token: str | None, *, private: bool = False) -> Registry | Hub:
    if REPO_ID.fullmatch(name):
        return Hub(token, private=private)
    if REGISTRY_NAME.fullmatch(name):
        return Registry(registry)
    raise StoreError(
        f"{name!r}: neither a model folder (with config.json or ensemble.json), nor a Hub id (org/name), nor a registry name"
    )


def _json_or_empty(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() else {}


def _notes(folder: Path) -> dict[str, str]:
    path = folder / CHANGELOG_NAME
    return changelog_notes(path.read_text(encoding="utf-8")) if path.is_file() else {}
