"""LesionClassifier: a network with its labels and preprocessing; starting weights; what is refused."""

from __future__ import annotations

import json

import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import save_file

from lesion_hub.errors import ConfigError, LesionHubError, StoreError
from lesion_hub.models import LesionClassifier, list_architectures


def test_forward_features_and_labels_agree_in_shape():
    model = LesionClassifier.create("resnet18", "ham7", image_size=64).eval()
    images = torch.rand(2, 3, 64, 64)
    assert model(images).shape == (2, 7)
    assert model.features(images).shape == (2, model.num_features)
    torch.testing.assert_close(model.last_layer(model.features(images)), model(images))
    assert model.labels[0] == "mel"


def test_the_transform_is_the_configured_one():
    model = LesionClassifier.create(
        "resnet18",
        "binary",
        image_size=(40, 60),
        crop_pct=0.8,
        mean=(0.1, 0.2, 0.3),
        std=(0.5, 0.5, 0.5),
        interpolation="bilinear",
    )
    pixels = model.transform(Image.new("RGB", (200, 150), (255, 255, 255)))
    assert pixels.shape == (3, 40, 60)
    torch.testing.assert_close(pixels[:, 20, 30], (1 - torch.tensor([0.1, 0.2, 0.3])) / 0.5)


def test_a_fixed_size_network_is_told_its_size_and_stays_stock():
    model = LesionClassifier.create("vit_tiny_patch16_224", "binary", image_size=96).eval()
    assert model.model_args == {"img_size": [96, 96]}
    assert model(torch.rand(1, 3, 96, 96)).shape == (1, 2)
    assert not model.is_custom


def test_a_head_or_metadata_makes_it_custom():
    plain = LesionClassifier.create("resnet18", "binary", image_size=32)
    headed = LesionClassifier.create("resnet18", "binary", image_size=32, head=["drop 0.2", "out"])
    fused = LesionClassifier.create("resnet18", "binary", image_size=32, metadata=True)
    assert (plain.architecture, headed.architecture, fused.architecture) == ("resnet18", "lesion_net", "lesion_net")
    assert (plain.takes_metadata, headed.takes_metadata, fused.takes_metadata) == (False, False, True)


def test_moves_follow_the_network():
    model = LesionClassifier.create("lesion_cnn_shallow", "binary", image_size=32)
    assert model.to(dtype=torch.bfloat16).dtype == torch.bfloat16
    assert model.device == torch.device("cpu")


def test_starting_weights_fill_all_but_the_classifier(tmp_path):
    donor = timm.create_model("resnet18", num_classes=1000)
    save_file(donor.state_dict(), tmp_path / "resnet18.safetensors")
    for options in ({}, {"head": [8, "relu", "out"]}):
        model = LesionClassifier.create("resnet18", "ham7", pretrained=tmp_path / "resnet18.safetensors", **options)
        trunk = model.network.backbone if options else model.network
        torch.testing.assert_close(trunk.layer4[1].conv2.weight, donor.layer4[1].conv2.weight)
        assert model.last_layer.out_features == 7


def test_half_precision_weights_without_a_classifier_are_a_fine_start(tmp_path):
    donor = timm.create_model("resnet18", num_classes=0).half()
    save_file(donor.state_dict(), tmp_path / "start.safetensors")
    model = LesionClassifier.create("resnet18", "ham7", pretrained=tmp_path / "start.safetensors")
    assert model.dtype == torch.float32
    torch.testing.assert_close(model.network.conv1.weight, donor.conv1.weight.float())


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"backbone": "resnet5O"}, "did you mean 'resnet50'"),
        ({"backbone": "resnet18", "space": "ham8"}, "did you mean 'ham7'"),
        ({"backbone": "resnet18", "head": ["drop 2", "out"]}, "'drop 2'"),
        ({"backbone": "resnet18", "pretrained": "missing.safetensors"}, "missing.safetensors"),
        ({"backbone": "resnet18", "pretrained": "weights.pth"}, "pickles are not loaded"),
        ({"backbone": "lesion_cnn_deep", "pretrained": True}, "no pretrained weights"),
        ({"backbone": "resnet18", "mean": (0.5, 0.5)}, "mean"),
        ({"backbone": "resnet18", "crop_pct": 0}, "crop_pct"),
    ],
)
def test_what_cannot_be_made_is_one_line(options, told):
    with pytest.raises(LesionHubError) as caught:
        LesionClassifier.create(**{"space": "ham7", **options})
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("backbone", ["levit_128s", "deit_tiny_distilled_patch16_224", "crossvit_tiny_240", "dla46x_c"])
def test_starting_weights_fill_networks_of_several_heads(tmp_path, backbone):
    donor = timm.create_model(backbone, num_classes=11)
    save_file(donor.state_dict(), tmp_path / "start.safetensors")
    for options in ({}, {"head": [8, "relu", "out"]}):
        model = LesionClassifier.create(backbone, "ham7", pretrained=tmp_path / "start.safetensors", **options)
        trunk = model.network.backbone if options else model.network
        first = donor.pretrained_cfg["first_conv"]
        first = first if isinstance(first, str) else first[0]
        torch.testing.assert_close(trunk.get_submodule(first).weight, donor.get_submodule(first).weight)


@pytest.mark.parametrize("backbone", ["deepseek_vit_412m_enc", "qwen3_vit_88m_enc"])
def test_a_network_without_a_classifier_is_refused_and_a_neighbour_named(backbone):
    with torch.device("meta"), pytest.raises(ConfigError, match=f"{backbone}: has no classifier .* choose {backbone[:-4]}$"):
        LesionClassifier.create(backbone, "ham7")


def test_trying_a_network_out_leaves_it_and_the_random_stream_alone():
    torch.manual_seed(3)
    model = LesionClassifier.create("crossvit_tiny_240", "ham7", image_size=120)
    before, stream = {key: value.clone() for key, value in model.state_dict().items()}, torch.get_rng_state()
    model.require_trainable()
    assert model.training
    assert torch.equal(torch.get_rng_state(), stream)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_logits_that_no_temperature_could_be_stored_in_are_refused():
    model = LesionClassifier.create("resnet18", "ham7", image_size=32)
    model.network.fc = torch.nn.Sequential(model.network.fc, torch.nn.Softmax(dim=1))
    with pytest.raises(ConfigError, match=r"no temperature .* choose resnet50"):
        model.require_trainable()
    model = LesionClassifier.create("halonet_h1", "ham7", image_size=64)
    with pytest.raises(ConfigError, match=r"64 x 64 pixels .* image_size: 256 is its own"):
        model.require_trainable()


def test_weights_of_another_network_are_refused(tmp_path):
    save_file(timm.create_model("resnet18").state_dict(), tmp_path / "resnet18.safetensors")
    with pytest.raises(ConfigError, match="not the weights of this backbone"):
        LesionClassifier.create("resnet34", "ham7", pretrained=tmp_path / "resnet18.safetensors")
    header = json.dumps({"fc.weight": {"dtype": "F32", "shape": [0, 1 << 63], "data_offsets": [0, 0]}}).encode()
    (tmp_path / "shape.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    (tmp_path / "pickle.safetensors").write_bytes(b"\x80\x04]\x94.")
    for name in ("shape", "pickle"):
        with pytest.raises(StoreError, match="not a safetensors file") as caught:
            LesionClassifier.create("resnet18", "ham7", pretrained=tmp_path / f"{name}.safetensors")
        assert len(str(caught.value)) < 500


def test_the_zoo_lists_our_own_first_and_searches():
    assert [a.name for a in list_architectures("alexnet")] == ["lesion_alexnet"]
    assert list_architectures()[0].family == "lesion_hub"
    assert list_architectures("lesion_ensemble") == [], "which is made of trained models, never trained"
    names = [a.name for a in list_architectures("efficientnet_b?")]
    assert "efficientnet_b0" in names
    assert "resnet50" not in names


# ------------------------------------------------------------------------------------------------ trained elsewhere


def test_outputs_in_another_order_are_brought_into_the_spaces():
    network = timm.create_model("test_resnet", num_classes=7).eval()
    classes = sorted(["mel", "nv", "bcc", "akiec", "bkl", "df", "vasc"])
    model = LesionClassifier.from_network(network, classes, image_size=32)
    images = torch.rand(2, 3, 32, 32)
    assert model.space.name == "ham7"
    with torch.no_grad():
        torch.testing.assert_close(model(images), network(images)[:, [classes.index(label) for label in model.labels]])
    assert model.last_layer.weight.data_ptr() != network.get_classifier().weight.data_ptr(), "the network is copied"


def test_labels_of_ones_own_make_a_space_and_preprocessing_is_kept():
    network = timm.create_model("test_resnet", num_classes=2)
    options = {"image_size": (40, 48), "mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25), "crop_mode": "squash"}
    model = LesionClassifier.from_network(network, ["tinea", "vitiligo"], **options)
    assert (model.labels, model.space.name) == (("tinea", "vitiligo"), "custom")
    assert (model.input_config.input_size, model.input_config.crop_mode) == ((3, 40, 48), "squash")
    assert network.training, "it is left as it was"


def exchanged_head():
    network = timm.create_model("test_resnet", num_classes=2)
    network.fc = torch.nn.Sequential(torch.nn.Dropout(0.1), network.fc)
    return network


def exchanged_activation():
    network = timm.create_model("test_resnet", num_classes=2)
    network.act1 = torch.nn.Tanh()
    return network


@pytest.mark.parametrize(
    ("make", "labels", "told"),
    [
        (lambda: torch.nn.Conv2d(3, 2, 1), ["a", "b"], "Conv2d: was not made by timm.create_model"),
        (lambda: timm.create_model("test_resnet", num_classes=3), ["a", "b"], "has 3 outputs, but there are 2 labels"),
        (exchanged_head, ["a", "b"], "is not what timm builds under that name"),
        (exchanged_activation, ["a", "b"], "gives other logits when it is built again"),
        (lambda: timm.create_model("test_resnet", num_classes=2, in_chans=1), ["a", "b"], "is not what timm builds"),
        (lambda: timm.create_model("test_resnet", num_classes=2), ["a", "a"], "are the same label"),
    ],
)
def test_a_network_that_others_could_not_build_again_is_one_line(make, labels, told):
    with pytest.raises(LesionHubError) as caught:
        LesionClassifier.from_network(make(), labels, image_size=32)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)
