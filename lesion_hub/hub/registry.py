"""The local registry: ``<root>/<name>/<vX.Y.Z>/`` holds the same files as a Hub repo."""

from __future__ import annotations

import os
import shutil
import tempfile
from io import BytesIO
from pathlib import Path

from filelock import FileLock

from lesion_hub.config import REGISTRY_NAME
from lesion_hub.errors import StoreError
from lesion_hub.files import packaged_folder, sync_folder
from lesion_hub.hub.layout import CHANGELOG_NAME
from lesion_hub.hub.release import Published, Release
from lesion_hub.hub.versions import changelog_notes, version_tags
from lesion_hub.taxonomy import nearest

_STAGING = ".tmp-"
_LOCK_SECONDS = 60


def packaged_root() -> Path:
    """Find the registry that comes with the package."""
    return packaged_folder("_registry", "registry")


class Registry:
    """A folder of published models, with the verbs of the Hub.

    Its root is the argument, else ``LESION_HUB_REGISTRY``, else the packaged registry.
    """

    def __init__(self, root: str | Path | None = None) -> None:
        self.root = Path(root or os.environ.get("LESION_HUB_REGISTRY") or packaged_root()).expanduser()

    def names(self) -> list[str]:
        """List the models with at least one version."""
        if not self.root.is_dir():
            return []
        return sorted(path.name for path in self.root.iterdir() if REGISTRY_NAME.fullmatch(path.name) and _tags(path))

    def versions(self, name: str) -> list[str]:
        """List the version tags of a model, lowest first; an unknown model is one line."""
        tags = _tags(self._home(name))
        if not tags:
            raise StoreError(f"{name!r} is not in the registry {self.root}; {nearest(name, self.names())}")
        return tags

    def fetch(self, name: str, revision: str | None = None) -> tuple[Path, str]:
        """Return (folder, version) of a version; None is the highest."""
        tags = self.versions(name)
        tag = revision or tags[-1]
        if tag not in tags:
            raise StoreError(f"{name} has no version {tag!r} in the registry {self.root}; it has {', '.join(tags)}")
        return self._home(name) / tag, tag

    def publish(self, release: Release, name: str) -> Published:
        """Make a version's folder of the release, whole or not at all; one that exists is refused."""
        home, tag = self._home(name), str(release.version)
        target = home / tag
        try:
            home.mkdir(parents=True, exist_ok=True)
            with FileLock(home / ".lock", timeout=_LOCK_SECONDS):
                if target.exists():
                    raise StoreError(f"{name} {tag} already exists in {self.root}; a version never changes, raise the number")
                _install(release, target)
        except OSError as error:  # filelock's Timeout is one too
            why = error.strerror or "another publisher holds the lock"
            raise StoreError(f"{target}: cannot be written ({why}); nothing was published, mend that and run again") from None
        return Published(name, tag, str(target))

    def _home(self, name: str) -> Path:
        if not REGISTRY_NAME.fullmatch(name):
            raise StoreError(f"{name!r} is not a registry name; use letters, digits, '.', '_' and '-'")
        return self.root / name


def _tags(home: Path) -> list[str]:
    return version_tags(path.name for path in home.iterdir() if path.is_dir()) if home.is_dir() else []


def _install(release: Release, target: Path) -> None:
    """Write the files aside, sync them, and rename the folder to ``target``; the caller holds the lock of its parent."""
    home = target.parent
    for abandoned in home.glob(f".*{_STAGING}*"):  # a killed publisher's; the lock says that nobody writes there now
        shutil.rmtree(abandoned, ignore_errors=True)
    logs = [home / tag / CHANGELOG_NAME for tag in _tags(home)]
    texts = [log.read_text(encoding="utf-8") for log in logs if log.is_file()]
    # The one that was written last, which need not be of the highest version: every publish adds one entry.
    previous = max(texts, key=lambda text: len(changelog_notes(text)), default=None)
    staging = Path(tempfile.mkdtemp(prefix=f".{target.name}{_STAGING}", dir=home))
    try:
        for name, data in release.files.items():
            _write_durably(data, staging / name)
        _write_durably(release.changelog_on(previous).encode("utf-8"), staging / CHANGELOG_NAME)
        for folder in (staging, *(path for path in staging.rglob("*") if path.is_dir())):
            sync_folder(folder)
        staging.chmod(0o755)
        staging.rename(target)
        sync_folder(home)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _write_durably(data: Path | bytes, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    with BytesIO(data) if isinstance(data, bytes) else data.open("rb") as reader, target.open("wb") as writer:
        shutil.copyfileobj(reader, writer, 1 << 20)
        writer.flush()
        os.fsync(writer.fileno())
