"""Versions of a model: their numbers, how a name and a revision are written as one, and the changelog with their notes."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from lesion_hub.errors import StoreError
from lesion_hub.hub.layout import CHANGELOG_NAME

_VERSION = re.compile(r"v?(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)\.(0|[1-9][0-9]*)")
_HEADING = re.compile(r"^## (v[0-9]+\.[0-9]+\.[0-9]+) - [0-9]{4}-[0-9]{2}-[0-9]{2}$", re.MULTILINE)
_TITLE = "# Changelog"

# ------------------------------------------------------------------------------------------------------------- numbers


@dataclass(frozen=True, order=True)
class Version:
    """``major.minor.patch``; its tag is ``vmajor.minor.patch``.

    >>> str(Version.parse("1.2.0")), Version.parse("v1.10.0") > Version.parse("v1.9.9")
    ('v1.2.0', True)
    """

    major: int
    minor: int
    patch: int

    @classmethod
    def parse(cls, text: str) -> Version:
        """Read ``1.2.0`` or ``v1.2.0``; any other spelling is one line."""
        match = _VERSION.fullmatch(text.strip())
        if not match:
            raise StoreError(f"version {text!r} is not of the form X.Y.Z; for example 1.0.0")
        return cls(*map(int, match.groups()))

    def __str__(self) -> str:
        return f"v{self.major}.{self.minor}.{self.patch}"


def version_tags(names: Iterable[str]) -> list[str]:
    """Select the names that are version tags (``v1.0.0``), lowest version first."""
    return [str(v) for v in sorted(Version.parse(n) for n in names if n.startswith("v") and _VERSION.fullmatch(n))]


def split_revision(name: str | Path, revision: str | None = None) -> tuple[str, str | None]:
    """Take ``name@revision`` apart: the one rule for all functions and commands that take a model.

    ``revision`` is what was said beside the name; where both speak they must agree. ``1.0.0`` means ``v1.0.0``. A path that
    exists keeps its @.

    >>> split_revision("org/ham-lite0@1.0.0"), split_revision("ham-lite0", "main"), split_revision("ham-lite0")
    (('org/ham-lite0', 'v1.0.0'), ('ham-lite0', 'main'), ('ham-lite0', None))
    """
    plain, mark, own = str(name).rpartition("@")
    if not mark or isinstance(name, Path) or Path(name).exists():
        return str(name), _spelled(revision) if revision else None
    if not plain or not own:
        raise StoreError(f"{str(name)!r} is not of the form NAME@VERSION; for example dermoscopy-trio@v2.0.0")
    inside, beside = _spelled(own), _spelled(revision) if revision else None
    if beside not in (None, inside):
        raise StoreError(f"{plain}: its name says {inside} and the revision beside it {beside}; give one of them")
    return plain, inside


def _spelled(revision: str) -> str:
    """Return a revision as the Hub spells it; what can be none is one line."""
    if not revision.isprintable() or " " in revision:
        raise StoreError(f"revision {revision!r} holds what no version, branch or commit does; for example v1.0.0")
    return str(Version.parse(revision)) if _VERSION.fullmatch(revision) else revision


def without_revision(name: str | Path, instead: str) -> str:
    """Return a name where a version makes no sense; ``name@version`` is one line that says what to write ``instead``.

    >>> without_revision("ham-lite0@v1.0.0", "write lesion-hub versions {name}")
    Traceback (most recent call last):
    lesion_hub.errors.StoreError: 'ham-lite0@v1.0.0': no version is meant here; write lesion-hub versions ham-lite0
    """
    plain, revision = split_revision(name)
    if revision is not None:
        raise StoreError(f"{str(name)!r}: no version is meant here; {instead.format(name=plain, revision=revision)}")
    return plain


# ------------------------------------------------------------------------------------------------------- the changelog


def checked_notes(notes: str | None) -> str:
    """Return the notes of a version, never empty, with plain line ends: what is written is what is read back."""
    text = "\n".join((notes or "").splitlines()).strip()
    if not text:
        raise StoreError('a version needs notes; say what changed with --notes "…"')
    if _HEADING.search(text):
        raise StoreError("the notes hold a line that looks like a version heading (## vX.Y.Z - date); reword it")
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise StoreError("the notes hold characters that are not text; type them again") from None
    return text


def add_entry(changelog: str | None, version: Version, notes: str, today: date | None = None) -> str:
    """Return the changelog with this version on top of all others.

    An entry that an interrupted publish left for it is replaced. Text above the first version heading, such as a hand-written
    introduction, stays where it is.

    >>> print(add_entry(None, Version(1, 0, 0), "First release.", date(2026, 1, 2)))
    # Changelog
    <BLANKLINE>
    ## v1.0.0 - 2026-01-02
    <BLANKLINE>
    First release.
    <BLANKLINE>
    """
    head, entries = _parts(changelog or "")
    older = [text for tag, text in entries if tag != str(version)]
    entry = f"## {version} - {(today or date.today()).isoformat()}\n\n{notes}"
    return "\n\n".join([head or _TITLE, entry, *older]) + "\n"


def changelog_notes(changelog: str) -> dict[str, str]:
    """Map version tags to notes, in the changelog's order."""
    return {tag: text.partition("\n")[2].strip() for tag, text in _parts(changelog)[1]}


def notes_in(folder: Path) -> dict[str, str]:
    """Map version tags to notes as the folder's CHANGELOG.md has them; without one there are none."""
    text = read_changelog(folder / CHANGELOG_NAME)
    return changelog_notes(text) if text else {}


def read_changelog(path: Path) -> str | None:
    """Read a changelog, None where there is none; what is not text is one line."""
    try:
        return path.read_text(encoding="utf-8") if path.is_file() else None
    except (OSError, UnicodeDecodeError) as error:
        raise StoreError(f"{path}: not readable as text ({error}); restore it from where it was published") from None


def _parts(changelog: str) -> tuple[str, list[tuple[str, str]]]:
    """Split into what stands above the first version, and the (tag, whole text) of each version, top first."""
    marks = list(_HEADING.finditer(changelog))
    starts = [mark.start() for mark in marks]
    head = changelog[: starts[0]] if starts else changelog
    ends = [*starts, len(changelog)][1:]
    return head.strip("\n"), [(m.group(1), changelog[m.start() : end].strip("\n")) for m, end in zip(marks, ends, strict=True)]
