from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from accelerate import Accelerator

from lesion_hub.data.draw import load_draw
from lesion_hub.data.schema import image_paths
from lesion_hub.data.synthetic import SampleSpec, write_sample_set
from lesion_hub.errors import DataError
from training.launch import LaunchOptions
from training.partition import Division, read_division
from training.recipe import Recipe
from training.recipe_files import load_recipe
from training.run_folder import RunFolder


def division(options: LaunchOptions, *overrides: str, recipe: str = "demo") -> Division:
    chosen = load_recipe(recipe, ["model.pretrained=false", "data.split.near_duplicates=false", *overrides])
    assert isinstance(chosen, Recipe)
    options.out.mkdir(exist_ok=True)
    return read_division(chosen, options, RunFolder(options.out), Accelerator(cpu=True))


def ids(found: Division, name: str) -> set[str]:
    return set(found.parts[name].ids)


def test_a_source_is_found_below_the_root_or_is_the_root(options: LaunchOptions, tmp_path: Path) -> None:
    inside = division(options, recipe="ham10000_default")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "ham10000").symlink_to(options.data)
    below = options.model_copy(update={"data": tmp_path / "data", "out": tmp_path / "other"})
    assert ids(division(below, recipe="ham10000_default"), "train") == ids(inside, "train")
    assert inside.sources[0].name == "HAM10000" and inside.sources[0].license == "cc-by-nc-4.0"


def test_a_missing_test_source_is_named(options: LaunchOptions, sample_set: Callable[[str], Path]) -> None:
    binary = options.model_copy(update={"data": sample_set("binary")})
    with pytest.raises(DataError, match=r"isic2017: no such folder for data\.test"):
        division(binary, "data.draw.per_class=3", recipe="isic_binary_resnet50")


def test_images_of_the_test_source_are_kept_out_of_training(options: LaunchOptions, tmp_path: Path) -> None:
    """The test set overlaps with the training set: the same images, and one picture under another name."""
    root = tmp_path / "root"
    write_sample_set(root / "a", SampleSpec(space="ham7", count=60, size=48, balanced=True, seed=1))
    write_sample_set(root / "b", SampleSpec(space="ham7", count=20, size=48, balanced=True, seed=1))
    sources = ["data.train={folder: a}", "data.test={folder: b}", "data.split={validation: 0.3}"]
    found = division(options.model_copy(update={"data": root}), *sources)
    assert len(ids(found, "test")) == 20
    assert not ids(found, "test") & (ids(found, "train") | ids(found, "validation"))
    groups = {name: set(part.groups) for name, part in found.parts.items()}
    assert not groups["test"] & groups["train"] and not groups["validation"] & groups["train"]


def test_the_draw_is_made_once_and_kept(options: LaunchOptions, sample_set: Callable[[str], Path]) -> None:
    binary = options.model_copy(update={"data": sample_set("binary")})
    overrides = ["data.draw.per_class=9", "data.test=[]"]
    first = division(binary, *overrides, recipe="isic_binary_resnet50")
    again = division(binary, *overrides, recipe="isic_binary_densenet121")
    draw = load_draw(binary.out / "draw.json")
    assert draw.per_class == 9 and first.parts["train"].class_counts.tolist() == [9, 9]
    assert first.parts["train"].draw.tolist() == again.parts["train"].draw.tolist()
    drawn = {image_id for chosen in draw.ids.values() for image_id in chosen}
    assert drawn <= ids(first, "train")


def test_a_search_does_not_even_hold_the_test_part(options: LaunchOptions) -> None:
    assert "test" not in division(options.model_copy(update={"measure_test": False})).parts


def test_metadata_goes_with_its_image(options: LaunchOptions) -> None:
    part = division(options, "model.metadata=true").parts["train"]
    assert part.metadata is not None and part.metadata.shape[0] == len(part)


def test_near_duplicates_stay_on_one_side(options: LaunchOptions, tmp_path: Path) -> None:
    root = tmp_path / "planted"
    write_sample_set(root, SampleSpec(space="ham7", count=70, size=64, balanced=True, leaks=6, seed=2))
    found = division(options.model_copy(update={"data": root}), "data.split.near_duplicates=true")
    assert found.manifest.method.endswith("near duplicate")
    units = dict(zip(found.manifest.ids, found.manifest.units, strict=True))
    sides = {name: {units[image_id] for image_id in part.ids} for name, part in found.parts.items()}
    assert not sides["train"] & sides["validation"] and not sides["train"] & sides["test"]
    assert len(set(units.values())) < len(set(found.dataset["group"][:]))


def test_an_official_split_is_taken(options: LaunchOptions, sample_set: Callable[[str], Path]) -> None:
    binary = options.model_copy(update={"data": sample_set("binary")})
    found = division(binary, recipe="melanoma10k_resnet34")
    folders = {name: {Path(path).parts[-3] for path in image_paths(part.dataset)} for name, part in found.parts.items()}
    assert folders == {"train": {"train"}, "validation": {"val"}, "test": {"test"}}
