"""Honest measurement: measures with group-wise intervals, calibration, operating points, and the pictures of them."""

from __future__ import annotations

from pathlib import Path


def module_path() -> str:
    """The folder of our ``evaluate`` module, for ``evaluate.load`` and ``evaluate.combine``; it needs no network.

    >>> Path(module_path()).name
    'lesion_metrics'
    """
    return str(Path(__file__).resolve().parent / "lesion_metrics")
