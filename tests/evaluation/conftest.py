"""A synthetic data set, and small random models that say which of its images they were made with."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lesion_hub.config import DataSource, EnsembleConfig, EnsembleMember, OperatingPoint, Training, dump_json, load_model_config
from lesion_hub.data.sources import ReadResult, read
from lesion_hub.data.splits import SplitImages, SplitManifest, SplitOptions, split_images
from lesion_hub.data.splits.manifest import PartRecord, describe_parts
from lesion_hub.data.synthetic import SampleSpec, write_sample_set
from lesion_hub.hub import store
from lesion_hub.hub.format import fold_temperature, write_model
from lesion_hub.hub.registry import Registries
from lesion_hub.models import LesionClassifier
from lesion_hub.taxonomy import label_space

torch.set_num_threads(1)

POINT = OperatingPoint(threshold=0.4, metric="sensitivity", target=0.9)


@pytest.fixture(scope="session")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a balanced synthetic set of 60 images."""
    root = tmp_path_factory.mktemp("evaluation") / "samples"
    write_sample_set(root, SampleSpec(space="ham7", count=60, size=48, balanced=True, artefacts=False))
    return root


@pytest.fixture(scope="session")
def data(samples: Path) -> ReadResult:
    return read(samples)


@pytest.fixture(scope="session")
def manifest(data: ReadResult) -> SplitManifest:
    """Halves by lesion: train, and test with a fifth of the rest as validation."""
    return split_images(SplitImages.of(data), SplitOptions((0.5, 0.15, 0.35), allow_absent=True))


@pytest.fixture(scope="session")
def make_model(tmp_path_factory: pytest.TempPathFactory, data: ReadResult, manifest: SplitManifest) -> Callable[..., Path]:
    """``make_model("a", seed=1)``: a new folder with a random network, made with the train part of ``data``, no results."""

    def make(name: str = "model", seed: int = 0, temperature: float | None = 2.0, records: bool = True) -> Path:
        torch.manual_seed(seed)
        classifier = LesionClassifier.create("lesion_cnn_shallow", "ham7", image_size=32).eval()
        with torch.no_grad():
            classifier.last_layer.weight.mul_(30)  # random networks are unsure of everything
        fold_temperature(classifier, temperature or 1.0)
        folder = tmp_path_factory.mktemp("models") / name
        source = DataSource(name="synthetic lesions", license="cc0-1.0", images=len(data.dataset))
        training = Training(recipe="tiny", data=(source,), split_hash=manifest.hash)
        write_model(folder, classifier, training=training, temperature=temperature, operating_points={"sensitivity_90": POINT})
        record = describe_parts(parts_of(data, manifest)) if records else {}
        (folder / "split.json").write_text(json.dumps({**manifest.describe(), **record}))
        return folder

    return make


@pytest.fixture
def registry(make_model: Callable[..., Path], tmp_path: Path) -> Path:
    """A registry with two models, a and b."""
    root = tmp_path / "registry"
    for name, seed in (("a", 1), ("b", 2)):
        folder = make_model(name, seed=seed)
        (folder / "README.md").write_text("---\nlicense: cc0-1.0\n---\n")
        (folder / "metrics.json").write_text("{}")
        store.publish(folder, name, version="1.0.0", notes="First.", registry=root)
    return root


@pytest.fixture
def pair(registry: Path, tmp_path: Path) -> Path:
    """The folder of an ensemble of a and b, unpublished."""
    folders = {name: Registries(registry).fetch(name)[0] for name in ("a", "b")}
    config = EnsembleConfig(
        label_space="ham7",
        label_names=label_space("ham7").labels,
        members=tuple(
            EnsembleMember(name=name, revision="v1.0.0", weights_sha256=load_model_config(place).lesion_hub.weights_sha256)
            for name, place in folders.items()
        ),
        weights=(0.5, 0.5),
    )
    folder = tmp_path / "pair"
    folder.mkdir()
    (folder / "ensemble.json").write_text(dump_json(config))
    return folder


def parts_of(data: ReadResult, manifest: SplitManifest) -> dict[str, PartRecord]:
    ids, groups = list(data.dataset["image_id"][:]), list(data.dataset["group"][:])
    return {
        part: PartRecord.of(*zip(*((ids[row], groups[row]) for row in manifest.rows(ids, part)), strict=True))
        for part in manifest.parts
    }
