"""The device that a model runs on, by the name that a caller gives."""

from __future__ import annotations

import torch

from lesion_hub.errors import ConfigError

AUTO = "auto"


def find_device(name: str | torch.device) -> torch.device:
    """Return the device of that name, once a tensor has been put there; ``auto`` is a GPU where there is one, else the CPU.

    One that is not there, or no device at all, is one line.

    >>> find_device("cpu")
    device(type='cpu')
    """
    if name == AUTO:
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ConfigError(f"{name}: is no device; use 'cpu', 'cuda', 'cuda:1', 'mps' or 'auto'") from None
    try:
        # Only trying tells for every kind: without a driver CUDA raises RuntimeError, a build without it AssertionError.
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError):
        there = False
    else:
        there = device.type != "meta"  # which holds no numbers
    if not there:
        raise ConfigError(f"{name}: not available here; use device='cpu' or 'auto'")
    return device
