"""Which images of a data set to evaluate on, and whether the model has seen any of them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lesion_hub.config import EnsembleConfig, ModelConfig
from lesion_hub.data.duplicates import find_duplicates_between, fingerprint
from lesion_hub.data.scan import image_sources
from lesion_hub.data.sources import ReadResult, read
from lesion_hub.data.splits import SplitManifest, load_manifest
from lesion_hub.data.splits.record import PartRecord, group_digest, image_digest, read_parts
from lesion_hub.errors import DataError
from lesion_hub.hub.layout import SPLIT_NAME, load_config
from lesion_hub.hub.store import Resolved, resolve_published

if TYPE_CHECKING:
    from datasets import Dataset

MANIFEST_NAME = "manifest.json"
EVERYTHING = "all"
SEEN_IN_TRAINING = ("train", "val")
_SHOWN = 3


@dataclass(frozen=True)
class Memory:
    """What a model says it was made with: the hash of its split, and its parts (train, val, test) by name."""

    model: str
    split_hash: str | None
    parts: Mapping[str, PartRecord] = field(repr=False)


@dataclass(frozen=True)
class Choice:
    """The rows (M,) to evaluate on, and in words how they were chosen.

    ``own`` says that they are a part of the model's own split, ``whole`` that they are all there are, for want of a split.
    """

    rows: NDArray[np.int64] = field(repr=False)
    how: str
    own: bool = False
    whole: bool = False


@dataclass(frozen=True)
class Overlap:
    """What the evaluated images share with those a model was made with. ``known`` is False where it does not say."""

    known: bool
    parts: tuple[str, ...]
    images: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    near: tuple[tuple[str, str], ...] = ()
    near_checked: bool = False

    def __bool__(self) -> bool:
        return bool(self.images or self.groups or self.near)

    def __str__(self) -> str:
        found = (
            (self.images, "image", "images"),
            (self.groups, "lesion or patient", "lesions or patients"),
            (tuple(a for a, _ in self.near), "near-duplicate image", "near-duplicate images"),
        )
        told = [f"{len(ids):,} {one if len(ids) == 1 else many} (first: {ids[0]})" for ids, one, many in found if ids]
        return "; ".join(told)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, with counts and the first few names."""
        return {
            "checked": self.known,
            "near_duplicates_checked": self.near_checked,
            "against": list(self.parts),
            "images": len(self.images),
            "groups": len(self.groups),
            "near_duplicates": len(self.near),
            "first": [*self.images[:_SHOWN], *self.groups[:_SHOWN], *(a for a, _ in self.near[:_SHOWN])],
        }


def memories(found: Resolved, *, registry: str | Path | None = None, token: str | None = None) -> list[Memory]:
    """What a model, or each member of an ensemble, remembers of its images."""
    config = load_config(found.folder)
    if isinstance(config, ModelConfig):
        return [_memory(found.name, found.folder, config)]
    return [
        _memory(member.name, place.folder, load_config(place.folder))
        for member in config.members
        for place in [resolve_published(member.name, member.revision, registry=registry, token=token)]
    ]


def _memory(name: str, folder: Path, config: ModelConfig | EnsembleConfig) -> Memory:
    training = config.lesion_hub.training if isinstance(config, ModelConfig) else config.training
    split_hash = training.split_hash if training else None
    path = folder / SPLIT_NAME
    try:
        split = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    except ValueError:
        raise DataError(f"{path}: not JSON; restore the file from where it was published") from None
    parts = read_parts(split, str(path)) or _parts_of_run(folder / MANIFEST_NAME)
    return Memory(name, split_hash, parts)


def _parts_of_run(path: Path) -> dict[str, PartRecord]:
    """The parts of the split that a run folder keeps; it does not name the lesions."""
    return _parts_of(load_manifest(path, allow_leaks=True)) if path.is_file() else {}


def _parts_of(manifest: SplitManifest) -> dict[str, PartRecord]:
    return {
        part: PartRecord.of((image_id for image_id, place in manifest.part_of.items() if place == part), ())
        for part in manifest.parts
    }


def reminded(models: Sequence[Memory], manifest: str | Path | None) -> list[Memory]:
    """The memories; one that knows no more than the hash of its split learns the rest from the split file of that hash."""
    if manifest is None:
        return list(models)
    loaded = load_manifest(manifest, allow_leaks=True)
    fits = [not model.parts and model.split_hash == loaded.hash for model in models]
    return [replace(model, parts=_parts_of(loaded)) if fit else model for model, fit in zip(models, fits, strict=True)]


def choose_rows(data: ReadResult, split: str, models: Sequence[Memory] = (), manifest: str | Path | None = None) -> Choice:
    """The rows of ``data`` that the part ``split`` (train, val, test, or all) means.

    A split file decides where one is given; else the models' own split, where the data hold the whole of that part of it;
    else the split that the data set brings; a data set without any split is taken whole.
    """
    dataset: Dataset = data.dataset
    ids = list(dataset["image_id"][:])
    if split == EVERYTHING:
        return Choice(np.arange(len(ids)), "all images of the data set")
    if manifest is not None:
        loaded = load_manifest(manifest, dataset)
        return _chosen(loaded.rows(ids, split), f"part {split!r} of the split {loaded.hash[:12]} in {Path(manifest).name}")
    own = _own_part(ids, split, models)
    if own is not None:
        return replace(_chosen(own, f"part {split!r} of the split that the model was made with"), own=True)
    if data.official_split:
        official = data.official_split
        rows = np.array([row for row, image_id in enumerate(ids) if official.get(image_id) == split], dtype=np.int64)
        return _chosen(rows, f"part {split!r} of the split that the data set brings")
    how = "all images: the data set brings no split, and the model was made with another one"
    return Choice(np.arange(len(ids)), how, whole=True)


def _chosen(rows: NDArray[np.int64], how: str) -> Choice:
    if not len(rows):
        raise DataError(f"the {how} has no image; name another part with --split, or all")
    return Choice(rows, f"the {how}")


def _own_part(ids: Sequence[str], split: str, models: Sequence[Memory]) -> NDArray[np.int64] | None:
    """Rows that lie in this part of every model's split; None where the data lack some of it, hence are other data."""
    digests = [image_digest(image_id) for image_id in ids]
    here = set(digests)
    common: set[str] | None = None
    for model in models:
        part = model.parts.get(split)
        if part is None or not part.images or not part.images <= here:
            return None
        common = set(part.images) if common is None else common & part.images
    return np.array([row for row, digest in enumerate(digests) if digest in common], np.int64) if common else None


def find_overlap(dataset: Dataset, models: Sequence[Memory], split: str) -> Overlap:
    """Images, lesions and patients of ``dataset`` that any of the models was made with.

    Validation images count too, for they chose the temperature and the thresholds; unless they are what was asked for.
    """
    parts = ("train",) if split == "val" else SEEN_IN_TRAINING
    seen = [model.parts[part] for model in models for part in parts if part in model.parts]
    images: frozenset[str] = frozenset().union(*(part.images for part in seen))
    groups: frozenset[str] = frozenset().union(*(part.groups for part in seen))
    ids, names = list(dataset["image_id"][:]), list(dataset["group"][:])
    return Overlap(
        known=bool(models) and all("train" in model.parts for model in models),
        parts=parts,
        images=tuple(image_id for image_id in ids if image_digest(image_id) in images),
        groups=tuple(dict.fromkeys(group for group in names if group_digest(group) in groups)),
    )


def find_near_duplicates(
    evaluated: Dataset, whole: Dataset, models: Sequence[Memory], training_data: str | Path | None = None
) -> tuple[tuple[str, str], ...]:
    """(id evaluated, id in training) of images that show the same picture.

    The training images are those of ``whole``, or of the data set at ``training_data``, that the models name; of a data set
    of which they name none, all.
    """
    pool = read(training_data, allow_missing=True).dataset if training_data is not None else whole
    train = _training_rows(pool, models)
    if not len(train) and training_data is None:
        raise DataError("the data hold no training image of the model to compare with; name its data with --training-data")
    others = pool.select(train) if len(train) else pool
    prints = [fingerprint(image_sources(dataset)) for dataset in (evaluated, others)]
    found = find_duplicates_between(*prints)
    ours, theirs = list(evaluated["image_id"][:]), list(others["image_id"][:])
    return tuple((ours[a], theirs[b]) for a, b in sorted({*found.exact, *found.near}))


def _training_rows(dataset: Dataset, models: Sequence[Memory]) -> NDArray[np.int64]:
    train: frozenset[str] = frozenset().union(*(model.parts["train"].images for model in models if "train" in model.parts))
    ids = dataset["image_id"][:]
    return np.array([row for row, image_id in enumerate(ids) if image_digest(image_id) in train], dtype=np.int64)
