"""Publishing a finished run, with what can be wrong about it found before the training and not after."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from lesion_hub.config import REGISTRY_NAME, REPO_ID
from lesion_hub.errors import ConfigError
from lesion_hub.hub.store import publish
from lesion_hub.hub.versions import Version, checked_notes


@dataclass(frozen=True)
class Publication:
    """Where a run goes, and as what."""

    name: str
    version: str
    notes: str


def check_publication(name: str | None, version: str | None, notes: str | None) -> Publication | None:
    """The publication that the command line asks for, or None; a half-stated one is refused."""
    if name is None:
        if version or notes:
            raise ConfigError("--version and --notes are for publishing; say where with --push-to")
        return None
    if not (REGISTRY_NAME.fullmatch(name) or REPO_ID.fullmatch(name)):
        raise ConfigError(f"--push-to {name!r} is neither a Hub id (org/name) nor a registry name")
    if version is None or notes is None:
        raise ConfigError('--push-to needs --version X.Y.Z and --notes "what changed"')
    return Publication(name, str(Version.parse(version)).removeprefix("v"), checked_notes(notes))


def publish_run(folder: Path, publication: Publication) -> None:
    """Publish the model in a run's folder; one process does."""
    if os.environ.get("RANK", "0") != "0":
        return
    published = publish(folder, publication.name, version=publication.version, notes=publication.notes)
    print(f"published {published.name} {published.version}: {published.location}")
