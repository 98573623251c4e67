"""The file of an input gate: written with its hash, refused when a byte of it differs, and not missed where none was fitted."""

from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import save

from lesion_hub.config import load_model_config
from lesion_hub.errors import ConfigError
from lesion_hub.files import sha256_of
from lesion_hub.hub import store
from lesion_hub.hub.gate_file import GateWeights, gate_bytes, read_gate, write_gate
from lesion_hub.hub.layout import GATE_NAME
from lesion_hub.inference import from_pretrained
from lesion_hub.inference.ensemble import create_ensemble
from tests.hub.publishable import refused
from tests.inference.networks import picture


@pytest.fixture
def gated(make_folder):
    """A publishable folder with a gate."""
    folder = make_folder()
    write_gate(folder, gate_of(folder), refuse_below=0.5, accept_from=0.75)
    return folder


def gate_of(folder, seed=0):
    """A gate of random weights for the network in a folder."""
    member = from_pretrained(folder).members[0]
    _, features = member.score_and_features(member.prepare([picture()]))
    return GateWeights("features", torch.randn(2 * features.shape[1], generator=torch.Generator().manual_seed(seed)), 0.25)


def test_it_is_read_as_it_was_written(gated):
    config = load_model_config(gated)
    found = read_gate(gated, config)
    assert torch.equal(found.outputs, gate_of(gated).outputs) and (found.reads, found.bias) == ("features", 0.25)
    assert config.lesion_hub.gate.sha256 == sha256_of(gated / GATE_NAME)
    scope = from_pretrained(gated).predict(picture()).scope
    assert (scope.refuse_below, scope.accept_from) == (0.5, 0.75) and 0 < scope.score < 1


def test_a_flipped_byte_is_refused_wherever_it_is(gated):
    path = gated / GATE_NAME
    whole = path.read_bytes()
    for place in (0, 9, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with refused(GATE_NAME, "sha256"):
            from_pretrained(gated)
    path.unlink()
    with refused(GATE_NAME, "missing"):
        from_pretrained(gated)
    with refused(GATE_NAME, "missing"):
        store.publish(gated, "other", version="1.0.0", notes="First.", registry=gated.parent / "registry")


@pytest.mark.parametrize(
    "content",
    [
        b"no safetensors",
        save({"features": torch.zeros(4)}),
        save({"features": torch.zeros(4), "bias": torch.zeros(1), "more": torch.zeros(1)}),
        save({"features": torch.full((4,), torch.nan), "bias": torch.zeros(1)}),
        save({"features": torch.zeros(2, 2), "bias": torch.zeros(1)}),
    ],
)
def test_what_is_no_gate_is_refused_even_with_its_hash(gated, content):
    (gated / GATE_NAME).write_bytes(content)
    config = json.loads((gated / "config.json").read_text())
    config["lesion_hub"]["gate"]["sha256"] = sha256_of(gated / GATE_NAME)
    (gated / "config.json").write_text(json.dumps(config))
    with refused("no input gate"):
        from_pretrained(gated)


def test_a_gate_of_another_network_is_one_line(gated):
    write_gate(gated, GateWeights("features", torch.zeros(3), 0.0), refuse_below=0.5, accept_from=0.5)
    with refused("input gate reads 3 values"):
        from_pretrained(gated).predict(picture())


def test_limits_in_the_wrong_order_are_refused(gated):
    config = json.loads((gated / "config.json").read_text())
    config["lesion_hub"]["gate"]["accept_from"] = 0.1
    (gated / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigError, match=r"accept_from 0\.1 is below refuse_below 0\.5"):
        load_model_config(gated)


def test_a_repo_without_a_gate_says_not_fitted(make_folder):
    prediction = from_pretrained(make_folder()).predict(picture())
    assert prediction.scope is None and prediction.to_dict()["scope"] is None


def test_it_is_published_and_travels_in_a_bundle(gated, make_folder, tmp_path):
    registry = tmp_path / "registry"
    store.publish(gated, "one", version="1.0.0", notes="First.", registry=registry)
    store.publish(make_folder(1), "two", version="1.0.0", notes="First.", registry=registry)
    create_ensemble(tmp_path / "pair", ["one", "two"], registry=registry)
    create_ensemble(tmp_path / "bundle", ["one", "two"], bundle=True, registry=registry)
    alone = from_pretrained("one", registry=registry).predict(picture()).scope
    apart = from_pretrained(tmp_path / "pair", registry=registry).predict(picture()).scope
    store.publish(tmp_path / "bundle", "bundled", version="1.0.0", notes="First.", registry=registry)
    together = from_pretrained("bundled", registry=registry)
    assert alone == apart == together.predict(picture()).scope
    own = together.folder / "gates" / "0.safetensors"
    own.write_bytes(gate_bytes(gate_of(gated, seed=1)))
    with refused("gates/0.safetensors", "sha256"):
        from_pretrained(together.folder)
