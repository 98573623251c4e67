"""Two models are compared on the same images, in pairs."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from lesion_hub.errors import ConfigError, DataError
from lesion_hub.evaluation import metrics
from lesion_hub.evaluation.comparison import compare, compare_scored
from lesion_hub.evaluation.scoring import Scored
from lesion_hub.taxonomy import label_space

BINARY = label_space("binary")
COUNT = 80


def scored(right: np.ndarray, images_per_lesion: int = 1) -> Scored:
    labels = np.arange(COUNT) % 2
    malignant = np.where(right == (labels == 1), 0.8, 0.2)
    facts = pd.DataFrame(
        {
            "image_id": [f"i{i}" for i in range(COUNT)],
            "group": [f"g{i // images_per_lesion}" for i in range(COUNT)],
            "sex": ["male", "female"] * 20 + ["female", "male"] * 20,
            **{name: [None] * COUNT for name in ("age", "site", "source", "skin_tone")},
            "width": [64] * COUNT,
            "height": [48] * COUNT,
        }
    )
    return Scored(np.stack([1 - malignant, malignant], axis=1), labels, BINARY, facts)


BETTER = scored(np.arange(COUNT) % 10 != 0)
WORSE = scored(np.arange(COUNT) % 4 != 0)


def test_a_difference_is_that_of_the_two_measures():
    found = compare_scored(BETTER, WORSE, resamples=100)
    for name in ("accuracy", "brier", "malignancy.auroc"):
        one, two = (metrics.flatten(metrics.compute(s.probabilities, s.labels, BINARY))[name] for s in (BETTER, WORSE))
        assert found["differences"][name]["value"] == pytest.approx(one - two)
    assert found["differences"]["accuracy"]["low"] > 0


def test_a_model_does_not_differ_from_itself():
    found = compare_scored(BETTER, BETTER, resamples=50)
    assert all(value["value"] == value["low"] == value["high"] == 0 for value in found["differences"].values())
    assert found["mcnemar"]["p_value"] == 1


def test_mcnemar_counts_images_and_lesions():
    right = np.ones(COUNT, bool)
    wrong = right.copy()
    wrong[:8] = False
    images = compare_scored(scored(right), scored(wrong), resamples=20)["mcnemar"]
    assert (images["only_first"], images["only_second"], images["by_lesion"]["only_first"]) == (8, 0, 8)
    lesions = compare_scored(scored(right, 4), scored(wrong, 4), resamples=20)["mcnemar"]
    assert (lesions["only_first"], lesions["by_lesion"]["only_first"]) == (8, 2)
    assert lesions["by_lesion"]["p_value"] > lesions["p_value"]


def test_groups_are_compared_too():
    found = compare_scored(BETTER, WORSE, resamples=50)["by_group"]["sex"]
    assert {name: part["images"] for name, part in found.items()} == {"female": 40, "male": 40}
    assert "balanced_accuracy" in found["male"]["differences"]


def test_predictions_of_other_images_are_not_paired():
    other = Scored(WORSE.probabilities, WORSE.labels, BINARY, WORSE.facts.iloc[::-1])
    with pytest.raises(DataError, match="same images"):
        compare_scored(BETTER, other)


def test_two_folders_on_their_common_test_images(make_model, samples, tmp_path):
    done = compare(make_model("a", seed=1), make_model("b", seed=2), samples, out=tmp_path / "out", resamples=50)
    written = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert written == done.to_dict()
    assert (written["first"], written["second"], written["images"], written["forced"]) == ("a", "b", 21, False)


def test_a_folder_that_cannot_be_made_is_told_of_first(samples, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot be made"):
        compare("nothing", "nowhere", samples, out=tmp_path / "file" / "out")


def test_what_either_has_seen_is_refused(make_model, samples):
    with pytest.raises(DataError, match="b was made with some of these images"):
        compare(make_model("a", records=False), make_model("b"), samples, split="train")
