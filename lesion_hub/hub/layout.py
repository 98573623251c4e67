"""The layout of a published repo: the names of its files, its config, and whether a folder may be one. Needs no torch.

Nothing in a repo can run code when we load it: ``modeling_lesion.py`` is there for transformers users who ask for it with
``trust_remote_code=True``, and we never import it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

from safetensors import SafetensorError, safe_open

from lesion_hub.config import (
    CONFIG_NAME,
    ENSEMBLE_NAME,
    EnsembleConfig,
    LesionHubSection,
    ModelConfig,
    Precision,
    load_ensemble_config,
    load_model_config,
)
from lesion_hub.errors import StoreError
from lesion_hub.files import read_json, sha256_of

WEIGHTS_NAME = "model.safetensors"
CARD_NAME = "README.md"
METRICS_NAME = "metrics.json"
SPLIT_NAME = "split.json"
CHANGELOG_NAME = "CHANGELOG.md"
MODELING_NAME = "modeling_lesion.py"
PLOTS_PATTERN = "plots/*.png"
GRAPH_NAMES: Mapping[Precision, str] = MappingProxyType({"float32": "model.onnx", "int8": "onnx/model_int8.onnx"})
"""The ONNX files by precision. The first has no weights and lies beside those it takes, the other brings its own."""

GATE_NAME = "gate.safetensors"
MEMBER_GATES = "gates/{}.safetensors"
"""The input gate of a model, and where an ensemble that carries its members' weights holds that of each, by its place."""

ALWAYS_THERE = (CARD_NAME, METRICS_NAME, SPLIT_NAME, CHANGELOG_NAME)
"""The files that every published version holds."""
REPO_PATTERNS = [
    CONFIG_NAME,
    ENSEMBLE_NAME,
    WEIGHTS_NAME,
    MODELING_NAME,
    *GRAPH_NAMES.values(),
    GATE_NAME,
    MEMBER_GATES.format("*"),
    *ALWAYS_THERE,
    PLOTS_PATTERN,
]
"""All files that a published version may hold."""

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


def gate_names(config: ModelConfig | EnsembleConfig, network: ModelConfig) -> list[str]:
    """List the files of input gates in a folder of ``config``: a model's own, or those of the members that travel with it."""
    if isinstance(config, ModelConfig):
        return [GATE_NAME] if config.lesion_hub.gate else []
    members = network.model_args.get("members")
    sections = [member.get("lesion_hub", {}) for member in members] if isinstance(members, list) else []
    return [MEMBER_GATES.format(i) for i, section in enumerate(sections) if section.get("gate")]


def own_section(config: ModelConfig | EnsembleConfig) -> LesionHubSection | EnsembleConfig:
    """Return the part that both kinds of config share (label space, temperature, operating points, training, sha256)."""
    return config.lesion_hub if isinstance(config, ModelConfig) else config


def verify_weights(folder: Path, config: ModelConfig | EnsembleConfig) -> None:
    """Refuse weights that are not the ones the config was written for; an ensemble without weights of its own passes."""
    path, expected = folder / WEIGHTS_NAME, own_section(config).weights_sha256
    if expected is None:
        return
    if path.exists() and not path.is_file():  # a pipe would be waited for
        raise StoreError(f"{path}: is no regular file; fetch the model again")
    try:
        actual = sha256_of(path)
    except OSError as error:
        raise StoreError(f"{path}: cannot be read ({error.strerror}); fetch the model again") from None
    if actual != expected:
        raise WeightsMismatch(
            f"{path}: sha256 {actual[:12]}… is not the config's {expected[:12]}…; "
            "the file was damaged or exchanged, fetch or publish it again"
        )


def read_hashed(path: Path, sha256: str, largest: int) -> bytes:
    """Read a published file of at most ``largest`` bytes that the config names; one that is another is refused."""
    try:
        if not path.is_file() or path.stat().st_size > largest:
            raise StoreError(f"{path}: is missing, or no regular file; fetch the model again")
        data = path.read_bytes()
    except OSError as error:
        raise StoreError(f"{path}: cannot be read ({error.strerror}); fetch the model again") from None
    if hashlib.sha256(data).hexdigest() != sha256:
        raise StoreError(
            f"{path}: sha256 is not the config's {sha256[:12]}…; the file was damaged or exchanged, fetch it again"
        )
    return data


def publishable_files(folder: Path) -> list[str]:
    """List the files of ``folder`` that a repo holds, by relative name; a required one that is missing or broken is one line.

    A run folder may hold more (checkpoints, logs): that is not published. CHANGELOG.md is the publisher's to write. A link
    out of the folder is refused: what it leads to would be published.
    """
    config = load_config(folder)
    required = [CARD_NAME, METRICS_NAME, SPLIT_NAME]
    if isinstance(config, EnsembleConfig):
        required = [ENSEMBLE_NAME, *required]
    network = network_config(folder)
    if network is not None:
        if network.auto_map not in (None, AUTO_MAP):  # it could send transformers to code in somebody else's repo
            raise StoreError(f"{folder / CONFIG_NAME}: auto_map names code that is not this version's; write the model again")
        required = [CONFIG_NAME, WEIGHTS_NAME, *required, *([MODELING_NAME] if network.auto_map else [])]
        required += [GRAPH_NAMES[precision] for precision in network.lesion_hub.graphs or ()]
        required += gate_names(config, network)
    for name in required:
        if not (folder / name).is_file():
            raise StoreError(f"{folder / name}: missing; a published repo holds {', '.join(required)}")
    files = [*required, *sorted(str(path.relative_to(folder)) for path in folder.glob(PLOTS_PATTERN))]
    require_own_files(folder, files)
    for name in (METRICS_NAME, SPLIT_NAME):
        read_json(folder / name)
    if network is not None:
        _check_model(folder, network)
    return files


def require_own_files(folder: Path, names: Iterable[str]) -> None:
    """Raise one line unless every one of the named files is a regular one that lies in ``folder``, or is linked within it.

    A snapshot in the Hub's cache is made of links to the blobs beside it, which are its own.
    """
    root = folder.resolve()
    own = (root, root.parents[1] / "blobs") if root.parent.name == "snapshots" else (root,)
    for name in names:
        path = folder / name
        if not path.is_file():
            raise StoreError(f"{path}: is no regular file; remove it, or put one in its place")
        if not any(path.resolve().is_relative_to(place) for place in own):
            raise StoreError(f"{path}: is a link out of the folder; put the file itself there if it shall be published")


def _check_model(folder: Path, config: ModelConfig) -> None:
    verify_weights(folder, config)
    try:
        with safe_open(folder / WEIGHTS_NAME, framework="np"):
            pass
    except (OSError, SafetensorError, ValueError) as error:
        raise StoreError(f"{folder / WEIGHTS_NAME}: not a safetensors file ({error}); write it with save_file") from None
