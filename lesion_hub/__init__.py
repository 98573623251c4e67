"""lesion-hub: skin-lesion classifiers on the Hugging Face Hub, calibrated, versioned and explained.

>>> import lesion_hub
>>> model = lesion_hub.from_pretrained("dermoscopy-trio")  # doctest: +SKIP
>>> model.predict("mole.jpg").probabilities["mel"]  # doctest: +SKIP
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lesion_hub.errors import LesionHubError
    from lesion_hub.hub.store import info, list_versions, publish, pull
    from lesion_hub.inference import Predictor, from_network, from_pretrained
    from lesion_hub.models import LesionClassifier
    from lesion_hub.taxonomy import LabelSpace, label_space

_HOME = {
    "LesionHubError": "lesion_hub.errors",
    "LabelSpace": "lesion_hub.taxonomy",
    "label_space": "lesion_hub.taxonomy",
    "LesionClassifier": "lesion_hub.models",
    "from_network": "lesion_hub.inference",
    "from_pretrained": "lesion_hub.inference",
    "Predictor": "lesion_hub.inference",
    "publish": "lesion_hub.hub.store",
    "pull": "lesion_hub.hub.store",
    "list_versions": "lesion_hub.hub.store",
    "info": "lesion_hub.hub.store",
}

__version__ = "2.0.0"
DEFAULT_MODEL = "dermoscopy-trio"
"""The model that is used where none is named."""

__all__ = [
    "DEFAULT_MODEL",
    "LabelSpace",
    "LesionClassifier",
    "LesionHubError",
    "Predictor",
    "__version__",
    "from_network",
    "from_pretrained",
    "info",
    "label_space",
    "list_versions",
    "publish",
    "pull",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that ``import lesion_hub`` loads neither torch nor datasets."""
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'lesion_hub' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
