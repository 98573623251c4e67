from __future__ import annotations

from pathlib import Path
from typing import Annotated

import pytest
from pydantic import Field

from lesion_hub.config import Options, validated
from lesion_hub.errors import ConfigError
from lesion_hub.training.components import Component, check_options, given_options, own_callable, owners_of, with_options_of

SHOPS = {
    "bakery": Component(dict, {"flour": (Annotated[float, Field(gt=0)] | None, None), "open": (bool, False)}),
    "mill": Component(dict, {"flour": (Annotated[float, Field(gt=0)] | None, None)}),
}


@with_options_of(SHOPS)
class ShopOptions(Options):
    """A section."""

    name: str = "bakery"


def test_a_section_has_the_options_of_all_rows_as_keys_of_its_own() -> None:
    section = validated(ShopOptions, {"flour": 2.0}, "shop")
    assert given_options(section, SHOPS) == {"flour": 2.0}
    assert (ShopOptions.__name__, ShopOptions.__doc__) == ("ShopOptions", "A section.")
    assert owners_of(SHOPS, "flour") == ["bakery", "mill"] and owners_of(SHOPS, "open") == ["bakery"]
    with pytest.raises(ConfigError, match="shop: flour: Input should be greater than 0"):
        validated(ShopOptions, {"flour": -1}, "shop")
    with pytest.raises(ConfigError, match="unknown key 'flower'; did you mean 'flour'"):
        validated(ShopOptions, {"flower": 1}, "shop")


def test_an_option_that_there_is_none_of_is_one_line() -> None:
    with pytest.raises(ConfigError, match="shop bakery: no option 'opened'; did you mean 'open'"):
        check_options("shop bakery", ["opened"], ["open", "flour"])
    with pytest.raises(ConfigError, match="it takes none, drop it"):
        check_options("shop", ["open"], [])


@pytest.mark.parametrize(
    ("path", "line"),
    [
        ("no_such_package.losses:Mine", r"cannot be imported \(No module named 'no_such_package'\); install it, or put"),
        ("tests.training.own_components:Nothing", "has no attribute 'Nothing'"),
        ("tests.training.own_components:NOT_CALLABLE", "is a int; name a function or a class"),
        (":Mine", "cannot be imported"),
        ("math:", "cannot be imported"),
    ],
)
def test_what_cannot_be_called_is_one_line(path: str, line: str) -> None:
    with pytest.raises(ConfigError, match=line) as error:
        own_callable(path)
    assert str(error.value).startswith(path) and "\n" not in str(error.value)


def test_a_module_that_fails_when_imported_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken_package.py").write_text("raise RuntimeError('two\\nlines')\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match=r"cannot be imported \(two lines\)"):
        own_callable("broken_package:anything")
