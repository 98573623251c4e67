"""One folder, three loaders, the same logits: ours, timm's and transformers'."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from timm.data import create_transform, resolve_model_data_config
from torch import nn
from transformers import AutoImageProcessor, AutoModelForImageClassification, pipeline

import lesion_hub
from lesion_hub.hub.format import write_model
from lesion_hub.models import LesionClassifier
from tests.inference.networks import RULES
from tests.marks import one_of_many
from tests.models.test_networks import CLINICAL_HEADS

pytestmark = pytest.mark.slow

TOLERANCE = 1e-4

# Backbones of the recipe table under timm's own classifier, each with the smallest input it takes.
# Relatives of others in the list, and large.
STOOD_FOR = {"efficientnet_b4", "efficientnet_b5", "efficientnet_b7", "resnext101_32x8d", "resnet34", "tf_efficientnet_lite2"}
STOCK = {
    "tf_efficientnet_lite0": 64,
    "tf_efficientnet_lite2": 64,
    "efficientnet_b0": 64,
    "efficientnet_b4": 64,
    "efficientnet_b5": 64,
    "efficientnet_b7": 64,
    "inception_v3": 96,
    "resnet34": 64,
    "resnet50": 64,
    "resnext101_32x8d": 64,
    "densenet121": 64,
    "mobilenetv2_100": 64,
    "vit_tiny_patch16_224": 64,
    "swin_tiny_patch4_window7_224": 224,
}
HEAVY = {"efficientnet_b7", "resnext101_32x8d"}
PREPARATIONS = {
    "half-stored": {"storage": "float16"},
    "own preprocessing": {
        "storage": "float32",
        "image_size": (96, 128),
        "crop_pct": 0.85,
        "mean": (0.7, 0.5, 0.4),
        "std": (0.2, 0.3, 0.25),
        "interpolation": "bilinear",
    },
}


def lively(model: LesionClassifier) -> LesionClassifier:
    """Random statistics and a wide last layer, so that a tensor left at its default shows in the logits."""
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm2d, nn.BatchNorm1d)):
            nn.init.uniform_(module.running_mean, -0.1, 0.1)
            nn.init.uniform_(module.running_var, 0.8, 1.2)
    nn.init.normal_(model.last_layer.weight)
    with torch.no_grad():  # logits of the size that trained networks have, whatever the depth
        logits = model.eval()(torch.rand(4, *model.input_config.input_size))
        model.last_layer.weight.div_(logits.abs().max().clamp(min=1e-3) / 5)
    return model


@pytest.fixture(scope="module")
def photo() -> Image.Image:
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
    return coarse.resize((200, 150), Image.Resampling.BICUBIC)


def written(folder, backbone, *, size=64, space="ham7", storage="float16", image_size=None, **options):
    torch.manual_seed(1)
    model = lively(LesionClassifier.create(backbone, space, image_size=image_size or size, **options))
    write_model(folder, model, storage=storage, rules=RULES if space == "ham7" else None)
    return str(folder)


@torch.no_grad()
def assert_three_loaders_agree(folder: str, photo: Image.Image, **transformers_options) -> None:
    ours = lesion_hub.from_pretrained(folder)
    expected = ours.members[0].logits([photo])

    network = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    transform = create_transform(**resolve_model_data_config(network), is_training=False)
    assert (network(transform(photo)[None]) - expected).abs().max() < TOLERANCE

    processor = AutoImageProcessor.from_pretrained(folder)
    wrapped = AutoModelForImageClassification.from_pretrained(folder, **transformers_options).eval()
    assert (wrapped(**processor(photo)).logits - expected).abs().max() < TOLERANCE
    assert tuple(wrapped.config.id2label.values()) == ours.labels

    ranking = pipeline("image-classification", folder, device="cpu", **transformers_options)(photo, top_k=99)
    assert [entry["label"] for entry in ranking] == [label for label, _ in ours.predict(photo).top(len(ours.labels))]
    assert ranking[0]["score"] == pytest.approx(ours.predict(photo).top(1)[0][1], abs=1e-4)


@pytest.mark.parametrize("backbone", [pytest.param(name, marks=[one_of_many] if name in STOOD_FOR else []) for name in STOCK])
def test_every_backbone_of_the_recipes_agrees(tmp_path, photo, backbone):
    assert_three_loaders_agree(written(tmp_path, backbone, size=STOCK[backbone]), photo)


@pytest.mark.parametrize("preparation", PREPARATIONS)
@pytest.mark.parametrize("backbone", ["mobilenetv2_100", "resnet34", "densenet121", "vit_tiny_patch16_224"])
def test_storage_size_normalisation_and_crop_agree(tmp_path, photo, backbone, preparation):
    assert_three_loaders_agree(written(tmp_path, backbone, **PREPARATIONS[preparation]), photo)


@pytest.mark.parametrize("backbone", CLINICAL_HEADS)
def test_custom_heads_agree_after_importing_our_models(tmp_path, photo, backbone):
    assert_three_loaders_agree(written(tmp_path, backbone, space="clinical6", head=CLINICAL_HEADS[backbone]), photo)


@pytest.mark.parametrize("backbone", ["lesion_alexnet", "lesion_cnn_shallow", "lesion_cnn_deep"])
def test_zoo_networks_agree_after_importing_our_models(tmp_path, photo, backbone):
    assert_three_loaders_agree(written(tmp_path, backbone, space="isic8"), photo)


def test_metadata_networks_agree_without_and_with_metadata(tmp_path, photo):
    folder = written(tmp_path, "resnet18", metadata=True)
    assert_three_loaders_agree(folder, photo)
    ours = lesion_hub.from_pretrained(folder).classifier
    known = lesion_hub.models.encode_metadata([50.0], ["female"], ["back"])
    pixels = ours.transform(photo)[None]
    wrapped = AutoModelForImageClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        expected = ours(pixels, known)
        assert (wrapped(pixels, metadata=known).logits - expected).abs().max() < TOLERANCE
        assert not torch.allclose(expected, ours(pixels))


# ------------------------------------------------------------------------------------------------ without our package

WITHOUT_US = """
    import sys
    class Hide:
        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] == "lesion_hub":
                raise ModuleNotFoundError(name)
    sys.meta_path.insert(0, Hide())
    import json, logging, torch, timm
    from PIL import Image
    from transformers import AutoImageProcessor, AutoModelForImageClassification, pipeline
    logging.disable(logging.ERROR)
    photo = Image.open("photo.png").convert("RGB")

    def refusal(action):
        try:
            action()
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        return None

    answers = {}
    for folder in ("head", "zoo"):
        model = AutoModelForImageClassification.from_pretrained(folder, trust_remote_code=True).eval()
        with torch.no_grad():
            logits = model(**AutoImageProcessor.from_pretrained(folder)(photo)).logits[0].tolist()
        ranking = pipeline("image-classification", folder, trust_remote_code=True)(photo, top_k=99)
        answers[folder] = {"logits": logits, "ranking": [entry["label"] for entry in ranking]}
    print(json.dumps(answers))
"""

REFUSED = """
    import sys
    class Hide:
        def find_spec(self, name, path=None, target=None):
            if name.partition(".")[0] == "lesion_hub":
                raise ModuleNotFoundError(name)
    sys.meta_path.insert(0, Hide())
    import timm
    from transformers import AutoModelForImageClassification
    for load in (
        lambda: AutoModelForImageClassification.from_pretrained("head", trust_remote_code=False),
        lambda: timm.create_model("local-dir:head", pretrained=True),
    ):
        try:
            load()
        except (ImportError, RuntimeError) as error:
            print("refused:", "lesion_net" in str(error))
        else:
            print("loaded")
"""


@pytest.fixture(scope="module")
def custom_folders(tmp_path_factory, photo):
    root = tmp_path_factory.mktemp("custom")
    written(root / "head", "mobilenetv2_100", space="clinical6", head=CLINICAL_HEADS["mobilenetv2_100"])
    written(root / "zoo", "lesion_cnn_deep", space="isic8")
    photo.save(root / "photo.png")
    return root


def run_in(folder, code) -> str:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], cwd=folder, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_transformers_loads_custom_code_where_our_package_is_absent(custom_folders, photo):
    answers = json.loads(run_in(custom_folders, WITHOUT_US).splitlines()[-1])
    for name, answer in answers.items():
        ours = lesion_hub.from_pretrained(custom_folders / name)
        expected = ours.members[0].logits([photo])[0]
        assert (torch.tensor(answer["logits"]) - expected).abs().max() < TOLERANCE
        assert answer["ranking"] == [label for label, _ in ours.predict(photo).top(len(ours.labels))]


def test_without_our_package_or_trust_it_fails_loudly(custom_folders):
    assert run_in(custom_folders, REFUSED).split("\n")[:2] == ["refused: True", "refused: True"]
