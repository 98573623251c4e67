"""Heads from a spec, the networks of the zoo, metadata fusion."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

from lesion_hub.models import CUSTOM_ARCHITECTURES, METADATA_INPUTS, networks
from lesion_hub.models.networks import build_head

CLINICAL_HEADS = {
    "mobilenetv2_100": ["drop 0.3", 512, "relu", "drop 0.3", 256, "relu", "drop 0.3", "out"],
    "efficientnet_b1": ["drop 0.3", 512, "relu", "drop 0.3", "out"],
    "resnet50": ["drop 0.4", 1024, "bn", "relu", "drop 0.4", 512, "bn", "relu", "drop 0.3", "out"],
}


def described(head: nn.Sequential) -> list[str]:
    return [
        f"{type(layer).__name__}({getattr(layer, 'out_features', getattr(layer, 'p', getattr(layer, 'num_features', '')))})"
        for layer in head
    ]


def test_the_three_clinical_heads_are_built_exactly():
    assert described(build_head(CLINICAL_HEADS["mobilenetv2_100"], 1280, 6)) == (
        ["Dropout(0.3)", "Linear(512)", "ReLU()", "Dropout(0.3)", "Linear(256)", "ReLU()", "Dropout(0.3)", "Linear(6)"]
    )
    assert described(build_head(CLINICAL_HEADS["efficientnet_b1"], 1280, 6)) == (
        ["Dropout(0.3)", "Linear(512)", "ReLU()", "Dropout(0.3)", "Linear(6)"]
    )
    assert described(build_head(CLINICAL_HEADS["resnet50"], 2048, 6)) == [
        "Dropout(0.4)",
        "Linear(1024)",
        "BatchNorm1d(1024)",
        "ReLU()",
        "Dropout(0.4)",
        "Linear(512)",
        "BatchNorm1d(512)",
        "ReLU()",
        "Dropout(0.3)",
        "Linear(6)",
    ]


@pytest.mark.parametrize(
    "spec", [[], ["relu"], ["out", "relu"], ["out", "out"], ["drop", "out"], ["0", "out"], ["tanh", "out"]]
)
def test_a_head_that_cannot_be_is_refused(spec):
    with pytest.raises(ValueError, match=r"head|step"):
        build_head(spec, 8, 2)


@pytest.mark.parametrize("name", sorted(CUSTOM_ARCHITECTURES - {"lesion_net", "lesion_ensemble"}))
def test_a_zoo_network_follows_timms_conventions(name):
    network = timm.create_model(name, num_classes=5).eval()
    images = torch.rand(2, 3, 64, 80)
    features = network.forward_features(images)
    assert features.shape[:2] == (2, network.num_features)
    assert network.forward_head(features, pre_logits=True).shape == (2, network.head_hidden_size)
    torch.testing.assert_close(network.forward_head(features), network(images))
    assert isinstance(network.get_classifier(), nn.Linear)
    network.reset_classifier(3)
    assert network(images).shape == (2, 3)
    headless = timm.create_model(name, num_classes=0).eval()
    assert headless(images).shape == (2, headless.head_hidden_size)


def test_any_backbone_takes_a_head():
    for backbone in ("resnet18", "vit_tiny_patch16_224", "mobilenetv3_small_050", "lesion_cnn_deep"):
        network = timm.create_model("lesion_net", backbone=backbone, head=[16, "relu", "out"], num_classes=4).eval()
        assert network(torch.rand(1, 3, 224, 224)).shape == (1, 4)
        network.reset_classifier(9)
        assert network(torch.rand(1, 3, 224, 224)).shape == (1, 9)


@pytest.fixture(scope="module")
def fused() -> networks.LesionNet:
    torch.manual_seed(0)
    metadata = {"inputs": METADATA_INPUTS, "width": 8}
    return timm.create_model("lesion_net", backbone="lesion_cnn_deep", metadata=metadata, num_classes=3).eval()


def test_missing_metadata_is_the_same_as_none(fused):
    images = torch.rand(4, 3, 48, 48)
    torch.testing.assert_close(fused(images), fused(images, metadata=torch.zeros(4, METADATA_INPUTS)))


def test_metadata_changes_the_answer_row_by_row(fused):
    images = torch.rand(2, 3, 48, 48)
    known = torch.zeros(2, METADATA_INPUTS)
    known[1, 0:2] = 1.0
    with_one, without = fused(images, metadata=known), fused(images)
    torch.testing.assert_close(with_one[0], without[0])
    assert not torch.allclose(with_one[1], without[1])


def test_no_network_has_buffers_that_would_not_be_saved():
    for name in CUSTOM_ARCHITECTURES - {"lesion_net", "lesion_ensemble"}:
        network = timm.create_model(name, num_classes=2)
        assert {key for key, _ in network.named_buffers()} <= set(network.state_dict())
