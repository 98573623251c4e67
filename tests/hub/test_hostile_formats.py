"""Files that a stranger may have written: whatever they hold, loading and publishing succeed or end in one line.

The examples are some 500, the same ones each time; with ``LESION_HUB_FUZZ=4`` they are 2,000, and drawn anew.
"""

from __future__ import annotations

import copy
import hashlib
import json
import os
import shutil
import struct
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save

from lesion_hub import from_pretrained
from lesion_hub.errors import LesionHubError
from lesion_hub.hub.card import render_card
from lesion_hub.hub.card_check import check_card
from lesion_hub.hub.format import read_model, write_model
from lesion_hub.hub.layout import publishable_files
from lesion_hub.hub.release import prepare_release
from lesion_hub.hub.space import space_content
from lesion_hub.hub.store import info, publish, pull
from lesion_hub.models import LesionClassifier
from tests.hub.publishable import TRAINING, refused, write_ensemble, write_folder

GOLDEN = Path(__file__).with_name("golden_card")
TIMES = int(os.environ.get("LESION_HUB_FUZZ", "1"))


def fuzzed(examples: int):
    checks = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]
    return settings(
        max_examples=examples * TIMES, derandomize=TIMES == 1, deadline=None, suppress_health_check=checks, database=None
    )


def store_weights(folder: Path, blob: bytes) -> None:
    """Weights with the hash that the config states."""
    (folder / "model.safetensors").write_bytes(blob)
    config = json.loads((folder / "config.json").read_text())
    config["lesion_hub"]["weights_sha256"] = hashlib.sha256(blob).hexdigest()
    (folder / "config.json").write_text(json.dumps(config))


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return write_folder(tmp_path_factory.mktemp("hostile") / "model")


@pytest.fixture(scope="module")
def headed(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("hostile") / "headed"
    torch.manual_seed(0)
    network = LesionClassifier.create("test_resnet", "ham7", image_size=32, head=[4, "relu", "out"], metadata=True)
    write_model(folder, network, training=TRAINING, temperature=1.0)
    return folder


@pytest.fixture
def folder(model, tmp_path) -> Path:
    return Path(shutil.copytree(model, tmp_path / "copy"))


# ------------------------------------------------------------------------------------------------ what is no number


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_weights_that_are_no_numbers_are_neither_loaded_nor_published(folder, value):
    weights = load_file(folder / "model.safetensors")
    weights["classifier.bias"][0] = value
    store_weights(folder, save(weights))
    for use in (from_pretrained, lambda place: prepare_release(place, "1.0.0", "First.")):
        with refused("classifier.bias", "no numbers"):
            use(folder)


def test_scores_that_are_no_numbers_decide_nothing(folder):
    predictor = from_pretrained(folder)
    with torch.no_grad():
        predictor.classifier.last_layer.weight.fill_(3e38)
        predictor.classifier.last_layer.bias.fill_(-3e38)
    with refused("scores are no numbers"):
        predictor.predict(torch.zeros(40, 40, 3, dtype=torch.uint8).numpy() + 200)
    weights = load_file(folder / "model.safetensors")
    weights |= {
        key: torch.full_like(weights[key], 3e38, dtype=torch.float32) for key in ("classifier.weight", "hidden.1.weight")
    }
    store_weights(folder, save(weights))
    with refused("no finite score"):
        prepare_release(folder, "1.0.0", "First.")


@pytest.mark.parametrize("text", ["[]", '{"a": NaN}', '{"a": [1e999]}', '{"a": -Infinity}', '"x"', '{"a": "\\ud800"}', "\xff"])
@pytest.mark.parametrize("name", ["metrics.json", "split.json"])
def test_papers_that_are_no_objects_of_numbers_are_not_published(folder, name, text):
    (folder / name).write_bytes(text.encode("latin-1"))
    with refused(name):
        publishable_files(folder)


# ------------------------------------------------------------------------------------------------ links and pipes


@pytest.mark.parametrize("name", ["plots/leak.png", "metrics.json", "README.md", "model.safetensors", "config.json"])
def test_a_link_out_of_the_folder_is_not_published(folder, tmp_path, name):
    outside = tmp_path / "outside"
    (folder / "plots").mkdir()
    if (folder / name).exists():
        (folder / name).rename(outside)
    else:
        outside.write_text("secret")
    (folder / name).symlink_to(outside)
    with refused(name, "link out of the folder"):
        publishable_files(folder)
    with refused(name, "link out of the folder"):
        space_content(folder, [], [])


def test_a_linked_folder_of_plots_is_not_published(folder, tmp_path):
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "leak.png").write_text("secret")
    (folder / "plots").symlink_to(tmp_path / "outside")
    with refused("leak.png", "link out of the folder"):
        publishable_files(folder)


@pytest.mark.parametrize("name", ["plots/x.png", "metrics.json", "model.safetensors", "config.json"])
def test_a_pipe_is_not_waited_for(folder, name):
    (folder / "plots").mkdir()
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    with refused():
        prepare_release(folder, "1.0.0", "First.")
    if "plots" not in name and name != "metrics.json":
        with refused():
            from_pretrained(folder)


@pytest.mark.parametrize(
    "changes", [{"input_size": [3, 0, 0]}, {"input_size": [3, 30000, 30000]}, {"crop_pct": 1e-9}, {"std": [0.0, 1.0, 1.0]}]
)
def test_an_input_out_of_bounds_is_one_line(folder, changes):
    path = folder / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "pretrained_cfg": {**config["pretrained_cfg"], **changes}}))
    with refused(next(iter(changes))):
        from_pretrained(folder)


def test_an_input_too_small_for_its_network_is_one_line(tmp_path):
    write_model(tmp_path, LesionClassifier.create("lesion_cnn_deep", "ham7", image_size=64), training=TRAINING)
    config = json.loads((tmp_path / "config.json").read_text())
    config["pretrained_cfg"]["input_size"] = [3, 8, 8]
    (tmp_path / "config.json").write_text(json.dumps(config))
    with refused("does not run on its input_size"):
        from_pretrained(tmp_path)


def test_an_ensemble_of_thousands_is_one_line(folder, tmp_path):
    path = write_ensemble(tmp_path / "many", {"a": folder}) / "ensemble.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({**config, "members": config["members"] * 10_000, "weights": [1e-4] * 10_000}))
    with refused("members"):
        from_pretrained(path.parent)


def test_a_changelog_that_is_no_text_is_one_line(folder, tmp_path):
    publish(folder, "a", version="1.0.0", notes="First.", registry=tmp_path / "registry")
    (tmp_path / "registry" / "a" / "v1.0.0" / "CHANGELOG.md").write_bytes(b"\xff")
    with refused("CHANGELOG.md", "not readable as text"):
        info("a", registry=tmp_path / "registry")
    with refused("CHANGELOG.md", "not readable as text"):
        publish(folder, "a", version="1.1.0", notes="Second.", registry=tmp_path / "registry")


def test_a_copy_does_not_bring_what_a_link_leads_to(folder, tmp_path):
    registry = tmp_path / "registry"
    publish(folder, "a", version="1.0.0", notes="First.", registry=registry)
    (tmp_path / "secret").write_text("secret")
    (registry / "a" / "v1.0.0" / "leak.png").symlink_to(tmp_path / "secret")
    with refused("leak.png", "link out of the folder"):
        pull("a", to=tmp_path / "pulled", registry=registry)
    assert not (tmp_path / "pulled").exists()


# ------------------------------------------------------------------------------------------------ mutations

HOSTILE = st.sampled_from(
    [
        *(None, True, 0, -1, 1, 3, 10**6, 2**31, 2**63, 0.5, 1e-9, 1e300, "", "x", "a\nb", "é", "hf-hub:org/x", "../x", [], {}),
        *([3, 0, 0], [3, 30000, 30000], [3, 32, 32], [[]], [None], {"a": 1}, {"a\nb": {}}, ["x"] * 300, [10**9, "out"]),
        *({"checkpoint_path": "x"}, {"backbone": "hf-hub:a/b"}, {"img_size": 64}, "resnet18", "lesion_net", "lesion_ensemble"),
        *("test_vit", "eva_giant_patch14_224", "binary", "ham7"),
    ]
).map(copy.deepcopy)
TEXTS = st.sampled_from(["NaN", "1e999", "[" * 3000, '"\\ud800"', "9" * 5000, "\x00", "{", '{"a":1,"a":2}'])


@st.composite
def mutated(draw, text: str) -> bytes:
    """JSON with one to three values replaced, added, removed or repeated; or text that is broken in one place."""
    data = copy.deepcopy(json.loads(text))
    for _ in range(draw(st.integers(1, 3))):
        place = data
        while True:
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            key = draw(st.sampled_from(keys)) if keys else None
            if key is None or not isinstance(place[key], (dict, list)) or not place[key] or draw(st.booleans()):
                break
            place = place[key]
        action = draw(st.sampled_from(["replace", "replace", "replace", "remove", "add", "repeat"]))
        if action == "add" or key is None:
            if isinstance(place, dict):
                place[draw(st.sampled_from(["x", "pretrained", "backbone", "members", "a\nb"]))] = draw(HOSTILE)
            else:
                place.append(draw(HOSTILE))
        elif action == "remove":
            del place[key]
        elif action == "repeat" and isinstance(place, list):
            place.extend(place * draw(st.sampled_from([1, 100])))
        else:
            place[key] = draw(HOSTILE)
    blob = json.dumps(data)
    if draw(st.integers(0, 9)) == 0:
        at = draw(st.integers(0, len(blob)))
        blob = blob[:at] + draw(TEXTS) + blob[at:]
    return blob.encode() if draw(st.integers(0, 30)) else blob.encode() + b"\xff"


def ends_well(*uses) -> None:
    for use in uses:
        try:
            use()
        except LesionHubError as error:
            assert len(str(error).splitlines()) == 1, str(error)


@fuzzed(200)
@given(data=st.data())
def test_any_config_ends_well(model, headed, tmp_path, data):
    source = data.draw(st.sampled_from([model, headed]))
    shutil.copy(source / "model.safetensors", tmp_path)
    (tmp_path / "config.json").write_bytes(data.draw(mutated((source / "config.json").read_text())))
    ends_well(lambda: read_model(tmp_path))


@fuzzed(120)
@given(data=st.data())
def test_any_ensemble_ends_well(model, tmp_path, data):
    registry = tmp_path / "registry"
    if not registry.exists():
        shutil.copytree(model, registry / "a" / "v1.0.0")
        write_ensemble(registry / "both" / "v1.0.0", {"a": model})
        (tmp_path / "text").write_text((registry / "both" / "v1.0.0" / "ensemble.json").read_text())
    whole = (tmp_path / "text").read_text()
    (registry / "both" / "v1.0.0" / "ensemble.json").write_bytes(data.draw(mutated(whole)))
    ends_well(lambda: from_pretrained("both@v1.0.0", registry=registry))


def golden_copy(tmp_path):
    """A copy of the folder with the golden card; the examples of one test share it, each writing its file anew."""
    place = tmp_path / "card"
    if not place.exists():
        shutil.copytree(GOLDEN, place)
    return place


@fuzzed(20)
@given(data=st.data())
def test_any_metrics_end_well(tmp_path, data):
    place = golden_copy(tmp_path)
    (place / "metrics.json").write_bytes(data.draw(mutated((GOLDEN / "metrics.json").read_text())))
    ends_well(lambda: render_card(place), lambda: check_card(place))


@fuzzed(20)
@given(data=st.data())
def test_any_split_ends_well(tmp_path, data):
    place = golden_copy(tmp_path)
    (place / "split.json").write_bytes(data.draw(mutated((GOLDEN / "split.json").read_text())))
    ends_well(lambda: render_card(place))


@fuzzed(160)
@given(data=st.data())
def test_any_weights_header_ends_well(model, tmp_path, data):
    blob = (model / "model.safetensors").read_bytes()
    (length,) = struct.unpack("<Q", blob[:8])
    header, body = blob[8 : 8 + length], blob[8 + length :]
    changed = data.draw(mutated(header.decode().strip()))
    stated = data.draw(st.sampled_from([len(changed)] * 6 + [0, 2**40, 2**63, len(changed) + 1]))
    shutil.copy(model / "config.json", tmp_path)
    store_weights(tmp_path, struct.pack("<Q", stated) + changed + data.draw(st.sampled_from([body, body, body[:-1], b""])))
    ends_well(lambda: read_model(tmp_path))
