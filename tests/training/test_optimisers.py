from __future__ import annotations

import copy
from functools import partial

import pytest
import timm
import torch
from torch import nn

import lesion_hub.models  # noqa: F401 - registers the zoo
from lesion_hub.errors import ConfigError
from lesion_hub.models import LesionClassifier
from lesion_hub.training.optimisers import (
    OPTIMISERS,
    blocks,
    head_parameters,
    layer_depths,
    make_optimiser,
    parameter_groups,
    phase_at,
    set_learning_rate,
    set_train_mode,
    set_trainable,
)
from lesion_hub.training.recipe import Phase


def _small():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))


def _step(model, optimiser, images):
    optimiser.zero_grad()
    model(images).square().sum().backward()
    optimiser.step()


@pytest.mark.parametrize(
    ("name", "options", "reference"),
    [
        ("sgd", {"momentum": 0.8, "nesterov": True}, partial(torch.optim.SGD, momentum=0.8, nesterov=True)),
        ("adam", {"betas": (0.8, 0.99)}, partial(torch.optim.Adam, betas=(0.8, 0.99))),
        ("adamw", {}, partial(torch.optim.AdamW, weight_decay=0.0)),
    ],
)
def test_without_decay_the_steps_are_torchs(name, options, reference):
    images = torch.randn(6, 3, 3, 3)
    ours, theirs = _small(), _small()
    theirs.load_state_dict(ours.state_dict())
    optimiser = make_optimiser(name, ours, lr=0.01, **options)
    expected = reference(theirs.parameters(), lr=0.01, fused=True)
    for _ in range(3):
        _step(ours, optimiser, images)
        _step(theirs, expected, images)
    for a, b in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", OPTIMISERS)
def test_biases_and_norms_do_not_decay(name):
    model = _small()
    before = {key: value.clone() for key, value in model.named_parameters()}
    optimiser = make_optimiser(name, model, lr=0.1, weight_decay=0.5)
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimiser.step()
    changed = {key for key, value in model.named_parameters() if not torch.equal(value, before[key])}
    assert changed == {"0.weight", "3.weight"}


def test_what_a_network_exempts_itself_does_not_decay():
    vit = timm.create_model("vit_tiny_patch16_224", img_size=32, depth=1, num_classes=2)
    still = {name for group in parameter_groups(vit, weight_decay=0.1) if not group["weight_decay"] for name in group["names"]}
    assert {"pos_embed", "cls_token", "blocks.0.attn.qkv.bias"} <= still
    assert "blocks.0.attn.qkv.weight" not in still


@pytest.mark.parametrize("layer_decay", [1.0, 0.5])
@pytest.mark.parametrize("backbone", ["resnet18", "lesion_cnn_deep"])
def test_every_parameter_is_in_one_group_even_frozen_ones(backbone, layer_decay):
    model = timm.create_model(backbone, num_classes=2)
    next(model.parameters()).requires_grad_(False)
    groups = parameter_groups(model, weight_decay=0.1, layer_decay=layer_decay)
    listed = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(listed) == sorted(id(parameter) for parameter in model.parameters())


def test_layers_further_from_the_head_learn_slower():
    model = timm.create_model("resnet18", num_classes=2)
    scale = _scales(model)
    assert scale["fc.weight"] == scale["fc.bias"] == 1
    order = ["conv1.weight", "layer1.0.conv1.weight", "layer2.1.conv2.weight", "layer4.1.conv2.weight", "fc.weight"]
    values = [scale[name] for name in order]
    assert values == sorted(values) and len(set(values)) == len(values)
    depths = layer_depths(model)
    assert all(scale[name] == 0.5 ** (max(depths.values()) - depth) for name, depth in depths.items())


def test_a_lesion_net_decays_by_the_layers_of_its_backbone_below_its_head():
    model = LesionClassifier.create("resnet18", "ham7", head=["drop 0.3", 16, "relu", "out"], metadata=True)
    scale = _scales(model)
    above = [name for name in scale if name.startswith(("network.head.", "network.metadata."))]
    assert len(above) == 6
    assert {scale[name] for name in above} == {1.0}
    assert scale["network.backbone.layer4.1.conv2.weight"] == 0.5
    assert scale["network.backbone.conv1.weight"] < scale["network.backbone.layer1.0.conv1.weight"] < 0.5


def test_a_plain_backbone_in_a_classifier_keeps_its_own_head_at_full_rate():
    scale = _scales(LesionClassifier.create("resnet18", "ham7"))
    assert scale["network.fc.weight"] == 1 and scale["network.layer4.1.conv2.weight"] == 0.5


def test_a_conv_stack_decays_layer_by_layer():
    scale = _scales(timm.create_model("lesion_cnn_shallow", num_classes=2))
    convolutions = sorted(name for name in scale if name.startswith("features") and name.endswith("weight"))
    assert [scale[name] for name in convolutions] == [0.125, 0.25]
    assert scale["classifier.weight"] == 1


def _scales(model):
    groups = parameter_groups(model, weight_decay=0.0, layer_decay=0.5)
    return {name: group["lr_scale"] for group in groups for name in group["names"]}


def test_the_learning_rate_of_every_group_keeps_its_scale():
    optimiser = make_optimiser("adamw", timm.create_model("lesion_cnn_shallow", num_classes=2), lr=1.0, layer_decay=0.5)
    for lr in (1.0, 0.2):
        set_learning_rate(optimiser, lr)
        assert {group["lr"] for group in optimiser.param_groups} == {lr, lr / 2, lr / 4, lr / 8}


def test_a_frozen_layer_does_not_move_and_can_be_unfrozen():
    model, images = _small(), torch.randn(6, 3, 3, 3)
    optimiser = make_optimiser("adamw", model, lr=0.1, weight_decay=0.1)
    model[0].requires_grad_(False)
    before = model[0].weight.clone()
    _step(model, optimiser, images)
    assert torch.equal(model[0].weight, before)
    model[0].requires_grad_(True)
    _step(model, optimiser, images)
    assert not torch.equal(model[0].weight, before)


def test_an_optimiser_resumes_to_the_bit():
    images = torch.randn(6, 3, 3, 3)
    whole = _small()
    optimiser = make_optimiser("adamw", whole, lr=0.01, weight_decay=0.1, layer_decay=0.9)
    _step(whole, optimiser, images)
    resumed = _small()
    resumed.load_state_dict(whole.state_dict())
    second = make_optimiser("adamw", resumed, lr=0.5, weight_decay=0.1, layer_decay=0.9)
    second.load_state_dict(copy.deepcopy(optimiser.state_dict()))
    _step(whole, optimiser, images)
    _step(resumed, second, images)
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))


def test_a_run_that_was_begun_unfused_goes_on_so():
    model = _small()
    optimiser = make_optimiser("adamw", model, lr=0.01)
    assert all(group["fused"] for group in optimiser.param_groups)
    before = optimiser.state_dict()
    before["param_groups"] = [{**group, "fused": None} for group in before["param_groups"]]
    optimiser.load_state_dict(before)
    assert not any(group["fused"] for group in optimiser.param_groups)
    _step(model, optimiser, torch.randn(6, 3, 3, 3))


def test_an_unknown_optimiser_is_one_line():
    with pytest.raises(ConfigError, match="unknown optimiser 'adamv'; did you mean 'adam"):
        make_optimiser("adamv", _small(), lr=0.1)


# ------------------------------------------------------------------------------------------------ phases

BACKBONES = ["resnet18", "mobilenetv2_035", "lesion_cnn_deep", "vit_tiny_patch16_224"]


def build(backbone: str, head: list[str | int] | None) -> nn.Module:
    return LesionClassifier.create(backbone, "binary", head=head, image_size=32).network


@pytest.mark.parametrize("backbone", BACKBONES)
@pytest.mark.parametrize("head", [None, ["drop 0.3", 8, "bn", "relu", "out"]])
def test_phases_train_the_head_then_the_last_blocks_then_all(backbone: str, head: list[str | int] | None) -> None:
    network = build(backbone, head)
    total = sum(1 for _ in network.parameters())
    body = blocks(network)
    assert sum(map(len, body)) + len(head_parameters(network)) == total
    counts = []
    for train in ("head", 1, 2, "all"):
        set_trainable(network, Phase(train=train))
        counts.append(sum(p.requires_grad for p in network.parameters()))
    assert counts[0] == len(head_parameters(network)) < counts[1] < counts[2] < counts[3] == total
    set_trainable(network, Phase(train=1))
    assert all(p.requires_grad for p in body[-1]) and not any(p.requires_grad for p in body[0])


def statistics(network: nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in network.named_buffers() if name.endswith("running_mean")}


def test_frozen_batch_norms_keep_their_statistics() -> None:
    network = build("resnet18", [8, "bn", "relu", "out"])
    before = statistics(network)
    for phase, changes in ((Phase(train="head"), {"head.1"}), (Phase(train="all", freeze_norm=True), {"head.1"})):
        set_trainable(network, phase)
        set_train_mode(network, phase)
        network(torch.randn(4, 3, 32, 32))
        after = statistics(network)
        changed = {name.rpartition(".")[0] for name in before if not torch.equal(before[name], after[name])}
        assert changed == changes
    set_trainable(network, Phase())
    set_train_mode(network, Phase())
    network(torch.randn(4, 3, 32, 32))
    assert not any(torch.equal(before[name], value) for name, value in statistics(network).items())


def test_the_last_phase_takes_what_is_left_of_the_epochs() -> None:
    phases = [Phase(train="head", epochs=2), Phase(train=3, epochs=5), Phase()]
    spans = [phase_at(phases, epoch, 9)[1] for epoch in range(9)]
    assert spans == [range(2)] * 2 + [range(2, 7)] * 5 + [range(7, 9)] * 2
    assert phase_at(phases, 0, 1) == (phases[0], range(1))
