"""Checks of a card: its numbers are those of the files beside it, no section is missing, and its wording keeps the rules."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import ModelCard

from lesion_hub.config import CONFIG_NAME, ENSEMBLE_NAME
from lesion_hub.errors import StoreError, one_line
from lesion_hub.files import read_json
from lesion_hub.hub.card import front_matter, read_card_facts, readable_facts, render_facts
from lesion_hub.hub.layout import CARD_NAME, METRICS_NAME
from lesion_hub.hub.licences import check_licence, training_licences
from lesion_hub.hub.wording import breaches, missing_statements

_FILES = (METRICS_NAME, CONFIG_NAME, ENSEMBLE_NAME)
_SECTION = re.compile(r"^## (.+?)\s*$", re.MULTILINE)
_FRONT_MATTER = re.compile(r"\A---\n.*?\n---\n", re.DOTALL)
_DIGITS = re.compile(r"-?\d+(?:\.\d+)*")
# A number that a reader takes for a result: not a part of a name, a version, a link or a piece of code.
_NUMBER = re.compile(r"(?<![\w.\-/:])[-−]?\d+(?:\.\d+)?(?![\w\-/:]|\.\d)\s*%?")
_CODE = re.compile(r"```.*?```|`[^`\n]*`|https?://\S+", re.DOTALL)
_KEYS = ("license", "library_name", "pipeline_tag", "base_model", "datasets", "metrics", "tags", "model-index")


class CardError(StoreError):
    """A card that does not pass; its message is one line, ``problems`` has a line for each."""

    def __init__(self, path: Path, problems: list[str]) -> None:
        self.problems = problems
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        super().__init__(f"{path}: {problems[0]}{more}; write the card again with lesion-hub card, or mend it")


def check_card(folder: str | Path) -> None:
    """Raise `CardError` unless the card in ``folder`` passes every check of ``problems``."""
    place = Path(folder)
    found = list(problems(place))
    if found:
        raise CardError(place / CARD_NAME, found)


def problems(folder: Path) -> Iterator[str]:
    """Give one line for everything that is wrong with the card in ``folder``."""
    path = folder / CARD_NAME
    try:
        text = path.read_text(encoding="utf-8")
        stated = ModelCard(text, ignore_metadata_errors=True).data.to_dict()
    except OSError as error:
        yield f"cannot be read ({error.strerror})"
        return
    except (ValueError, yaml.YAMLError) as error:
        yield f"the front matter is not valid ({one_line(error)})"
        return
    index = stated.get("model-index") or [{}]
    name = index[0].get("name") if isinstance(index, list) and isinstance(index[0], dict) else None
    with readable_facts(folder):
        facts = read_card_facts(folder, str(name) if name else None, stated.get("license"))
        expected, wanted = render_facts(facts), front_matter(facts).to_dict()

    there = _SECTION.findall(text)
    yield from (f"section {section!r} is missing" for section in _SECTION.findall(expected) if section not in there)
    for key in _KEYS:
        if key in wanted and stated.get(key) != wanted[key]:
            what = "is missing from" if key not in stated else "does not fit the files in"
            yield f"{key} {what} the front matter"
    try:
        check_licence(facts.licence, training_licences(folder))
    except StoreError as error:
        yield str(error)
    yield from _wrong_numbers(folder, text, expected)
    yield from missing_statements(text)
    yield from breaches(_CODE.sub("", text))


# -------------------------------------------------------------------------------------------------------------- numbers


def _wrong_numbers(folder: Path, text: str, expected: str) -> Iterator[str]:
    """Give one line for every number that the files do not hold.

    A line that the template wrote must be as the template writes it, number by number: among thousands of measures some
    other one would nearly always fit an edited value. In lines of somebody's own, any value in the files will do.
    """
    written = set(_FRONT_MATTER.sub("", expected).splitlines())
    by_shape = defaultdict(list)  # lines of the template by what is left of them when every number is blanked
    for line in written:
        by_shape[_DIGITS.sub("#", line)].append(line)
    own = []
    for line in _FRONT_MATTER.sub("", text).splitlines():
        found = _DIGITS.findall(line)
        if line in written or not found:
            continue
        originals = [_DIGITS.findall(original) for original in by_shape.get(_DIGITS.sub("#", line), ())]
        if not originals:
            own.append(line)
            continue
        changes = [[(a, b) for a, b in zip(found, known, strict=True) if a != b] for known in originals]
        yield from (f"{a} stands where the files say {b} in {line.strip()!r}" for a, b in min(changes, key=len))
    paths = [folder / name for name in _FILES if (folder / name).is_file()]
    values = {value for path in paths for value in _numbers(read_json(path))}
    for line in _CODE.sub("", "\n".join(own)).splitlines():
        for match in _NUMBER.finditer(line):
            if not _is_known(match[0], values):
                yield f"{match[0].strip()} is in none of {', '.join(_FILES[:2])}: {line.strip()!r}"


def _numbers(value: Any) -> Iterator[Decimal]:
    """Give every number in plain JSON values, those that are keys too."""
    if isinstance(value, dict):
        for key, part in value.items():
            yield from _numbers(part)
            if _NUMBER.fullmatch(str(key)):
                yield Decimal(str(key))
    elif isinstance(value, list):
        for part in value:
            yield from _numbers(part)
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield Decimal(str(value))


def _is_known(printed: str, values: set[Decimal]) -> bool:
    """Tell whether a value rounds to the number as it is printed; a percentage stands for a hundredth."""
    number = printed.replace("−", "-").strip()
    scale = 100 if number.endswith("%") else 1
    stated = Decimal(number.rstrip("% "))
    half = Decimal(1).scaleb(-max(0, -int(stated.as_tuple().exponent))) / 2
    return any(abs(value * scale - stated) <= half for value in values)
