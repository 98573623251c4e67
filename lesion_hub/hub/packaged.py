"""Folders of the checkout that travel inside the wheel: the registry, the card's template, the Space."""

from __future__ import annotations

from pathlib import Path


def packaged_folder(inside: str, beside: str) -> Path:
    """The folder ``inside`` the package where it is installed, ``beside`` it in a checkout.

    >>> packaged_folder("_model_cards", "model_cards").is_dir()
    True
    """
    package = Path(__file__).resolve().parents[1]
    installed = package / inside
    return installed if installed.is_dir() else package.parent / beside
