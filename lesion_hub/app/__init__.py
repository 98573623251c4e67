"""The public demo: one Gradio page over a published model. Used by the Space and by ``lesion-hub serve``."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from lesion_hub.extras import require_extra

if TYPE_CHECKING:
    from lesion_hub.app.options import AppOptions
    from lesion_hub.app.serving import Running, build, launch

_MODULES = {
    "AppOptions": "lesion_hub.app.options",
    "Running": "lesion_hub.app.serving",
    "build": "lesion_hub.app.serving",
    "launch": "lesion_hub.app.serving",
}

__all__ = ["AppOptions", "Running", "build", "launch"]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: Gradio takes a second, and options need none of it."""
    if name in _MODULES:
        if _MODULES[name] != "lesion_hub.app.options":
            require_extra("app")
        return getattr(import_module(_MODULES[name]), name)
    raise AttributeError(f"module 'lesion_hub.app' has no attribute {name!r}")
