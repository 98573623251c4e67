"""Maps point at the evidence, leave nothing behind, and lie where the evidence lies on the image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib import colormaps
from torch import nn

from lesion_hub.errors import ConfigError, TaxonomyError
from lesion_hub.inference import Predictor
from lesion_hub.inference.attribution import METHODS, averaged, member_labels, on_image, scaled, target_labels
from lesion_hub.inference.preprocess import Framing
from lesion_hub.inference.results import OVERLAY_COLOURS, draw_overlay
from lesion_hub.models import LesionClassifier
from lesion_hub.taxonomy import label_space
from tests.inference.networks import classifier, ensemble, picture, planted, predictor


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_the_heat_is_where_a_planted_patch_is(patch_finder, method):
    shares = []
    for seed in range(9000, 9004):
        pixels, mask = planted(seed)
        prediction = patch_finder.predict(pixels, explain=method)
        assert prediction.label == "malignant"
        shares.append(prediction.heat[mask].sum() / prediction.heat.sum())
    # Occlusion answers for whole windows, which reach over the border of the patch.
    assert np.mean(shares) > (0.4 if method == "occlusion" else 0.8), shares


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("backbone", ["lesion_cnn_shallow", "vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"])
def test_every_method_explains_every_layout(method, backbone):
    model = Predictor.of(classifier(backbone, size=32))
    image = picture(30, 45)
    prediction = model.predict(image, explain=method, target="bcc")
    assert prediction.heat.shape == (30, 45)
    assert prediction.heat.dtype == np.float32
    assert 0 <= prediction.heat.min() <= prediction.heat.max() <= 1
    assert prediction.explanation.label == "bcc"
    assert prediction.probabilities == pytest.approx(model.predict(image).probabilities, abs=1e-5)


def test_networks_of_several_maps_say_what_else_to_use_and_still_predict():
    network = LesionClassifier.create("crossvit_tiny_240", "ham7", image_size=120).eval()
    model = Predictor.of(network)
    with pytest.raises(ConfigError) as refused:
        model.predict(picture(), explain="gradcam")
    others = [name for name, method in METHODS.items() if not method.layerwise]
    assert f"its features are 2 tensors); explain it with {', '.join(others[:-1])} or {others[-1]}" in str(refused.value)
    assert sum(model.predict(picture()).probabilities.values()) == pytest.approx(1)


def test_an_ensembles_map_is_the_weighted_mean_of_its_members():
    model = ensemble()
    prediction = model.predict(picture(), explain="gradcam", target="akiec")
    own = prediction.explanation.members
    assert set(own) == {"a", "b"}
    np.testing.assert_allclose(prediction.heat, averaged([own["a"], own["b"]], (0.25, 0.75)), atol=1e-6)
    alone = Predictor.of(model.members[0].classifier).predict(picture(), explain="gradcam", target="akiec")
    np.testing.assert_allclose(own["a"], alone.heat, atol=1e-5)


def test_a_label_that_a_member_splits_is_explained_by_its_parts():
    ham7, isic8 = label_space("ham7"), label_space("isic8")
    name, chosen = target_labels("akiec", ham7)
    assert name == "akiec"
    parts = member_labels(chosen[None], isic8.map_to(ham7))[0]
    assert [label for label, meant in zip(isic8.labels, parts, strict=True) if meant] == ["ak", "scc"]


def test_malignancy_can_be_explained_in_a_finer_space():
    name, chosen = target_labels("malignant", label_space("ham7"))
    assert (name, chosen.tolist()) == ("malignant", [True, False, True, True, False, False, False])
    heat = predictor().predict(picture(), explain="gradcam", target="malignant").heat
    assert heat.max() == 1
    with pytest.raises(TaxonomyError, match="did you mean"):
        predictor().predict(picture(), explain="gradcam", target="mell")


def test_a_joint_target_is_the_logit_of_the_sum_of_probabilities():
    """The map of "malignant" follows the gradient of log-sum-exp, so a label without any mass adds nothing."""
    network = classifier()
    with torch.no_grad():
        network.last_layer.bias[[2, 3]] = -100.0
    model = Predictor.of(network)
    both = model.predict(picture(), explain="gradcam", target="malignant").heat
    melanoma = model.predict(picture(), explain="gradcam", target="mel").heat
    np.testing.assert_allclose(both, melanoma, atol=1e-4)


def hooks(model: Predictor) -> int:
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return sum(len(getattr(m, kind)) for member in model.members for m in member.classifier.modules() for kind in kinds)


class Stumble(nn.Module):
    """Fails on the n-th call."""

    def __init__(self, layer: nn.Module, calls: int) -> None:
        super().__init__()
        self.layer, self.calls = layer, calls

    def forward(self, x):
        self.calls -= 1
        if self.calls < 0:
            raise RuntimeError("stumbled")
        return self.layer(x)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("calls", [0, 1, 2])
def test_an_exception_in_the_middle_leaves_the_model_as_it_was(method, calls):
    network = classifier()
    model = Predictor.of(network)
    before = model.predict(picture()).probabilities
    state = {key: value.clone() for key, value in network.state_dict().items()}
    whole = network.network.classifier
    network.network.classifier = Stumble(whole, calls)
    try:
        model.predict(picture(), explain=method)
    except RuntimeError as error:
        assert "stumbled" in str(error)
    network.network.classifier = whole
    assert hooks(model) == 0
    assert torch.is_grad_enabled()
    assert all(parameter.grad is None and parameter.requires_grad for parameter in network.parameters())
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())
    assert model.predict(picture()).probabilities == before


def test_explaining_uses_no_gradient_memory_of_the_parameters():
    model = predictor()
    model.predict(picture(), explain="integrated_gradients")
    assert all(parameter.grad is None for parameter in model.classifier.parameters())


@pytest.mark.parametrize("method", METHODS)
def test_a_map_is_the_same_each_time_and_in_any_batch(method):
    model = predictor()
    images = [picture(seed=1), picture(40, 40, seed=2)]
    together = model.predict(images, explain=method, target="mel")
    for image, expected in zip(images, together, strict=True):
        np.testing.assert_allclose(model.predict(image, explain=method, target="mel").heat, expected.heat, atol=1e-4)


def test_a_map_lies_on_the_part_of_the_image_that_the_network_saw():
    grid = np.ones((4, 4), np.float32)
    network = classifier(size=32, crop_pct=0.8)
    heat = on_image(grid, Framing.of(network.input_config).place((100, 200)), (100, 200))
    assert heat[50, 100] == 1
    assert heat[50, 40] == heat[50, 160] == heat[4, 100] == 0
    assert heat.mean() == pytest.approx(0.8 * 0.4, abs=0.02)


def test_an_image_that_is_squashed_or_padded_gets_its_own_shape_back():
    spot = np.zeros((8, 8), np.float32)
    spot[3:5, 6:8] = 1
    for mode in ("squash", "border"):
        place = Framing.of(classifier(size=32, crop_mode=mode).input_config).place((60, 30))
        heat = on_image(spot, place, (60, 30))
        assert heat.shape == (60, 30)
        row = np.unravel_index(heat.argmax(), heat.shape)[0]
        assert 25 <= row <= 35


def test_a_map_of_zeros_or_nan_is_a_map_of_zeros():
    assert not scaled(np.zeros((3, 3), np.float32)).any()
    assert not scaled(np.full((3, 3), np.nan, np.float32)).any()
    assert scaled(np.array([[0, 2.0]], np.float32)).tolist() == [[0, 1]]


def test_unknown_methods_and_missing_maps_are_one_line():
    with pytest.raises(ConfigError, match="did you mean 'gradcam'"):
        predictor().predict(picture(), explain="gradcm")
    with pytest.raises(ConfigError, match="explain='gradcam'"):
        predictor().predict(picture()).overlay()


def test_the_overlay_has_the_images_size_and_leaves_cold_places_alone(patch_finder):
    pixels, mask = planted(9100)
    prediction = patch_finder.predict(pixels, explain="gradcam")
    drawn = np.asarray(prediction.overlay())
    assert drawn.shape == pixels.shape
    changed = np.abs(drawn.astype(int) - pixels).sum(axis=2)
    assert changed[mask].mean() > 10 * changed[prediction.heat == 0].mean()


@pytest.mark.parametrize("opacity", [0.0, 0.5, 1.0])
def test_an_overlay_is_mixed_by_the_root_of_the_heat(opacity):
    image, heat = picture(45, 60), np.linspace(0, 1, 45 * 60, dtype=np.float32).reshape(45, 60)
    share = opacity * np.sqrt(heat)[..., None]
    expected = (
        np.asarray(image) * (1 - share) + 255 * colormaps[OVERLAY_COLOURS]((heat * 255).astype(np.uint8))[..., :3] * share
    )
    np.testing.assert_allclose(np.asarray(draw_overlay(image, heat, opacity), np.float32), expected, atol=1.5)


def test_the_documentation_shows_the_table_of_methods():
    text = (Path(__file__).parents[2] / "docs" / "explain.md").read_text(encoding="utf-8")
    for m in METHODS.values():
        assert f"| `{m.name}` | {m.title} | {m.cost} | {m.resolution} | {m.use} |" in text
