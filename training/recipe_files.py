"""Recipe files: YAML read safely, overrides from the command line, the shipped recipes by name."""

from __future__ import annotations

import re
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from lesion_hub.config import validated
from lesion_hub.errors import ConfigError, one_line
from lesion_hub.taxonomy import nearest
from lesion_hub.training.recipe import EnsembleRecipe, Recipe

SHIPPED = Path(__file__).resolve().parent / "recipes"

# YAML 1.1 reads 1e-3, as people write learning rates, as a string.
_EXPONENT = re.compile(r"[-+]?(\d[\d_]*\.?[\d_]*|\.\d[\d_]*)[eE][-+]?\d+")


class _Loader(yaml.SafeLoader):
    """The safe loader, with ``1e-3`` as a number and a key that is written twice refused."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key {key.value!r} is given twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep=deep)


_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _EXPONENT, list("-+0123456789."))


def shipped_recipes() -> list[str]:
    """Name the recipes that come with the package.

    >>> "ham10000_default" in shipped_recipes()
    True
    """
    return sorted(path.stem for path in SHIPPED.glob("*.yaml"))


def load_recipe(recipe: str | Path, overrides: Sequence[str] = ()) -> Recipe | EnsembleRecipe:
    """Read a recipe file, or a shipped recipe by name, with ``key=value`` overrides on top.

    Overrides of an ensemble recipe that are none of its own keys go to its members.

    >>> load_recipe("demo", ["optimiser.lr=1e-2"]).optimiser.lr
    0.01
    """
    path = find_recipe(recipe)
    content = read_yaml(path)
    for override in overrides:
        if content.get("kind") == "ensemble" and re.split(r"[.=]", override)[0].strip() not in EnsembleRecipe.model_fields:
            content["set"] = [*content.get("set", []), override]
        else:
            _override(content, override)
    return recipe_from(content, path.name, default_name=path.stem)


def load_run_recipe(recipe: str | Path, overrides: Sequence[str], instead: str) -> Recipe:
    """Read the recipe of one run as `load_recipe` does; an ensemble's is refused, and ``instead`` says what to do."""
    loaded = load_recipe(recipe, overrides)
    if not isinstance(loaded, Recipe):
        raise ConfigError(f"{loaded.name} is an ensemble; {instead}")
    return loaded


def load_trained_recipe(recipe: str | Path, overrides: Sequence[str], instead: str, what: str) -> Recipe:
    """Read the recipe of one run as `load_run_recipe` does; a probe's, which has no epochs for ``what``, is refused too."""
    loaded = load_run_recipe(recipe, overrides, instead)
    if loaded.probe is not None:
        raise ConfigError(f"{loaded.name} is a probe, which is solved for in no epochs: {what} is for recipes that train")
    return loaded


def recipe_from(content: Mapping[str, Any], where: str, *, default_name: str = "recipe") -> Recipe | EnsembleRecipe:
    """Make a recipe of plain data; a mistake is one line that starts with ``where``."""
    named = {"name": default_name, **content}
    if named.get("kind") == "ensemble":
        return validated(EnsembleRecipe, named, where)
    return validated(Recipe, named, where)


def find_recipe(recipe: str | Path) -> Path:
    """Find the file of a recipe given by path or by the name of a shipped one."""
    path = Path(recipe).expanduser()
    if path.is_file():
        return path
    if path.suffix not in (".yaml", ".yml") and path.name == str(recipe):
        shipped = SHIPPED / f"{recipe}.yaml"
        if shipped.is_file():
            return shipped
        raise ConfigError(f"no recipe {str(recipe)!r}; {nearest(str(recipe), shipped_recipes())}")
    raise ConfigError(f"{recipe}: no such file; give a path or one of {', '.join(shipped_recipes())}")


def read_yaml(path: Path) -> dict[str, Any]:
    """Read the mapping in a YAML file, of plain data only: reading it cannot run code."""
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        raise ConfigError(f"{path}: not readable as YAML ({_yaml_problem(error)}); mend that line") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: holds no sections; a recipe starts with data:, model: and epochs:")
    return content


def parse_value(text: str, where: str) -> Any:
    """Read a value of the command line as YAML, as files are read; a mistake is one line that starts with ``where``."""
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}: the value is not YAML ({_yaml_problem(error)})") from None


def _yaml_problem(error: Exception) -> str:
    problem, mark = getattr(error, "problem", None), getattr(error, "problem_mark", None)
    text = one_line(problem or error)
    return f"line {mark.line + 1}: {text}" if mark else text


def _override(content: dict[str, Any], override: str) -> None:
    """Set ``a.b.0.c=value`` inside ``content``; sections that are not there yet are made."""
    key, equals, text = override.partition("=")
    steps = key.strip().split(".")
    if not equals or not all(steps):
        raise ConfigError(f"--set {override!r}: write key=value, for example optimiser.lr=0.01")
    value = parse_value(text, f"--set {override!r}")
    place: Any = content
    for number, step in enumerate(steps, start=1):
        if isinstance(place, list):
            if not step.isdigit() or int(step) >= len(place):
                raise ConfigError(f"--set {override!r}: {step!r} is no position in a list of {len(place)}; count from 0")
        elif not isinstance(place, dict):
            raise ConfigError(f"--set {override!r}: what comes before {step!r} is a single value and has no parts")
        part = int(step) if isinstance(place, list) else step
        if number == len(steps):
            place[part] = value
        elif isinstance(place, dict) and place.get(part) is None:
            place[part] = {}
        place = place[part]


def dump_recipe(recipe: Recipe | EnsembleRecipe) -> str:
    """Write the resolved recipe as YAML that ``load_recipe`` reads back to an equal one."""
    return dump_yaml(recipe.model_dump(mode="json"))


def dump_yaml(plain: Mapping[str, Any]) -> str:
    """Write plain data as YAML that `read_yaml` reads back equal."""
    return yaml.safe_dump(plain, sort_keys=False, allow_unicode=True)


def first_difference(one: Mapping[str, Any], other: Mapping[str, Any], prefix: str = "") -> str | None:
    """Return the dotted key where two plain recipes first differ, with both values, or None."""
    for key in dict.fromkeys([*one, *other]):
        left, right = one.get(key), other.get(key)
        if left == right:
            continue
        if isinstance(left, dict) and isinstance(right, dict):
            return first_difference(left, right, f"{prefix}{key}.")
        return f"{prefix}{key} {left!r} there, {right!r} now"
    return None
