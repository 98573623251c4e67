"""The components that a recipe names: rows of a table, each a callable and its options, or a user's own by dotted path.

`LOSSES`, `OPTIMISERS` and `SCHEDULES` are such tables. `with_options_of` gives a recipe's section the options of all rows
as keys, so that a new row needs no change anywhere else.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any, TypeVar

from pydantic import create_model

from lesion_hub.config import Options
from lesion_hub.errors import ConfigError, LesionHubError, one_line
from lesion_hub.taxonomy import nearest

Section = TypeVar("Section", bound=Options)


@dataclass(frozen=True)
class Component:
    """A row of a table: ``make`` builds the component, ``options`` are its keys in a recipe, each (type, default)."""

    make: Callable[..., Any]
    options: Mapping[str, tuple[Any, Any]] = field(default_factory=dict)


def options_of(table: Mapping[str, Component]) -> dict[str, tuple[Any, Any]]:
    """Collect the options of all rows."""
    return {key: kind for row in table.values() for key, kind in row.options.items()}


def owners_of(table: Mapping[str, Component], option: str) -> list[str]:
    """Name the rows that have ``option``."""
    return [name for name, row in table.items() if option in row.options]


def with_options_of(table: Mapping[str, Component]) -> Callable[[type[Section]], type[Section]]:
    """Decorate a section of the recipe: it gets a key for every option that a row of ``table`` has."""

    def extend(section: type[Section]) -> type[Section]:
        keys: Any = options_of(table)
        about = {"__base__": section, "__module__": section.__module__, "__doc__": section.__doc__}
        return create_model(section.__name__, **about, **keys)

    return extend


def given_options(section: Options, table: Mapping[str, Component]) -> dict[str, Any]:
    """Return the options of ``table`` that a section states, those at their defaults left out."""
    values = {key: (getattr(section, key), default) for key, (_, default) in options_of(table).items()}
    return {key: value for key, (value, default) in values.items() if value != default}


def check_options(what: str, given: Iterable[str], known: Collection[str]) -> None:
    """Refuse an option that ``what`` does not have."""
    if unknown := sorted(set(given) - set(known)):
        hint = nearest(unknown[0], known) if known else "it takes none, drop it"
        raise ConfigError(f"{what}: no option {unknown[0]!r}; {hint}")


def is_own(name: str) -> bool:
    """Tell whether a name is the dotted path of a user's own callable, ``package.module:name``."""
    return ":" in name


def own_callable(path: str) -> Callable[..., Any]:
    """Import the callable at ``package.module:name``; a failure is one line.

    >>> own_callable("math:sqrt")(9.0)
    3.0
    """
    module, _, name = path.partition(":")
    try:
        found = attrgetter(name)(importlib.import_module(module))
    except Exception as error:  # noqa: BLE001 - what is imported is the user's own code and may raise anything
        why = one_line(error) or type(error).__name__
        raise ConfigError(f"{path}: cannot be imported ({why}); install it, or put its folder on PYTHONPATH") from None
    if not callable(found):
        raise ConfigError(f"{path}: is a {type(found).__name__}; name a function or a class")
    return found


@contextmanager
def as_value_error() -> Iterator[None]:
    """Turn our errors into the ValueError that pydantic reports with the key that it belongs to."""
    try:
        yield
    except LesionHubError as error:
        raise ValueError(str(error)) from None
