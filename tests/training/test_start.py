"""What a run starts from, and what follows from it into the new weights."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lesion_hub.config import load_model_config
from lesion_hub.data.synthetic import SampleSpec, write_sample_set
from lesion_hub.errors import ConfigError, DataError, StoreError
from lesion_hub.training.launch import LaunchOptions
from lesion_hub.training.recipe import ModelOptions
from lesion_hub.training.run import train_recipe
from lesion_hub.training.start import start_of
from tests.training.conftest import quick

pytestmark = pytest.mark.slow


def test_plain_starts_name_the_backbone(tmp_path: Path) -> None:
    assert start_of(ModelOptions(backbone="resnet18", pretrained=False)).base_model is None
    file = start_of(ModelOptions(backbone="resnet18", pretrained=str(tmp_path / "absent.safetensors")))
    assert file.base_model == "timm/resnet18" and file.published is None


def test_a_published_start_brings_weights_name_data_and_licence(
    published: Path, options: LaunchOptions, sample_set: Callable[[str], Path], tmp_path: Path
) -> None:
    other = tmp_path / "other"
    write_sample_set(other, SampleSpec(space="ham7", count=71, size=48, seed=99, balanced=True, artefacts=False))
    _rename_images(other)
    out = tmp_path / "tuned"
    recipe = quick("model.pretrained=base@v1.0.0", "optimiser.lr=1e-12", "ema=null", "sampler.kind=natural")
    train_recipe(recipe, options.model_copy(update={"out": out, "data": other}))
    training = load_model_config(out).lesion_hub.training
    assert training is not None and training.base_model == "base@v1.0.0"
    assert [(source.name, source.through) for source in training.data] == [
        ("synthetic lesions", None),
        ("base lesions", "base@v1.0.0"),
    ]
    card = (out / "README.md").read_text()
    assert "base lesions, through base@v1.0.0" in card and "test part of synthetic lesions." in card
    assert "license: cc-by-nc-4.0" in (out / "README.md").read_text()
    assert json.loads((out / "metrics.json").read_text())["training"]["recipe"]["model"]["pretrained"] == "base@v1.0.0"
    before, after = load_file(published / "model.safetensors"), load_file(out / "model.safetensors")
    key = next(key for key in before if key.endswith("weight") and before[key].ndim == 4)
    torch.testing.assert_close(after[key].float(), before[key].float(), atol=1e-3, rtol=0)


def _rename_images(root: Path) -> None:
    """Other lesions under other names: a sample set of another seed uses the same ones."""
    for image in root.rglob("*.jpg"):
        image.rename(image.with_name(f"other_{image.name}"))
    for table in root.glob("*.csv"):
        lines = table.read_text().splitlines()
        header = lines[0].split(",")
        fields = [header.index("lesion_id"), header.index("image_id")]
        rows = [line.split(",") for line in lines[1:]]
        named = [[f"other_{cell}" if i in fields else cell for i, cell in enumerate(row)] for row in rows]
        table.write_text("\n".join([lines[0], *(",".join(row) for row in named)]) + "\n")


def test_measuring_on_what_the_start_was_trained_on_is_refused(published: Path, options: LaunchOptions) -> None:
    with pytest.raises(DataError, match=r"base@v1.0.0 was made with images of this run's (validation|test) part"):
        train_recipe(quick("model.pretrained=base", "data.split.seed=5"), options)


@pytest.mark.parametrize(
    ("given", "error", "said"),
    [
        (
            {"backbone": "resnet18", "pretrained": "base"},
            ConfigError,
            "model.pretrained: base is a lesion_cnn_shallow, the recipe's backbone resnet18",
        ),
        ({"backbone": "resnet18", "pretrained": "nowhere"}, StoreError, "'nowhere' is not in the registry"),
    ],
)
def test_a_start_that_does_not_fit_is_one_line(
    published: Path, given: dict[str, str], error: type[Exception], said: str
) -> None:
    with pytest.raises(error) as caught:
        start_of(ModelOptions(**given))
    assert str(caught.value).startswith(said) and "\n" not in str(caught.value)
