"""The augmentation that a recipe asks for, and the parameters of every sample, a function of its place in the run alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, SerializerFunctionWrapHandler, field_validator, model_serializer, model_validator

from lesion_hub.config import Count, NonNegative, Options, Positive, Share
from lesion_hub.data.artefacts import ARTEFACTS, SEVERITIES
from lesion_hub.taxonomy import nearest
from lesion_hub.training.components import as_value_error, own_callable

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


class AugmentationOptions(Options):
    """The random changes of every training image, every time it is shown; the defaults suit dermoscopy.

    ``scale`` is the range of the crop's area as a share of the image, ``ratio`` that of its stretching (1 is none); both
    (1, 1) is the largest undistorted crop. ``shift`` is how far it may lie off centre, as a share of the room that there
    is. ``rotation`` is in degrees, to either side; what turns in from beyond the border is reflected. ``hflip``,
    ``vflip``, ``blur``, ``erase`` and the values of ``artefacts`` are probabilities.

    ``brightness``, ``contrast`` and ``saturation`` draw a factor from 1 - v to 1 + v, ``hue`` a turn of -v to v of the
    colour circle. ``blur_sigma`` is in pixels of the network's input, ``erase_area`` a share of it; an erased box takes
    the mean colour of the normalisation. ``artefacts`` lays hair, rulers, ink, dark corners or gel bubbles over the
    image, from ``artefact_layers`` drawings of each kind made once per run.

    ``extra`` names operations of your own, ``package.module:name``, called one after the other when all of ours are done:
    ``name(images, generator)`` takes and returns (N, 3, h, w) normalised images on the device, and draws what it draws
    from the generator, which is seeded by the place of the batch in the run.

    >>> AugmentationOptions(rotation=15.0, artefacts={"hair": 0.2}).vflip
    0.5
    """

    scale: tuple[Positive, Positive] = (0.5, 1.0)
    ratio: tuple[Positive, Positive] = (3 / 4, 4 / 3)
    shift: Share = 1.0
    hflip: Share = 0.5
    vflip: Share = 0.5
    rotation: Annotated[float, Field(ge=0, le=180)] = 180.0
    brightness: NonNegative = 0.2
    contrast: NonNegative = 0.2
    saturation: NonNegative = 0.2
    hue: Annotated[float, Field(ge=0, le=0.5)] = 0.02
    blur: Share = 0.0
    blur_sigma: tuple[Positive, Positive] = (0.3, 2.0)
    erase: Share = 0.0
    erase_area: tuple[Positive, Positive] = (0.02, 0.2)
    artefacts: dict[str, Share] = Field(default_factory=dict)
    artefact_severity: tuple[int, int] = (1, 3)
    artefact_layers: Count = 32
    extra: tuple[str, ...] = ()

    @field_validator("scale", "ratio", "blur_sigma", "erase_area", "artefact_severity")
    @classmethod
    def _increasing(cls, value: tuple[float, float]) -> tuple[float, float]:
        if value[0] > value[1]:
            raise ValueError(f"{value[0]:g} is above {value[1]:g}; give the smaller one first")
        return value

    @field_validator("artefacts")
    @classmethod
    def _known_artefacts(cls, value: dict[str, float]) -> dict[str, float]:
        for name in value:
            if name not in ARTEFACTS:
                raise ValueError(f"unknown artefact {name!r}; {nearest(name, ARTEFACTS)}")
        return value

    @field_validator("extra")
    @classmethod
    def _importable(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        with as_value_error():
            for path in value:
                own_callable(path)
        return value

    @model_validator(mode="after")
    def _in_range(self) -> AugmentationOptions:
        if self.scale[1] > 1 or self.erase_area[1] > 1:
            raise ValueError("scale and erase_area are shares of the image; give at most 1")
        if not set(self.artefact_severity) <= set(SEVERITIES):
            raise ValueError("artefact_severity goes from 1 to 5")
        return self

    @model_serializer(mode="wrap")
    def _without_unset(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        # Recipes are told apart by what they dump: without operations of its own one stays what it was before there were any.
        return {key: value for key, value in dump(self).items() if key != "extra" or value}

    @classmethod
    def none(cls) -> AugmentationOptions:
        """Ask for the largest central crop, undistorted, and nothing else."""
        still = dict.fromkeys(("shift", "hflip", "vflip", "rotation", "brightness", "contrast", "saturation", "hue"), 0.0)
        return cls(scale=(1, 1), ratio=(1, 1), **still)

    @property
    def changes_colour(self) -> bool:
        return max(self.brightness, self.contrast, self.saturation, self.hue) > 0


_GOLDEN = np.uint64(0x9E3779B97F4A7C15)

# The order is part of what a seed means: append, never reorder, so that one option leaves the draws of others alone.
_LANES = (
    *("area", "ratio", "x", "y", "hflip", "vflip", "angle"),
    *("brightness", "contrast", "saturation", "hue", "blur", "sigma"),
    *("erase", "erase_area", "erase_ratio", "erase_x", "erase_y"),
    *(f"{kind} {part}" for kind in ("hair", "ruler", "ink", "dark_corners", "gel_bubble") for part in ("shown", "layer")),
)
if unknown := set(ARTEFACTS) - {lane.split()[0] for lane in _LANES}:
    raise RuntimeError(f"artefacts without a lane of random numbers: {sorted(unknown)}")


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
    """Draw (N, lanes) numbers in [0, 1), each a function of (seed, epoch, position, lane) alone.

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
    """Draw the parameters of the samples at ``positions`` (N,) of an epoch.

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
    strengths = {name: getattr(options, name) for name in ("brightness", "contrast", "saturation")}
    factors = [_between((max(0.0, 1 - strength), 1 + strength), u[name]) for name, strength in strengths.items()]
    colour = np.stack([*factors, _between((-options.hue, options.hue), u["hue"])], axis=-1)
    return SampleDraws(
        theta=_crops(options, u, height, width, size[1] / size[0]).astype(np.float32),
        colour=colour.astype(np.float32),
        sigma=np.where(u["blur"] < options.blur, _between(options.blur_sigma, u["sigma"]), 0).astype(np.float32),
        erase=_erased(options, u).astype(np.float32),
        layers=layers,
    )


def _between(limits: tuple[float, float], u: Floats) -> Floats:
    return limits[0] + (limits[1] - limits[0]) * u


def _crops(options: AugmentationOptions, u: dict[str, Floats], height: float, width: Floats, aspect: float) -> Floats:
    """Draw (N, 2, 3) affine maps; ``width`` (N,) is that of the images as shown, ``aspect`` that of the output.

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
    # How far the turned crop can move without leaving the image.
    room_x = np.maximum(width - (np.abs(cos) * crop_width + np.abs(sin) * crop_height), 0)
    room_y = np.maximum(height - (np.abs(sin) * crop_width + np.abs(cos) * crop_height), 0)
    x = width / 2 + options.shift * room_x * (u["x"] - 0.5)
    y = height / 2 + options.shift * room_y * (u["y"] - 0.5)
    across = crop_width * np.where(u["hflip"] < options.hflip, -1, 1)
    down = crop_height * np.where(u["vflip"] < options.vflip, -1, 1)
    rows = [
        np.stack([cos * across, -sin * down, 2 * x - width], axis=-1) / width[:, None],
        np.stack([sin * across, cos * down, 2 * y - height], axis=-1) / height,
    ]
    return np.stack(rows, axis=1)


def _erased(options: AugmentationOptions, u: dict[str, Floats]) -> Floats:
    """Draw (N, 4) boxes, top, left, bottom, right in shares of the output; all 0 for none."""
    area = _between(options.erase_area, u["erase_area"])
    # Half to twice as wide as high, within what the output holds.
    ratio = np.clip(2 ** (2 * u["erase_ratio"] - 1), area, 1 / area)
    width, height = np.sqrt(area * ratio), np.sqrt(area / ratio)
    top, left = (1 - height) * u["erase_y"], (1 - width) * u["erase_x"]
    box = np.stack([top, left, top + height, left + width], axis=-1)
    return np.where((u["erase"] < options.erase)[:, None], box, 0)
