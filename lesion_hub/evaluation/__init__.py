"""Evaluation: measures with group-wise intervals, calibration, operating points, reports and comparisons.

The names below are loaded when first used, so that importing the package costs nothing.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lesion_hub.extras import require_extra

if TYPE_CHECKING:
    from lesion_hub.evaluation.calibration import calibrate_run
    from lesion_hub.evaluation.comparison import Comparison, compare
    from lesion_hub.evaluation.recalibration import Recalibration, recalibrate
    from lesion_hub.evaluation.run import EvaluateOptions, Evaluation, evaluate, record

_HOME = {
    "Comparison": "lesion_hub.evaluation.comparison",
    "EvaluateOptions": "lesion_hub.evaluation.run",
    "Evaluation": "lesion_hub.evaluation.run",
    "Recalibration": "lesion_hub.evaluation.recalibration",
    "calibrate_run": "lesion_hub.evaluation.calibration",
    "compare": "lesion_hub.evaluation.comparison",
    "evaluate": "lesion_hub.evaluation.run",
    "recalibrate": "lesion_hub.evaluation.recalibration",
    "record": "lesion_hub.evaluation.run",
}

__all__ = [
    "Comparison",
    "EvaluateOptions",
    "Evaluation",
    "Recalibration",
    "calibrate_run",
    "compare",
    "evaluate",
    "module_path",
    "recalibrate",
    "record",
]


def module_path() -> str:
    """Return the path of our ``evaluate`` module, for ``evaluate.load`` and ``evaluate.combine``; it needs no network.

    >>> Path(module_path()).name
    'lesion_metrics.py'
    """
    return str(Path(__file__).resolve().parent / "lesion_metrics.py")


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used."""
    if name in _HOME:
        require_extra("data")
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """List the public names that are not loaded yet, too."""
    return sorted([*globals(), *_HOME])
