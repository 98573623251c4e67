"""Local registries: in each, ``<root>/<name>/<vX.Y.Z>/`` holds the same files as a Hub repo."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from copy import copy
from io import BytesIO
from pathlib import Path

from filelock import FileLock

from lesion_hub.config import REGISTRY_NAME
from lesion_hub.errors import StoreError
from lesion_hub.files import packaged_folder, sync_folder
from lesion_hub.hub.layout import CHANGELOG_NAME
from lesion_hub.hub.release import Published, Release
from lesion_hub.hub.versions import changelog_notes, notes_in, read_changelog, version_tags
from lesion_hub.taxonomy import nearest

VARIABLE = "LESION_HUB_REGISTRY"
PACKAGED = "packaged"
"""How the registry that comes with the package is named among others."""

_STAGING = ".tmp-"
_LOCK_SECONDS = 60


def packaged_root() -> Path:
    """Find the registry that comes with the package."""
    return packaged_folder("_registry", "registry")


class Registry:
    """A folder of published models, with the verbs of the Hub."""

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)

    def names(self) -> list[str]:
        """List the models with at least one version."""
        if not self.root.is_dir():
            return []
        return sorted(path.name for path in self.root.iterdir() if REGISTRY_NAME.fullmatch(path.name) and _tags(path))

    def versions(self, name: str) -> list[str]:
        """List the version tags of a model, lowest first; of one that is not here, none."""
        return _tags(self.home(name))

    def publish(self, release: Release, name: str) -> Published:
        """Make a version's folder of the release, whole or not at all; one that holds anything else is refused."""
        home, tag = self.home(name), str(release.version)
        target = home / tag
        try:
            home.mkdir(parents=True, exist_ok=True)
            with FileLock(home / ".lock", timeout=_LOCK_SECONDS):
                already = target.exists()
                if already and not _holds(target, release):
                    raise StoreError(f"{name} {tag} already exists in {self.root}; a version never changes, raise the number")
                if not already:
                    _install(release, target)
        except OSError as error:  # filelock's Timeout is one too
            why = error.strerror or "another publisher holds the lock"
            raise StoreError(f"{target}: cannot be written ({why}); nothing was published, mend that and run again") from None
        return Published(name, tag, str(target), already=already)

    def home(self, name: str) -> Path:
        if not REGISTRY_NAME.fullmatch(name):
            raise StoreError(f"{name!r} is not a registry name; use letters, digits, '.', '_' and '-'")
        return self.root / name

    def is_writable(self) -> bool:
        """Tell whether the folder, or the one that it would be made in, can be written into."""
        there = next(path for path in (self.root, *self.root.absolute().parents) if path.exists())
        return there.is_dir() and os.access(there, os.W_OK)


class Registries:
    """The registries that models are looked for in, in order; of a name that two of them hold, the first one's counts.

    They are those of the argument, else of ``LESION_HUB_REGISTRY``: a folder, or several with ``:`` between them (``;`` on
    Windows), where ``packaged`` stands for what comes with the package. That one is looked into last wherever it is not named.

    >>> [registry.root.name for registry in Registries(os.pathsep.join(["mine", "ours"]))]
    ['mine', 'ours', 'registry']
    """

    def __init__(self, places: str | Path | None = None) -> None:
        named = places or os.environ.get(VARIABLE, "")
        words = [named] if isinstance(named, Path) else [*named.split(os.pathsep), PACKAGED]
        named_roots = {word: Path(word).expanduser().absolute() for word in words if word not in ("", PACKAGED)}
        self.own = list(map(Registry, named_roots.values()))
        self.roots = list(dict.fromkeys([*(named_roots.get(word, packaged_root()) for word in words if word), packaged_root()]))

    def __iter__(self) -> Iterator[Registry]:
        return map(Registry, self.roots)

    def __str__(self) -> str:
        return ", ".join(map(str, self.roots))

    def starting_with(self, root: Path | None) -> Registries:
        """Return the same with ``root``, where there is one, before all others: an ensemble's members lie beside it."""
        other = copy(self)
        other.roots = list(dict.fromkeys([*([root] if root else []), *self.roots]))
        return other

    def names(self) -> list[str]:
        """List the models with at least one version."""
        return sorted({name for registry in self for name in registry.names()})

    def holding(self, name: str) -> list[Registry]:
        """List the registries that hold a model, the one that counts first; an unknown model is one line."""
        found = [registry for registry in self if registry.versions(name)]
        if not found:
            raise StoreError(f"{name!r} is not in the registry {self}; {nearest(name, self.names())}")
        return found

    def versions(self, name: str) -> list[str]:
        """List the version tags of a model, lowest first; an unknown model is one line."""
        return self.holding(name)[0].versions(name)

    def fetch(self, name: str, revision: str | None = None) -> tuple[Path, str]:
        """Return (folder, version) of a version; None is the highest of the first registry that holds the model.

        A version that is named is taken from the first registry that has it: what somebody pinned stays to be found when a
        registry with other versions of that name comes first.
        """
        found = self.holding(name)
        tag = revision or found[0].versions(name)[-1]
        registry = next((registry for registry in found if tag in registry.versions(name)), None)
        if registry is None:
            there = version_tags({tag for registry in found for tag in registry.versions(name)})
            raise StoreError(f"{name} has no version {tag!r} in the registry {self}; it has {', '.join(there)}")
        return registry.home(name) / tag, tag

    def to_publish_into(self) -> Registry:
        """Return the first registry that can be written into, never the one that comes with the package."""
        if not self.own:
            raise StoreError(
                f"there is no registry to publish into: name a folder with --registry or {VARIABLE}, or org/name for the Hub"
            )
        return next((registry for registry in self.own if registry.is_writable()), self.own[0])

    def publish(self, release: Release, name: str) -> Published:
        """Publish the release into the first registry that can be written into."""
        return self.to_publish_into().publish(release, name)


def _tags(home: Path) -> list[str]:
    return version_tags(path.name for path in home.iterdir() if path.is_dir()) if home.is_dir() else []


def _holds(target: Path, release: Release) -> bool:
    """Tell whether a version's folder is this very release: the same files, byte for byte, and the same notes."""
    names = {path.relative_to(target).as_posix() for path in target.rglob("*") if path.is_file()} - {CHANGELOG_NAME}
    return (
        names == set(release.files)
        and notes_in(target).get(str(release.version)) == release.notes
        and all(
            (target / name).read_bytes() == (data if isinstance(data, bytes) else data.read_bytes())
            for name, data in release.files.items()
        )
    )


def _install(release: Release, target: Path) -> None:
    """Write the files aside, sync them, and rename the folder to ``target``; the caller holds the lock of its parent."""
    home = target.parent
    for abandoned in home.glob(f".*{_STAGING}*"):  # a killed publisher's; the lock says that nobody writes there now
        shutil.rmtree(abandoned, ignore_errors=True)
    texts = [text for tag in _tags(home) if (text := read_changelog(home / tag / CHANGELOG_NAME))]
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
