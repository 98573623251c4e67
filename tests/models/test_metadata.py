"""Metadata as a vector."""

from __future__ import annotations

import torch

from lesion_hub.models.classifier import METADATA_FIELDS, METADATA_INPUTS, encode_metadata


def test_each_part_has_its_own_place():
    row = encode_metadata([40.0], ["male"], ["foot"])[0]
    known = {name: value for name, value in zip(METADATA_FIELDS, row.tolist(), strict=True) if value}
    assert {k: round(v, 3) for k, v in known.items()} == {"age": 0.4, "age_known": 1.0, "male": 1.0, "lower extremity": 1.0}


def test_every_part_may_be_missing():
    rows = encode_metadata([None, float("nan"), None], ["unknown", None, ""], [None, "unknown", "nowhere"])
    torch.testing.assert_close(rows, torch.zeros(3, METADATA_INPUTS))


def test_age_zero_is_not_a_missing_age():
    assert encode_metadata([0.0], [None], [None])[0, 1] == 1.0
