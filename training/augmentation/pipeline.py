"""From cached uint8 images to what the network takes: augmented for training, or resized and cropped for evaluation.

An operation is a row of `PIXEL_OPERATIONS` or `OUTPUT_OPERATIONS` under the name of the option that turns it on; its options
and the random numbers of its parameters are in ``draws``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as transforms

from lesion_hub.config import InputConfig
from lesion_hub.errors import ConfigError
from lesion_hub.inference.preprocess import Framing, Placement
from lesion_hub.training.augmentation.draws import AugmentationOptions, Integers, SampleDraws, draw_samples
from lesion_hub.training.augmentation.operations import ArtefactBank, blur, erase, recolour, resample
from lesion_hub.training.components import own_callable
from lesion_hub.training.device import to_device

PICTURE_GAP = 4  # pixels

Operation = Callable[["Augmenter", Tensor, SampleDraws], Tensor]

# Done in this order, each where its option is on: to (N, 3, h, w) float32 pixels of 0 to 255 between resampling and colour,
PIXEL_OPERATIONS: dict[str, Operation] = {
    "artefacts": lambda augmenter, pixels, draws: augmenter.artefact_bank(pixels.device).lay_over(pixels, draws.layers),
    "blur": lambda augmenter, pixels, draws: blur(pixels, draws.sigma, augmenter.options.blur_sigma[1]),
}
# and to the normalised output, where 0 is the mean colour.
OUTPUT_OPERATIONS: dict[str, Operation] = {
    "erase": lambda augmenter, images, draws: erase(images, draws.erase),
}


class Augmenter:
    """Augments batches on the device they lie on: resample, artefacts, blur, colour and normalisation, erasing, extras.

    The parameters of a sample are drawn on the CPU from (seed, epoch, place in the epoch) and so are the same, to the bit,
    on every device and in every split into batches; the pixels agree between devices to about 1e-4 of a normalised
    unit in float32 (2e-2 where a GPU is allowed TF32). Nothing waits for the device.

    Args:
        size: height and width of the output, or the side of a square.
        mean, std: of the network's input, in units of 0 to 1.
        seed: of the run.
        dtype: of the output; the arithmetic is float32.
        channels_last: give the output in that memory format.

    >>> augmenter = Augmenter(AugmentationOptions(), 32, mean=(0.5,) * 3, std=(0.5,) * 3)
    >>> augmenter(torch.zeros(4, 40, 53, 3, dtype=torch.uint8), np.arange(4), epoch=0).shape
    torch.Size([4, 3, 32, 32])
    """

    def __init__(
        self,
        options: AugmentationOptions,
        size: int | tuple[int, int],
        *,
        mean: Sequence[float],
        std: Sequence[float],
        seed: int = 0,
        dtype: torch.dtype = torch.float32,
        channels_last: bool = False,
    ) -> None:
        self.options = options
        self.size = (size, size) if isinstance(size, int) else (size[0], size[1])
        self.mean, self.std = tuple(mean), tuple(std)
        self.seed = seed
        self.dtype = dtype
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.extra = {path: own_callable(path) for path in options.extra}
        self._banks: dict[torch.device, ArtefactBank] = {}

    @torch.no_grad()
    def __call__(self, images: Tensor, positions: Integers, epoch: int, stretch: NDArray[np.floating] | None = None) -> Tensor:
        """Augment and normalise a batch.

        Args:
            images: (N, H, W, 3) uint8 on the device, of any one shape.
            positions: (N,) int64 places in the order of the epoch (not dataset indices: an image that is drawn twice in
                an epoch is to be changed in two ways).
            epoch: from 0.
            stretch: (N,) how many times wider than cached each image is to be shown (``CacheSpec.stretch``); None is 1.

        Returns:
            (N, 3, h, w) of ``dtype``.
        """
        draws = draw_samples(
            self.options,
            self.seed,
            epoch,
            positions,
            source=(images.shape[1], images.shape[2]),
            size=self.size,
            stretch=stretch,
        )
        # Under autocast the matrix product would round to half precision.
        with torch.autocast(images.device.type, enabled=False):
            pixels = resample(images, draws.theta, self.size)
            for option, operation in PIXEL_OPERATIONS.items():
                if getattr(self.options, option):
                    pixels = operation(self, pixels, draws)
            factors = draws.colour if self.options.changes_colour else None
            out = recolour(pixels, factors, self.mean, self.std).to(self.dtype, memory_format=self.memory_format)
            for option, operation in OUTPUT_OPERATIONS.items():
                if getattr(self.options, option):
                    out = operation(self, out, draws)
            return self._apply_extra(out, positions, epoch) if self.extra else out

    def _apply_extra(self, images: Tensor, positions: Integers, epoch: int) -> Tensor:
        """Apply the user's own operations; the place of the batch's first sample in the run seeds what they draw."""
        seed = np.random.SeedSequence((self.seed, epoch, int(positions[0]))).generate_state(1, np.uint64)[0]
        generator = torch.Generator(images.device).manual_seed(int(seed >> np.uint64(1)))
        for path, operation in self.extra.items():
            given = images.shape
            images = operation(images, generator)
            if not isinstance(images, Tensor) or images.shape != given:
                what = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
                raise ConfigError(f"augmentation.extra: {path} gave {what} for images of shape {tuple(given)}; keep the shape")
        return images.to(self.dtype, memory_format=self.memory_format)

    def artefact_bank(self, device: torch.device) -> ArtefactBank:
        """Return the layers on ``device``, drawn once; which one, and where, a sample gets is drawn anew every epoch."""
        if device not in self._banks:
            self._banks[device] = ArtefactBank(self.options, self.size, self.seed, device)
        return self._banks[device]


@torch.no_grad()
def eval_batch(
    images: Tensor,
    config: InputConfig,
    *,
    stretch: NDArray[np.floating] | None = None,
    dtype: torch.dtype = torch.float32,
    channels_last: bool = False,
) -> Tensor:
    """Turn uint8 (N, H, W, 3) into normalised (N, 3, h, w) of ``dtype``: resize, central crop, normalise, as ``config`` says.

    ``stretch`` (N,) is how many times wider than cached each image is to be shown (``CacheSpec.stretch``). On images as
    they were decoded this is the model's transform, to a rounding of the last of 255 grey levels. A cache has resized
    them once before: where it has the very size that the transform resizes to (298 x 224 for 4:3 and a 224 network), the
    agreement stays; otherwise sharp edges differ, half a grey level on average. A cache with ``fit="crop"`` or
    ``"pad"`` shows another part of images that do not have its aspect, and cannot agree there.
    """
    framing = Framing.of(config)
    factors = np.ones(len(images)) if stretch is None else np.asarray(stretch, np.float64)
    # The tolerance is for the float32 of ``stretch``.
    places = [framing.place((images.shape[1], images.shape[2] * factor), tolerance=1e-3) for factor in factors]
    if len(distinct := sorted(set(places), key=lambda place: place.resized)) == 1:
        pixels = _framed(images, distinct[0], framing)
    else:
        pixels = images.new_empty((len(images), 3, *framing.size))
        for place in distinct:
            index = to_device(torch.tensor([i for i, own in enumerate(places) if own == place]), images.device)
            pixels[index] = _framed(images[index], place, framing)
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    with torch.autocast(images.device.type, enabled=False):
        return recolour(pixels.float(), None, config.mean, config.std).to(dtype, memory_format=memory_format)


def _framed(images: Tensor, place: Placement, framing: Framing) -> Tensor:
    """Resize uint8 (N, H, W, 3) and cut it to (N, 3, h, w) uint8, as `Framing.crop` does for one image."""
    pixels = images.permute(0, 3, 1, 2)
    if pixels.shape[2:] != place.resized:
        mode = InterpolationMode(framing.interpolation)
        pixels = transforms.resize(pixels, list(place.resized), interpolation=mode, antialias=True)
    (top, left), (height, width) = place.corner, place.size
    outside = [-left, -top, left + width - place.resized[1], top + height - place.resized[0]]
    if max(outside) > 0:
        pixels = transforms.pad(pixels, [max(0, side) for side in outside], fill=[float(value) for value in framing.fill])
    return transforms.crop(pixels, max(0, top), max(0, left), height, width)


# ------------------------------------------------------------------------------------------------ the picture


def augmentation_picture(
    images: NDArray[np.uint8], augmenter: Augmenter, *, copies: int = 7, stretch: NDArray[np.floating] | None = None
) -> Image.Image:
    """Draw a grid on white: each of ``images``, (n, H, W, 3) uint8, at the left of a row, ``copies`` augmented ones beside it.

    The copies are those of the first epochs, as training would make them if these images came first in each.

    >>> augmenter = Augmenter(AugmentationOptions(), 32, mean=(0.5,) * 3, std=(0.5,) * 3)
    >>> augmentation_picture(np.zeros((2, 30, 40, 3), np.uint8), augmenter, copies=3).size
    (152, 76)
    """
    batch, positions = torch.from_numpy(np.ascontiguousarray(images)), np.arange(len(images))
    factors = np.ones(len(images)) if stretch is None else stretch
    shown = [np.stack([_on_white(image, factor, augmenter.size) for image, factor in zip(images, factors, strict=True)])]
    for epoch in range(copies):
        normalised = augmenter(batch, positions, epoch, stretch).float().permute(0, 2, 3, 1).cpu().numpy()
        shown.append(np.rint(np.clip(normalised * augmenter.std + augmenter.mean, 0, 1) * 255).astype(np.uint8))
    height, width = (side + PICTURE_GAP for side in augmenter.size)
    sheet = Image.new("RGB", (width * len(shown) + 2 * PICTURE_GAP, height * len(images) + PICTURE_GAP), "white")
    for column, samples in enumerate(shown):
        for row, sample in enumerate(samples):
            # The originals stand a little apart.
            left = PICTURE_GAP + column * width + (PICTURE_GAP if column else 0)
            sheet.paste(Image.fromarray(sample), (left, PICTURE_GAP + row * height))
    return sheet


def _on_white(image: NDArray[np.uint8], stretch: float, size: tuple[int, int]) -> NDArray[np.uint8]:
    """Shrink the whole image, in its own aspect, into the middle of a white one of ``size``."""
    height, width = image.shape[0], image.shape[1] * stretch
    scale = min(size[0] / height, size[1] / width)
    small = Image.fromarray(image).resize((max(1, round(width * scale)), max(1, round(height * scale))))
    sheet = Image.new("RGB", (size[1], size[0]), "white")
    sheet.paste(small, ((size[1] - small.width) // 2, (size[0] - small.height) // 2))
    return np.asarray(sheet)
