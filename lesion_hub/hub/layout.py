"""The layout of a published repo: the names of its files, its config, and whether a folder may be one. Needs no torch.

Nothing in a repo can run code when we load it: ``modeling_lesion.py`` is there for transformers users who ask for it with
``trust_remote_code=True``, and we never import it.
"""

from __future__ import annotations

import json
from pathlib import Path

from safetensors import SafetensorError, safe_open

from lesion_hub.config import (
    CONFIG_NAME,
    ENSEMBLE_NAME,
    EnsembleConfig,
    LesionHubSection,
    ModelConfig,
    load_ensemble_config,
    load_model_config,
)
from lesion_hub.errors import StoreError
from lesion_hub.files import sha256_of

WEIGHTS_NAME = "model.safetensors"
CARD_NAME = "README.md"
METRICS_NAME = "metrics.json"
SPLIT_NAME = "split.json"
CHANGELOG_NAME = "CHANGELOG.md"
MODELING_NAME = "modeling_lesion.py"
PLOTS_PATTERN = "plots/*.png"

TRANSFORMERS_CLASS = "LesionForImageClassification"
AUTO_MAP = {"AutoModelForImageClassification": f"modeling_lesion.{TRANSFORMERS_CLASS}"}
"""The ``auto_map`` of every config whose network needs ``modeling_lesion.py``."""

_TRANSFORMERS_FOOTER = f'''

# ---------------------------------------------------------------------------------------------- transformers
from transformers import TimmWrapperForImageClassification  # noqa: E402


class {TRANSFORMERS_CLASS}(TimmWrapperForImageClassification):
    """What ``AutoModelForImageClassification`` builds with ``trust_remote_code=True``: the networks above are registered."""
'''


class WeightsMismatch(StoreError):
    """The weights file is not the one whose sha256 the config holds."""


def modeling_source(file: Path | None = None) -> str:
    """Return the text of ``modeling_lesion.py``: the networks in ``file``, by default ours, and the class for transformers."""
    source = file or Path(__file__).parents[1] / "models" / "networks.py"
    # The file of somebody's network may be a copy that transformers fetched.
    return source.read_text(encoding="utf-8").removesuffix(_TRANSFORMERS_FOOTER) + _TRANSFORMERS_FOOTER


def is_ensemble(folder: Path) -> bool:
    """Tell an ensemble's folder by its ``ensemble.json``."""
    return (folder / ENSEMBLE_NAME).is_file()


def is_model_folder(folder: Path) -> bool:
    """Tell whether ``folder`` holds a model or an ensemble."""
    return (folder / CONFIG_NAME).is_file() or is_ensemble(folder)


def load_config(folder: Path) -> ModelConfig | EnsembleConfig:
    """Load the config of either kind of folder."""
    return load_ensemble_config(folder) if is_ensemble(folder) else load_model_config(folder)


def network_config(folder: Path) -> ModelConfig | None:
    """Load the config of the network in a folder; None for an ensemble whose members' weights are elsewhere."""
    config = load_config(folder)
    if isinstance(config, EnsembleConfig):
        return None if config.weights_sha256 is None else load_model_config(folder)
    return config


def own_section(config: ModelConfig | EnsembleConfig) -> LesionHubSection | EnsembleConfig:
    """Return the part that both kinds of config share (label space, temperature, operating points, training, sha256)."""
    return config.lesion_hub if isinstance(config, ModelConfig) else config


def verify_weights(folder: Path, config: ModelConfig | EnsembleConfig) -> None:
    """Refuse weights that are not the ones the config was written for; an ensemble without weights of its own passes."""
    path, expected = folder / WEIGHTS_NAME, own_section(config).weights_sha256
    if expected is None:
        return
    try:
        actual = sha256_of(path)
    except OSError as error:
        raise StoreError(f"{path}: cannot be read ({error.strerror}); fetch the model again") from None
    if actual != expected:
        raise WeightsMismatch(
            f"{path}: sha256 {actual[:12]}… is not the config's {expected[:12]}…; "
            "the file was damaged or exchanged, fetch or publish it again"
        )


def publishable_files(folder: Path) -> list[str]:
    """List the files of ``folder`` that a repo holds, by relative name; a required one that is missing or broken is one line.

    A run folder may hold more (checkpoints, logs): that is not published. CHANGELOG.md is the publisher's to write.
    """
    config = load_config(folder)
    required = [CARD_NAME, METRICS_NAME, SPLIT_NAME]
    if isinstance(config, EnsembleConfig):
        required = [ENSEMBLE_NAME, *required]
    network = network_config(folder)
    if network is not None:
        required = [CONFIG_NAME, WEIGHTS_NAME, *required, *([MODELING_NAME] if network.auto_map else [])]
        _check_model(folder, network)
    for name in required:
        if not (folder / name).is_file():
            raise StoreError(f"{folder / name}: missing; a published repo holds {', '.join(required)}")
    for name in (METRICS_NAME, SPLIT_NAME):
        try:
            json.loads((folder / name).read_text(encoding="utf-8"))
        except ValueError as error:
            raise StoreError(f"{folder / name}: not valid JSON ({error}); write it again") from None
    return [*required, *sorted(str(path.relative_to(folder)) for path in folder.glob(PLOTS_PATTERN))]


def _check_model(folder: Path, config: ModelConfig) -> None:
    verify_weights(folder, config)
    try:
        with safe_open(folder / WEIGHTS_NAME, framework="np"):
            pass
    except (OSError, SafetensorError) as error:
        raise StoreError(f"{folder / WEIGHTS_NAME}: not a safetensors file ({error}); write it with save_file") from None
    if config.auto_map not in (None, AUTO_MAP):  # it could send transformers to code in somebody else's repo
        raise StoreError(f"{folder / CONFIG_NAME}: auto_map names code that is not this version's; write the model again")
