"""How faithful an attribution method is on a model: measures of its maps, beside those of maps that ignore the model.

`check_maps` measures every map of every image: insertion and deletion curves, Captum's infidelity and sensitivity, the share
of the heat inside the lesion's mask. It ends with the cascading randomisation of Adebayo et al. (arXiv 1810.03292): the maps
of a model whose layers hold random weights should not look like the trained model's.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, TypeAlias

import numpy as np
import torch
from captum.metrics import infidelity, sensitivity_max
from numpy.typing import NDArray
from PIL import Image, ImageFilter
from pydantic import Field
from scipy.integrate import trapezoid
from scipy.stats import spearmanr
from torch import Tensor, nn

from lesion_hub.config import Options
from lesion_hub.data.images import load_rgb
from lesion_hub.files import read_json, write_json
from lesion_hub.hub.layout import METRICS_NAME
from lesion_hub.inference.attribution import find_method, scaled
from lesion_hub.inference.predictor import Predictor
from lesion_hub.inference.preprocess import ImageInput, Pixels, as_rgb
from lesion_hub.inference.results import HeatMap
from lesion_hub.inference.rows import MASK_ENDING, open_rows
from lesion_hub.progress import Progress

_Mask: TypeAlias = NDArray[np.bool_]

METRICS_SECTION = "attribution"
MASK_FOLDERS = ("masks", ".masks")
STEPS = 16
MAP_MEASURES = {
    "insertion_auc": "higher is better: the probability comes back with the hottest pixels",
    "deletion_auc": "lower is better: the probability goes with the hottest pixels",
    "infidelity": "lower is better: the map foretells what covering a square does (Captum, normalised)",
    "sensitivity_max": "lower is better: how much noise that nobody sees changes the map (Captum)",
    "heat_in_mask": "higher is better: share of the heat inside the lesion; compare mask_area",
}
_BLUR = 0.1
_GAUSSIAN_WIDTH = 0.25


class CheckOptions(Options):
    """How thorough the check is. ``stages`` is that of the randomisation, 0 leaves it out."""

    methods: tuple[str, ...] = ("gradcam",)
    steps: Annotated[int, Field(ge=2)] = STEPS
    perturbations: Annotated[int, Field(ge=2)] = 10
    stages: Annotated[int, Field(ge=0)] = 4
    seed: int = 0


@dataclass(frozen=True)
class CheckImage:
    """An image to check maps on, and where the lesion in it is ((H, W) bool), if that is known."""

    image: ImageInput
    mask: _Mask | None = None


def check_images_of(place: str | Path, count: int, seed: int = 0, **options: Any) -> list[CheckImage]:
    """Draw ``count`` images of a folder or data set at random, with their masks; ``options`` are those of `open_rows`.

    Masks are ``masks/<image id>_segmentation.png`` in the folder, or beside the table, white where the lesion is, as the ISIC
    archive and our synthetic sets name them.
    """
    rows = open_rows(place, **options)
    drawn = set(np.random.default_rng(seed).permutation(rows.total or 0)[:count].tolist())
    root = Path(place).expanduser()
    folder = root if root.is_dir() else root.parent
    masks = {path.stem: path for name in MASK_FOLDERS for path in (folder / name).glob(f"*{MASK_ENDING}.png")}
    found = []
    for row in (row for row in rows if row.index in drawn):
        mask, drawing = None, masks.get(f"{Path(row.image_id).stem}{MASK_ENDING}")
        if drawing is not None:
            shape = as_rgb(row.image).size
            mask = np.asarray(load_rgb(drawing).resize(shape, Image.Resampling.NEAREST))[..., 0] > 127
        found.append(CheckImage(row.image, mask))
    return found


def check_maps(
    model: Predictor, images: Sequence[CheckImage], options: CheckOptions | None = None, progress: Progress | None = None
) -> dict[str, Any]:
    """Measure the methods and the baselines on some images, each for the label that the model gives it.

    Returns:
        JSON-able: ``images``; ``measures``: what each means; ``maps``: for every method and baseline its mean measures;
        ``mask_area``: the share of the images that is lesion; ``randomisation``: for every method the similarity to its
        trained maps after each stage.
    """
    chosen = options or CheckOptions()
    for name in chosen.methods:
        find_method(name)
    rows: dict[str, list[dict[str, float | None]]] = {name: [] for name in (*chosen.methods, *BASELINES)}
    labelled: list[tuple[Pixels, str]] = []
    for i, item in enumerate(images):
        pixels = np.asarray(as_rgb(item.image))
        mask = None if item.mask is None else np.asarray(item.mask, dtype=bool)
        label = model.predict(pixels).label
        labelled.append((pixels, label))
        explained = ExplainedModel(model, label)
        maps = {name: explained.heats([pixels], name)[0] for name in chosen.methods}
        maps |= {name: baseline(pixels, chosen.seed + i) for name, baseline in BASELINES.items()}
        for name, heat in maps.items():
            total = float(heat.sum())
            found = {
                "insertion_auc": insertion_auc(explained, pixels, heat, chosen.steps),
                "deletion_auc": deletion_auc(explained, pixels, heat, chosen.steps),
                "infidelity": _infidelity(explained, pixels, heat, chosen),
                "sensitivity_max": _sensitivity(explained, pixels, name, chosen) if name in chosen.methods else None,
                "heat_in_mask": float(heat[mask].sum()) / total if mask is not None and total > 0 else None,
            }
            rows[name].append(found)
        if progress:
            progress(i + 1, len(images))

    areas = [float(np.mean(item.mask)) for item in images if item.mask is not None]
    stages = {
        name: cascading_randomisation(model, labelled, name, chosen.stages, chosen.seed)
        for name in chosen.methods
        if chosen.stages
    }
    return {
        "images": len(images),
        "measures": MAP_MEASURES,
        # Each measure's mean is over the images that have it.
        "maps": {name: {key: _mean([row[key] for row in found]) for key in MAP_MEASURES} for name, found in rows.items()},
        "mask_area": _mean(areas),
        "randomisation": {
            name: [{"randomised": stage.share, "similarity": stage.similarity} for stage in found]
            for name, found in stages.items()
        },
    }


def record_check(folder: Path, results: Mapping[str, Any]) -> Path:
    """Put the results into a model folder's ``metrics.json``, from which the card takes them."""
    path = folder / METRICS_NAME
    write_json(path, {**read_json(path, missing_ok=True), METRICS_SECTION: dict(results)})
    return path


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


@dataclass(frozen=True)
class ExplainedModel:
    """A predictor and the label whose probability and maps are examined."""

    model: Predictor
    label: str

    def probabilities(self, images: Sequence[Pixels]) -> NDArray[np.float64]:
        """Predict the label's (N,) probability."""
        return np.array([p.probabilities[self.label] for p in self.model.stream([Image.fromarray(i) for i in images])])

    def heats(self, images: Sequence[Pixels], method: str) -> list[HeatMap]:
        """Draw the (H, W) map of each image."""
        found = self.model.stream([Image.fromarray(i) for i in images], explain=method, target=self.label)
        return [prediction.heat for prediction in found if prediction.heat is not None]

    def forward(self, batch: Tensor) -> Tensor:
        """Predict (N, 3, H, W) in [0, 1] to (N,) probabilities: the form that Captum's measures ask for."""
        return torch.from_numpy(self.probabilities(as_pixels(batch)))

    def explain(self, inputs: Tensor | tuple[Tensor, ...], method: str) -> Tensor:
        """Draw (N, 1, H, W) maps of an (N, 3, H, W) batch in [0, 1], which Captum hands over bare or in a tuple."""
        batch = inputs if isinstance(inputs, Tensor) else inputs[0]
        return torch.from_numpy(np.stack(self.heats(as_pixels(batch), method)))[:, None]


def as_batch(image: Pixels) -> Tensor:
    """Turn one (H, W, 3) uint8 image into (1, 3, H, W) float32 in [0, 1]."""
    return torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float() / 255


def as_pixels(batch: Tensor) -> list[Pixels]:
    """Turn (N, 3, H, W) in [0, 1] into N uint8 images."""
    pixels = (batch.detach().clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous()
    return list(pixels.numpy())


# ------------------------------------------------------------------------------------------------ measures of one map


def deletion_auc(explained: ExplainedModel, image: Pixels, heat: HeatMap, steps: int = STEPS) -> float:
    """Measure the area in [0, 1] under the label's probability while pixels are blanked, hottest first; lower is better."""
    blank = np.broadcast_to(image.mean(axis=(0, 1)).astype(np.uint8), image.shape)
    return _area(explained, image, blank, heat, steps)


def insertion_auc(explained: ExplainedModel, image: Pixels, heat: HeatMap, steps: int = STEPS) -> float:
    """Measure the area in [0, 1] under the label's probability while a blurred image sharpens, hottest pixels first.

    Higher is better.
    """
    radius = _BLUR * min(image.shape[:2])
    blurred = np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(radius)))
    return _area(explained, blurred, image, heat, steps)


def _area(explained: ExplainedModel, start: Pixels, end: Pixels, heat: HeatMap, steps: int) -> float:
    """Turn ``start`` into ``end`` in equal numbers of pixels, hottest first, and integrate the probability over the share."""
    # Equal pixels go in a random but fixed order, not from the top left.
    order = np.random.default_rng(0).permutation(heat.size)
    hottest_first = order[np.argsort(-heat.ravel()[order], kind="stable")]
    rank = np.empty(heat.size, dtype=np.int64)
    rank[hottest_first] = np.arange(heat.size)
    shares = np.linspace(0, 1, steps + 1)
    stages = [np.where((rank.reshape(heat.shape) < share * rank.size)[..., None], end, start) for share in shares]
    return float(trapezoid(explained.probabilities(stages), shares))


def _infidelity(explained: ExplainedModel, image: Pixels, heat: HeatMap, options: CheckOptions) -> float | None:
    """Compute Captum's infidelity, with squares covered by the image's mean colour; normalised: a map in [0, 1] has no unit."""
    if not heat.any():
        return None
    generator = torch.Generator().manual_seed(options.seed)
    attributions = torch.from_numpy(heat)[None, None].expand(1, 3, -1, -1).contiguous()
    value = infidelity(
        explained.forward,
        partial(_cover, generator=generator),
        as_batch(image),
        attributions,
        n_perturb_samples=options.perturbations,
        normalize=True,
    )
    return float(value) if np.isfinite(float(value)) else None


def _cover(batch: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Cover a square of a quarter to a half of the side: return which pixels are covered, and the images with them covered."""
    covered = torch.zeros_like(batch)
    height, width = batch.shape[2:]
    for row in covered:
        side = float(torch.rand((), generator=generator)) * 0.25 + 0.25
        tall, wide = max(1, int(height * side)), max(1, int(width * side))
        top = int(torch.randint(height - tall + 1, (), generator=generator))
        left = int(torch.randint(width - wide + 1, (), generator=generator))
        row[:, top : top + tall, left : left + wide] = 1
    mean = batch.mean(dim=(2, 3), keepdim=True)
    return covered, torch.where(covered > 0, mean.expand_as(batch), batch)


def _sensitivity(explained: ExplainedModel, image: Pixels, method: str, options: CheckOptions) -> float | None:
    """Compute Captum's sensitivity: the largest relative change of the map under noise in the image."""
    generator = torch.Generator().manual_seed(options.seed)

    def noisy(batch: Tensor, radius: float) -> Tensor:
        return batch + (torch.rand(batch.shape, generator=generator) * 2 - 1) * radius

    explain = partial(explained.explain, method=method)
    value = float(sensitivity_max(explain, as_batch(image), noisy, n_perturb_samples=options.perturbations))
    return value if np.isfinite(value) else None


# ------------------------------------------------------------------------------------------------ baselines


def random_map(image: Pixels, seed: int) -> HeatMap:
    """Draw uniform noise."""
    return np.random.default_rng(seed).random(image.shape[:2], dtype=np.float32)


def centre_gaussian(image: Pixels, seed: int) -> HeatMap:
    """Draw a Gaussian over the middle: photographers centre the lesion, so this is hard to beat."""
    rows, columns = (np.linspace(-1, 1, side, dtype=np.float32) for side in image.shape[:2])
    return scaled(np.exp(-(rows[:, None] ** 2 + columns[None, :] ** 2) / (2 * (2 * _GAUSSIAN_WIDTH) ** 2)))


def edges(image: Pixels, seed: int) -> HeatMap:
    """Draw the gradient of the luminance: what methods that fail the randomisation check come down to."""
    light = image.astype(np.float32).mean(axis=2)
    down, right = np.gradient(light) if min(light.shape) > 1 else (np.zeros_like(light), np.zeros_like(light))
    return scaled(np.hypot(down, right).astype(np.float32))


BASELINES: Mapping[str, Callable[[Pixels, int], HeatMap]] = MappingProxyType(
    {"random": random_map, "centre_gaussian": centre_gaussian, "edges": edges}
)


# ------------------------------------------------------------------------------------------------ randomised models


@dataclass(frozen=True)
class RandomisationStage:
    """How similar the maps still are when a ``share`` of the layers, from the classifier downwards, hold random weights.

    ``similarity`` in [-1, 1] is the mean rank correlation with the trained model's maps, None where every map is flat.
    """

    share: float
    similarity: float | None


def cascading_randomisation(
    model: Predictor, images: Sequence[tuple[Pixels, str]], method: str, stages: int = 4, seed: int = 0
) -> list[RandomisationStage]:
    """Randomise a copy of every member from the top down in ``stages`` steps and compare the maps of (image, label) pairs."""
    members = [replace(member, classifier=copy.deepcopy(member.classifier), engine=None) for member in model.members]
    twin = Predictor(members, model.combination, model.operating_points, name=model.name)
    layers = []  # of each member, modules with weights of their own, the classifier first
    for member in members:
        modules = member.classifier.network.modules()
        layers.append([module for module in modules if next(module.parameters(recurse=False), None) is not None][::-1])
    generator = torch.Generator().manual_seed(seed)
    trained = [ExplainedModel(model, label).heats([image], method)[0] for image, label in images]
    found = []
    for stage in range(1, stages + 1):
        for own in layers:
            for layer in own[len(own) * (stage - 1) // stages : len(own) * stage // stages]:
                _randomise(layer, generator)
        now = [ExplainedModel(twin, label).heats([image], method)[0] for image, label in images]
        pairs = [(a, b) for a, b in zip(trained, now, strict=True) if np.ptp(a) > 0 and np.ptp(b) > 0]
        similarity = _mean([float(spearmanr(a.ravel(), b.ravel()).statistic) for a, b in pairs])
        found.append(RandomisationStage(stage / stages, similarity))
    return found


@torch.no_grad()
def _randomise(layer: nn.Module, generator: torch.Generator) -> None:
    """Draw weights of the old mean and spread: of another spread they would switch the network off, which proves nothing."""
    for parameter in layer.parameters(recurse=False):
        noise = torch.randn(parameter.shape, generator=generator).to(parameter)
        spread = parameter.std() if parameter.numel() > 1 else parameter.abs()
        parameter.copy_(noise * spread + parameter.mean())
