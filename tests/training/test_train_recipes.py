from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lesion_hub.data.synthetic import SampleSpec, write_sample_set
from lesion_hub.hub.format import read_model
from lesion_hub.hub.layout import publishable_files
from lesion_hub.training.launch import LaunchOptions
from lesion_hub.training.recipe import Recipe
from lesion_hub.training.recipe_files import load_recipe, shipped_recipes
from lesion_hub.training.run import train_recipe
from tests.marks import one_of_many

pytestmark = pytest.mark.slow

SMALL = (
    "model.pretrained=false",
    "epochs=1",
    "gate=false",  # test_loop.py has runs that end with one
    "batch_size=16",
    "accumulation=1",
    "data.split.near_duplicates=false",
    "data.split.validation=0.3",
)
# Inception needs 75 pixels; the others make do with few.
SIZES = {"isic_binary_inception_v3": 80, "isic_binary_alexnet": 64}
SINGLE = [name for name in shipped_recipes() if isinstance(load_recipe(name), Recipe)]
# Their checkpoints would be a gigabyte each with averages and moments.
LIGHT = ("ema=null", "optimiser={name: sgd, lr: 0.001, momentum: 0.0}")
# They differ from another recipe, which is always trained, in the network alone.
STOOD_FOR = {
    *("melanoma10k_resnet34", "melanoma10k_efficientnet_b0", "isic_binary_inception_v3", "isic_binary_densenet121"),
    *(
        "isic_binary_efficientnet_b0",
        "clinical6_efficientnet_b1",
        "clinical6_resnet50",
        "ham10000_mobilenetv2",
        "ham10000_lite2",
    ),
    *("dermoscopy_lite0", "dermoscopy_lite2", "ham10000_resnet50", "ham10000_efficientnet_b4"),
}
LARGE = {"ham10000_efficientnet_b7", "isic2019_efficientnet_b5", "melanoma10k_resnext101", "isic_binary_alexnet"}


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A handful of images of every label of a space."""
    drawn: dict[str, Path] = {}

    def get(space: str) -> Path:
        if space not in drawn:
            drawn[space] = tmp_path_factory.mktemp(f"few-{space}")
            write_sample_set(drawn[space], SampleSpec(space=space, count=40, size=32, balanced=True, artefacts=False))
        return drawn[space]

    return get


def overrides(name: str) -> list[str]:
    recipe = load_recipe(name)
    assert isinstance(recipe, Recipe)
    drawn = [] if recipe.data.draw is None else ["data.draw.per_class=6"]
    test = ["data.test=[]"] if recipe.data.test else []
    joined = ["data.train={folder: ham10000, layout: ham10000}"] if len(recipe.data.train) > 1 else []
    light = LIGHT if name in LARGE else ()
    return [*SMALL, f"model.image_size={SIZES.get(name, 32)}", *drawn, *test, *joined, *light]


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[one_of_many] if name in STOOD_FOR | LARGE - {"isic_binary_alexnet"} else []) for name in SINGLE],
)
def test_every_shipped_recipe_trains_to_a_model_folder(
    name: str, few: Callable[[str], Path], cache: Path, tmp_path: Path, brief: None
) -> None:
    recipe = load_recipe(name, overrides(name))
    assert isinstance(recipe, Recipe)
    out = tmp_path / "run"
    train_recipe(recipe, LaunchOptions(data=few(recipe.data.space or "ham7"), out=out, cache=cache))
    classifier, config = read_model(out)
    assert publishable_files(out)
    assert config.lesion_hub.training is not None and config.lesion_hub.training.recipe == name
    with torch.no_grad():
        logits = classifier(torch.zeros(1, *classifier.input_config.input_size))
    assert logits.shape == (1, len(classifier.labels)) and torch.isfinite(logits).all()
