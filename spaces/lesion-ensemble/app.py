"""The Space: the interface of lesion-hub, answering with the models that models.json names."""

import json
from pathlib import Path

from lesion_hub.app import AppOptions, launch

HERE = Path(__file__).parent
MODELS = json.loads((HERE / "models.json").read_text(encoding="utf-8"))
BUNDLED = HERE / "registry"  # a local registry's models travel with the Space; the Hub's are fetched from there

launch(AppOptions(models=tuple(MODELS), registry=BUNDLED if BUNDLED.is_dir() else None, examples=HERE / "examples"))
