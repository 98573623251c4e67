"""A device is found by name, or refused in one line, wherever it is named."""

from __future__ import annotations

import pytest
import torch

import lesion_hub
from lesion_hub.errors import ConfigError
from lesion_hub.inference.device import find_device
from tests.hub.publishable import write_folder
from tests.inference.networks import predictor

GPU = torch.cuda.is_available() or torch.backends.mps.is_available()


def test_auto_is_the_cpu_where_there_is_no_gpu():
    assert (find_device("auto").type == "cpu") != GPU


@pytest.mark.parametrize(
    ("name", "told"),
    [
        pytest.param(
            "cuda", "cuda: not available here; use device='cpu' or 'auto'", marks=pytest.mark.skipif(GPU, reason="a GPU")
        ),
        ("cuda:99", "cuda:99: not available here"),
        ("meta", "meta: not available here"),
        ("gpu", "gpu: is no device; use 'cpu', 'cuda'"),
    ],
)
def test_a_device_that_is_not_there_is_one_line_everywhere(tmp_path, name, told):
    for use in (find_device, predictor().to, lambda device: lesion_hub.from_pretrained(tmp_path / "absent", device=device)):
        with pytest.raises(ConfigError) as caught:
            use(name)
        assert told in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_model_loads_onto_the_device_that_auto_finds(tmp_path):
    model = lesion_hub.from_pretrained(write_folder(tmp_path), device="auto")
    assert model.classifier.device.type == find_device("auto").type
