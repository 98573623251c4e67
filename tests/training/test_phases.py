from __future__ import annotations

import pytest
import torch
from torch import nn

from lesion_hub.models import LesionClassifier
from training.phases import blocks, head_parameters, phase_at, set_train_mode, set_trainable
from training.recipe import Phase

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
