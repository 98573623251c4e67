"""A borrowed GPU: on ZeroGPU Spaces a call gets one by decorator; elsewhere the decorator does nothing."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from typing import TypeVar, cast

import torch

Function = TypeVar("Function", bound=Callable[..., object])


def on_gpu(function: Function) -> Function:
    """``spaces.GPU`` where the ``spaces`` package is installed; its effect outside of ZeroGPU is none."""
    found = find_spec("spaces")
    if found is None or found.origin is None:  # a mere folder of that name, as a checkout has one, is no package
        return function
    return cast(Function, import_module("spaces").GPU(function))


def device(wanted: str | None = None) -> str:
    """The device asked for, else CUDA where there is one, else the CPU."""
    return wanted or ("cuda" if torch.cuda.is_available() else "cpu")
