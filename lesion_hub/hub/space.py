"""Publishing a Space: the folder ``spaces/lesion-ensemble``, the package, and the models, each at a fixed version.

`plan_space` puts the files together and sends nothing, `publish_space` sends them. A static Space is the folder that
``app.static_page`` writes, pushed in the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, get_args

import yaml
from huggingface_hub import HfApi, SpaceCard, SpaceHardware
from huggingface_hub.errors import OfflineModeIsEnabled, RepositoryNotFoundError

from lesion_hub import __version__
from lesion_hub.config import REGISTRY_NAME, REPO_ID
from lesion_hub.errors import StoreError, one_line
from lesion_hub.files import json_text, packaged_folder, require_new_folder, write_bytes
from lesion_hub.hub.layout import CARD_NAME, require_own_files
from lesion_hub.hub.licences import card_licence, strictest
from lesion_hub.hub.release import Content
from lesion_hub.hub.remote import Hub
from lesion_hub.hub.retry import one_line_errors, with_retries
from lesion_hub.hub.space_build import (
    DOCKERFILE,
    PACKAGE,
    PORT,
    ZERO_GPU_PYTHON,
    dockerfile,
    is_zero_gpu,
    package_files,
    requirements,
    requirements_text,
)
from lesion_hub.hub.store import Resolved, resolve_members, resolve_pinned
from lesion_hub.hub.upload import Files, RepoUpload
from lesion_hub.hub.versions import split_revision, without_revision
from lesion_hub.taxonomy import nearest

MODELS_NAME = "models.json"
APP_NAME = "app.py"
REQUIREMENTS_NAME = "requirements.txt"
BUNDLE = "registry"
"""Folder of a Space that holds the models of a local registry, in the registry's own layout."""

Sdk = Literal["gradio", "docker"]

_REQUIRED = (APP_NAME, CARD_NAME, MODELS_NAME)
_DEFAULT_HARDWARE = "cpu-basic"


@dataclass(frozen=True)
class SpaceKind:
    """How a Space is run, and its files: the page, the one that shows that it is ours, and what is replaced."""

    sdk: str
    page: str
    ours: str
    replaced: tuple[str, ...]


GRADIO = SpaceKind("gradio", APP_NAME, MODELS_NAME, (f"{BUNDLE}/", f"{PACKAGE}/", DOCKERFILE))
DOCKER = SpaceKind("docker", DOCKERFILE, MODELS_NAME, (f"{BUNDLE}/", f"{PACKAGE}/"))
STATIC = SpaceKind("static", "index.html", "model.json", ("graphs/", "runtime/"))


@dataclass(frozen=True)
class SpacePlan:
    """A Space whose files are put together and not yet sent.

    ``hardware`` is the flavour that it is made for, and ``requirements`` what its build installs, dependencies of those aside;
    ``needs_token`` are the models that only a token opens.
    """

    name: str
    location: str
    sdk: Sdk
    models: tuple[str, ...]
    hardware: str
    requirements: tuple[str, ...]
    needs_token: tuple[str, ...]
    content: Content = field(repr=False)

    @property
    def sizes(self) -> dict[str, int]:
        """The bytes of the Space's files by name."""
        return {name: _size(data) for name, data in sorted(self.content.items())}

    def write(self, folder: Path) -> None:
        """Write the files into a new or empty folder, as they would stand in the Space's repo."""
        require_new_folder(folder)
        for name, data in self.content.items():
            write_bytes(folder / name, data if isinstance(data, bytes) else data.read_bytes())

    def as_published(self, commit: str | None = None, *, changed: bool = True) -> PublishedSpace:
        """Say how the Space stands, or would stand, once this is sent."""
        return PublishedSpace(
            self.name,
            self.location,
            self.models,
            tuple(self.sizes),
            commit,
            changed,
            needs_token=self.needs_token,
            sdk=self.sdk,
            hardware=self.hardware,
            bytes=sum(self.sizes.values()),
            requirements=self.requirements,
        )


@dataclass(frozen=True)
class PublishedSpace:
    """A Space as it now stands (or would, after a dry run): its models' pins and the names of its files.

    ``commit`` is None after a dry run; ``changed`` is False when the Space already held exactly this. ``needs_token`` are the
    models that only a token opens, ``bytes`` the size of all files. ``hardware`` and ``requirements`` are what its build is
    made for and installs; a static Space has neither.
    """

    name: str
    location: str
    models: tuple[str, ...]
    files: tuple[str, ...]
    commit: str | None
    changed: bool
    needs_token: tuple[str, ...] = ()
    sdk: str = "static"
    hardware: str | None = None
    bytes: int = 0
    requirements: tuple[str, ...] = ()


def packaged_space() -> Path:
    """Find the Space's folder that comes with the package."""
    return packaged_folder("_space", "spaces/lesion-ensemble")


def plan_space(
    name: str,
    models: Sequence[str],
    *,
    folder: str | Path | None = None,
    hardware: str | None = None,
    sdk: Sdk = "gradio",
    registry: str | Path | None = None,
    token: str | None = None,
) -> SpacePlan:
    """Put the files of a Space together, its models pinned, and send nothing. The arguments are those of `publish_space`.

    >>> plan = plan_space("org/skin-demo", ["dermoscopy-lite0"], hardware="cpu-basic")
    >>> plan.models, plan.requirements[0], "lesion_hub/__init__.py" in plan.sizes
    (('dermoscopy-lite0@v2.0.0',), 'torch>=2.4', True)
    """
    _require_space_name(name)
    flavours = [flavour.value for flavour in SpaceHardware]
    if hardware is not None and hardware not in flavours:
        raise StoreError(f"hardware {hardware!r} is not one that Spaces run on; {nearest(hardware, flavours)}")
    if sdk not in get_args(Sdk):
        raise StoreError(f"sdk {sdk!r}: a Space with a page of ours is one of {', '.join(get_args(Sdk))}")
    place = Path(folder).expanduser() if folder is not None else packaged_space()
    for file in _REQUIRED:
        if not (place / file).is_file():
            raise StoreError(f"{place / file}: missing; a Space's folder holds {', '.join(_REQUIRED)} (start from a copy)")
    if not models:
        raise StoreError("a Space needs a model to answer with; name one with --model org/name@v1.0.0")
    hub = Hub(token)
    found = [pinned_parts(model, registry=registry, token=token) for model in models]
    parts = list(dict.fromkeys(part for model in found for part in model))
    # What only a token opens is not preloaded: a build has none.
    remote = {part.name for part in parts if REPO_ID.fullmatch(part.name)}
    needs_token = tuple(sorted(part for part in remote if _needs_token(hub.api, part)))
    pins = tuple(dict.fromkeys(model.pin for model, *_ in found))
    card = _read_card(place / CARD_NAME)
    made_for = hardware or _hardware_of(hub.api, name) or str(card.data.get("suggested_hardware") or _DEFAULT_HARDWARE)
    if sdk == "docker" and is_zero_gpu(made_for):
        raise StoreError(f"{name}: {made_for} runs Gradio Spaces alone; leave out --sdk docker, or name other --hardware")
    gradio = card.data.get("sdk_version")
    needed = requirements(made_for, str(gradio) if gradio else None)

    content = space_content(place, pins, parts)
    content[REQUIREMENTS_NAME] = requirements_text(needed, made_for, place / REQUIREMENTS_NAME).encode()
    python = str(card.data.get("python_version") or "3.11")
    if sdk == "docker":
        content[DOCKERFILE] = dockerfile(python).encode()
        for key in ("sdk_version", "python_version", "app_file"):
            card.data.pop(key, None)
        card.data["app_port"] = PORT
    elif is_zero_gpu(made_for):
        card.data["python_version"] = ZERO_GPU_PYTHON
    card.data["sdk"] = sdk
    if hardware is not None:
        card.data["suggested_hardware"] = hardware
    _name_models(card, parts, needs_token)
    content[CARD_NAME] = str(card).encode()
    location = f"{hub.api.endpoint}/spaces/{name}"
    return SpacePlan(name, location, sdk, pins, made_for, tuple(needed), needs_token, content)


def publish_space(
    name: str,
    models: Sequence[str],
    *,
    folder: str | Path | None = None,
    private: bool = False,
    hardware: str | None = None,
    sdk: Sdk = "gradio",
    registry: str | Path | None = None,
    token: str | None = None,
    dry_run: bool = False,
) -> PublishedSpace:
    """Push the packaged Space to the Hub, with its models pinned. Safe to run again: the same content makes no commit.

    Args:
        name: ``org/name`` of the Space.
        models: ``org/name@v1.0.0``, or a registry name, whose files then travel within the Space; without a version the
            highest is taken. The first one is the page's default.
        folder: a Space of your own, made from a copy of the packaged one. Lines of a ``requirements.txt`` there are added.
        private: create the Space as a private one.
        hardware: flavour to run on (``cpu-basic``, ``t4-small``, …); None leaves it as it is.
        sdk: ``gradio``, which the Hub builds by itself, or ``docker``, which brings a Dockerfile.
        registry: registry folder, or several, for models named by a plain name.
        token: Hub token; by default the one that you are logged in with, or ``HF_TOKEN``.
        dry_run: check everything, write nothing.

    >>> publish_space("org/skin-demo", ["org/dermoscopy-trio@v2.0.0"]).location  # doctest: +SKIP
    'https://huggingface.co/spaces/org/skin-demo'
    """
    plan = plan_space(name, models, folder=folder, hardware=hardware, sdk=sdk, registry=registry, token=token)
    return plan.as_published() if dry_run else send_space(plan, private=private, hardware=hardware, token=token)


def send_space(
    plan: SpacePlan, *, private: bool = False, hardware: str | None = None, token: str | None = None
) -> PublishedSpace:
    """Push a planned Space; ``hardware`` is asked for, None leaves it as it is."""
    hub = Hub(token)
    upload = SpaceUpload(hub.api, plan.name, plan.content, plan.models, DOCKER if plan.sdk == "docker" else GRADIO)
    commit, changed = upload.publish(private=private, hardware=SpaceHardware(hardware) if hardware else None)
    return plan.as_published(commit, changed=changed)


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
    hub = Hub(token)
    pins = (parts[0].pin,)
    content: Content = {file: folder / file for file in _files(folder)}
    card = _read_card(folder / CARD_NAME)
    card.data["models"] = list(dict.fromkeys(part.name for part in parts if REPO_ID.fullmatch(part.name)))
    _take_licences(card, parts)  # the weights travel along
    content[CARD_NAME] = str(card).encode()
    commit, changed = None, True
    if not dry_run:
        commit, changed = SpaceUpload(hub.api, name, content, pins, STATIC).publish(private=private, hardware=None)
    location, size = f"{hub.api.endpoint}/spaces/{name}", sum(map(_size, content.values()))
    return PublishedSpace(name, location, pins, tuple(sorted(content)), commit, changed, bytes=size)


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


def _hardware_of(api: HfApi, name: str) -> str | None:
    """Return the flavour that a Space runs on, or was last asked to; None for one that is not there, and without a network."""
    with one_line_errors(name, "looking at it"):
        try:
            runtime = with_retries(lambda: api.space_info(name)).runtime
        except (RepositoryNotFoundError, OfflineModeIsEnabled):
            return None
    found = (runtime.requested_hardware or runtime.hardware) if runtime is not None else None
    return str(getattr(found, "value", found)) if found else None


# ----------------------------------------------------------------------------------------------------------- its files


def space_content(folder: Path, pins: Sequence[str], parts: Sequence[Resolved]) -> Content:
    """Gather the files of the Space, by name: those of ``folder``, the package, and the models of a local registry.

    ``parts`` are the pinned models and their members; those of the Hub are fetched by the Space.
    """
    bundled = [part for part in parts if not REPO_ID.fullmatch(part.name)]
    for place in (folder, *(part.folder for part in bundled)):
        require_own_files(place, _files(place))
    content: Content = {name: folder / name for name in _files(folder)}
    content |= package_files()
    for part in bundled:
        content |= {f"{BUNDLE}/{part.name}/{part.revision}/{name}": part.folder / name for name in _files(part.folder)}
    content[MODELS_NAME] = json_text(list(pins)).encode()
    return content


def _files(folder: Path) -> list[str]:
    """List the files below ``folder``, without caches, hidden ones, and what an earlier run wrote there."""
    names = [path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file()]
    return [
        name.as_posix()
        for name in names
        if name.parts[0] not in (BUNDLE, PACKAGE)
        and not any(part.startswith(".") or part == "__pycache__" for part in name.parts)
    ]


def _size(data: Path | bytes) -> int:
    return len(data) if isinstance(data, bytes) else data.stat().st_size


def _read_card(path: Path) -> SpaceCard:
    try:
        return SpaceCard(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        reason = one_line(error)
        raise StoreError(f"{path}: the front matter cannot be read ({reason}); mend the YAML between the --- lines") from None


def _name_models(card: SpaceCard, parts: Sequence[Resolved], needs_token: Sequence[str]) -> None:
    """Put the models of the Hub into the front matter, to be preloaded unless one ``needs_token``, and the others' licences."""
    remote = [part for part in parts if REPO_ID.fullmatch(part.name)]
    card.data["models"] = list(dict.fromkeys(part.name for part in remote))
    # "org/name file,file commit"; the cache keeps every snapshot in a folder named after its commit.
    card.data["preload_from_hub"] = [
        f"{part.name} {','.join(_files(part.folder))} {part.folder.name}" for part in remote if part.name not in needs_token
    ]
    _take_licences(card, [part for part in parts if part not in remote])


def _take_licences(card: SpaceCard, bundled: Sequence[Resolved]) -> None:
    """Give the card the strictest licence of its own and of the weights that travel within the Space."""
    licences = [str(card.data.get("license") or ""), *(card_licence(part.folder) or "" for part in bundled)]
    card.data["license"] = strictest(filter(None, licences)) if any(licences) else None


# ---------------------------------------------------------------------------------------------------------- the upload


class SpaceUpload(RepoUpload):
    """A Space's files as one commit, or none where it already holds them.

    Files that somebody added to the Space stay, except where the package and the bundled models are.
    """

    repo_type = "space"

    def __init__(self, api: HfApi, name: str, content: Content, pins: Sequence[str], kind: SpaceKind = GRADIO) -> None:
        super().__init__(api, name, f"Answer with lesion-hub {__version__}", "\n".join(pins))
        self.content, self.kind = content, kind

    def publish(self, *, private: bool, hardware: SpaceHardware | None) -> tuple[str, bool]:
        """Create the Space, commit, and ask for hardware; return the commit and whether it is a new one."""
        name = self.repo_id
        with one_line_errors(name, "publishing the Space"):
            self.create_repo(private=private, space_sdk=self.kind.sdk)
            before = with_retries(self.history)[0].commit_id
            commit = self.commit()
            if hardware is not None:
                with_retries(lambda: self.api.request_space_hardware(name, hardware))
        return commit, commit != before

    def content_on(self, commit: str, there: Files) -> Content:
        """Return the Space's files; a Space of something else is refused."""
        # A host puts a page of its own into a new static Space, which tells nothing.
        other = GRADIO if self.kind is STATIC else STATIC
        if other.ours in there and self.kind.ours not in there:
            raise StoreError(f"{self.repo_id}: is a {other.sdk} Space (it has {other.ours}); choose another name")
        if self.kind is not STATIC and not there.keys().isdisjoint((APP_NAME, DOCKERFILE)) and MODELS_NAME not in there:
            raise StoreError(f"{self.repo_id}: is a Space of something else (it has no {MODELS_NAME}); choose another name")
        return self.content

    def is_stale(self, path: str) -> bool:
        """Tell whether a file is of an earlier version of the package, or of a model that the Space no longer answers with."""
        return path.startswith(self.kind.replaced)
