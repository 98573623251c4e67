"""From a recipe's data section and a data root to the parts of the run."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from accelerate import Accelerator
from numpy.typing import NDArray

from lesion_hub.config import DataSource
from lesion_hub.data.cache import image_sources
from lesion_hub.data.draw import balanced_draw, load_draw
from lesion_hub.data.duplicates import Duplicates
from lesion_hub.data.sources import ReadResult, read
from lesion_hub.data.splits import Images, SplitManifest, load_manifest
from lesion_hub.errors import DataError
from lesion_hub.models import encode_metadata
from lesion_hub.taxonomy import LabelSpace
from training.division import ORDER, divide, duplicates_among
from training.launch import LaunchOptions
from training.parts import Part
from training.recipe import Data, Recipe, Source, Split
from training.run_folder import RunFolder

if TYPE_CHECKING:
    from datasets import Dataset

logger = logging.getLogger(__name__)

# What a part is called in a split manifest, and in a run.
PART_NAMES = {"train": "train", "val": "validation", "test": "test"}


@dataclass(frozen=True)
class Sets:
    """All images of a run in one data set. ``given`` maps image ids to the part that they came in; the others are free."""

    dataset: Dataset
    space: LabelSpace
    given: dict[str, str]
    sources: tuple[DataSource, ...]

    @property
    def images(self) -> Images:
        """The columns that a split is made of."""
        columns = (list(self.dataset[name][:]) for name in ("image_id", "label", "group"))
        return Images(*columns, self.space)


@dataclass(frozen=True)
class Division:
    """The parts of a run by name, the data set that they were cut from, and the split that cut them.

    ``sources`` are what the training part was read from, ``origins`` name what each part was.
    """

    space: LabelSpace
    dataset: Dataset
    parts: dict[str, Part]
    manifest: SplitManifest
    sources: tuple[DataSource, ...]
    origins: dict[str, str]

    def describe(self, name: str) -> dict[str, Any]:
        """What ``metrics.json`` says of the data behind a part's results."""
        part = self.parts[name]
        facts = {"name": self.origins[name], "split": name, "selection": self.manifest.method}
        return {**facts, "images": len(part), "groups": len(set(part.groups))}

    def held_out(self) -> Dataset:
        """The images of the parts that are measured on."""
        from datasets import concatenate_datasets

        return concatenate_datasets([part.dataset for name, part in self.parts.items() if name != "train"])


def read_division(recipe: Recipe, options: LaunchOptions, folder: RunFolder, accelerator: Accelerator) -> Division:
    """Read and divide the recipe's data; split and draw are made by one process, saved in the run's folder and kept."""
    sets = read_sets(recipe.data, options.data)
    with accelerator.main_process_first():
        manifest = split_of(sets, recipe, options, folder.manifest_file)
        rows = {part: manifest.rows(sets.dataset["image_id"][:], part) for part in manifest.parts if part in ORDER}
        train = sets.dataset.select(rows["train"])
        draw = drawn_rows(recipe, train, sets.space, folder.draw_file)
    if not options.measure_test:
        rows.pop("test", None)
    parts = {
        PART_NAMES[name]: part_of(PART_NAMES[name], sets.dataset.select(found), sets.space, metadata=recipe.model.metadata)
        for name, found in rows.items()
    }
    parts["train"] = replace(parts["train"], draw=draw)
    check_parts(parts)
    origins = {name: ", ".join(source.title for source in getattr(recipe.data, name) or recipe.data.train) for name in parts}
    return Division(sets.space, sets.dataset, parts, manifest, sets.sources, origins)


def split_of(sets: Sets, recipe: Recipe, options: LaunchOptions, file: Path) -> SplitManifest:
    """The split in ``file``, checked against the data; made and saved where there is none yet."""
    split = recipe.data.split
    if split.manifest is not None:
        return load_manifest(options.data / split.manifest, sets.dataset)
    if not file.is_file():
        divide(sets.images, sets.given, split, duplicates_of(sets, split, options)).save(file)
    return load_manifest(file, sets.dataset)


def duplicates_of(sets: Sets, split: Split, options: LaunchOptions) -> Duplicates | None:
    """The duplicates that the split is to keep together; fingerprints stay beside the image cache."""
    if not split.near_duplicates:
        return None
    return duplicates_among(image_sources(sets.dataset), options.cache_root.parent / "fingerprints.npz")


def read_sets(data: Data, root: Path) -> Sets:
    """Read every source of the recipe below ``root`` into one label space."""
    train = [read_source(source, data, root) for source in data.train]
    space = train[0].space
    read_so_far = [(None, result) for result in train]
    read_so_far += [("val", read_source(source, data, root, space)) for source in data.validation]
    read_so_far += [("test", read_source(source, data, root, space)) for source in data.test]
    parts: dict[str, str | None] = {}
    for part, result in read_so_far:
        official = (result.official_split or {}) if data.split.kind == "official" else {}
        for image_id in result.dataset["image_id"][:]:
            parts[image_id] = part or official.get(image_id)
    if data.split.kind == "official" and not any(parts.values()):
        raise DataError(f"{root}: the data set brings no split of its own; use data.split.kind: grouped")
    sources = tuple(
        DataSource(name=source.title, revision=source.revision, license=source.license, images=len(result.dataset))
        for source, result in zip(data.train, train, strict=True)
    )
    given = {image_id: part for image_id, part in parts.items() if part is not None}
    return Sets(_joined([result.dataset for _, result in read_so_far]), space, given, sources)


def read_source(source: Source, data: Data, root: Path, space: LabelSpace | None = None) -> ReadResult:
    """Read one source into the recipe's label space."""
    return read(
        _place(source, data, root),
        source=source.layout,
        space=space or data.space,
        columns=source.columns,
        labels=source.labels,
        images=[root / folder for folder in source.images],
        revision=source.revision,
        split=source.part,
        allow_missing=source.allow_missing,
    )


def _place(source: Source, data: Data, root: Path) -> Path | str:
    """The source's folder below the root; the root itself where a recipe has one training source and that is not below it."""
    if source.layout == "hub":
        return source.folder
    if not root.is_dir():
        raise DataError(f"{root}: no such folder; give --data the folder that holds {source.folder}")
    place = root / source.folder
    if place.exists():
        return place
    if len(data.train) == 1 and source is data.train[0]:
        return root
    key = "test" if source in data.test else "validation" if source in data.validation else "train"
    raise DataError(f"{place}: no such folder for data.{key}; put the data set there, or change --set data.{key}")


def _joined(datasets: list[Dataset]) -> Dataset:
    """One data set of all; of an image id that several hold, the last, for that is the part it must stay in."""
    from datasets import concatenate_datasets

    joined = concatenate_datasets(datasets) if len(datasets) > 1 else datasets[0]
    last = {image_id: row for row, image_id in enumerate(joined["image_id"][:])}
    if len(last) < len(joined):
        logger.warning("%d images are in several sources; each counts once", len(joined) - len(last))
        joined = joined.select(sorted(last.values()))
    return joined


# ------------------------------------------------------------------------------------------------ from sets to parts


def part_of(name: str, dataset: Dataset, space: LabelSpace, *, metadata: bool) -> Part:
    """A data set as the loop takes it."""
    facts = [dataset[column][:] for column in ("age", "sex", "site")] if metadata else None
    return Part(
        name=name,
        dataset=dataset,
        images=image_sources(dataset),
        labels=np.asarray(dataset.with_format("numpy")["label"][:], dtype=np.int64),
        ids=tuple(dataset["image_id"][:]),
        groups=tuple(dataset["group"][:]),
        space=space,
        metadata=None if facts is None else encode_metadata(*facts),
    )


def drawn_rows(recipe: Recipe, train: Dataset, space: LabelSpace, file: Path) -> NDArray[np.int64] | None:
    """The rows of the recipe's balanced draw; saved in ``file`` when first drawn, and read from there ever after."""
    if recipe.data.draw is None:
        return None
    if file.is_file():
        return load_draw(file).indices(train)
    draw = balanced_draw(train, space, per_class=recipe.data.draw.per_class, seed=recipe.data.draw.seed)
    draw.save(file)
    return draw.indices(train)


def check_parts(parts: dict[str, Part]) -> None:
    """Refuse a part without images, and a class that is to be learned from none."""
    for name, part in parts.items():
        if not len(part):
            raise DataError(f"the {name} part is empty; raise split.{name}, or give more data")
    for label, count in zip(parts["train"].space.labels, parts["train"].class_counts, strict=True):
        if not count:
            logger.warning("class %r has no training image; the model cannot learn it", label)
