"""The libraries that prediction does without, the extra that brings each, and the line said where one is missing.

``pip install lesion-hub`` brings what ``from_pretrained(…).predict(…)`` needs, heat maps included. setup.cfg lists the extras.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec

from lesion_hub.errors import LesionHubError

EXTRA_OF = {
    "datasets": "data",
    "pandas": "data",
    "pyarrow": "data",
    "joblib": "data",
    "sklearn": "data",
    "evaluate": "data",
    "accelerate": "train",
    "optuna": "search",
    "onnx": "onnx",
    "gradio": "app",
    "markdown_it": "app",
    "python_multipart": "app",
    "transformers": "transformers",
}
"""By the name that a library is imported under."""

_INCLUDES = {"train": "data"}


class MissingExtra(LesionHubError, ImportError):
    """A library that an extra brings, and that is not installed."""

    def __init__(self, library: str) -> None:
        super().__init__(f"{library} is not installed; pip install 'lesion-hub[{EXTRA_OF[library]}]'")


def require_extra(extra: str) -> None:
    """Raise the line unless all libraries of an extra are installed; imports none of them.

    >>> require_extra("data")
    """
    for library, owner in EXTRA_OF.items():
        if owner in (extra, _INCLUDES.get(extra)) and find_spec(library) is None:
            raise MissingExtra(library)


@contextmanager
def extras_explained() -> Iterator[None]:
    """Turn an import that fails in the block, of a library that an extra brings, into its line.

    >>> with extras_explained():
    ...     raise ModuleNotFoundError(name="pandas.core")
    Traceback (most recent call last):
    lesion_hub.extras.MissingExtra: pandas is not installed; pip install 'lesion-hub[data]'
    """
    try:
        yield
    except ModuleNotFoundError as error:
        library = (error.name or "").partition(".")[0]
        if library not in EXTRA_OF:
            raise
        raise MissingExtra(library) from error
