"""The random parameters of every sample: a pure function of (seed, epoch, place in the epoch), drawn on the CPU.

What a sample undergoes therefore depends neither on its batch, nor on the number of processes, nor on the device. Numbers
come from a hash of the counters (splitmix64's finaliser), since numpy's generators would need one object per sample.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lesion_hub.data.artefacts import ARTEFACTS
from training.augmentation.options import AugmentationOptions

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)

# The order is part of what a seed means: append, never reorder, so that one option leaves the draws of others alone.
_LANES = (
    *("area", "ratio", "x", "y", "hflip", "vflip", "angle"),
    *("brightness", "contrast", "saturation", "hue", "blur", "sigma"),
    *("erase", "erase_area", "erase_ratio", "erase_x", "erase_y"),
    *(f"{kind} {part}" for kind in ("hair", "ruler", "ink", "dark_corners", "gel_bubble") for part in ("shown", "layer")),
)


@dataclass(frozen=True)
class SampleDraws:
    """The parameters of N samples, arrays on the CPU.

    Attributes:
        theta: (N, 2, 3) float32, from output to source coordinates, both -1 to 1 (``align_corners=False``).
        colour: (N, 4) float32 factors of brightness, contrast and saturation, and the turn of the hue.
        sigma: (N,) float32 blur in output pixels, 0 for none.
        erase: (N, 4) float32 top, left, bottom, right in shares of the output; all 0 for none.
        layers: per kind of artefact, (N,) int64 the layer on each sample, -1 for none.
    """

    theta: NDArray[np.float32]
    colour: NDArray[np.float32]
    sigma: NDArray[np.float32]
    erase: NDArray[np.float32]
    layers: dict[str, Integers]


def uniforms(seed: int, epoch: int, positions: Integers, lanes: int) -> Floats:
    """(N, lanes) numbers in [0, 1), each a function of (seed, epoch, position, lane) alone.

    >>> one = uniforms(0, 1, np.array([7]), 3)
    >>> bool((uniforms(0, 1, np.array([3, 7]), 5)[1, :3] == one).all())
    True
    """
    key = _mixed(_mixed(np.array([seed], np.uint64) + _GOLDEN) + np.uint64(epoch))
    samples = _mixed(key + (np.asarray(positions).astype(np.uint64) + np.uint64(1)) * _GOLDEN)
    counters = np.arange(1, lanes + 1, dtype=np.uint64) * _GOLDEN
    return (_mixed(samples[:, None] + counters) >> np.uint64(11)) * 2.0**-53


def _mixed(x: NDArray[np.uint64]) -> NDArray[np.uint64]:
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def draw_samples(
    options: AugmentationOptions,
    seed: int,
    epoch: int,
    positions: Integers,
    *,
    source: tuple[int, int],
    size: tuple[int, int],
    stretch: NDArray[np.floating] | None = None,
) -> SampleDraws:
    """The parameters of the samples at ``positions`` (N,) of an epoch.

    ``source`` and ``size`` are (height, width) of the cached images and of the output; ``stretch`` (N,) is how many times
    wider than cached each image is to be shown.
    """
    table = uniforms(seed, epoch, positions, len(_LANES))
    u = dict(zip(_LANES, table.T, strict=True))
    height, width = float(source[0]), source[1] * (np.ones(len(table)) if stretch is None else np.asarray(stretch, float))
    layers = {
        kind: np.where(u[f"{kind} shown"] < share, (u[f"{kind} layer"] * options.artefact_layers).astype(np.int64), -1)
        for kind, share in options.artefacts.items()
    }
    return SampleDraws(
        theta=_crops(options, u, height, width, size[1] / size[0]).astype(np.float32),
        colour=_colours(options, u).astype(np.float32),
        sigma=np.where(u["blur"] < options.blur, _between(options.blur_sigma, u["sigma"]), 0).astype(np.float32),
        erase=_erased(options, u).astype(np.float32),
        layers=layers,
    )


def _between(limits: tuple[float, float], u: Floats) -> Floats:
    return limits[0] + (limits[1] - limits[0]) * u


def _crops(options: AugmentationOptions, u: dict[str, Floats], height: float, width: Floats, aspect: float) -> Floats:
    """(N, 2, 3) affine maps; ``width`` (N,) is that of the images as shown, ``aspect`` that of the output.

    Torchvision tries crops until one fits. Here the stretching is drawn from what fits the drawn area, which needs no
    retries and leaves the area uniform; an area that no permitted stretching fits shrinks until one does.
    """
    image_aspect = width / height / aspect
    area = _between(options.scale, u["area"])
    low, high = (np.clip(limit, *options.ratio) for limit in (area * image_aspect, image_aspect / area))
    ratio = low * (high / low) ** u["ratio"]
    area = np.minimum(area, np.minimum(ratio / image_aspect, image_aspect / ratio))
    crop_width = np.sqrt(area * height * width * aspect * ratio)
    crop_height = crop_width / (aspect * ratio)

    angle = np.deg2rad(options.rotation) * (2 * u["angle"] - 1)
    cos, sin = np.cos(angle), np.sin(angle)
    x = width / 2 + options.shift * _room(np.abs(cos) * crop_width + np.abs(sin) * crop_height, width) * (u["x"] - 0.5)
    y = height / 2 + options.shift * _room(np.abs(sin) * crop_width + np.abs(cos) * crop_height, height) * (u["y"] - 0.5)
    across = crop_width * np.where(u["hflip"] < options.hflip, -1, 1)
    down = crop_height * np.where(u["vflip"] < options.vflip, -1, 1)
    rows = [
        np.stack([cos * across, -sin * down, 2 * x - width], axis=-1) / width[:, None],
        np.stack([sin * across, cos * down, 2 * y - height], axis=-1) / height,
    ]
    return np.stack(rows, axis=1)


def _room(extent: Floats, side: Floats | float) -> Floats:
    """How far ``extent`` can move without leaving ``side``."""
    return np.maximum(side - extent, 0)


def _colours(options: AugmentationOptions, u: dict[str, Floats]) -> Floats:
    factors = [
        _between((max(0.0, 1 - strength), 1 + strength), u[name])
        for name, strength in (
            ("brightness", options.brightness),
            ("contrast", options.contrast),
            ("saturation", options.saturation),
        )
    ]
    return np.stack([*factors, _between((-options.hue, options.hue), u["hue"])], axis=-1)


def _erased(options: AugmentationOptions, u: dict[str, Floats]) -> Floats:
    area = _between(options.erase_area, u["erase_area"])
    # Half to twice as wide as high, within what the output holds.
    ratio = np.clip(2 ** (2 * u["erase_ratio"] - 1), area, 1 / area)
    width, height = np.sqrt(area * ratio), np.sqrt(area / ratio)
    top, left = (1 - height) * u["erase_y"], (1 - width) * u["erase_x"]
    box = np.stack([top, left, top + height, left + width], axis=-1)
    return np.where((u["erase"] < options.erase)[:, None], box, 0)


if unknown := set(ARTEFACTS) - {lane.split()[0] for lane in _LANES}:
    raise RuntimeError(f"artefacts without a lane of random numbers: {sorted(unknown)}")
