"""Tokens find their places on the image, and a cut leaves the network alone."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lesion_hub.models import LesionClassifier
from lesion_hub.models.network_cut import cut, layer_at, token_grid, with_layer

# Token networks, and how many tokens stand for no place: none, a class token, with a distilling one, with four registers.
TOKENS = {
    "mixer_s32_224": 0,
    "xcit_nano_12_p16_224": 0,
    "cait_xxs24_224": 0,
    "vit_tiny_patch16_224": 1,
    "deit_tiny_distilled_patch16_224": 2,
    "vit_small_patch16_dinov3": 5,
    "tnt_s_patch16_224": 1,
    "pit_ti_distilled_224": 2,
    "volo_d1_224": 0,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", TOKENS)
def test_a_change_of_a_corner_shows_in_that_corner_of_the_map(name):
    torch.manual_seed(0)
    size = 128 if name == "mixer_s32_224" else 64
    parts = cut(LesionClassifier.create(name, "ham7", image_size=(size, 2 * size)).eval())
    seen: list[torch.Tensor] = []
    parts.tap.register_forward_hook(lambda layer, given, out: seen.append(out))
    plain = torch.randn(1, 3, size, 2 * size)
    changed = plain.clone()
    changed[:, :, : size // 4, -size // 4 :] += 3  # top right
    with torch.no_grad():
        for images in (plain, changed):
            parts(parts.stem(images))
    rows, columns = seen[0].shape[2:]
    assert columns == 2 * rows
    hottest = int((seen[1] - seen[0]).abs().sum(dim=1).argmax())
    row, column = divmod(hottest, columns)
    assert row < rows / 2
    assert column >= columns * 3 // 4


@given(rows=st.integers(1, 40), columns=st.integers(1, 40), patch=st.integers(2, 32))
def test_a_grid_of_square_patches_is_found(rows, columns, patch):
    assert token_grid(rows * columns, (rows * patch, columns * patch)) == (rows, columns)


@pytest.mark.parametrize("tokens", [197, 50, 195])
def test_tokens_that_are_no_grid_are_not_forced_into_one(tokens):
    assert token_grid(tokens, (224, 224)) is None


def test_another_layer_in_a_copy_shares_the_weights_and_leaves_the_original():
    network = LesionClassifier.create("vit_tiny_patch16_224", "ham7", image_size=32).network
    before = layer_at(network, "blocks.-1.norm1")
    twin = with_layer(network, "blocks.-1.norm1", torch.nn.Identity())
    assert layer_at(network, "blocks.-1.norm1") is before
    assert isinstance(layer_at(twin, "blocks.-1.norm1"), torch.nn.Identity)
    assert twin.blocks[0] is network.blocks[0]
    assert layer_at(network, "blocks.-1.nothing") is None
