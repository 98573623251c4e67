"""Is a card honest? Its numbers are those of the files beside it, its sections are all there, its wording keeps the rules."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import ModelCard

from lesion_hub.config import CONFIG_NAME, ENSEMBLE_NAME
from lesion_hub.errors import StoreError
from lesion_hub.hub.card import metadata, render
from lesion_hub.hub.card_facts import CardFacts, collect
from lesion_hub.hub.layout import CARD_NAME, METRICS_NAME
from lesion_hub.hub.licences import check_licence
from lesion_hub.hub.release import training_licences
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
    """One line for everything that is wrong with the card in ``folder``."""
    path = folder / CARD_NAME
    try:
        text = path.read_text(encoding="utf-8")
        stated = ModelCard(text, ignore_metadata_errors=True).data.to_dict()
    except OSError as error:
        yield f"cannot be read ({error.strerror})"
        return
    except (ValueError, yaml.YAMLError) as error:
        yield f"the front matter is not valid ({' '.join(str(error).split())})"
        return
    facts = collect(folder, _stated_name(stated), stated.get("license"))
    expected = render(facts)
    yield from _missing_sections(text, expected)
    yield from _metadata_problems(stated, facts)
    yield from _licence_problems(folder, facts.licence)
    yield from _wrong_numbers(folder, text, expected)
    yield from missing_statements(text)
    yield from (str(breach) for breach in breaches(_CODE.sub("", text)))


def _stated_name(stated: Mapping[str, Any]) -> str | None:
    """The name that the card gives the model in its index."""
    index = stated.get("model-index") or [{}]
    name = index[0].get("name") if isinstance(index, list) and isinstance(index[0], dict) else None
    return str(name) if name else None


def _missing_sections(text: str, expected: str) -> Iterator[str]:
    there = _SECTION.findall(text)
    for section in _SECTION.findall(expected):
        if section not in there:
            yield f"section {section!r} is missing"


def _metadata_problems(stated: Mapping[str, Any], facts: CardFacts) -> Iterator[str]:
    wanted = metadata(facts).to_dict()
    for key in _KEYS:
        if key in wanted and stated.get(key) != wanted[key]:
            what = "is missing from" if key not in stated else "does not fit the files in"
            yield f"{key} {what} the front matter"


def _licence_problems(folder: Path, licence: str) -> Iterator[str]:
    try:
        check_licence(licence, training_licences(folder))
    except StoreError as error:
        yield str(error)


def _wrong_numbers(folder: Path, text: str, expected: str) -> Iterator[str]:
    """Numbers that the files do not hold.

    A line that the template wrote must be as the template writes it, number by number: among thousands of measures some
    other one would nearly always fit an edited value. In lines of somebody's own, any value in the files will do.
    """
    written = _body(expected).splitlines()
    exact, by_shape = set(written), defaultdict(list)
    for line in written:
        by_shape[_shape(line)].append(line)
    own = []
    for line in _body(text).splitlines():
        if line in exact or not _DIGITS.search(line):
            continue
        if _shape(line) not in by_shape:
            own.append(line)
            continue
        changes = min((_changes(line, original) for original in by_shape[_shape(line)]), key=len)
        yield from (f"{found} stands where the files say {known} in {line.strip()!r}" for found, known in changes)
    values = _known_values(folder)
    for line in _CODE.sub("", "\n".join(own)).splitlines():
        for match in _NUMBER.finditer(line):
            if not _is_known(match[0], values):
                yield f"{match[0].strip()} is in none of {', '.join(_FILES[:2])}: {line.strip()!r}"


def _changes(line: str, original: str) -> list[tuple[str, str]]:
    """(number here, number there) wherever two lines of one shape differ."""
    pairs = zip(_DIGITS.findall(line), _DIGITS.findall(original), strict=True)
    return [(found, known) for found, known in pairs if found != known]


def _body(text: str) -> str:
    return _FRONT_MATTER.sub("", text)


def _shape(line: str) -> str:
    """The line with every number blanked."""
    return _DIGITS.sub("#", line)


def _known_values(folder: Path) -> set[Decimal]:
    """Every number in the folder's metrics and config."""
    found: set[Decimal] = set()
    for name in _FILES:
        if (folder / name).is_file():
            found.update(_numbers(json.loads((folder / name).read_text(encoding="utf-8"))))
    return found


def _numbers(value: Any) -> Iterator[Decimal]:
    if isinstance(value, bool):
        return
    if isinstance(value, (int, float)):
        yield Decimal(str(value))
    elif isinstance(value, dict):
        for key, part in value.items():
            yield from _numbers(part)
            if _NUMBER.fullmatch(str(key)):
                yield Decimal(str(key))
    elif isinstance(value, list):
        for part in value:
            yield from _numbers(part)


def _is_known(printed: str, values: set[Decimal]) -> bool:
    """Whether a value rounds to the number as it is printed; a percentage stands for a hundredth."""
    number = printed.replace("−", "-").strip()
    scale = 100 if number.endswith("%") else 1
    shown = Decimal(number.rstrip("% "))
    half = Decimal(1).scaleb(-max(0, -int(shown.as_tuple().exponent))) / 2
    return any(abs(value * scale - shown) <= half for value in values)
