"""What a caller may give as an image, and an image opened once for all members."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lesion_hub.data.images import load_rgb
from lesion_hub.errors import ImageError
from lesion_hub.inference.framing import Framing, Pixels
from lesion_hub.inference.quality import Quality, assess

ImageInput: TypeAlias = str | os.PathLike[str] | bytes | Image.Image | NDArray[Any] | Mapping[str, Any]


def is_single(images: Any) -> bool:
    """Whether a caller's argument is one image rather than a collection of them."""
    return isinstance(images, (str, os.PathLike, bytes, Image.Image, np.ndarray, Mapping))


def as_rgb(image: ImageInput) -> Image.Image:
    """Any input as an upright RGB image; raises ImageError."""
    if not is_single(image):
        raise ImageError(f"{type(image).__name__} is no image; give a path, bytes, a Pillow image or a uint8 array")
    if not isinstance(image, np.ndarray):
        return load_rgb(image)
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in (1, 3, 4)):
        raise ImageError(f"the array is {image.dtype} {image.shape}; give uint8 of shape (height, width, 3)")
    return load_rgb(Image.fromarray(image[..., 0] if image.ndim == 3 and image.shape[2] == 1 else image))


@dataclass(frozen=True)
class OpenedImage:
    """A decoded image, cut to every framing that the members need; the whole of it is kept only where it will be shown.

    ``size`` is its (height, width).
    """

    size: tuple[int, int]
    crops: Mapping[Framing, Pixels]
    quality: Quality
    image: Image.Image | None = None


def open_image(source: ImageInput, framings: Iterable[Framing], *, keep: bool = False) -> OpenedImage:
    """Decode once, crop once for each distinct framing."""
    image = as_rgb(source)
    return OpenedImage(
        size=(image.height, image.width),
        crops={framing: framing.crop(image) for framing in framings},
        quality=assess(image),
        image=image if keep else None,
    )
