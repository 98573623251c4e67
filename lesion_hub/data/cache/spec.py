"""The shape of cached images, and the decoding into it that the cache on disk and the stream share."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lesion_hub.data.images import MAX_PIXELS, ImageFacts, ImageSource, load_rgb, probe
from lesion_hub.errors import ConfigError

FITS = ("squash", "crop", "pad")
RESAMPLINGS = {
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}

# A JPEG is decoded at a fraction of its size, and a large image box-averaged, only down to twice the target: the
# antialiased filter that follows then hides the difference.
_OVERSAMPLING = 2

# EXIF orientations that put the last stored column or row first.
_MIRRORED_SIDEWAYS = frozenset({2, 3, 6, 7})
_MIRRORED_UPWARDS = frozenset({3, 4, 7, 8})


@dataclass(frozen=True)
class CacheSpec:
    """The geometry of the cached images: every one is uint8 RGB of shape (``height``, ``width``, 3).

    One shape for all lets a whole set be one (N, H, W, 3) array on the GPU, from which training takes its random crops.
    ``fit`` says how an image of another shape gets there:

    - ``"squash"`` resizes both sides independently. No pixel is lost and none is wasted, so it is the default;
      `stretch` tells how to undo it while cropping. Dermoscopy is nearly all 4:3, the default shape, where it does not
      distort at all.
    - ``"crop"`` keeps the aspect, covers the box and cuts what overhangs evenly on both sides: with a square box it is
      the classic "resize the short side, then centre crop".
    - ``"pad"`` keeps the aspect, fits inside the box and fills the rest with black.

    Images smaller than the box are enlarged, so a box larger than the images only costs memory. ``resample`` is box,
    bilinear, bicubic or lanczos, always antialiased. Images of more than ``max_pixels`` are refused undecoded.

    >>> CacheSpec(150, 200).nbytes(10_015)
    901350000
    """

    height: int = 224
    width: int = 298
    fit: str = "squash"
    resample: str = "bicubic"
    max_pixels: int = MAX_PIXELS

    def __post_init__(self) -> None:
        for side in ("height", "width", "max_pixels"):
            if not isinstance(value := getattr(self, side), int) or isinstance(value, bool) or value < 1:
                raise ConfigError(f"cache {side} {value!r}: must be an integer of at least 1")
        if self.fit not in FITS:
            raise ConfigError(f"cache fit {self.fit!r}: use one of {', '.join(FITS)}")
        if self.resample not in RESAMPLINGS:
            raise ConfigError(f"cache resample {self.resample!r}: use one of {', '.join(RESAMPLINGS)}")

    @classmethod
    def for_size(cls, size: int, *, aspect: float = 4 / 3, **options: Any) -> CacheSpec:
        """Return the spec whose short side is ``size``, ``aspect`` = width / height; choose 1.0 for mixed orientations.

        The long side is rounded down, as torchvision does it, so that what a model sees is what its own transform gives.

        >>> spec = CacheSpec.for_size(224)
        >>> spec.height, spec.width
        (224, 298)
        """
        if not aspect > 0:
            raise ConfigError(f"cache aspect {aspect!r}: must be a positive width / height")
        height, width = (size, int(size * aspect)) if aspect >= 1 else (int(size / aspect), size)
        return cls(height, width, **options)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @property
    def shape(self) -> tuple[int, int, int]:
        """The shape of one cached image: (height, width, 3)."""
        return self.height, self.width, 3

    def nbytes(self, images: int) -> int:
        """Return the bytes that ``images`` cached images take, in memory or on disk."""
        return images * self.height * self.width * 3

    def stretch(self, sizes: NDArray[np.integer]) -> NDArray[np.float32]:
        """Return how many times wider than cached each image must be shown to regain its aspect.

        ``sizes`` is (N, 2), original (height, width). Returns (N,) float32, 1 wherever nothing is to be undone.

        >>> CacheSpec(256, 256).stretch(np.array([[450, 600], [600, 600]])).round(3).tolist()
        [1.3329999446868896, 1.0]
        """
        height, width = np.asarray(sizes, np.float64).reshape(-1, 2).T
        known = (height > 0) & (width > 0) & (self.fit == "squash")
        aspect = np.divide(width, height, out=np.full(len(width), self.width / self.height), where=known)
        return (aspect * self.height / self.width).astype(np.float32)


def decode_into(out: NDArray[np.uint8], source: ImageSource, spec: CacheSpec, name: str | None = None) -> tuple[int, int]:
    """Write ``source``, decoded and fitted, into ``out`` (H, W, 3); return its upright original (height, width).

    ``name`` is what messages call an embedded image; one that is a file is called by its path. Raises `ImageError`.

    >>> spec = CacheSpec(2, 2)
    >>> out = np.empty(spec.shape, np.uint8)
    >>> decode_into(out, Image.new("RGB", (6, 4), "white"), spec), int(out.min())
    ((4, 6), 255)
    """
    content = source.get("bytes") if isinstance(source, Mapping) else source
    if not isinstance(content, bytes | Image.Image):
        name = None
    facts = probe(source, name=name)
    width, height = facts.upright_size
    at_least = (_OVERSAMPLING * spec.width, _OVERSAMPLING * spec.height)
    image = load_rgb(source, max_pixels=spec.max_pixels, name=name, at_least=at_least)
    # The part of `out` that the image fills: all of it unless padded.
    left, top, filled_width, filled_height = 0, 0, spec.width, spec.height
    if spec.fit == "pad":
        scale = min(spec.width / width, spec.height / height)
        filled_width = min(spec.width, max(1, round(width * scale)))
        filled_height = min(spec.height, max(1, round(height * scale)))
        left, top = (spec.width - filled_width) // 2, (spec.height - filled_height) // 2
        out[:] = 0
    resized = image.resize(
        (filled_width, filled_height),
        RESAMPLINGS[spec.resample],
        box=_kept_box(image, facts, spec),
        reducing_gap=_OVERSAMPLING,
    )
    out[top : top + filled_height, left : left + filled_width] = np.asarray(resized)
    return height, width


def _kept_box(image: Image.Image, facts: ImageFacts, spec: CacheSpec) -> tuple[float, float, float, float]:
    """Return the part (left, top, right, bottom) of the decoded ``image`` that is kept: all that shows the original, or its
    middle where ``spec`` crops.

    All pixels show the original, but for a JPEG decoded at a fraction of its size: where that does not divide the sides,
    the last stored column and row lie partly outside; the orientation may have moved them to the left or the top.
    """
    full_width, full_height = facts.upright_size
    fraction = round(max(full_width / image.width, full_height / image.height))
    width, height = min(full_width / fraction, image.width), min(full_height / fraction, image.height)
    left = image.width - width if facts.orientation in _MIRRORED_SIDEWAYS else 0
    top = image.height - height if facts.orientation in _MIRRORED_UPWARDS else 0
    if spec.fit != "crop":
        return left, top, left + width, top + height
    overhang = width / height / (spec.width / spec.height)
    kept_width, kept_height = width * min(1.0, 1 / overhang), height * min(1.0, overhang)
    left, top = left + (width - kept_width) / 2, top + (height - kept_height) / 2
    return left, top, left + kept_width, top + kept_height
