from __future__ import annotations

import numpy as np
import pytest
import torch

from lesion_hub.data.artefacts import ARTEFACTS, artefact_layer, blend
from tests.training.augmentation.examples import (
    photos_of,
)
from training.augmentation import AugmentationOptions
from training.augmentation.overlays import ArtefactBank, erase


def test_an_erased_box_is_empty_and_the_rest_untouched():
    images = torch.rand(3, 3, 20, 10) + 1
    before = images.clone()
    erased = erase(images, np.array([[0.25, 0.5, 0.75, 1.0], [0, 0, 0, 0], [0, 0, 1, 1]], np.float32))
    assert (erased[0, :, 5:15, 5:] == 0).all() and (erased[0] == 0).sum() == 3 * 50
    assert torch.equal(erased[1], before[1]) and (erased[2] == 0).all()


@pytest.mark.parametrize("kind", sorted(ARTEFACTS))
def test_artefacts_are_the_very_layers_of_the_evaluation(kind):
    options = AugmentationOptions(artefacts={kind: 1.0}, artefact_layers=2, artefact_severity=(3, 3))
    bank = ArtefactBank(options, (40, 48), seed=5, device=torch.device("cpu"))
    photos = photos_of(3, 40, 48)
    ours = bank.lay_over(photos.permute(0, 3, 1, 2).float(), {kind: np.array([1, -1, 0])}).permute(0, 2, 3, 1)
    for i, number in ((0, 1), (2, 0)):
        expected = blend(photos[i].numpy(), artefact_layer(kind, (48, 40), 3, 5 * 2 + number))
        assert np.abs(ours[i].numpy() - expected).max() <= 1.5
    assert torch.equal(ours[1], photos[1].float())
