"""Our Grad-CAM is pytorch-grad-cam's on the same layer and label, for every family of network."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lesion_hub.inference import Predictor
from lesion_hub.models.network_cut import cut
from tests.inference.networks import classifier, picture

pytestmark = pytest.mark.slow

pytorch_grad_cam = pytest.importorskip("pytorch_grad_cam")


def patches(grid, prefix=1):
    """The reshape that pytorch-grad-cam needs for tokens behind ``prefix`` that stand for no place."""
    return lambda tokens: tokens[:, prefix:].reshape(len(tokens), *grid, -1).permute(0, 3, 1, 2)


SIZE, LABELS = 64, 4

FAMILIES = {
    "mobilenetv2_100": ({}, lambda n: n.bn2, None),
    "efficientnet_b1": ({}, lambda n: n.bn2, None),
    "resnet50": ({}, lambda n: n.layer4, None),
    "densenet121": ({}, lambda n: n.features.norm5, None),
    "vit_tiny_patch16_224": ({}, lambda n: n.blocks[-1].norm1, patches((4, 4))),
    "swin_tiny_patch4_window7_224": ({}, lambda n: n.norm, lambda maps: maps.permute(0, 3, 1, 2)),
    "vit_small_patch16_dinov3": ({}, lambda n: n.blocks[-1].norm1, patches((4, 4), 5)),
    "xcit_nano_12_p16_224": ({}, lambda n: n.blocks[-1], patches((4, 4), 0)),
    "volo_d1_224": ({}, lambda n: n.network[-1], lambda maps: maps.permute(0, 3, 1, 2)),
    "mixer_s32_224": ({}, lambda n: n.norm, patches((2, 2), 0)),
    "lesion_cnn_deep": ({}, lambda n: n.features, None),
    "lesion_net": ({"backbone": "resnet18", "head": ["drop 0.3", 32, "relu", "out"]}, lambda n: n.backbone.layer4, None),
}


def network_of(family):
    options = dict(FAMILIES[family][0])
    return classifier(options.pop("backbone", family), size=SIZE, **options)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_map_is_pytorch_grad_cams(family):
    _, layer, reshape = FAMILIES[family]
    network, image = network_of(family), picture(SIZE, SIZE)
    ours, theirs = Predictor.of(network), []
    with pytorch_grad_cam.GradCAM(network, [layer(network.network)], reshape_transform=reshape) as peer:
        for label in range(LABELS):
            target = pytorch_grad_cam.utils.model_targets.ClassifierOutputTarget(label)
            theirs.append(peer(network.transform(image)[None], targets=[target])[0])
    compared = 0
    for label, expected in zip(network.labels, theirs, strict=False):
        heat = ours.predict(image, explain="gradcam", target=label).heat
        assert heat.shape == expected.shape
        assert (heat.max() > 0) == (expected.max() > 0)
        if expected.max() > 0:
            assert np.corrcoef(heat.ravel(), expected.ravel())[0, 1] > 0.999
            compared += 1
    assert compared, "maps of zeros alone would prove nothing"


@pytest.mark.parametrize("family", FAMILIES)
def test_stem_and_tail_make_the_network(family):
    network = network_of(family)
    batch = torch.randn(2, 3, SIZE, SIZE)
    parts = cut(network)
    with torch.no_grad():
        torch.testing.assert_close(parts(parts.stem(batch)), network(batch), atol=1e-5, rtol=1e-5)
