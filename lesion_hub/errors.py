"""The errors a user can cause: one line each that names the thing and the fix, which is all the command line prints."""

from __future__ import annotations


class LesionHubError(Exception):
    """Base of every error that is the caller's to mend: bad input, a missing version, a Hub that does not answer.

    It is one line whatever was put into it: names and other libraries' messages may hold line breaks.

    >>> str(LesionHubError("a.safetensors: invalid dtype 'x\\ny'"))
    "a.safetensors: invalid dtype 'x y'"
    """

    def __init__(self, message: str = "") -> None:
        super().__init__(" ".join(message.splitlines()))


def one_line(text: object) -> str:
    """Return the text of another library's error on one line, with single spaces.

    >>> one_line("no such\\n    device")
    'no such device'
    """
    return " ".join(str(text).split())


class TaxonomyError(LesionHubError):
    """An unknown diagnosis or label space, or a map between two spaces that does not exist."""


class ConfigError(LesionHubError):
    """A config, recipe or head spec that cannot be used as written."""


class DataError(LesionHubError):
    """A data source, split or cache that cannot be used as it stands."""


class ImageError(DataError):
    """One image that cannot be decoded, or must not be."""


class ShardError(DataError):
    """A shard of a data set that cannot be read, or not to its end; in a run of several processes, by one of them alone."""


class FileWriteError(LesionHubError):
    """A file that cannot be written: a full or read-only disk, a folder that is not there."""


class StoreError(LesionHubError):
    """A model repo or registry entry that cannot be read or written."""
