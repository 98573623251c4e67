"""The examples in the docstrings of ``lesion_hub.training``, whose folder pytest does not know by that name."""

from __future__ import annotations

import doctest
import pkgutil
from importlib import import_module

import pytest

import lesion_hub.training

MODULES = [module.name for module in pkgutil.walk_packages(lesion_hub.training.__path__, "lesion_hub.training.")]


@pytest.mark.parametrize("name", MODULES)
def test_examples_are_right(name: str) -> None:
    assert doctest.testmod(import_module(name), optionflags=doctest.ELLIPSIS).failed == 0


def test_some_are_looked_at() -> None:
    assert len(MODULES) > 20
