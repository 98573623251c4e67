"""The file of an input gate: a linear function of what a network sees in an image, which says whether it knows such images.

``gate.safetensors`` holds two tensors, both float32. ``features`` (2 C,) weighs each channel's mean over the image, and then
each channel's standard deviation, of what the graph gives as ``features``; of a network that cannot be cut there is ``logits``
(K,) instead. ``bias`` (1,) is added, and the score is the logistic function of the sum. Nothing else is needed to compute it:
the scales of the features are in the weights.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from lesion_hub.config import CONFIG_NAME, GateSection, ModelConfig, dump_json, load_model_config, with_gate
from lesion_hub.errors import StoreError
from lesion_hub.files import write_bytes, write_text
from lesion_hub.hub.layout import GATE_NAME, read_hashed

Reading = Literal["features", "logits"]

_LARGEST = 1 << 22  # bytes: a million channels


@dataclass(frozen=True, eq=False)
class GateWeights:
    """The weights (F,) of what the gate ``reads`` of a network, and the bias."""

    reads: Reading
    outputs: Tensor
    bias: float

    def tempered(self, factor: float) -> GateWeights:
        """Return the gate of the same network once its logits were divided by ``factor``."""
        if self.reads == "features":
            return self
        return GateWeights(self.reads, self.outputs * factor, self.bias)


def gate_bytes(weights: GateWeights) -> bytes:
    """Return the content of the gate's file."""
    tensors = {weights.reads: weights.outputs, "bias": torch.tensor([weights.bias])}
    return save({name: tensor.float().contiguous() for name, tensor in tensors.items()}, metadata={"format": "pt"})


def write_gate(folder: Path, weights: GateWeights, *, refuse_below: float, accept_from: float) -> ModelConfig:
    """Write the gate beside the weights of the model in ``folder``, and then the config that names and hashes it."""
    data = gate_bytes(weights)
    section = GateSection(sha256=hashlib.sha256(data).hexdigest(), refuse_below=refuse_below, accept_from=accept_from)
    config = with_gate(load_model_config(folder), section)
    write_bytes(folder / GATE_NAME, data)
    write_text(folder / CONFIG_NAME, dump_json(config))
    return config


def carry_gate(weights: GateWeights | None, section: GateSection | None, folder: Path, factor: float) -> None:
    """Write the gate that a model had before its logits were divided by ``factor`` into the folder of what it is now."""
    if weights is not None and section is not None:
        limits = {"refuse_below": section.refuse_below, "accept_from": section.accept_from}
        write_gate(folder, weights.tempered(factor), **limits)


def read_gate(folder: Path, config: ModelConfig, name: str = GATE_NAME) -> GateWeights | None:
    """Read the gate that the config names; None where none was fitted, one line where the file is another one."""
    section = config.lesion_hub.gate
    if section is None:
        return None
    path = folder / name
    return _parsed(read_hashed(path, section.sha256, _LARGEST), path)


def _parsed(data: bytes, path: Path) -> GateWeights:
    """Take the tensors out of the file, strictly."""
    wrong = StoreError(f"{path}: is no input gate; fit it again with lesion-hub gate fit")
    try:
        tensors = load(data)
    except (SafetensorError, LookupError, OverflowError, RuntimeError, TypeError, ValueError):
        raise wrong from None
    reads: Reading = "features" if "features" in tensors else "logits"
    if set(tensors) != {reads, "bias"} or tensors["bias"].shape != (1,):
        raise wrong
    if any(part.dtype != torch.float32 or part.ndim != 1 or not bool(part.isfinite().all()) for part in tensors.values()):
        raise wrong
    return GateWeights(reads, tensors[reads], float(tensors["bias"]))
