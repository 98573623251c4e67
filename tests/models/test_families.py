"""Every family of timm does what the packaged table says: trains, is stored, loads by three loaders, is explained."""

from __future__ import annotations

import pkgutil
from pathlib import Path

import pytest
import timm

from lesion_hub.models.zoo import families, list_architectures
from tests.marks import one_of_many
from tests.scripts import load_script

ROOT = Path(__file__).parents[2]


script = load_script("benchmarks/families.py")
FAMILIES = families()
LIGHT = [row.name for row in FAMILIES.values() if row.megaparameters <= script.HEAVY]
# Families whose heads, cuts or layouts are like nobody else's; the others are one convolutional map and one Linear.
ALWAYS = (
    *("cait", "convit", "crossvit", "deit", "dla", "dpn", "efficientformer_v2", "efficientvim", "eva", "iformer", "lesion_hub"),
    *("levit", "mambaout", "mlp_mixer", "mobilenetv3", "pit", "repvit", "resnet", "resnetv2", "swiftformer", "tnt"),
    *("vision_transformer", "volo", "xcit"),
)


def test_the_table_has_every_family_of_timm_and_ours():
    """What another test of this process has registered is neither's."""
    ours_and_timms = {"lesion_hub", *(module.name for module in pkgutil.iter_modules(timm.models.__path__))}
    assert set(FAMILIES) == {architecture.family for architecture in list_architectures()} & ours_and_timms
    assert {row.architecture: row.image_size for row in FAMILIES.values()} == script.MEMBERS
    assert set(ALWAYS) <= set(LIGHT)


def test_the_page_shows_the_table():
    text = script.PAGE.read_text(encoding="utf-8")
    assert script.page_with(text, dict(FAMILIES)) == text, "run python benchmarks/families.py"


@pytest.mark.slow
@pytest.mark.parametrize("name", ALWAYS)
def test_a_family_does_what_the_table_says(name, tmp_path):
    row = FAMILIES[name]
    assert script.try_family(row.architecture, row.image_size, tmp_path) == row


@pytest.mark.slow
@one_of_many
@pytest.mark.parametrize("name", [name for name in LIGHT if name not in ALWAYS])
def test_every_other_family_does_what_the_table_says(name, tmp_path):
    test_a_family_does_what_the_table_says(name, tmp_path)


def test_what_was_tried_is_known_of_its_relatives():
    found = {architecture.name: architecture for architecture in list_architectures("qwen3_vit_88m*")}
    assert found["qwen3_vit_88m"].trains and found["qwen3_vit_88m"].layer_maps
    assert not found["qwen3_vit_88m_enc"].trains
    assert not list_architectures("crossvit_9_240")[0].layer_maps
    assert timm.is_model(FAMILIES["crossvit"].architecture)
