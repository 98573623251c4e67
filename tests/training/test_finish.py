"""The end of a run measures and calibrates in the labels that the model was trained with, in their order."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from lesion_hub.data.sources import read
from lesion_hub.errors import DataError
from lesion_hub.models import LesionClassifier
from lesion_hub.training.data import Part
from lesion_hub.training.finish import fold_temperature_in, score_part
from tests.inference.networks import picture

FOLDERS = ("bcc", "bkl", "mel", "nv")


@pytest.fixture(scope="module")
def validation(tmp_path_factory):
    """Forty images in folders of known diagnoses that are no label space of that name."""
    root = tmp_path_factory.mktemp("folders")
    for i in range(40):
        place = root / FOLDERS[i % 4]
        place.mkdir(exist_ok=True)
        picture(32, 32, seed=i).save(place / f"{i:02}.png")
    data = read(root)
    own = data.dataset
    labels = np.asarray(own["label"][:], dtype=np.int64)
    names = tuple(own["image_id"][:])
    return Part("validation", list(names), labels, names, names, data.space, own)


def test_folders_of_known_diagnoses_are_measured_in_their_own_order(validation):
    torch.manual_seed(0)
    classifier = LesionClassifier.create("lesion_cnn_shallow", validation.space, image_size=32).eval()
    scored = score_part(classifier, validation)
    assert scored.space.labels == FOLDERS == classifier.labels
    assert scored.labels.tolist() == validation.labels.tolist()
    expected = torch.softmax(classifier(classifier.transform(validation.dataset[0]["image"])[None]), dim=1)
    assert scored.probabilities[0] == pytest.approx(expected[0].detach().numpy(), abs=1e-4)


def test_a_temperature_that_no_validation_part_supports_is_an_error_unless_that_is_a_handful(validation, caplog):
    torch.manual_seed(0)
    classifier = LesionClassifier.create("lesion_cnn_shallow", validation.space, image_size=32).eval()
    with torch.no_grad():
        classifier.last_layer.weight.mul_(100)
    scored = score_part(classifier, validation)
    wrong = type(scored)(scored.probabilities, scored.probabilities.argmin(axis=1), scored.space, scored.facts)
    with pytest.raises(DataError, match="labels are right"):
        fold_temperature_in(classifier, wrong)
    few = type(scored)(wrong.probabilities[:8], wrong.labels[:8], scored.space, scored.facts[:8])
    assert fold_temperature_in(classifier, few) == 1.0
    assert "the temperature stays 1" in caplog.text
