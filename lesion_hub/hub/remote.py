"""The Hugging Face Hub: immutable versions, published whole and checked byte for byte when they are fetched."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from huggingface_hub import HfApi, constants, get_token, snapshot_download
from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

from lesion_hub import __version__
from lesion_hub.config import MEMBER_REVISION
from lesion_hub.errors import StoreError
from lesion_hub.hub.cache import cached_refs, cached_tags, damaged_files, drop_broken_refs, fetch_intact
from lesion_hub.hub.layout import ALWAYS_THERE, REPO_PATTERNS, is_model_folder
from lesion_hub.hub.release import Published, Release
from lesion_hub.hub.retry import NOT_CACHED, one_line_errors, with_retries
from lesion_hub.hub.upload import ReleaseUpload
from lesion_hub.hub.versions import version_tags


class Hub:
    """The Hub at ``HF_ENDPOINT``, with the verbs of the registry. The token comes from the usual places if not given."""

    def __init__(self, token: str | None = None, *, private: bool = False) -> None:
        sent = token or get_token()
        # What cannot be a header is refused here: the HTTP library's own message would quote it.
        if sent and not (sent.isascii() and sent.isprintable() and " " not in sent):
            raise StoreError("the Hub token holds a space, a line break or a character outside ASCII; copy it again")
        self.token = token
        self.private = private
        self.api = HfApi(token=token, library_name="lesion-hub", library_version=__version__)

    def versions(self, name: str) -> list[str]:
        """List the version tags of a repo, lowest first; offline, those in the cache."""
        if constants.HF_HUB_OFFLINE:
            if not cached_refs(name):
                raise StoreError(f"{name}: {NOT_CACHED}")
            return cached_tags(name)
        with one_line_errors(name, "listing its versions"):
            refs = with_retries(lambda: self.api.list_repo_refs(name))
        return version_tags(tag.name for tag in refs.tags)

    def fetch(self, name: str, revision: str | None = None) -> tuple[Path, str]:
        """Return (folder in the cache, revision) of a version, checked; None is the highest version, or ``main`` without any.

        A version tag or commit never changes, so a whole and sound copy in the cache is used without asking the Hub.
        """
        drop_broken_refs(name)
        if constants.HF_HUB_OFFLINE:
            return self._fetch_offline(name, revision)
        wanted = revision or (self.versions(name) or [constants.DEFAULT_REVISION])[-1]
        folder = self._cached(name, wanted) if MEMBER_REVISION.fullmatch(wanted) else None
        # timm and transformers leave two or three files of a repo in the cache, which are not all that we need.
        is_whole = folder and is_model_folder(folder) and all((folder / file).is_file() for file in ALWAYS_THERE)
        if folder is None or not is_whole or damaged_files(folder):
            with one_line_errors(name, f"fetching revision {wanted}"):
                folder = fetch_intact(lambda: self._snapshot(name, wanted), name)
        return folder, wanted

    def publish(self, release: Release, name: str) -> Published:
        """Commit the release on top of main and tag it. Safe to run again after any failure."""
        with one_line_errors(name, f"publishing {release.version}"):
            upload = ReleaseUpload(self.api, name, release)
            upload.create_repo(private=self.private)
            commit = upload.commit()
            upload.tag(commit)
        location = f"{self.api.endpoint}/{name}/tree/{release.version}"
        return Published(name, str(release.version), location, commit, upload.already)

    def _fetch_offline(self, name: str, revision: str | None) -> tuple[Path, str]:
        candidates = [revision] if revision else [*reversed(cached_tags(name)), constants.DEFAULT_REVISION]
        for candidate in candidates:
            folder = self._cached(name, candidate)
            if folder is None or not is_model_folder(folder):
                continue
            damaged = damaged_files(folder)
            if damaged:
                raise StoreError(f"{damaged[0]}: damaged in the cache, and this process is offline; go online once to mend it")
            return folder, candidate
        wanted = f"{name}@{revision}" if revision else name
        raise StoreError(f"{wanted}: {NOT_CACHED}")

    def _cached(self, name: str, revision: str) -> Path | None:
        """Return the copy in the cache, as far as it is known to be complete."""
        try:
            return self._snapshot(name, revision, cache_only=True)
        except OSError:
            return None

    def _snapshot(self, name: str, revision: str, *, cache_only: bool = False) -> Path:
        folder = snapshot_download(
            name,
            revision=revision,
            token=self.token,
            allow_patterns=REPO_PATTERNS,
            local_files_only=cache_only,
            library_name="lesion-hub",
        )
        return Path(folder)


@contextmanager
def quiet_downloads(quiet: bool = True) -> Iterator[None]:
    """Silence huggingface_hub's progress bars while the block runs, for machine-readable output."""
    if not quiet or are_progress_bars_disabled():
        yield
        return
    disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()
