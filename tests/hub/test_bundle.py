"""An ensemble whose members' weights travel with it: one network for everybody, with the Predictor's answers."""

from __future__ import annotations

import json

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import load_file, save_file
from timm.data import create_transform, resolve_model_data_config
from transformers import AutoImageProcessor, AutoModelForImageClassification, pipeline

import lesion_hub
from lesion_hub.config import load_ensemble_config
from lesion_hub.errors import ConfigError
from lesion_hub.files import sha256_of
from lesion_hub.hub import store
from lesion_hub.hub.bundle import write_ensemble
from lesion_hub.hub.format import write_model
from lesion_hub.hub.layout import publishable_files
from lesion_hub.hub.space import plan_space
from lesion_hub.inference.ensemble import create_ensemble
from tests.hub.publishable import TRAINING, refused
from tests.inference.networks import classifier, picture

ALIKE = 1e-5
"""What a probability may differ by where the members see images alike: the precision of float32."""
RESIZED = 2e-2
"""And where some resize the image a second time, for these random networks."""


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    """a and b see images alike but for their normalisation and labels, c sees larger ones, d squashed ones."""
    root = tmp_path_factory.mktemp("registry")
    own = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.25, 0.3)}
    members = {
        "a": classifier("lesion_cnn_shallow", "ham7", 0, 32),
        "b": classifier("lesion_cnn_deep", "isic9", 1, 32, **own),
        "c": classifier("lesion_cnn_shallow", "ham7", 2, 48, crop_pct=0.875),
        "d": classifier("lesion_cnn_shallow", "ham7", 3, 32, crop_mode="squash"),
    }
    for name, member in members.items():
        folder = tmp_path_factory.mktemp("run") / name
        write_model(folder, member, training=TRAINING, temperature=1.0)
        papers(folder)
        store.publish(folder, name, version="1.0.0", notes="First.", registry=root)
    return root


def papers(folder):
    (folder / "README.md").write_text("---\nlicense: cc-by-nc-4.0\n---\n\n# A model\n")
    (folder / "metrics.json").write_text("{}")
    (folder / "split.json").write_text("{}")


def make(registry, folder, members=("a", "b"), **options):
    options = {"weights": [0.3, 0.7], "temperature": 0.8, **options}
    create_ensemble(folder, members, bundle=True, registry=registry, **options)
    return folder


@torch.no_grad()
def elsewhere(folder, image):
    """{how: probabilities} of transformers' model and pipeline, and of timm."""
    network = AutoModelForImageClassification.from_pretrained(folder, trust_remote_code=True).eval()
    logits = network(**AutoImageProcessor.from_pretrained(folder)(image)).logits[0]
    ranking = pipeline("image-classification", str(folder), trust_remote_code=True, device="cpu")(image, top_k=99)
    scores = {entry["label"]: entry["score"] for entry in ranking}
    bare = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    pixels = create_transform(**resolve_model_data_config(bare), is_training=False)(image)[None]
    return {
        "transformers": logits.softmax(0).numpy(),
        "pipeline": np.array([scores[label] for label in network.config.id2label.values()]),
        "timm": bare(pixels)[0].softmax(0).numpy(),
    }


@pytest.mark.slow
@pytest.mark.parametrize("combine", ["probabilities", "logits"])
def test_everybody_gets_the_predictors_probabilities(registry, tmp_path, combine):
    folder = make(registry, tmp_path / "pair", combine=combine)
    image = picture(90, 120)
    ours = list(lesion_hub.from_pretrained(folder).predict(image).probabilities.values())
    for how, theirs in elsewhere(folder, image).items():
        np.testing.assert_allclose(theirs, ours, atol=ALIKE, err_msg=how)


@pytest.mark.slow
def test_members_of_other_sizes_make_their_input_of_the_same_image(registry, tmp_path):
    folder = make(registry, tmp_path / "pair", members=("a", "c"))
    image = picture(90, 120)
    ours = list(lesion_hub.from_pretrained(folder).predict(image).probabilities.values())
    assert json.loads((folder / "config.json").read_text())["pretrained_cfg"]["input_size"] == [3, 54, 54]
    for how, theirs in elsewhere(folder, image).items():
        np.testing.assert_allclose(theirs, ours, atol=RESIZED, err_msg=how)


def test_our_loader_needs_no_member_and_gives_the_same_as_with_them(registry, tmp_path):
    bundled = make(registry, tmp_path / "bundled")
    create_ensemble(tmp_path / "apart", ["a", "b"], weights=[0.3, 0.7], temperature=0.8, registry=registry)
    apart = lesion_hub.from_pretrained(tmp_path / "apart", registry=registry).predict(picture())
    alone = lesion_hub.from_pretrained(bundled, registry=tmp_path / "nowhere").predict(picture(), explain="gradcam")
    assert alone.probabilities == apart.probabilities
    assert alone.members == apart.members
    assert alone.explanation is not None


def test_it_is_published_whole_and_again_without_its_members_at_hand(registry, tmp_path):
    folder = make(registry, tmp_path / "pair")
    store.publish(folder, "pair", version="1.0.0", notes="First.", registry=registry)
    there = registry / "pair" / "v1.0.0"
    assert {"ensemble.json", "config.json", "model.safetensors", "modeling_lesion.py"} <= {
        path.name for path in there.iterdir()
    }
    copy = store.pull("pair", to=tmp_path / "copy", registry=registry).folder
    assert lesion_hub.from_pretrained(copy, registry=tmp_path / "nowhere").labels == lesion_hub.label_space("ham7").labels


def test_its_members_are_not_looked_for_where_it_is_published(registry, tmp_path):
    folder, elsewhere = make(registry, tmp_path / "pair"), tmp_path / "elsewhere"
    store.publish(folder, "pair", version="1.0.0", notes="First.", registry=elsewhere)
    assert len(lesion_hub.from_pretrained("pair", registry=elsewhere).members) == 2


def test_it_is_bound_by_the_data_of_its_members(registry, tmp_path):
    folder = make(registry, tmp_path / "pair")
    write_ensemble(folder, load_ensemble_config(folder).model_copy(update={"training": None}))
    (folder / "README.md").write_text("---\nlicense: mit\n---\n\n# A model\n")
    with refused("mit", "HAM10000"):
        store.publish(folder, "pair", version="1.0.0", notes="First.", registry=tmp_path / "elsewhere")


def test_a_space_carries_its_weights_once(registry, tmp_path):
    store.publish(make(registry, tmp_path / "duo"), "duo", version="1.0.0", notes="First.", registry=registry)
    plan_space("org/skin", ["duo"], hardware="cpu-basic", registry=registry).write(tmp_path / "space")
    carried = tmp_path / "space" / "registry"
    assert [path.parent.parent.name for path in carried.rglob("*.safetensors")] == ["duo"]
    assert len(lesion_hub.from_pretrained("duo", registry=carried).members) == 2


def test_without_the_option_nothing_new_is_in_the_folder(registry, tmp_path):
    create_ensemble(tmp_path / "pair", ["a", "b"], registry=registry)
    assert {path.name for path in (tmp_path / "pair").iterdir()} == {"README.md", "metrics.json", "split.json", "ensemble.json"}
    assert "weights_sha256" not in json.loads((tmp_path / "pair" / "ensemble.json").read_text())
    assert "config.json" not in publishable_files(tmp_path / "pair")


def test_a_new_temperature_reaches_every_loader(registry, tmp_path):
    folder = make(registry, tmp_path / "pair")
    write_ensemble(folder, load_ensemble_config(folder).model_copy(update={"temperature": 2.5}))
    assert json.loads((folder / "config.json").read_text())["model_args"]["temperature"] == 2.5
    lesion_hub.from_pretrained(folder)


def test_what_was_exchanged_is_refused(registry, tmp_path):
    folder = make(registry, tmp_path / "pair")
    config, pinned = folder / "config.json", folder / "ensemble.json"
    kept = config.read_text()
    config.write_text(kept.replace('"temperature": 0.8', '"temperature": 0.1'))
    with refused("config.json does not say what ensemble.json says"):
        lesion_hub.from_pretrained(folder)
    config.write_text(kept)
    digest = load_ensemble_config(folder).members[0].weights_sha256
    pinned_text = pinned.read_text()
    pinned.write_text(pinned_text.replace(digest, "0" * 64))
    with refused("does not say what"):
        lesion_hub.from_pretrained(folder)
    pinned.write_text(pinned_text)
    weights = load_file(folder / "model.safetensors")
    weights[next(iter(weights))] += 1
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with refused("sha256"):
        lesion_hub.from_pretrained(folder)
    with refused("sha256"):
        store.publish(folder, "other", version="1.0.0", notes="First.", registry=registry)


def test_a_tensor_too_many_is_refused_even_if_both_configs_vouch_for_it(registry, tmp_path):
    folder = make(registry, tmp_path / "pair")
    before = sha256_of(folder / "model.safetensors")
    weights = load_file(folder / "model.safetensors") | {"members.9.weight": torch.zeros(1)}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    for name in ("config.json", "ensemble.json"):
        text = (folder / name).read_text().replace(before, sha256_of(folder / "model.safetensors"))
        (folder / name).write_text(text)
    with refused("members.9.weight, of no member"):
        lesion_hub.from_pretrained(folder)


def test_members_that_share_no_input_are_one_line_and_leave_no_folder(registry, tmp_path):
    with pytest.raises(ConfigError, match=r"differently \(center and squash\)"):
        make(registry, tmp_path / "pair", members=("a", "d"))
    assert not (tmp_path / "pair").exists()
