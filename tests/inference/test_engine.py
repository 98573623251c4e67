"""The fused engine gives the network's own answers, and where it cannot be had one line says why."""

from __future__ import annotations

import hashlib
import json
import logging
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from lesion_hub.config import ENGINE_VARIABLE
from lesion_hub.errors import ConfigError, StoreError
from lesion_hub.hub import store
from lesion_hub.hub.layout import CONFIG_NAME, WEIGHTS_NAME
from lesion_hub.inference import from_pretrained
from lesion_hub.inference.attribution import METHODS
from tests.hub.publishable import CARD, TRAINING, write_papers
from tests.inference.networks import classifier, picture

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from lesion_hub.hub.format import write_model  # noqa: E402

GRAPH = "model.onnx"


def write_folder(folder, backbone="lesion_cnn_shallow", **options):
    write_model(folder, classifier(backbone, **options), training=TRAINING, temperature=1.0)
    write_papers(folder, 0, "cc-by-nc-4.0")
    return folder


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    """A version in a registry, with its graph."""
    place = tmp_path_factory.mktemp("engine")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv(ENGINE_VARIABLE)
        store.publish(write_folder(place / "run"), "small", version="1.0.0", notes="First", registry=place / "registry")
    return place / "registry" / "small" / "v1.0.0"


def copied(published, tmp_path):
    return store.pull("small", to=tmp_path / "copy", registry=published.parents[1]).folder


def images(count=3):
    return [picture(seed=i) for i in range(count)]


def rows(predictions):
    return np.array([list(prediction.probabilities.values()) for prediction in predictions])


def test_prediction_and_maps_are_those_of_torch(published):
    fused, torch = (from_pretrained(published, engine=engine) for engine in ("onnx", "torch"))
    assert fused.members[0].running and not torch.members[0].running
    plain = rows(fused.predict(images(), tta=2))
    for method in METHODS:
        explained, reference = (model.predict(images(), explain=method, tta=2) for model in (fused, torch))
        assert (rows(explained) == plain).all(), method
        np.testing.assert_allclose(rows(reference), plain, atol=1e-4)
        for one, other in zip(explained, reference, strict=True):
            np.testing.assert_allclose(one.heat, other.heat, atol=1e-3, err_msg=method)
