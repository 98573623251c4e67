"""The parts of a run, made from a recipe's data section and a data root.

`read_run_data` is the whole of it: `read_sources` reads every source into one data set, `split_for_recipe` deals the images
out to train, val and test, and a balanced draw is made from the training part. Of a streamed data set the words alone are read,
once, and kept in the run's folder; its images are read when they are trained on.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from accelerate import Accelerator
from numpy.typing import NDArray
from torch import Tensor

from lesion_hub.config import DataSource
from lesion_hub.data.draw import balanced_draw, load_draw
from lesion_hub.data.duplicates import Duplicates, Fingerprints, find_duplicates, fingerprint
from lesion_hub.data.images import ImageSource
from lesion_hub.data.scan import image_sources
from lesion_hub.data.schema import COLUMNS, features, image_paths
from lesion_hub.data.shards import ShardedImages, shard_state
from lesion_hub.data.sources import ReadResult, read
from lesion_hub.data.sources.rows import ReadOptions
from lesion_hub.data.sources.sharded import read_index
from lesion_hub.data.splits import SplitImages, SplitManifest, SplitOptions, load_manifest, split_images
from lesion_hub.errors import ConfigError, DataError
from lesion_hub.evaluation.overlap import sources_of
from lesion_hub.files import write_bytes
from lesion_hub.hub.versions import split_revision
from lesion_hub.models import encode_metadata
from lesion_hub.progress import progress_bar
from lesion_hub.taxonomy import LabelSpace, label_space, space_from_labels
from lesion_hub.training.launch import LaunchOptions
from lesion_hub.training.recipe import DataOptions, DrawOptions, PartitionOptions, Recipe, SourceOptions
from lesion_hub.training.run_folder import RunFolder

if TYPE_CHECKING:
    from datasets import Dataset

logger = logging.getLogger(__name__)

# What a part is called in a split manifest, and in a run.
PART_NAMES = {"train": "train", "val": "validation", "test": "test"}

# What --data begins with where it is no folder but a data set on the Hub: hub:org/name, hub:org/name@revision.
HUB = "hub:"


@dataclass(frozen=True)
class Part:
    """One part of N images.

    ``images`` are undecoded, ``labels`` (N,) int64 index ``space``, ``ids`` and ``groups`` name images and lesions.
    ``dataset`` is what the part was made of, None where it was made by hand; ``metadata`` (N, D) float32 is there where the
    network takes any; ``draw`` are the rows of a balanced draw.
    """

    name: str
    images: Sequence[ImageSource]
    labels: NDArray[np.int64]
    ids: tuple[str, ...]
    groups: tuple[str, ...]
    space: LabelSpace
    dataset: Dataset | None = None
    metadata: Tensor | None = None
    draw: NDArray[np.int64] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def class_counts(self) -> NDArray[np.int64]:
        """How many images of each class an epoch may show, (C,): those of the draw, where there is one."""
        labels = self.labels if self.draw is None else self.labels[self.draw]
        return np.bincount(labels, minlength=len(self.space))

    def metadata_of(self, rows: NDArray[np.int64], device: torch.device) -> Tensor | None:
        """Return the (n, D) metadata of ``rows`` (n,) on ``device``; None where the network takes none."""
        return None if self.metadata is None else self.metadata[torch.from_numpy(rows)].to(device)


@dataclass(frozen=True)
class RunData:
    """The parts of a run by name, the data set that they were cut from, and the split that cut them.

    ``sources`` are what the training part was read from, ``origins`` name what each part was read from.
    """

    space: LabelSpace
    dataset: Dataset
    parts: dict[str, Part]
    manifest: SplitManifest
    sources: tuple[DataSource, ...]
    origins: dict[str, str]

    def describe(self, name: str) -> dict[str, Any]:
        """Describe the data behind a part's results as ``metrics.json`` does."""
        part = self.parts[name]
        facts = {"name": self.origins[name], "split": name, "selection": self.manifest.method}
        return {**facts, "images": len(part), "groups": len(set(part.groups))}


def read_run_data(recipe: Recipe, options: LaunchOptions, folder: RunFolder, accelerator: Accelerator) -> RunData:
    """Read and split the recipe's data; one process makes the split and the draw, and saves both in the run's folder."""
    if recipe.data.streaming:
        with accelerator.main_process_first():
            read_data = _kept_index(recipe.data, options.data, folder.index_file)
    else:
        read_data = read_sources(recipe.data, options.data)
    dataset, space = read_data.dataset, read_data.space
    with accelerator.main_process_first():
        manifest = _kept_split(read_data, recipe.data.split, options, folder.manifest_file)
        ids = dataset["image_id"][:]
        broken = unreadable_rows(read_data, recipe.data, options)
        cut = {
            PART_NAMES[part]: dataset.select([row for row in manifest.rows(ids, part).tolist() if row not in broken])
            for part in manifest.parts
            if part in PART_NAMES
        }
        draw = _kept_draw(recipe.data.draw, cut["train"], space, folder.draw_file)
    if not options.measure_test:
        cut.pop("test", None)
    parts = {}
    for name, own in cut.items():
        facts = [own[column][:] for column in ("age", "sex", "site")] if recipe.model.metadata else None
        parts[name] = Part(
            name=name,
            images=image_sources(own),
            labels=np.asarray(own.with_format("numpy")["label"][:], dtype=np.int64),
            ids=tuple(own["image_id"][:]),
            groups=tuple(own["group"][:]),
            space=space,
            dataset=own,
            metadata=None if facts is None else encode_metadata(*facts),
            draw=draw if name == "train" else None,
        )
        if not len(own):
            share = "lower data.split.validation and data.split.test" if name == "train" else f"raise data.split.{name}"
            raise DataError(f"the {name} part is empty; {share}, or give more data")
    for label, count in zip(space.labels, parts["train"].class_counts, strict=True):
        if not count:
            logger.warning("class %r has no training image; the model cannot learn it", label)
    titles = {name: [source.title for source in getattr(recipe.data, name) or recipe.data.train] for name in parts}
    origins = {name: ", ".join(sources_of(titles[name], part.dataset)) for name, part in parts.items()}
    return RunData(space, dataset, parts, manifest, read_data.sources, origins)


def _kept_split(read_data: SourceData, split: PartitionOptions, options: LaunchOptions, file: Path) -> SplitManifest:
    """Load the split in ``file``, checked against the data; make and save it where there is none yet."""
    if split.manifest is not None:
        return load_manifest(options.data / split.manifest, read_data.dataset)
    if not file.is_file():
        duplicates = duplicates_of(read_data, split, options)
        stated(split_for_recipe(read_data.images, read_data.given, split, duplicates), read_data).save(file)
    return load_manifest(file, read_data.dataset)


def _kept_draw(options: DrawOptions | None, train: Dataset, space: LabelSpace, file: Path) -> NDArray[np.int64] | None:
    """Return the rows of the balanced draw: it is drawn once, saved in ``file``, and read from there afterwards."""
    if options is None:
        return None
    if file.is_file():
        return load_draw(file).indices(train)
    draw = balanced_draw(train, space, per_class=options.per_class, seed=options.seed)
    draw.save(file)
    return draw.indices(train)


# ------------------------------------------------------------------------------------------------ reading


@dataclass(frozen=True)
class SourceData:
    """All images of a run in one data set. ``given`` maps image ids to the part that they came in; the others are free.

    Of a ``streamed`` one the image column holds places in shards (see `lesion_hub.data.shards`).
    """

    dataset: Dataset
    space: LabelSpace
    given: dict[str, str]
    sources: tuple[DataSource, ...]
    streamed: bool = False

    @property
    def by_image(self) -> bool:
        """Whether nothing names lesions or patients, so that every image is a group of its own."""
        return bool(self.dataset["group"][:] == self.dataset["image_id"][:])

    @property
    def images(self) -> SplitImages:
        """The columns that a split is made from."""
        columns = (list(self.dataset[name][:]) for name in ("image_id", "label", "group"))
        return SplitImages(*columns, self.space)


def read_sources(data: DataOptions, root: Path) -> SourceData:
    """Read every source of the recipe below ``root`` into one label space; of a streamed recipe's, everything but images."""
    from datasets import concatenate_datasets

    data = _with_hub_root(data, root)
    train = [read_source(source, data, root, data.space) for source in data.train]
    space = train[0].space
    found: list[tuple[str | None, ReadResult]] = [(None, result) for result in train]
    found += [("val", read_source(source, data, root, space)) for source in data.validation]
    found += [("test", read_source(source, data, root, space)) for source in data.test]
    parts: dict[str, str | None] = {}
    for part, result in found:
        official = (result.official_split or {}) if data.split.kind == "official" else {}
        for image_id in result.dataset["image_id"][:]:
            parts[image_id] = part or official.get(image_id)
    if data.split.kind == "official" and not any(parts.values()):
        raise DataError(f"{root}: the data set brings no split of its own; use data.split.kind: grouped")
    joined = concatenate_datasets([result.dataset for _, result in found]) if len(found) > 1 else found[0][1].dataset
    # Of an image id that several sources hold the last row stays: validation and test come after train.
    last = {image_id: row for row, image_id in enumerate(joined["image_id"][:])}
    if len(last) < len(joined):
        logger.warning("%d images are in several sources; each counts once", len(joined) - len(last))
        joined = joined.select(sorted(last.values()))
    sources = tuple(
        DataSource(name=source.title, revision=source.revision, license=source.license, images=len(result.dataset))
        for source, result in zip(data.train, train, strict=True)
    )
    given = {image_id: part for image_id, part in parts.items() if part is not None}
    return SourceData(joined, space, given, sources, data.streaming)


def _with_hub_root(data: DataOptions, root: Path) -> DataOptions:
    """Put a data set on the Hub that ``root`` names in the place of the only training source."""
    if not str(root).startswith(HUB):
        return data
    if len(data.train) > 1:
        raise ConfigError(
            f"--data {root}: the recipe has several training sources; name each as {{layout: hub, folder: org/name}}"
        )
    repo_id, revision = split_revision(str(root).removeprefix(HUB))
    own = data.train[0]
    known = {"folder": repo_id, "layout": "hub", "revision": revision or own.revision, "name": own.name or repo_id}
    return data.model_copy(update={"train": (own.model_copy(update=known),)})


def read_source(source: SourceOptions, data: DataOptions, root: Path, space: LabelSpace | str | None) -> ReadResult:
    """Read one source into ``space``; where the only training source has no folder below the root, the root is its folder."""
    place: Path | str = source.folder
    if source.layout != "hub":
        if not root.is_dir():
            raise DataError(f"{root}: no such folder; give --data the folder that holds {source.folder}")
        place = root / source.folder
        if not place.exists():
            if len(data.train) > 1 or source is not data.train[0]:
                key = "test" if source in data.test else "validation" if source in data.validation else "train"
                raise DataError(f"{place}: no such folder for data.{key}; put the data set there, or change --set data.{key}")
            place = root
    if data.streaming:
        # Whatever the layout of the files that the shards were made from: a shard says all of its images.
        given = ReadOptions(
            space=label_space(space) if isinstance(space, str) else space,
            columns=source.columns,
            labels=source.labels,
            allow_missing=source.allow_missing,
            revision=source.revision,
            split=source.part,
        )
        with progress_bar("reading what the shards say") as progress:
            return read_index(str(place), given, progress)
    return read(
        place,
        source=source.layout,
        space=space,
        columns=source.columns,
        labels=source.labels,
        images=[root / folder for folder in source.images],
        revision=source.revision,
        split=source.part,
        allow_missing=source.allow_missing,
    )


# ------------------------------------------------------------------------------------------------ the index of a stream


def _kept_index(data: DataOptions, root: Path, file: Path) -> SourceData:
    """Load the words of a streamed run from ``file``; where there is none yet, read them from the shards and save them."""
    if not file.is_file():
        found = read_sources(data, root)
        _save_index(found, file)
        logger.warning(
            "the images are streamed: each epoch reads and decodes them anew, no cache is kept, and near duplicates among them "
            "are not looked for"
        )
        if found.by_image:
            logger.warning("no column names lesions or patients; the split is by image")
    return _load_index(file)


def _save_index(data: SourceData, file: Path) -> None:
    """Write the index as one Parquet table, with the state of local shards: they must be the same when a run goes on."""
    urls = ShardedImages(image_paths(data.dataset)).urls
    about = {
        "space": [data.space.name, list(data.space.labels)],
        "sources": [source.model_dump(mode="json") for source in data.sources],
        "shards": {url: shard_state(url) for url in urls},
    }
    ids = data.dataset["image_id"][:]
    columns = {"image": image_paths(data.dataset), **{name: data.dataset[name][:] for name in COLUMNS if name != "image"}}
    table = pa.table({**columns, "part": pa.array([data.given.get(image_id) for image_id in ids], pa.string())})
    content = BytesIO()
    pq.write_table(table.replace_schema_metadata({"lesion_hub": json.dumps(about)}), content)
    write_bytes(file, content.getvalue())


def _load_index(file: Path) -> SourceData:
    from datasets import Dataset

    try:
        table = pq.read_table(file)
        about = json.loads(table.schema.metadata[b"lesion_hub"])
    except (OSError, ValueError, KeyError, TypeError):
        raise DataError(f"{file}: the index of the shards is damaged; train anew with --restart") from None
    changed = next((url for url, state in about["shards"].items() if shard_state(url) != state), None)
    if changed is not None:
        raise DataError(f"{changed}: the shard has changed since this run began; put the old one back, or --restart the run")
    space = space_from_labels(*about["space"])
    columns = table.to_pydict()
    given = {
        image_id: part for image_id, part in zip(columns["image_id"], columns.pop("part"), strict=True) if part is not None
    }
    dataset = Dataset.from_dict(columns, features=features(space))
    return SourceData(dataset, space, given, tuple(DataSource(**source) for source in about["sources"]), streamed=True)


# ------------------------------------------------------------------------------------------------ splitting


def duplicates_of(read_data: SourceData, split: PartitionOptions, options: LaunchOptions) -> Duplicates | None:
    """Find the duplicates that the split keeps together; the images' fingerprints are stored beside the image cache."""
    if not split.near_duplicates or read_data.streamed:
        return None
    return find_duplicates(_fingerprints(read_data.dataset, options))


def unreadable_rows(read_data: SourceData, data: DataOptions, options: LaunchOptions) -> frozenset[int]:
    """Return the rows whose images cannot be decoded, to be left out where a source has ``allow_missing``; else none.

    Reading looks at no pixel. All images are decoded once for this, as they are to find duplicates; not those of a stream.
    """
    if read_data.streamed or not any(source.allow_missing for source in (*data.train, *data.validation, *data.test)):
        return frozenset()
    failures = _fingerprints(read_data.dataset, options).failures
    if failures:
        logger.warning("%d images cannot be read and are left out (first: %s)", len(failures), failures[min(failures)])
    return frozenset(failures)


def _fingerprints(dataset: Dataset, options: LaunchOptions) -> Fingerprints:
    store = options.cache_root.parent / "fingerprints.npz"
    return fingerprint(image_sources(dataset), store=store)


def stated(manifest: SplitManifest, read_data: SourceData) -> SplitManifest:
    """Return the split with what a streamed data set goes without: near duplicates, and groups where no column names any."""
    if not read_data.streamed:
        return manifest
    warnings = ["near duplicates were not looked for, for the images were streamed"]
    method = manifest.method
    if read_data.by_image:
        warnings.append("no column named lesions or patients, so images of one lesion may lie in two parts")
        method = method.replace("grouped by lesion or patient", "by image")
    return replace(manifest, method=method, warnings=(*manifest.warnings, *warnings))


def split_for_recipe(
    images: SplitImages, given: Mapping[str, str], split: PartitionOptions, duplicates: Duplicates | None = None
) -> SplitManifest:
    """Split ``images``, of which ``given`` maps some ids to the part (train, val, test) that they came in.

    Training images that share a lesion or a picture with a given later part are dropped; what the recipe's shares still
    lack is cut from the rest.

    >>> from lesion_hub.taxonomy import label_space
    >>> images = SplitImages(list("abcdef"), [0, 1, 0, 1, 0, 1], list("pqrstu"), label_space("binary"))
    >>> split_for_recipe(images, {"a": "test", "b": "test"}, PartitionOptions(validation=0.5)).part_of["a"]
    'test'
    """
    there = set(given.values())
    validation = 0.0 if "val" in there else split.validation
    test = 0.0 if "test" in there or split.kind != "grouped" else split.test
    if "val" not in there and validation == 0:
        raise DataError("split.validation is 0 and the data set brings no validation part; every run needs one to choose by")
    fractions = (1 - validation - test, validation, test) if validation or test else SplitOptions().fractions
    options = SplitOptions(fractions, seed=split.seed, allow_absent=split.allow_absent)
    if not there - {"train"}:
        return split_images(images, options, duplicates=duplicates)
    # First the given parts are made disjoint; then the parts that are missing are cut from training.
    official = {image_id: given.get(image_id, "train") for image_id in images.ids}
    kept = split_images(images, SplitOptions(respect_official=True, drop_leaks=True), duplicates=duplicates, official=official)
    if not (validation or test):
        return kept
    if dropped := kept.leaks.get("dropped", 0):
        logger.warning("%d training images share a lesion or a picture with validation or test and are left out", dropped)
    cut = split_images(_united(images, kept, "train"), options)
    whole = split_images(
        _united(images, kept, *kept.parts),
        SplitOptions(respect_official=True, seed=split.seed),
        official={**kept.part_of, **cut.part_of},
    )
    came = " and ".join(part for part in kept.parts if part != "train")
    method = f"{came} as given, what leaks dropped; the rest {cut.method}"
    return replace(whole, method=method, warnings=cut.warnings, leaks=kept.leaks)


def _united(images: SplitImages, split: SplitManifest, *parts: str) -> SplitImages:
    """Take the images of some parts of a split, grouped by its units, so that near duplicates stay together."""
    units = dict(zip(split.ids, split.units, strict=True))
    rows = split.rows(images.ids, *parts).tolist()
    labels = np.asarray(images.labels)
    ids = [images.ids[row] for row in rows]
    return SplitImages(ids, [int(labels[row]) for row in rows], [str(units[image_id]) for image_id in ids], images.space)
