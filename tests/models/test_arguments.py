"""What a foreign config may tell timm: a network's shape, and nothing that reads, fetches or fills the memory."""

from __future__ import annotations

import pytest
import timm
import torch

from lesion_hub.errors import ConfigError
from lesion_hub.models.zoo import build_network


@pytest.mark.parametrize(
    ("architecture", "arguments", "told"),
    [
        ("test_resnet", {"checkpoint_path": "x.pth"}, "may not set 'checkpoint_path'"),
        ("test_resnet", {"pretrained": True}, "may not set 'pretrained'"),
        ("test_resnet", {"pretrained_cfg": {"url": "x"}}, "may not set 'pretrained_cfg'"),
        ("test_resnet", {"cache_dir": "/"}, "may not set 'cache_dir'"),
        ("test_resnet", {"drop_rate": 3.0}, "drop_rate"),
        ("test_vit", {"img_size": 100_000}, "img_size"),
        ("test_vit", {"depth": 10**9}, "depth"),
        ("lesion_net", {"backbone": "hf-hub:org/other"}, "backbone"),
        ("lesion_net", {"backbone": "no_such_net"}, "unknown architecture"),
        ("lesion_net", {"backbone": "test_resnet", "checkpoint_path": "x.pth"}, "may not set 'checkpoint_path'"),
        ("lesion_net", {"backbone": "test_resnet", "head": [10**9, "out"]}, "head"),
        ("lesion_net", {"backbone": "lesion_net"}, "backbone"),
        ("lesion_ensemble", {"members": []}, "members"),
        ("hf-hub:org/other", {}, "unknown architecture"),
    ],
)
def test_what_is_not_a_networks_shape_is_one_line(architecture, arguments, told):
    with pytest.raises(ConfigError) as caught:
        build_network(architecture, 7, arguments)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_member_of_an_ensemble_is_checked_as_a_network_is():
    frame = {"input_size": [3, 32, 32], "mean": [0.5] * 3, "std": [0.5] * 3}
    whole = {"architecture": "test_resnet", "num_classes": 2, **frame}
    member = {"architecture": "test_resnet", "model_args": {}, "pretrained_cfg": whole}
    arguments = {"members": [member], "maps": [[0, 1]], "weights": [1.0], "input": frame}
    build_network("lesion_ensemble", 2, arguments)
    for change, told in (
        ({"model_args": {"checkpoint_path": "x"}}, "may not set 'checkpoint_path'"),
        ({"architecture": "lesion_ensemble"}, "ensemble itself"),
        ({"architecture": "nothing"}, "unknown architecture"),
    ):
        with pytest.raises(ConfigError, match=told):
            build_network("lesion_ensemble", 2, {**arguments, "members": [{**member, **change}]})
    with pytest.raises(ConfigError, match="as many"):
        build_network("lesion_ensemble", 2, {**arguments, "maps": []})


def test_shapes_that_timm_takes_are_taken():
    assert build_network("test_vit", 3, {"img_size": [96, 64], "drop_path_rate": 0.1})(torch.zeros(1, 3, 96, 64)).shape == (
        1,
        3,
    )
    assert build_network("resnet18", 3, {"output_stride": 16, "act_layer": "gelu"}).num_classes == 3


def test_a_network_far_larger_than_its_weights_is_not_built():
    arguments = {"embed_dim": 65_472, "depth": 256, "num_heads": 1}  # petabytes
    with pytest.raises(ConfigError, match="far larger than the weights"):
        build_network("test_vit", 3, arguments, weights=1000)
    assert timm.create_model("test_vit").num_classes == 1000  # the bound ended with the call
