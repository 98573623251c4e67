"""A network that our trainer never saw: taken over, calibrated, measured, published, and loaded by everybody alike."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
from timm.data import create_transform, resolve_model_data_config
from timm.models import _registry
from transformers import AutoImageProcessor, AutoModelForImageClassification

import lesion_hub
from lesion_hub.data.sources import read
from lesion_hub.data.splits import SplitImages, SplitOptions, split_images
from lesion_hub.data.synthetic import SampleSpec, write_sample_set
from lesion_hub.evaluation import run
from lesion_hub.evaluation.calibration import calibrate_run
from lesion_hub.hub.card import write_card
from lesion_hub.hub.card_check import check_card
from lesion_hub.hub.trained_elsewhere import record_training_data
from tests.hub.publishable import refused
from tests.inference.networks import picture

SIZE = 64
UNKNOWN = "cannot be excluded"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    root = tmp_path_factory.mktemp("elsewhere") / "samples"
    write_sample_set(root, SampleSpec(space="ham7", count=60, size=48, balanced=True, artefacts=False))
    return read(root)


@pytest.fixture(scope="module")
def manifest(data, tmp_path_factory):
    path = tmp_path_factory.mktemp("split") / "manifest.json"
    split_images(SplitImages.of(data), SplitOptions((0.5, 0.2, 0.3), allow_absent=True)).save(path)
    return path


@pytest.fixture(scope="module")
def trained(data, manifest):
    """Ten lines of plain PyTorch; the classes are in ImageFolder's order, by name."""
    torch.manual_seed(0)
    classes = sorted(data.space.labels)
    network = timm.create_model("test_resnet", num_classes=len(classes))
    transform = create_transform((3, SIZE, SIZE), is_training=False, crop_pct=1.0)
    part = json.loads(manifest.read_text())
    train = {name for name, _, _, place in part["images"] if part["parts"][place] == "train"}
    rows = [row for row in data.dataset if row["image_id"] in train]
    images = torch.stack([transform(row["image"].convert("RGB")) for row in rows])
    labels = torch.tensor([classes.index(data.space.labels[row["label"]]) for row in rows])
    optimiser = torch.optim.Adam(network.parameters(), lr=3e-3)
    for _ in range(6):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(network(images), labels).backward()
        optimiser.step()
    return network.eval(), classes


def finished(folder: Path, data, manifest: Path) -> str:
    """Calibrate, evaluate and record, write and check the card; return its text."""
    calibrate_run(folder, data.report.place, manifest=manifest)
    run.record(run.evaluate(folder, data, out=folder.with_name("evaluation"), manifest=manifest, resamples=50))
    write_card(folder, name="user/elsewhere")
    check_card(folder)
    return (folder / "README.md").read_text()


def publishable(folder: Path) -> Path:
    """Say that the model in ``folder`` is calibrated."""
    config = json.loads((folder / "config.json").read_text())
    config["lesion_hub"]["temperature"] = 1.0
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@torch.no_grad()
def logits_of_timm(name: str, image) -> torch.Tensor:
    network = timm.create_model(name, pretrained=True).eval()
    return network(create_transform(**resolve_model_data_config(network), is_training=False)(image)[None])


@torch.no_grad()
def logits_of_transformers(name: str, image, **options) -> torch.Tensor:
    network = AutoModelForImageClassification.from_pretrained(name, **options).eval()
    revision = {key: value for key, value in options.items() if key == "revision"}
    return network(**AutoImageProcessor.from_pretrained(name, **revision)(image)).logits


@pytest.mark.slow
def test_a_network_of_plain_pytorch_goes_all_the_way(tmp_path, data, manifest, trained, hub, fresh_cache):
    network, classes = trained
    model = lesion_hub.from_network(network, classes, image_size=SIZE, interpolation="bilinear")
    image = picture()
    with torch.no_grad():
        theirs = network(model.classifier.transform(image)[None]).softmax(1)[0]
    assert model.predict(image).probabilities == pytest.approx(dict(zip(classes, theirs.tolist(), strict=True)), abs=1e-5)
    folder = model.save_pretrained(
        tmp_path / "mine", licence="cc0-1.0", training_data="synthetic lesions, half of them", split=manifest
    )
    with refused("already; copy that", "push_to_hub"):
        model.save_pretrained(tmp_path / "again", licence="cc0-1.0")
    with refused("is not calibrated"):
        model.push_to_hub("mine", version="1.0.0", notes="First.", registry=tmp_path / "registry")
    card = finished(folder, data, manifest)
    assert UNKNOWN not in card
    assert "synthetic lesions, half of them" in card
    assert "Trained outside lesion-hub" in card

    found = lesion_hub.from_pretrained(folder)
    found.push_to_hub("mine", version="1.0.0", notes="First.", registry=tmp_path / "registry")
    found.push_to_hub("user/elsewhere", version="1.0.0", notes="First.")
    fresh_cache()
    expected = found.members[0].logits([image])
    for name, options in (("mine", {"registry": tmp_path / "registry"}), ("user/elsewhere", {})):
        assert torch.equal(lesion_hub.from_pretrained(name, **options).members[0].logits([image]), expected)
    assert (logits_of_timm("hf-hub:user/elsewhere@v1.0.0", image) - expected).abs().max() < 1e-4
    assert (logits_of_transformers("user/elsewhere", image, revision="v1.0.0") - expected).abs().max() < 1e-4


@pytest.mark.slow
def test_a_card_says_that_overlap_cannot_be_excluded_where_the_split_is_unknown(tmp_path, data, manifest, trained):
    model = lesion_hub.from_network(trained[0], trained[1], image_size=SIZE)
    folder = model.save_pretrained(tmp_path / "mine", licence="cc-by-nc-4.0")
    assert UNKNOWN in finished(folder, data, manifest)


def test_what_the_weights_saw_is_recorded_once(tmp_path, trained):
    folder = lesion_hub.from_network(trained[0], trained[1], image_size=SIZE).save_pretrained(tmp_path / "m", licence="mit")
    record_training_data(folder, "a clinic's own images", "cc-by-nc-4.0")
    assert lesion_hub.info(folder).licence == "mit"
    with refused("recorded already (a clinic's own images)"):
        record_training_data(folder, "nothing", "mit")
    with refused("licence mit drops", "non-commercial"):
        lesion_hub.publish(publishable(folder), "m", version="1.0.0", notes="First.", registry=tmp_path / "registry")


# ------------------------------------------------------------------------------------------------ code of one's own

OWN = """
from timm.models import build_model_with_cfg, register_model
from torch import nn


class Tiny(nn.Module):
    def __init__(self, num_classes=1000, in_chans=3, width=8, global_pool="avg"):
        super().__init__()
        self.num_classes, self.num_features = num_classes, width
        self.features = nn.Sequential(nn.Conv2d(in_chans, width, 3, stride=2), nn.ReLU())
        self.classifier = nn.Linear(width, num_classes)

    def forward_features(self, x):
        return self.features(x)

    def forward_head(self, x, pre_logits=False):
        x = x.mean((2, 3))
        return x if pre_logits else self.classifier(x)

    def forward(self, x):
        return self.forward_head(self.forward_features(x))

    def get_classifier(self):
        return self.classifier


@register_model
def tiny_of_mine(pretrained=False, **kwargs):
    return build_model_with_cfg(Tiny, "tiny_of_mine", pretrained, **kwargs)
"""


@pytest.fixture
def own_module(tmp_path, monkeypatch):
    """The source of a network of one's own, imported as ``tiny_module``."""
    (tmp_path / "tiny_module.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tiny_module", raising=False)
    import tiny_module

    yield tiny_module
    sys.modules.pop("tiny_module", None)
    # Nothing takes a network out of timm's registry again, and other tests list what is in it.
    for name in _registry._module_to_models.pop("tiny_module", ()):
        _registry._model_to_module.pop(name, None)
        _registry._model_entrypoints.pop(name, None)


def test_code_of_ones_own_travels_as_source(tmp_path, own_module):
    torch.manual_seed(0)
    network = timm.create_model("tiny_of_mine", num_classes=2, width=6)
    with refused("tiny_of_mine", "model_args"):
        lesion_hub.from_network(network, ["benign", "malignant"], image_size=32)
    options = {"image_size": 32, "model_args": {"width": 6}}
    model = lesion_hub.from_network(network, ["benign", "malignant"], **options)
    folder = publishable(model.save_pretrained(tmp_path / "mine", licence="mit"))
    (folder / "modeling_lesion.py").write_text("import os")  # what is published is the code that the weights fit
    root = tmp_path / "registry"
    lesion_hub.publish(folder, "mine", version="1.0.0", notes="First.", registry=root)
    source = (root / "mine" / "v1.0.0" / "modeling_lesion.py").read_text()
    assert source.startswith(OWN)
    image = picture()
    expected = model.members[0].logits([image])
    assert torch.equal(lesion_hub.from_pretrained("mine", registry=root).members[0].logits([image]), expected)
    alone = logits_of_transformers(str(root / "mine" / "v1.0.0"), image, trust_remote_code=True)
    assert (alone - expected).abs().max() < 1e-4
    # Where its module is not imported the network is not known, and no file of the repo is run to find it.
    code = f"import lesion_hub; lesion_hub.from_pretrained('mine', registry={str(root)!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "unknown architecture 'tiny_of_mine'" in done.stderr
    assert "module that registers it with timm is imported" in done.stderr


@pytest.mark.slow
def test_the_command_imports_the_module_that_it_is_told_to(tmp_path, own_module):
    from tests.cli.runner import run as command

    network = timm.create_model("tiny_of_mine", num_classes=2)
    model = lesion_hub.from_network(network, ["benign", "malignant"], image_size=32)
    folder = model.save_pretrained(tmp_path / "mine", licence="mit")
    picture().save(tmp_path / "mole.png")
    arguments = ("predict", tmp_path / "mole.png", "--model", folder)
    told = command("--import", "tiny_module", *arguments, PYTHONPATH=str(tmp_path))
    assert "benign" in told.stdout
    assert "No module named 'absent'" in command("--import", "absent", *arguments, ok=False).stderr
