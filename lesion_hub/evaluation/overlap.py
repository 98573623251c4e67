"""Choose the images of a data set to evaluate on, and find those that the model was made with."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lesion_hub.config import ENSEMBLE_NAME, EnsembleConfig, FittedOn, ModelConfig
from lesion_hub.data.duplicates import find_duplicates_between, fingerprint
from lesion_hub.data.scan import find_undecodable, image_sources
from lesion_hub.data.sources import ReadResult, read
from lesion_hub.data.splits import SplitManifest, load_manifest
from lesion_hub.data.splits.manifest import RECORD_KEY, PartRecord, group_digest, image_digest, read_parts
from lesion_hub.errors import DataError
from lesion_hub.hub.layout import SPLIT_NAME, load_config
from lesion_hub.hub.licences import bare_name
from lesion_hub.hub.store import Resolved, resolve_members
from lesion_hub.inference.members import member_names

if TYPE_CHECKING:
    from datasets import Dataset

logger = logging.getLogger(__name__)

RUN_MANIFEST_NAME = "manifest.json"
"""The split itself, image by image, as a training run keeps it in its folder; a published model has only ``SPLIT_NAME``."""
ALL_IMAGES = "all"
NO_IMAGES = PartRecord(frozenset(), frozenset())
FITTED = "fitted"
"""What a model was fitted on after its training: an ensemble's weights and temperature, or a recalibration."""
MADE_WITH = ("train", "val", FITTED)
_SHOWN = 3


@dataclass(frozen=True)
class TrainingRecord:
    """What a model says it was made with: the hash of its split, and its parts (train, val, test, fitted) by name."""

    model: str
    split_hash: str | None
    parts: Mapping[str, PartRecord] = field(repr=False)


@dataclass(frozen=True)
class ChosenImages:
    """The (M,) rows to evaluate on, and in words how they were chosen.

    ``own`` says that they are a part of the model's own split, ``whole`` that they are all images because there is no split.
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
        """Return counts and the first few names as plain JSON values."""
        return {
            "checked": self.known,
            "near_duplicates_checked": self.near_checked,
            "against": list(self.parts),
            "images": len(self.images),
            "groups": len(self.groups),
            "near_duplicates": len(self.near),
            "first": [*self.images[:_SHOWN], *self.groups[:_SHOWN], *(a for a, _ in self.near[:_SHOWN])],
        }


def choose_images(
    model: str,
    data: ReadResult,
    records: Sequence[TrainingRecord],
    *,
    split: str,
    manifest: str | Path | None = None,
    near_duplicates: bool = False,
    training_data: str | Path | None = None,
    force: bool = False,
) -> tuple[ChosenImages, Overlap]:
    """Choose the images of ``data`` that the part ``split`` means, and refuse those that the model was made with.

    ``model`` is its name, ``records`` are its own or its members'. ``near_duplicates`` compares pictures too, with the training
    images of ``data`` or of ``training_data``. With ``force`` nothing is refused.
    """
    records = completed_from_manifest(records, manifest)
    chosen = choose_rows(data, split, records, manifest)
    dataset = data.dataset.select(chosen.rows)
    overlap = find_overlap(dataset, records, split)
    if near_duplicates:
        near = find_near_duplicates(dataset, data.dataset, records, training_data)
        overlap = replace(overlap, near=near, near_checked=True)
    if overlap and not force:
        raise DataError(
            f"{model} was made with some of these images: {overlap}; its score on them says nothing, "
            "evaluate on other images, or force it and let the report say so"
        )
    return chosen, overlap


def training_records(found: Resolved, *, registry: str | Path | None = None, token: str | None = None) -> list[TrainingRecord]:
    """Read which images a model, or each member of an ensemble, was made with.

    What the ensemble itself was fitted on counts for each member.
    """
    config = load_config(found.folder)
    if isinstance(config, ModelConfig):
        return [training_record(found.name, found.folder)]
    if config.weights_sha256 is not None:  # its members need not be at hand; its split.json holds theirs
        records = _bundled_records(config, found.folder)
    else:
        members = resolve_members(found, registry=registry, token=token)
        records = [training_record(member.name, member.folder) for member in members]
    if config.fitted_on is None:
        return records
    digests = config.fitted_on.model_dump(include={"images", "groups"})
    fitted = read_parts({RECORD_KEY: {FITTED: digests}}, str(found.folder / ENSEMBLE_NAME))[FITTED]
    return [replace(record, parts={**record.parts, FITTED: fitted | record.parts.get(FITTED, NO_IMAGES)}) for record in records]


def training_record(name: str, folder: Path) -> TrainingRecord:
    """Read which images the single model in ``folder`` was made with."""
    config = load_config(folder)
    training = config.lesion_hub.training if isinstance(config, ModelConfig) else config.training
    parts = read_parts(_read_split(folder), str(folder / SPLIT_NAME))
    manifest = folder / RUN_MANIFEST_NAME
    if not parts and manifest.is_file():
        parts = _parts_of(load_manifest(manifest, allow_leaks=True))
    return TrainingRecord(name, training.split_hash if training else None, parts)


def _bundled_records(ensemble: EnsembleConfig, folder: Path) -> list[TrainingRecord]:
    """Read the members' records out of the ensemble's own ``split.json``: one that all share, or each one's by its name."""
    split, names = _read_split(folder), member_names(ensemble.members)
    own = split.get("members") or dict.fromkeys(names, split)
    return [TrainingRecord(name, own.get(name, {}).get("hash"), read_parts(own.get(name, {}), str(folder))) for name in names]


def _read_split(folder: Path) -> dict[str, Any]:
    path = folder / SPLIT_NAME
    try:
        return dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else {}
    except ValueError:
        raise DataError(f"{path}: not JSON; restore the file from where it was published") from None


def fitted_on(data: str, image_ids: Iterable[str], groups: Iterable[str], earlier: FittedOn | None = None) -> FittedOn:
    """Record the images of the data set called ``data`` as what an ensemble was fitted on, beside what it was before."""
    record = PartRecord.of(image_ids, groups)
    names = [data]
    if earlier is not None:
        record |= read_parts({RECORD_KEY: {FITTED: earlier.model_dump(include={"images", "groups"})}}, ENSEMBLE_NAME)[FITTED]
        names = list(dict.fromkeys([*earlier.data.split(", "), data]))
    return FittedOn(data=", ".join(names), **record.to_dict())


def data_name(data: ReadResult) -> str:
    """Return what reports call a data set: the last part of its place."""
    return Path(data.report.place).name or data.report.place


def sources_of(names: Sequence[str], part: Dataset) -> list[str]:
    """Return those of the named data sets that the part holds images of: all, unless the layouts of its images tell."""
    layouts = {bare_name(layout) for layout in part.unique("source")}
    return [name for name in names if bare_name(name) in layouts] if layouts <= set(map(bare_name, names)) else list(names)


def completed_from_manifest(records: Sequence[TrainingRecord], manifest: str | Path | None) -> list[TrainingRecord]:
    """Return the records; one that holds only the hash of a split gets its parts from the split file of that hash."""
    if manifest is None:
        return list(records)
    loaded = load_manifest(manifest, allow_leaks=True)
    return [
        replace(record, parts={**_parts_of(loaded), **record.parts})
        if "train" not in record.parts and record.split_hash == loaded.hash
        else record
        for record in records
    ]


def _parts_of(manifest: SplitManifest) -> dict[str, PartRecord]:
    """Return the images of each part; a split file does not name the lesions."""
    return {
        part: PartRecord.of((image_id for image_id, place in manifest.part_of.items() if place == part), ())
        for part in manifest.parts
    }


def choose_rows(
    data: ReadResult, split: str, records: Sequence[TrainingRecord] = (), manifest: str | Path | None = None
) -> ChosenImages:
    """Find the rows of ``data`` that the part ``split`` (train, val, test, or all) means.

    A split file decides where one is given; else the models' own split, where the data hold the whole of that part of it;
    else the split that the data set brings; a data set without any split is taken whole. Of data that were read with
    ``allow_missing``, images that cannot be decoded are left out, and the words say how many.
    """
    chosen = _rows_of_part(data, split, records, manifest)
    return _decodable(chosen, data.dataset) if data.allow_missing else chosen


def _rows_of_part(data: ReadResult, split: str, records: Sequence[TrainingRecord], manifest: str | Path | None) -> ChosenImages:
    ids = list(data.dataset["image_id"][:])
    if split == ALL_IMAGES:
        return ChosenImages(np.arange(len(ids)), "all images of the data set")
    own = _own_rows(ids, split, records) if manifest is None else None
    if manifest is not None:
        loaded = load_manifest(manifest, data.dataset)
        rows, whose = loaded.rows(ids, split), f"split {loaded.hash[:12]} in {Path(manifest).name}"
    elif own:
        rows, whose = np.array(own), "split that the model was made with"
    elif official := data.official_split:
        rows = np.array([row for row, image_id in enumerate(ids) if official.get(image_id) == split], dtype=np.int64)
        whose = "split that the data set brings"
    else:
        how = "all images: the data set brings no split, and the model was made with another one"
        return ChosenImages(np.arange(len(ids)), how, whole=True)
    if not len(rows):
        raise DataError(f"the part {split!r} of the {whose} has no image; name another part with --split, or all")
    return ChosenImages(rows, f"the part {split!r} of the {whose}", own=bool(own))


def _decodable(chosen: ChosenImages, dataset: Dataset) -> ChosenImages:
    broken = find_undecodable(image_sources(dataset.select(chosen.rows)))
    if not broken:
        return chosen
    if len(broken) == len(chosen.rows):
        raise DataError(f"none of the {len(broken):,} images can be decoded (first: {broken[0]})")
    logger.warning("%d images cannot be decoded and are left out (first: %s)", len(broken), broken[min(broken)])
    how = f"{chosen.how}, but {len(broken):,} that cannot be decoded"
    return replace(chosen, rows=np.delete(chosen.rows, list(broken)), how=how)


def _own_rows(ids: Sequence[str], split: str, records: Sequence[TrainingRecord]) -> list[int] | None:
    """Return the rows in this part of every model's split; None where the data lack some of it, hence are other data."""
    digests = [image_digest(image_id) for image_id in ids]
    here = set(digests)
    parts = [record.parts[split].images if split in record.parts else frozenset() for record in records]
    if not parts or not all(part and part <= here for part in parts):
        return None
    common = frozenset.intersection(*parts)
    return [row for row, digest in enumerate(digests) if digest in common]


def find_overlap(dataset: Dataset, records: Sequence[TrainingRecord], split: str) -> Overlap:
    """Find the images, lesions and patients of ``dataset`` that any of the models was made with.

    Validation images count too, for they chose the temperature and the thresholds; unless they are what was asked for.
    What was fitted on after training always counts.
    """
    against = tuple(part for part in MADE_WITH if part != "val" or split != "val")
    seen = [record.parts[part] for record in records for part in against if part in record.parts]
    images, groups = _union(part.images for part in seen), _union(part.groups for part in seen)
    return Overlap(
        known=bool(records) and all("train" in record.parts for record in records),
        parts=against,
        images=tuple(image_id for image_id in dataset["image_id"][:] if image_digest(image_id) in images),
        groups=tuple(dict.fromkeys(group for group in dataset["group"][:] if group_digest(group) in groups)),
    )


def find_near_duplicates(
    evaluated: Dataset, whole: Dataset, records: Sequence[TrainingRecord], training_data: str | Path | None = None
) -> tuple[tuple[str, str], ...]:
    """Find pairs (id evaluated, id in training) of images that show the same picture.

    The training images are those of ``whole``, or of the data set at ``training_data``, that the records name; of a data set
    of which they name none, all.
    """
    others = read(training_data, allow_missing=True).dataset if training_data is not None else whole
    trained = _union(record.parts["train"].images for record in records if "train" in record.parts)
    rows = [row for row, image_id in enumerate(others["image_id"][:]) if image_digest(image_id) in trained]
    if rows:
        others = others.select(np.array(rows))
    elif training_data is None:
        raise DataError("the data hold no training image of the model to compare with; name its data with --training-data")
    found = find_duplicates_between(*(fingerprint(image_sources(dataset)) for dataset in (evaluated, others)))
    ours, theirs = list(evaluated["image_id"][:]), list(others["image_id"][:])
    return tuple((ours[a], theirs[b]) for a, b in sorted({*found.exact, *found.near}))


def _union(sets: Iterable[frozenset[str]]) -> frozenset[str]:
    return frozenset().union(*sets)
