"""A Space on its way to the Hub: one commit with everything, or none when nothing changed."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, SpaceHardware
from huggingface_hub.hf_api import RepoFile

from lesion_hub.config import REPO_ID
from lesion_hub.errors import StoreError
from lesion_hub.hub.content import Content, files_at, same_file
from lesion_hub.hub.patience import one_line_errors, patiently, status_of
from lesion_hub.hub.remote import Hub
from lesion_hub.hub.space import (
    APP_NAME,
    BUNDLE,
    MODELS_NAME,
    SpaceModel,
    checked_folder,
    checked_hardware,
    packaged_space,
    pin_model,
    space_content,
)
from lesion_hub.version import __version__

_SPACE = "space"
_TITLE = f"Answer with lesion-hub {__version__}"


@dataclass(frozen=True)
class PublishedSpace:
    """A Space as it now stands (or would, after a dry run): its models' pins and the names of its files.

    ``commit`` is None after a dry run; ``changed`` is False when the Space already held exactly this.
    """

    name: str
    location: str
    models: tuple[str, ...]
    files: tuple[str, ...]
    commit: str | None
    changed: bool
    needs_token: tuple[str, ...] = ()


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
        registry: registry root, for models named by a plain name.
        token: Hub token; by default the one that you are logged in with, or ``HF_TOKEN``.
        dry_run: check everything, write nothing.

    >>> publish_space("org/skin-demo", ["org/ham10000-trio@v1.0.0"]).location  # doctest: +SKIP
    'https://huggingface.co/spaces/org/skin-demo'
    """
    if not REPO_ID.fullmatch(name):
        raise StoreError(f"{name!r} is not the name of a Space; write org/name")
    flavour = checked_hardware(hardware)
    place = checked_folder(Path(folder).expanduser() if folder is not None else packaged_space())
    hub = Hub(token, private=private)
    pinned = _pinned(models, registry, token)
    needs_token = tuple(sorted(_hidden(hub.api, pinned)))
    content = space_content(place, pinned, hardware=hardware, hidden=needs_token)
    upload = SpaceUpload(hub.api, name, content, tuple(model.pin for model in pinned))
    commit, changed = (None, True) if dry_run else upload.publish(private=private, hardware=flavour)
    return PublishedSpace(
        name, f"{hub.api.endpoint}/spaces/{name}", upload.pins, tuple(sorted(content)), commit, changed, needs_token
    )


def _pinned(models: Sequence[str], registry: str | Path | None, token: str | None) -> list[SpaceModel]:
    if not models:
        raise StoreError("a Space needs a model to answer with; name one with --model org/name@v1.0.0")
    found = [pin_model(model, registry=registry, token=token) for model in models]
    return list({model.pin: model for model in found}.values())


def _hidden(api: HfApi, models: Iterable[SpaceModel]) -> set[str]:
    """Hub ids among the models and their members that only a token opens."""
    names = {part.name for model in models for part in (model.found, *model.members) if REPO_ID.fullmatch(part.name)}
    return {name for name in names if _is_hidden(api, name)}


def _is_hidden(api: HfApi, name: str) -> bool:
    with one_line_errors(name, "looking at it"):
        about = patiently(lambda: api.model_info(name))
    return bool(about.private or about.gated)


class SpaceUpload:
    """Puts ``content`` into a Space.

    Every step looks at what is there before it sends anything, so that a lost answer or a second run ends with one commit.
    The commit names its parent: of two publishers at once, one is refused. Files that somebody added to the Space stay,
    except for bundled models that it no longer answers with.
    """

    def __init__(self, api: HfApi, name: str, content: Content, pins: tuple[str, ...]) -> None:
        self.api = api
        self.name = name
        self.content = content
        self.pins = pins

    def publish(self, *, private: bool, hardware: SpaceHardware | None) -> tuple[str, bool]:
        """(commit, whether it is a new one)."""
        with one_line_errors(self.name, "publishing the Space"):
            patiently(
                lambda: self.api.create_repo(self.name, repo_type=_SPACE, space_sdk="gradio", private=private, exist_ok=True)
            )
            if private:
                self._refuse_if_public()
            before = self._head()
            commit = patiently(self._commit_once)
            if hardware is not None:
                patiently(lambda: self.api.request_space_hardware(self.name, hardware))
        return commit, commit != before

    def _refuse_if_public(self) -> None:
        if not patiently(lambda: self.api.space_info(self.name)).private:
            raise StoreError(f"{self.name}: exists and is public; make it private in its settings, or leave out --private")

    def _head(self) -> str:
        return patiently(lambda: self.api.list_repo_commits(self.name, repo_type=_SPACE))[0].commit_id

    def _commit_once(self) -> str:
        parent = self._head()
        there = files_at(self.api, self.name, parent, _SPACE)
        if APP_NAME in there and MODELS_NAME not in there:
            raise StoreError(f"{self.name}: is a Space of something else (it has no {MODELS_NAME}); choose another name")
        operations = self._operations(there)
        if not operations:
            return parent
        try:
            return self._send(operations, parent)
        except Exception as error:
            if status_of(error) != 412:
                raise
            raise StoreError(
                f"{self.name}: someone else changed the Space meanwhile; nothing of yours was written, run it again"
            ) from None

    def _operations(self, there: dict[str, RepoFile]) -> list[CommitOperationAdd | CommitOperationDelete]:
        """What turns the files that are there into ours."""
        operations: list[CommitOperationAdd | CommitOperationDelete] = [
            CommitOperationAdd(name, data if isinstance(data, bytes) else str(data))
            for name, data in self.content.items()
            if name not in there or not same_file(data, there[name])
        ]
        stale = [name for name in there if name.startswith(f"{BUNDLE}/") and name not in self.content]
        return [*operations, *map(CommitOperationDelete, stale)]

    def _send(self, operations: Sequence[CommitOperationAdd | CommitOperationDelete], parent: str) -> str:
        try:
            answer = self.api.create_commit(
                self.name,
                operations,
                commit_message=_TITLE,
                commit_description="\n".join(self.pins),
                repo_type=_SPACE,
                parent_commit=parent,
            )
        except ValueError as error:  # the Hub's verdict on the front matter, which huggingface_hub asks for first
            reason = " ".join(str(error).split())
            raise StoreError(f"{self.name}: the Hub refuses README.md ({reason}); mend its front matter") from None
        return answer.oid
