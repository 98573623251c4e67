"""Where logits come from, however many layers they come from, and in whatever kind."""

from __future__ import annotations

import pytest
import timm
import torch

from lesion_hub.models import LesionClassifier
from lesion_hub.models.last_layers import divide_logits, head_modules, last_layers
from lesion_hub.training.optimisers import head_parameters

# Architecture: the layers, by name, that its logits are proportional to.
ENDS = {
    "resnet18": ["fc"],
    "dla46x_c": ["fc"],
    "levit_128s": ["head.linear", "head_dist.linear"],
    "crossvit_tiny_240": ["head.0", "head.1"],
    "efficientvim_m1": ["heads.0", "heads.1", "heads.2", "heads.3"],
    "deit_tiny_distilled_patch16_224": ["head", "head_dist"],
    "repvit_m1": ["head.head.l", "head.head_dist.l"],
    "lesion_cnn_shallow": ["classifier"],
}


@pytest.mark.parametrize("name", ENDS)
def test_dividing_the_last_layers_divides_the_logits(name):
    torch.manual_seed(0)
    network = timm.create_model(name, num_classes=7).eval()
    names = {module: key for key, module in network.named_modules()}
    assert [names[layer] for layer in last_layers(network)] == ENDS[name]
    images = torch.randn(2, *network.pretrained_cfg["input_size"])
    with torch.no_grad():
        before = network(images)
        divide_logits(last_layers(network), 3.0)
        torch.testing.assert_close(network(images) * 3, before, rtol=1e-4, atol=1e-4)


def test_a_second_head_that_only_the_config_names_is_found():
    network = timm.create_model("volo_d1_224", num_classes=7)
    assert head_modules(network) == [network.head, network.aux_head]
    both = (*network.head.parameters(), *network.aux_head.parameters())
    assert list(map(id, head_parameters(network))) == list(map(id, both))


def test_a_custom_head_ends_in_one_linear_whatever_the_backbone_ends_in():
    model = LesionClassifier.create("deit_tiny_distilled_patch16_224", "ham7", image_size=32, head=[7, "relu", "out"])
    assert model.last_layers == (model.network.head.out,)
    model.require_trainable()
