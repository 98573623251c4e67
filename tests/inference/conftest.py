"""What several tests of this package share."""

from __future__ import annotations

import pytest
import torch
from PIL import Image
from torch import nn

from lesion_hub.inference import Predictor
from lesion_hub.models import LesionClassifier
from lesion_hub.models.networks import LesionCNN
from tests.inference.networks import IMAGES, SIDE, picture, planted


@pytest.fixture(scope="session")
def patch_finder() -> Predictor:
    """A small network trained to say "malignant" where stripes are."""
    torch.manual_seed(0)
    template = LesionClassifier.create("lesion_cnn_shallow", "binary", image_size=SIDE)
    network = LesionCNN(widths=(16, 16), grid=1, hidden=(), norm=True, num_classes=2, drop_rate=0.0)
    model = LesionClassifier(network, template.space, "lesion_cnn_shallow", template.input_config)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
    for step in range(40):
        truth = torch.arange(16) % 2
        pictures = [Image.fromarray(planted(step * 16 + i, bool(truth[i]))[0]) for i in range(16)]
        loss = nn.functional.cross_entropy(model(torch.stack([model.transform(p) for p in pictures])), truth)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss < 0.1, "the network did not learn; the test would say nothing"
    return Predictor.of(model)


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Write 21 images in sub-folders, of which two cannot be read, and a file that is no image."""
    root = tmp_path_factory.mktemp("images")
    for i in range(IMAGES):
        place = root / f"part{i % 2}"
        place.mkdir(exist_ok=True)
        picture(20, 24, seed=i).save(place / f"{i:03}.jpg")
    (root / "part0" / "004.jpg").write_bytes(b"")
    (root / "part1" / "007.jpg").write_text("no image")
    (root / "notes.txt").write_text("nothing")
    return root
