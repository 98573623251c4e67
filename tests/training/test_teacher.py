"""A teacher says of a network's batch what it predicts, its pupil learns that, and a distilled run is as exact as any."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lesion_hub.config import load_model_config
from lesion_hub.errors import ConfigError, DataError, StoreError
from lesion_hub.inference import Predictor, from_pretrained
from lesion_hub.inference.ensemble import create_ensemble
from lesion_hub.models import LesionClassifier
from lesion_hub.training.launch import LaunchOptions
from lesion_hub.training.recipe import DistillOptions
from lesion_hub.training.run import train_recipe
from lesion_hub.training.teacher import Teacher
from tests.training.conftest import quick
from tests.training.test_loop import PowerCut, cut_power_after, same_weights


def classifier(size: int, space: str = "ham7", seed: int = 0) -> LesionClassifier:
    torch.manual_seed(seed)
    return LesionClassifier.create("lesion_cnn_shallow", space, image_size=size).eval()


def pictures(count: int = 3, side: int = 32) -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 255, (side, side, 3), dtype=np.uint8)) for _ in range(count)]


def predicted(predictor: Predictor, images: list[Image.Image]) -> np.ndarray:
    return np.array([list(found.probabilities.values()) for found in predictor.predict(images)])


def test_it_says_what_it_predicts_in_the_labels_of_its_pupil() -> None:
    taught, images = classifier(32), pictures()
    finer = Predictor.of(classifier(32, "isic8", seed=1), "finer")
    teacher = Teacher(finer, DistillOptions(teacher="finer"), taught)
    batch = Predictor.of(taught, "taught").members[0].prepare(images)
    expected = finer.space.map_to("ham7").probabilities(predicted(finer, images))
    np.testing.assert_allclose(teacher.probabilities(batch).numpy(), expected, atol=1e-5)


def test_it_sees_its_own_size_of_what_a_pupil_of_another_sees() -> None:
    """An image that has no detail tells both the same."""
    plain = [Image.new("RGB", (48, 48), colour) for colour in ("#a06050", "#d0a090")]
    taught, own = classifier(48), Predictor.of(classifier(32, seed=1), "own")
    teacher = Teacher(own, DistillOptions(teacher="own"), taught)
    batch = Predictor.of(taught, "taught").members[0].prepare(plain)
    expected = predicted(own, plain)
    np.testing.assert_allclose(teacher.probabilities(batch).numpy(), expected, atol=1e-5)


def test_a_pupil_of_nothing_but_its_teacher_comes_to_say_the_same() -> None:
    taught, images = classifier(32), pictures()
    options = DistillOptions(teacher="own", weight=1.0, temperature=3.0)
    teacher = Teacher(Predictor.of(classifier(32, seed=1), "own"), options, taught)
    batch = Predictor.of(taught, "taught").members[0].prepare(images)
    logits = torch.zeros(3, 7, requires_grad=True)
    optimiser = torch.optim.Adam([logits], lr=0.1)
    for _ in range(300):
        optimiser.zero_grad()
        losses = teacher.blended(torch.full((3,), 99.0), logits, batch)
        losses.sum().backward()
        optimiser.step()
    torch.testing.assert_close(logits.softmax(dim=1), teacher.probabilities(batch), atol=1e-3, rtol=0)
    assert losses.detach().abs().max() < 1e-4
    half = Teacher(teacher.predictor, DistillOptions(teacher="own", weight=0.25), taught)
    blended = half.blended(torch.full((3,), 4.0), logits.detach(), batch)
    torch.testing.assert_close(blended, torch.full((3,), 3.0), atol=1e-3, rtol=0)


@pytest.mark.slow
def test_a_distilled_run_names_its_teacher_and_goes_on_as_if_it_had_not_died(
    published: Path, options: LaunchOptions, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The teacher, an ensemble, was trained on the same split; its data and their licence follow into the pupil."""
    create_ensemble(tmp_path / "group", ["base"])
    recipe = quick(f"distill={{teacher: {tmp_path / 'group'}, weight: 0.7}}", "data.train=[{license: cc0-1.0}]", "epochs=2")
    recipe = recipe.model_copy(update={"checkpoints": recipe.checkpoints.model_copy(update={"every_steps": 1})})
    whole, died = (options.model_copy(update={"out": tmp_path / name}) for name in ("whole", "died"))
    train_recipe(recipe, whole)
    with monkeypatch.context() as patched:
        cut_power_after(patched, 2)
        with pytest.raises(PowerCut):
            train_recipe(recipe, died)
    train_recipe(recipe, died)
    assert same_weights(died.out, whole.out)
    training = load_model_config(whole.out).lesion_hub.training
    assert training is not None
    assert [(source.name, source.license, source.through) for source in training.data][1:] == [
        ("base lesions", "cc-by-nc-4.0", "group")
    ]
    assert json.loads((whole.out / "metrics.json").read_text())["training"]["recipe"]["distill"]["teacher"] == "group"
    card = (whole.out / "README.md").read_text()
    assert "license: cc-by-nc-4.0" in card and "| Teacher | group |" in card and "base lesions, through group" in card
    alone = options.model_copy(update={"out": tmp_path / "alone"})
    train_recipe(recipe.model_copy(update={"distill": None}), alone)
    assert not same_weights(alone.out, whole.out)
    assert from_pretrained(whole.out).predict(pictures()[0]).label


@pytest.mark.slow
def test_a_teacher_that_has_changed_or_has_seen_what_is_measured_is_refused(
    published: Path, options: LaunchOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = quick("distill={teacher: base}", "checkpoints.every_steps=1")
    with monkeypatch.context() as patched:
        cut_power_after(patched, 2)
        with pytest.raises(PowerCut):
            train_recipe(recipe, options)
    config = json.loads((published / "config.json").read_text())
    config["lesion_hub"]["temperature"] += 0.5
    (published / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match=r"its teacher has changed \(base@v1.0.0\); put back what was there"):
        train_recipe(recipe, options)
    other = options.model_copy(update={"out": options.out.parent / "other"})
    with pytest.raises(DataError, match=r"base@v1.0.0 was made with images of this run's (validation|test) part"):
        train_recipe(quick("distill={teacher: base}", "data.split.seed=5"), other)
    with pytest.raises(StoreError, match="'nobody' is not in the registry"):
        train_recipe(quick("distill={teacher: nobody}"), other)
