"""Publishing a Space: the folder ``spaces/lesion-ensemble``, and the models that it answers with, each at a fixed version.

A static one is the folder that ``app.static_page`` writes, pushed in the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml
from huggingface_hub import HfApi, SpaceCard, SpaceHardware

from lesion_hub import __version__
from lesion_hub.config import REGISTRY_NAME, REPO_ID
from lesion_hub.errors import StoreError, one_line
from lesion_hub.files import json_text, packaged_folder
from lesion_hub.hub.layout import CARD_NAME, require_own_files
from lesion_hub.hub.licences import card_licence, strictest
from lesion_hub.hub.release import Content
from lesion_hub.hub.remote import Hub
from lesion_hub.hub.retry import one_line_errors, with_retries
from lesion_hub.hub.store import Resolved, resolve_members, resolve_pinned
from lesion_hub.hub.upload import Files, RepoUpload
from lesion_hub.hub.versions import split_revision, without_revision
from lesion_hub.taxonomy import nearest

MODELS_NAME = "models.json"
APP_NAME = "app.py"
REQUIREMENTS_NAME = "requirements.txt"
BUNDLE = "registry"
"""Folder of a Space that holds the models of a local registry, in the registry's own layout."""

_REQUIRED = (APP_NAME, CARD_NAME, MODELS_NAME, REQUIREMENTS_NAME)


@dataclass(frozen=True)
class SpaceKind:
    """How a Space is run, and its files: the page, the one that shows that it is ours, and the folders that are replaced."""

    sdk: str
    page: str
    ours: str
    replaced: tuple[str, ...]


GRADIO = SpaceKind("gradio", APP_NAME, MODELS_NAME, (f"{BUNDLE}/",))
STATIC = SpaceKind("static", "index.html", "model.json", ("graphs/", "runtime/"))


@dataclass(frozen=True)
class PublishedSpace:
    """A Space as it now stands (or would, after a dry run): its models' pins and the names of its files.

    ``commit`` is None after a dry run; ``changed`` is False when the Space already held exactly this. ``needs_token`` are the
    models that only a token opens.
    """

    name: str
    location: str
    models: tuple[str, ...]
    files: tuple[str, ...]
    commit: str | None
    changed: bool
    needs_token: tuple[str, ...] = ()


def packaged_space() -> Path:
    """Find the Space's folder that comes with the package."""
    return packaged_folder("_space", "spaces/lesion-ensemble")


def publish_space(
    name: str,
    models: Sequence[str],
    *,
    folder: str | Path | None = None,
    private: bool = False,
    hardware: str | None = None,
    registry: str | Path | None = None,
    token: str | None = None,
    dry_run: bool = False,
) -> PublishedSpace:
    """Push the packaged Space to the Hub, with its models pinned. Safe to run again: the same content makes no commit.

    Args:
        name: ``org/name`` of the Space.
        models: ``org/name@v1.0.0``, or a registry name, whose files then travel within the Space; without a version the
            highest is taken. The first one is the page's default.
        folder: a Space of your own, made from a copy of the packaged one.
        private: create the Space as a private one.
        hardware: flavour to run on (``cpu-basic``, ``t4-small``, …); None leaves it as it is.
        registry: registry folder, or several, for models named by a plain name.
        token: Hub token; by default the one that you are logged in with, or ``HF_TOKEN``.
        dry_run: check everything, write nothing.

    >>> publish_space("org/skin-demo", ["org/ham10000-trio@v1.2.0"]).location  # doctest: +SKIP
    'https://huggingface.co/spaces/org/skin-demo'
    """
    _require_space_name(name)
    flavours = {flavour.value: flavour for flavour in SpaceHardware}
    if hardware is not None and hardware not in flavours:
        raise StoreError(f"hardware {hardware!r} is not one that Spaces run on; {nearest(hardware, flavours)}")
    place = Path(folder).expanduser() if folder is not None else packaged_space()
    for file in _REQUIRED:
        if not (place / file).is_file():
            raise StoreError(f"{place / file}: missing; a Space's folder holds {', '.join(_REQUIRED)} (start from a copy)")
    if not models:
        raise StoreError("a Space needs a model to answer with; name one with --model org/name@v1.0.0")
    for model in models:
        _require_published(model)

    hub = Hub(token, private=private)
    pinned = list(dict.fromkeys(resolve_pinned(model, registry=registry, token=token) for model in models))
    # The models with the members that they need, each once.
    parts = list(
        dict.fromkeys(part for model in pinned for part in (model, *resolve_members(model, registry=registry, token=token)))
    )
    # What only a token opens is not preloaded: a build has none.
    remote = {part.name for part in parts if REPO_ID.fullmatch(part.name)}
    needs_token = tuple(sorted(part for part in remote if _needs_token(hub.api, part)))
    pins = tuple(model.pin for model in pinned)
    content = space_content(place, pins, parts, hardware=hardware, needs_token=needs_token)
    commit, changed = None, True
    if not dry_run:
        upload = SpaceUpload(hub.api, name, content, pins)
        commit, changed = upload.publish(private=private, hardware=flavours[hardware] if hardware else None)
    location = f"{hub.api.endpoint}/spaces/{name}"
    return PublishedSpace(name, location, pins, tuple(sorted(content)), commit, changed, needs_token)


def pinned_parts(model: str, *, registry: str | Path | None = None, token: str | None = None) -> tuple[Resolved, ...]:
    """Resolve a published model to exactly one version of it, and the members that it needs, each once."""
    _require_published(model)
    pinned = resolve_pinned(model, registry=registry, token=token)
    return tuple(dict.fromkeys((pinned, *resolve_members(pinned, registry=registry, token=token))))


def publish_static_space(
    name: str,
    folder: Path,
    parts: Sequence[Resolved],
    *,
    private: bool = False,
    token: str | None = None,
    dry_run: bool = False,
) -> PublishedSpace:
    """Push a folder that ``app.static_page`` wrote, with the model inside; ``parts`` are the model and its members, pinned.

    Safe to run again: the same content makes no commit.
    """
    _require_space_name(name)
    hub = Hub(token, private=private)
    pins = (parts[0].pin,)
    content: Content = {file: folder / file for file in _files(folder)}
    remote = [part for part in parts if REPO_ID.fullmatch(part.name)]
    content[CARD_NAME] = _space_card(folder / CARD_NAME, remote, None, parts, None).encode()
    commit, changed = None, True
    if not dry_run:
        commit, changed = SpaceUpload(hub.api, name, content, pins, STATIC).publish(private=private, hardware=None)
    return PublishedSpace(name, f"{hub.api.endpoint}/spaces/{name}", pins, tuple(sorted(content)), commit, changed)


def _require_space_name(name: str) -> None:
    without_revision(name, "{name} is the Space; the versions of its models go after theirs (--model org/name@v1.0.0)")
    if not REPO_ID.fullmatch(name):
        raise StoreError(f"{name!r} is not the name of a Space; write org/name")


def _require_published(model: str) -> None:
    plain, _ = split_revision(model)
    if not (REPO_ID.fullmatch(plain) or REGISTRY_NAME.fullmatch(plain)):
        fix = "org/name@v1.0.0 or a registry name; publish it first"
        raise StoreError(f"{model!r}: a Space answers with published models, {fix}")


def _needs_token(api: HfApi, name: str) -> bool:
    with one_line_errors(name, "looking at it"):
        about = with_retries(lambda: api.model_info(name))
    return bool(about.private or about.gated)


# ----------------------------------------------------------------------------------------------------------- its files


def space_content(
    folder: Path,
    pins: Sequence[str],
    parts: Sequence[Resolved],
    *,
    hardware: str | None = None,
    needs_token: Sequence[str] = (),
) -> Content:
    """Gather the files of the Space, by name: those of ``folder``, and what its ``pins`` need.

    ``parts`` are the pinned models and their members. One of the Hub is preloaded when the Space is built, unless it
    ``needs_token``; one of a local registry travels within the Space.
    """
    remote = [part for part in parts if REPO_ID.fullmatch(part.name)]
    bundled = [part for part in parts if part not in remote]
    for place in (folder, *(part.folder for part in bundled)):
        require_own_files(place, _files(place))
    content: Content = {name: folder / name for name in _files(folder)}
    for part in bundled:
        content |= {f"{BUNDLE}/{part.name}/{part.revision}/{name}": part.folder / name for name in _files(part.folder)}
    content[MODELS_NAME] = json_text(list(pins)).encode()
    preloaded = [part for part in remote if part.name not in needs_token]
    content[CARD_NAME] = _space_card(folder / CARD_NAME, remote, preloaded, bundled, hardware).encode()
    return content


def _files(folder: Path) -> list[str]:
    """List the files below ``folder``, without caches, hidden ones and a bundle that an earlier run unpacked there."""
    names = [path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file()]
    return [
        name.as_posix()
        for name in names
        if name.parts[0] != BUNDLE and not any(part.startswith(".") or part == "__pycache__" for part in name.parts)
    ]


def _space_card(
    path: Path,
    remote: Sequence[Resolved],
    preloaded: Sequence[Resolved] | None,
    bundled: Sequence[Resolved],
    hardware: str | None,
) -> str:
    """Return the Space's README.md with its models in the front matter; weights within the Space bring their licence along."""
    try:
        card = SpaceCard(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = one_line(error)
        raise StoreError(f"{path}: the front matter cannot be read ({reason}); mend the YAML between the --- lines") from None
    card.data["models"] = list(dict.fromkeys(part.name for part in remote))
    if preloaded is not None:
        # "org/name file,file commit"; the cache keeps every snapshot in a folder named after its commit.
        card.data["preload_from_hub"] = [f"{p.name} {','.join(_files(p.folder))} {p.folder.name}" for p in preloaded]
    licences = [str(card.data.get("license") or ""), *(card_licence(part.folder) or "" for part in bundled)]
    card.data["license"] = strictest(filter(None, licences)) if any(licences) else None
    if hardware is not None:
        card.data["suggested_hardware"] = hardware
    return str(card)


# ---------------------------------------------------------------------------------------------------------- the upload


class SpaceUpload(RepoUpload):
    """A Space's files as one commit, or none where it already holds them.

    Files that somebody added to the Space stay, except for bundled models that it no longer answers with.
    """

    repo_type = "space"

    def __init__(self, api: HfApi, name: str, content: Content, pins: Sequence[str], kind: SpaceKind = GRADIO) -> None:
        super().__init__(api, name, f"Answer with lesion-hub {__version__}", "\n".join(pins))
        self.content, self.kind = content, kind

    def publish(self, *, private: bool, hardware: SpaceHardware | None) -> tuple[str, bool]:
        """Create the Space, commit, and ask for hardware; return the commit and whether it is a new one."""
        name = self.repo_id
        with one_line_errors(name, "publishing the Space"):
            with_retries(
                lambda: self.api.create_repo(name, repo_type="space", space_sdk=self.kind.sdk, private=private, exist_ok=True)
            )
            if private and not with_retries(lambda: self.api.space_info(name)).private:
                raise StoreError(f"{name}: exists and is public; make it private in its settings, or leave out --private")
            before = with_retries(self.history)[0].commit_id
            commit = self.commit()
            if hardware is not None:
                with_retries(lambda: self.api.request_space_hardware(name, hardware))
        return commit, commit != before

    def content_on(self, commit: str, there: Files) -> Content:
        """Return the Space's files; a Space of something else is refused."""
        # A host puts a page of its own into a new static Space, which tells nothing.
        other = next((kind for kind in (GRADIO, STATIC) if kind is not self.kind), self.kind)
        if other.ours in there and self.kind.ours not in there:
            raise StoreError(f"{self.repo_id}: is a {other.sdk} Space (it has {other.ours}); choose another name")
        if self.kind is GRADIO and APP_NAME in there and MODELS_NAME not in there:
            raise StoreError(f"{self.repo_id}: is a Space of something else (it has no {MODELS_NAME}); choose another name")
        return self.content

    def is_stale(self, path: str) -> bool:
        """Tell whether a file belongs to a model that the Space no longer answers with."""
        return path.startswith(self.kind.replaced)
