"""Honest measurement: measures with group-wise intervals, calibration, operating points, reports and comparisons.

The names below are loaded when first used, so that importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

_HOMES = {
    "Comparison": "lesion_hub.evaluation.comparison",
    "EvaluateOptions": "lesion_hub.evaluation.run",
    "Evaluation": "lesion_hub.evaluation.run",
    "calibrate_run": "lesion_hub.evaluation.recalibrate",
    "compare": "lesion_hub.evaluation.comparison",
    "evaluate": "lesion_hub.evaluation.run",
    "record": "lesion_hub.evaluation.run",
}

__all__ = ["module_path", *_HOMES]


def module_path() -> str:
    """The folder of our ``evaluate`` module, for ``evaluate.load`` and ``evaluate.combine``; it needs no network.

    >>> Path(module_path()).name
    'lesion_metrics'
    """
    return str(Path(__file__).resolve().parent / "lesion_metrics")


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
