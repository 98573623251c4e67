"""What goes into a network: images opened and cropped, pixels normalised as timm does, mirrored and turned, and patients.

`open_image` decodes an image once and crops it for every `Framing`, whose `Placement` says where the crop lay on the image;
`Normalisation` makes a batch of crops; an `Orientation` mirrors and turns the batch for test-time augmentation, and undoes
it on heat maps; `encode_patients` makes the second input of networks that take metadata.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from lesion_hub.config import InputConfig
from lesion_hub.data.images import AnyImage, load_rgb
from lesion_hub.data.quality import ImageQuality, judge_quality
from lesion_hub.errors import ConfigError, ImageError
from lesion_hub.models import encode_metadata
from lesion_hub.taxonomy import nearest

ImageInput: TypeAlias = AnyImage | NDArray[Any]
Pixels: TypeAlias = NDArray[np.uint8]
Patient: TypeAlias = Mapping[str, Any]

PATIENT_FIELDS = ("age", "sex", "site")
_FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


@dataclass(frozen=True)
class OpenedImage:
    """A decoded image, cut to every framing that the members need; the whole of it is kept only where it will be shown.

    ``size`` is its (height, width).
    """

    size: tuple[int, int]
    crops: Mapping[Framing, Pixels]
    quality: ImageQuality
    image: Image.Image | None = None


def open_image(source: ImageInput, framings: Iterable[Framing], *, keep: bool = False) -> OpenedImage:
    """Decode once, judge the quality, crop once for each distinct framing."""
    image = as_rgb(source)
    return OpenedImage(
        size=(image.height, image.width),
        crops={framing: framing.crop(image) for framing in framings},
        quality=judge_quality(image),
        image=image if keep else None,
    )


def is_single(images: Any) -> bool:
    """Tell whether a caller's argument is one image rather than a collection; what is neither counts as one, to be refused."""
    if isinstance(images, (str, os.PathLike, bytes, bytearray, memoryview, Image.Image, np.ndarray, Mapping)):
        return True
    return hasattr(images, "read") or not isinstance(images, Iterable)


def as_rgb(image: ImageInput) -> Image.Image:
    """Decode any input to an upright RGB image; raises ImageError."""
    if not isinstance(image, np.ndarray):
        return load_rgb(image)
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in (1, 3, 4)):
        raise ImageError(f"the array is {image.dtype} {image.shape}; give uint8 of shape (height, width, 3)")
    return load_rgb(Image.fromarray(image[..., 0] if image.ndim == 3 and image.shape[2] == 1 else image))


# ------------------------------------------------------------------------------------------------ resize and crop


@dataclass(frozen=True)
class Placement:
    """Where a network's input lies on the image.

    ``resized`` is the (height, width) of the whole image after resizing, ``corner`` the (top, left) of the input in it,
    negative where the input reaches beyond the image, and ``size`` the input's (height, width).
    """

    resized: tuple[int, int]
    corner: tuple[int, int]
    size: tuple[int, int]


@dataclass(frozen=True)
class Framing:
    """Resize and crop of one network. Members with equal framings share the work, which is why it is hashable."""

    size: tuple[int, int]
    scale_size: tuple[int, int]
    mode: Literal["center", "squash", "border"]
    interpolation: str
    fill: tuple[int, int, int]

    @classmethod
    def of(cls, config: InputConfig) -> Framing:
        """Read the framing out of a model's preprocessing config."""
        size = (config.input_size[1], config.input_size[2])
        scale_size = (math.floor(size[0] / config.crop_pct), math.floor(size[1] / config.crop_pct))
        border = (round(255 * config.mean[0]), round(255 * config.mean[1]), round(255 * config.mean[2]))
        fill = border if config.crop_mode == "border" else (0, 0, 0)
        return cls(size, scale_size, config.crop_mode, config.interpolation, fill)

    def place(self, image_size: tuple[float, float], *, tolerance: float = 0.0) -> Placement:
        """Compute the placement on an image of (height, width): the numbers of timm's three crop modes.

        ``tolerance`` absorbs what a size that is no whole number has lost to its precision.
        """
        height, width = image_size
        if self.mode == "squash":
            resized = self.scale_size
        elif self.mode == "center" and self.scale_size[0] == self.scale_size[1]:
            # Here torchvision resizes, which truncates; below it is timm, which rounds.
            short = self.scale_size[0]
            long = int(short * max(height, width) / min(height, width) + tolerance)
            resized = (long, short) if height > width else (short, long)
        else:
            ratios = height / self.scale_size[0], width / self.scale_size[1]
            ratio = max(ratios) if self.mode == "border" else min(ratios)
            resized = round(height / ratio), round(width / ratio)
        corner = (_corner(resized[0], self.size[0]), _corner(resized[1], self.size[1]))
        return Placement(resized, corner, self.size)

    def crop(self, image: Image.Image) -> Pixels:
        """Cut an RGB image to the (H, W, 3) uint8 pixels of the network's input: bit for bit those of timm's transform.

        >>> framing = Framing((32, 32), (36, 36), "center", "bicubic", (0, 0, 0))
        >>> framing.crop(Image.new("RGB", (60, 45))).shape
        (32, 32, 3)
        """
        place = self.place((image.height, image.width))
        resized = image
        if (image.height, image.width) != place.resized:
            # The whole image, though only the crop is kept: Pillow holds a resize box in single precision, and then some
            # pixels round to the other side.
            resized = image.resize(place.resized[::-1], _FILTERS[self.interpolation])
        top, left = place.corner
        height, width = place.size
        if min(top, left) >= 0 and top + height <= resized.height and left + width <= resized.width:
            return np.asarray(resized)[top : top + height, left : left + width]
        framed = Image.new("RGB", (width, height), self.fill)
        framed.paste(resized, (-left, -top))
        return np.asarray(framed)


def _corner(resized: int, size: int) -> int:
    """Compute where the input starts along one side: timm pads with floor division and crops with rounding."""
    return -((size - resized) // 2) if size > resized else round((resized - size) / 2.0)


# ------------------------------------------------------------------------------------------------ batches


@dataclass(frozen=True)
class Normalisation:
    """(pixel / 255 - mean) / std, as one multiplication and one addition."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __call__(self, crops: Sequence[Pixels], device: torch.device, dtype: torch.dtype) -> Tensor:
        """Turn N crops of (H, W, 3) uint8 into an (N, 3, H, W) batch in channels-last memory, on the device, in the dtype."""
        pixels = torch.from_numpy(np.stack(crops)).to(device)
        batch = pixels.permute(0, 3, 1, 2).to(torch.float32)
        std = torch.tensor(self.std, dtype=torch.float64)
        scale = (1 / (255 * std)).to(device, torch.float32).view(3, 1, 1)
        shift = (torch.tensor(self.mean, dtype=torch.float64) / std).to(device, torch.float32).view(3, 1, 1)
        return batch.mul_(scale).sub_(shift).to(dtype)


@dataclass(frozen=True)
class Orientation:
    """Mirror the columns, then turn by ``quarters`` of a circle."""

    mirrored: bool
    quarters: int

    def apply(self, batch: Tensor) -> Tensor:
        """Bring (N, C, H, W) images into this orientation."""
        mirrored = batch.flip(3) if self.mirrored else batch
        return torch.rot90(mirrored, self.quarters, (2, 3)) if self.quarters else mirrored

    def undo(self, maps: Tensor) -> Tensor:
        """Bring (N, h, w) maps of images in this orientation back onto the images as they were."""
        turned = torch.rot90(maps, -self.quarters, (1, 2)) if self.quarters else maps
        return turned.flip(2) if self.mirrored else turned


# Those that keep a landscape picture landscape come first.
ORIENTATIONS = tuple(Orientation(mirrored, quarters) for quarters in (0, 2, 1, 3) for mirrored in (False, True))


def orientations(count: int, size: tuple[int, int]) -> tuple[Orientation, ...]:
    """Return the first ``count`` orientations of an input of (height, width).

    >>> [orientation.quarters for orientation in orientations(3, (224, 224))]
    [0, 0, 2]
    """
    if count > 4 and size[0] != size[1]:
        raise ConfigError(f"tta {count} would turn inputs of {size[0]} x {size[1]} on their side; use at most 4 views")
    return ORIENTATIONS[:count]


def encode_patients(patients: Sequence[Patient | None] | None) -> Tensor | None:
    """Encode N patients as (N, METADATA_INPUTS) float32, zeros where nothing is known; None when nothing is known of anyone.

    >>> encode_patients([{"age": 50}, None]).shape[0]
    2
    """
    if patients is None or not any(patients):
        return None
    known = [patient or {} for patient in patients]
    for key in (key for patient in known for key in patient):
        if key not in PATIENT_FIELDS:
            raise ConfigError(f"metadata: unknown key {key!r}; {nearest(key, PATIENT_FIELDS)}")
    age, sex, site = ([patient.get(name) for patient in known] for name in PATIENT_FIELDS)
    return encode_metadata(age, sex, site)
