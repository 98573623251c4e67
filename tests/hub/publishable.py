"""Small models in publishable folders, attempts to publish them, and what every refusal must look like."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from lesion_hub.config import DataSource, EnsembleConfig, EnsembleMember, Training, dump_json
from lesion_hub.errors import LesionHubError
from lesion_hub.hub import store
from lesion_hub.hub.format import read_model, write_model
from lesion_hub.inference import Predictor
from lesion_hub.models import LesionClassifier

CARD = "---\nlicense: {licence}\nlibrary_name: timm\n---\n\n# A model for tests, seed {seed}\n"
TRAINING = Training(recipe="test", data=(DataSource(name="HAM10000", license="cc-by-nc-4.0"),))


def write_folder(
    folder: Path,
    seed: int = 0,
    *,
    backbone: str = "lesion_cnn_shallow",
    licence: str = "cc-by-nc-4.0",
    plots: tuple[str, ...] = (),
) -> Path:
    """A folder with a random network and all else that a published repo holds."""
    torch.manual_seed(seed)
    classifier = LesionClassifier.create(backbone, "ham7", image_size=32).eval()
    write_model(folder, classifier, training=TRAINING, temperature=1.0)
    write_papers(folder, seed, licence)
    for name in plots:
        (folder / "plots").mkdir(exist_ok=True)
        (folder / "plots" / name).write_bytes(b"\x89PNG\r\n\x1a\n\0" + bytes([seed]))
    return folder


def write_ensemble(folder: Path, members: dict[str, Path], *, licence: str = "cc-by-nc-4.0") -> Path:
    """An ensemble of {name: model folder}, all of them v1.0.0."""
    pinned = tuple(
        EnsembleMember(name=name, revision="v1.0.0", weights_sha256=read_model(place)[1].lesion_hub.weights_sha256)
        for name, place in members.items()
    )
    space = read_model(next(iter(members.values())))[0].space
    share = 1 / len(pinned)
    config = EnsembleConfig(
        label_space=space.name, label_names=space.labels, members=pinned, weights=tuple(share for _ in pinned)
    )
    folder.mkdir(parents=True)
    (folder / "ensemble.json").write_text(dump_json(config))
    write_papers(folder, 0, licence)
    return folder


def write_papers(folder: Path, seed: int, licence: str) -> None:
    (folder / "README.md").write_text(CARD.format(licence=licence, seed=seed))
    (folder / "metrics.json").write_text(json.dumps({"seed": seed}))
    (folder / "split.json").write_text(json.dumps({"sha256": "0" * 64}))


def holds_weights_of(predictor: Predictor, folder: Path) -> bool:
    """Whether a loaded model has exactly the weights of the folder that was published."""
    theirs, ours = predictor.classifier.network.state_dict(), read_model(folder)[0].network.state_dict()
    return theirs.keys() == ours.keys() and all(torch.equal(theirs[key], ours[key]) for key in ours)


def attempt(folder: Path, name: str, version: str, registry: Path | None = None) -> str:
    """Publish from another process: "published", or the line of the refusal."""
    try:
        store.publish(folder, name, version=version, notes=f"Notes of {version}.", registry=registry, token="hf_test")
    except LesionHubError as error:
        return str(error)
    return "published"


def is_one_line(text: str) -> bool:
    """One line without anything that looks like a token."""
    return "\n" not in text and not re.search(r"hf_[a-z]|[Bb]earer", text)


@contextmanager
def refused(*words: str) -> Iterator[None]:
    """The block raises a LesionHubError of one line that holds each of ``words``."""
    with pytest.raises(LesionHubError) as caught:
        yield
    text = str(caught.value)
    assert is_one_line(text), text
    assert all(word in text for word in words), text
