"""The space of a search: which keys of a recipe vary, over which values, and the overrides that make a recipe of a point.

A key is a dotted path, as ``--set`` takes it; its axis is a list of values of any kind, or a range.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeAlias

from pydantic import Field, model_validator

from lesion_hub.config import Options, Positive, Switch, validated
from lesion_hub.errors import ConfigError
from lesion_hub.training.components import options_of
from lesion_hub.training.losses import LOSSES
from lesion_hub.training.optimisers import OPTIMISERS
from lesion_hub.training.recipe import Recipe
from lesion_hub.training.recipe_files import load_run_recipe, parse_value, read_yaml
from lesion_hub.training.schedules import SCHEDULES

Number = Annotated[int, Field(strict=True)] | Annotated[float, Field(strict=True, allow_inf_nan=False)]
Point: TypeAlias = dict[str, Any]
"""A value for every key of a space; no key at all for the recipe's own values."""

TABLES = {"loss": LOSSES, "optimiser": OPTIMISERS, "schedule": SCHEDULES}
CORNERS_CHECKED = 64


class Range(Options):
    """Numbers from ``low`` to ``high``, both included: evenly, by their logarithm, or in steps; whole where all are whole."""

    low: Number
    high: Number
    log: Switch = False
    step: Annotated[int, Field(strict=True, gt=0)] | Positive | None = None

    @model_validator(mode="after")
    def _possible(self) -> Range:
        if not self.low < self.high:
            raise ValueError(f"low {self.low} is not below high {self.high}")
        if self.log and (self.low <= 0 or self.step is not None):
            raise ValueError("a logarithmic range begins above 0 and has no step")
        steps = 0.0 if self.step is None else (self.high - self.low) / self.step
        if not math.isclose(steps, round(steps), abs_tol=1e-9):
            raise ValueError(f"step {self.step} does not lead from {self.low} to {self.high}")
        return self

    @property
    def whole(self) -> bool:
        return all(isinstance(number, int) for number in (self.low, self.high, self.step or 1))

    @property
    def ends(self) -> list[Any]:
        return [self.low, self.high]

    def values(self) -> list[Any] | None:
        """List every value, where there are but so many."""
        if self.step is None and not (self.whole and not self.log):
            return None
        step = self.step or 1
        found = [self.low + step * i for i in range(round((self.high - self.low) / step) + 1)]
        return found if self.whole else [float(f"{value:.12g}") for value in found]

    def contains(self, value: Any) -> bool:
        if isinstance(value, bool) or not isinstance(value, int | float) or not self.low <= value <= self.high:
            return False
        listed = self.values()
        return listed is None or any(math.isclose(value, one) for one in listed)


class Choices(Options):
    """A list of values of any kind."""

    listed: tuple[Any, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _different(self) -> Choices:
        texts = [json.dumps(value) for value in self.listed]
        if len(set(texts)) < len(texts):
            raise ValueError("a value is given twice")
        return self

    @property
    def ends(self) -> list[Any]:
        return list(self.listed)

    def values(self) -> list[Any] | None:
        return list(self.listed)

    def contains(self, value: Any) -> bool:
        return json.dumps(value) in {json.dumps(one) for one in self.listed}


class Space:
    """The axes of a search by key, around the recipe ``base``.

    >>> from lesion_hub.training.recipe_files import load_run_recipe
    >>> space = Space(load_run_recipe("demo", (), ""), {"batch_size": [8, 16], "optimiser.name": ["adamw", "sgd"]})
    >>> len(list(space.grid())), space.contained()
    (4, {'batch_size': 16, 'optimiser.name': 'adamw'})
    """

    def __init__(self, base: Recipe, plain: Mapping[str, Any]) -> None:
        self.base = base
        self.dumped = base.model_dump(mode="json")
        self.axes = {key: _axis(key, axis) for key, axis in plain.items()}
        # A whole number from a range would be no value of a key whose values are fractions, and be searched in steps of 1.
        for key, axis in self.axes.items():
            if isinstance(axis, Range) and isinstance(self.own(key), float) and axis.step is None:
                self.axes[key] = axis.model_copy(update={"low": float(axis.low), "high": float(axis.high)})

    def plain(self) -> dict[str, Any]:
        """Return the space as a file holds it."""
        return {
            key: list(axis.listed) if isinstance(axis, Choices) else axis.model_dump(exclude_defaults=True)
            for key, axis in self.axes.items()
        }

    def own(self, key: str) -> Any:
        """Return the recipe's own value of a key; None where a section above it is absent."""
        place: Any = self.dumped
        for step in key.split("."):
            try:
                place = place[int(step)] if isinstance(place, list) else place[step]
            except (KeyError, IndexError, TypeError, ValueError):
                return None
        return place

    def contained(self) -> Point:
        """Return the recipe's own values of those keys whose axis has them."""
        own = {key: self.own(key) for key in self.axes}
        return {key: own[key] for key, axis in self.axes.items() if axis.contains(own[key])}

    def grid(self) -> Iterator[Point]:
        """List every combination; a range without steps is refused."""
        listed = {key: axis.values() for key, axis in self.axes.items()}
        for key, values in listed.items():
            if values is None:
                raise ConfigError(f"a grid takes lists; give {key} its values, or its range a step")
        for values in itertools.product(*listed.values()):
            yield dict(zip(listed, values, strict=True))

    def overrides(self, point: Point) -> list[str]:
        """Return the ``key=value`` overrides that make the recipe this point's.

        Where the loss, the optimiser or the schedule varies, options that the chosen one does not have are unset.
        """
        changes = dict(point)
        for section, table in TABLES.items():
            if f"{section}.name" not in self.axes:
                continue
            row = table.get(point.get(f"{section}.name", self.dumped[section]["name"]))
            for option, (_, default) in options_of(table).items():
                key = f"{section}.{option}"
                if row is not None and option not in row.options and (key in point or self.own(key) != default):
                    changes[key] = default
        return [f"{key}={json.dumps(value)}" for key, value in changes.items()]

    def check(self, recipe: str, overrides: Sequence[str]) -> None:
        """Refuse a key or value that the recipe does not take: every one by itself, and all combinations if there are few."""
        points: list[Point] = [{key: value} for key, axis in self.axes.items() for value in axis.ends]
        ends = {key: axis.ends for key, axis in self.axes.items()}
        if math.prod(map(len, ends.values())) <= CORNERS_CHECKED:
            points += [dict(zip(ends, values, strict=True)) for values in itertools.product(*ends.values())]
        for point in points:
            self.recipe_of(point, recipe, overrides)

    def recipe_of(self, point: Point, recipe: str, overrides: Sequence[str]) -> Recipe:
        """Read the recipe of a point, as the printed command line would."""
        changes = self.overrides(point)
        try:
            return load_run_recipe(recipe, [*overrides, *changes], "search its members")
        except ConfigError as error:
            raise ConfigError(f"the search space has {' '.join(changes)}: {error}") from None

    def describe(self, key: str) -> str:
        """Describe an axis in a few words: ``0.0001 to 0.01, logarithmic``."""
        axis = self.axes[key]
        if isinstance(axis, Choices):
            return ", ".join(shown(value) for value in axis.listed)
        manner = ", logarithmic" if axis.log else f" in steps of {axis.step:g}" if axis.step else ""
        return f"{axis.low:g} to {axis.high:g}{manner}"


def read_space(base: Recipe, file: Path | None, vary: Sequence[str]) -> Space:
    """Read the space of a YAML file and of ``KEY=a,b,c`` on top; without either, rate and weight decay around the recipe's."""
    plain = {} if file is None else read_yaml(file)
    for given in vary:
        key, equals, text = given.partition("=")
        if not equals or not key.strip() or not text.strip():
            raise ConfigError(f"--vary {given!r}: write KEY=a,b,c, for example optimiser.lr=1e-3,1e-2")
        values = parse_value(f"[{text}]", f"--vary {given!r}")
        only = values[0]
        plain[key.strip()] = only if len(values) == 1 and isinstance(only, dict) and {"low", "high"} & set(only) else values
    return Space(base, plain or default_space(base))


def default_space(base: Recipe) -> dict[str, Any]:
    """Return a tenth to ten times the recipe's learning rate and weight decay; some decays where it has none."""
    lr, decay = base.optimiser.lr, base.optimiser.weight_decay
    around = {"low": float(f"{decay / 10:.6g}"), "high": float(f"{decay * 10:.6g}"), "log": True}
    return {
        "optimiser.lr": {"low": float(f"{lr / 10:.6g}"), "high": float(f"{lr * 10:.6g}"), "log": True},
        "optimiser.weight_decay": around if decay else [0.0, 1e-5, 1e-4, 1e-3, 1e-2],
    }


def shown(value: Any) -> str:
    """Show a value in a table, a number to four digits.

    >>> shown(0.000123456), shown(None), shown(["drop 0.3", "out"])
    ('0.0001235', 'null', '["drop 0.3", "out"]')
    """
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else json.dumps(value)


def _axis(key: str, plain: Any) -> Range | Choices:
    if isinstance(plain, list):
        return validated(Choices, {"listed": plain}, f"search space, {key}")
    if isinstance(plain, dict):
        return validated(Range, plain, f"search space, {key}")
    raise ConfigError(f"search space, {key}: give a list of values, or a range such as {{low: 1e-4, high: 1e-2, log: true}}")
