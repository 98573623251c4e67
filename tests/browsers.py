"""The browsers that are driven, by the names that systems give them."""

from __future__ import annotations

import shutil

BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def browser_program() -> str | None:
    """Find the first of them that is installed."""
    return next(filter(None, map(shutil.which, BROWSERS)), None)
