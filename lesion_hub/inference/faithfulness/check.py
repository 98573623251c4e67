"""Is a method faithful on this model? Measures of its maps, beside those of maps that know nothing of the model."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from captum.metrics import infidelity, sensitivity_max
from numpy.typing import NDArray
from pydantic import Field
from torch import Tensor

from lesion_hub.config import Options, read_json
from lesion_hub.hub.atomic import write_text
from lesion_hub.hub.layout import METRICS_NAME
from lesion_hub.inference.attribution.maps import Heat
from lesion_hub.inference.attribution.methods import method
from lesion_hub.inference.faithfulness.baselines import BASELINES
from lesion_hub.inference.faithfulness.curves import deletion_auc, insertion_auc
from lesion_hub.inference.faithfulness.randomisation import cascade
from lesion_hub.inference.faithfulness.subject import Subject, as_batch
from lesion_hub.inference.inputs import ImageInput, as_rgb
from lesion_hub.inference.predictor import Predictor

Pixels = NDArray[np.uint8]
Mask = NDArray[np.bool_]
SECTION = "attribution"
MEASURES = {
    "insertion_auc": "higher is better: the probability comes back with the hottest pixels",
    "deletion_auc": "lower is better: the probability goes with the hottest pixels",
    "infidelity": "lower is better: the map foretells what covering a square does (Captum, normalised)",
    "sensitivity_max": "lower is better: how much noise that nobody sees changes the map (Captum)",
    "heat_in_mask": "higher is better: share of the heat inside the lesion; compare mask_area",
}


class CheckOptions(Options):
    """How thorough the check is. ``stages`` is that of the randomisation, 0 leaves it out."""

    methods: tuple[str, ...] = ("gradcam",)
    steps: Annotated[int, Field(ge=2)] = 16
    perturbations: Annotated[int, Field(ge=2)] = 10
    stages: Annotated[int, Field(ge=0)] = 4
    seed: int = 0


@dataclass(frozen=True)
class Specimen:
    """An image to check maps on, and where the lesion in it is ((H, W) bool), if that is known."""

    image: ImageInput
    mask: Mask | None = None


def check(
    model: Predictor,
    specimens: Sequence[Specimen],
    options: CheckOptions | None = None,
    progress: Callable[[int, int | None], None] | None = None,
) -> dict[str, Any]:
    """Measure the methods and the baselines on some images, each for the label that the model gives it.

    Returns:
        JSON-able: ``images``; ``measures``: what each means; ``maps``: for every method and baseline its mean measures;
        ``mask_area``: the share of the images that is lesion; ``randomisation``: for every method the similarity to its
        trained maps after each stage.
    """
    chosen = options or CheckOptions()
    for name in chosen.methods:
        method(name)
    rows: dict[str, list[dict[str, float | None]]] = {name: [] for name in (*chosen.methods, *BASELINES)}
    explained: list[tuple[Pixels, str]] = []
    for i, specimen in enumerate(specimens):
        image = np.asarray(as_rgb(specimen.image))
        label = model.predict(image).label
        explained.append((image, label))
        for name, measured in _measure(Subject(model, label), image, specimen.mask, chosen, i).items():
            rows[name].append(measured)
        if progress:
            progress(i + 1, len(specimens))
    areas = [float(np.mean(specimen.mask)) for specimen in specimens if specimen.mask is not None]
    stages = {name: cascade(model, explained, name, chosen.stages, chosen.seed) for name in chosen.methods if chosen.stages}
    return {
        "images": len(specimens),
        "measures": MEASURES,
        "maps": {name: _means(measured) for name, measured in rows.items()},
        "mask_area": float(np.mean(areas)) if areas else None,
        "randomisation": {
            name: [{"randomised": stage.share, "similarity": stage.similarity} for stage in found]
            for name, found in stages.items()
        },
    }


def record(folder: Path, results: Mapping[str, Any]) -> Path:
    """Put the results into a model folder's ``metrics.json``, from which the card takes them."""
    path = folder / METRICS_NAME
    held = read_json(path) if path.is_file() else {}
    text = json.dumps({**held, SECTION: dict(results)}, indent=2, ensure_ascii=False, allow_nan=False)
    write_text(path, text + "\n")
    return path


def _measure(
    subject: Subject, image: Pixels, mask: Mask | None, options: CheckOptions, index: int
) -> dict[str, dict[str, float | None]]:
    """Every measure of every map of one image."""
    maps = {name: subject.heats([image], name)[0] for name in options.methods}
    maps |= {name: baseline(image, options.seed + index) for name, baseline in BASELINES.items()}
    measured: dict[str, dict[str, float | None]] = {}
    for name, heat in maps.items():
        measured[name] = {
            "insertion_auc": insertion_auc(subject, image, heat, options.steps),
            "deletion_auc": deletion_auc(subject, image, heat, options.steps),
            "infidelity": _infidelity(subject, image, heat, options),
            "sensitivity_max": _sensitivity(subject, image, name, options) if name in options.methods else None,
            "heat_in_mask": _inside(heat, mask),
        }
    return measured


def _inside(heat: Heat, mask: Mask | None) -> float | None:
    total = float(heat.sum())
    return float(heat[np.asarray(mask, dtype=bool)].sum()) / total if mask is not None and total > 0 else None


def _infidelity(subject: Subject, image: Pixels, heat: Heat, options: CheckOptions) -> float | None:
    """Captum's, with squares covered by the image's mean colour; scaled, since a map in [0, 1] has no unit."""
    if not heat.any():
        return None
    generator = torch.Generator().manual_seed(options.seed)
    attributions = torch.from_numpy(heat)[None, None].expand(1, 3, -1, -1).contiguous()
    value = infidelity(
        subject.forward,
        partial(_cover, generator=generator),
        as_batch(image),
        attributions,
        n_perturb_samples=options.perturbations,
        normalize=True,
    )
    return _finite(float(value))


def _cover(batch: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Squares of a quarter to a half of the side: which pixels were covered, and the images with them covered."""
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


def _sensitivity(subject: Subject, image: Pixels, name: str, options: CheckOptions) -> float | None:
    generator = torch.Generator().manual_seed(options.seed)

    def noise(batch: Tensor, radius: float) -> Tensor:
        return batch + (torch.rand(batch.shape, generator=generator) * 2 - 1) * radius

    explain = partial(subject.explain, method=name)
    value = sensitivity_max(explain, as_batch(image), noise, n_perturb_samples=options.perturbations)
    return _finite(float(value))


def _finite(value: float) -> float | None:
    return value if np.isfinite(value) else None


def _means(rows: Iterable[Mapping[str, float | None]]) -> dict[str, float | None]:
    """The mean of each measure over the images that have it."""
    columns: dict[str, list[float]] = {name: [] for name in MEASURES}
    for row in rows:
        for name, value in row.items():
            if value is not None:
                columns[name].append(value)
    return {name: float(np.mean(values)) if values else None for name, values in columns.items()}
