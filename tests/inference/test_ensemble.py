"""Creating ensembles: pinned members, fixed or fitted weights, and a folder that loads and publishes as it stands."""

from __future__ import annotations

import json

import numpy as np
import pytest

import lesion_hub
from lesion_hub.config import OperatingPoint, load_ensemble_config
from lesion_hub.errors import ConfigError, LesionHubError, StoreError
from lesion_hub.hub import store
from lesion_hub.inference.ensemble import create_ensemble, fit_combination, fit_ensemble, load_members, pin_member
from lesion_hub.inference.members import Combination, Member
from lesion_hub.inference.rows import RowSource
from lesion_hub.taxonomy import label_space
from tests.hub.publishable import write_folder
from tests.inference.networks import classifier, picture

HAM7 = label_space("ham7")


@pytest.fixture(scope="module")
def registry(tmp_path_factory):
    """Members a (two versions), b and c in a registry."""
    root = tmp_path_factory.mktemp("registry")
    for seed, (name, version) in enumerate([("a", "1.0.0"), ("a", "1.1.0"), ("b", "1.0.0"), ("c", "1.0.0")]):
        folder = write_folder(tmp_path_factory.mktemp("run"), seed)
        store.publish(folder, name, version=version, notes=f"{name} {version}", registry=root)
    return root


def test_an_ensemble_pins_its_members_and_answers_with_their_weighted_mean(registry, tmp_path):
    points = {"careful": OperatingPoint(threshold=0.1, metric="sensitivity", target=0.95)}
    config = create_ensemble(
        tmp_path / "trio", ["a@v1.0.0", "b", "c"], weights=[0.3, 0.3, 0.4], operating_points=points, registry=registry
    )
    assert [(member.name, member.revision) for member in config.members] == [("a", "v1.0.0"), ("b", "v1.0.0"), ("c", "v1.0.0")]
    model = lesion_hub.from_pretrained(tmp_path / "trio", registry=registry)
    prediction = model.predict(picture())
    alone = [lesion_hub.from_pretrained(n, revision="v1.0.0", registry=registry).predict(picture()) for n in "abc"]
    for label in model.labels:
        expected = sum(w * p.probabilities[label] for w, p in zip((0.3, 0.3, 0.4), alone, strict=True))
        assert prediction.probabilities[label] == pytest.approx(expected, abs=1e-6)
    assert set(prediction.decisions) == {"careful"}


def test_without_a_version_the_highest_is_pinned(registry):
    assert pin_member("a", registry=registry).pin.revision == "v1.1.0"


def test_two_versions_of_one_model_stay_two_members(registry, tmp_path):
    create_ensemble(tmp_path / "versions", ["a@v1.0.0", "a@v1.1.0", "b"], registry=registry)
    prediction = lesion_hub.from_pretrained(tmp_path / "versions", registry=registry).predict(picture(), explain="gradcam")
    assert list(prediction.members) == list(prediction.explanation.members) == ["a@v1.0.0", "a@v1.1.0", "b"]
    for version in ("v1.0.0", "v1.1.0"):
        alone = lesion_hub.from_pretrained("a", revision=version, registry=registry).predict(picture())
        assert prediction.members[f"a@{version}"] == pytest.approx(alone.probabilities, abs=1e-5)
    assert set(json.loads((tmp_path / "versions" / "split.json").read_text())) == {"sha256"}


def test_the_folder_can_be_published_and_loaded_by_name(registry, tmp_path):
    create_ensemble(tmp_path / "pair", ["a", "b"], registry=registry)
    store.publish(tmp_path / "pair", "pair", version="1.0.0", notes="First.", registry=registry)
    model = lesion_hub.from_pretrained("pair", registry=registry)
    assert [member.name for member in model.members] == ["a", "b"]
    assert store.info("pair", registry=registry).licence == "cc-by-nc-4.0"


def test_a_member_that_differs_is_named(registry, tmp_path):
    create_ensemble(tmp_path / "pair", ["a", "b"], registry=registry)
    text = (tmp_path / "pair" / "ensemble.json").read_text()
    digest = load_ensemble_config(tmp_path / "pair").members[1].weights_sha256
    (tmp_path / "pair" / "ensemble.json").write_text(text.replace(digest, "0" * 64))
    with pytest.raises(StoreError, match=r"member b v1\.0\.0 is not the one"):
        lesion_hub.from_pretrained(tmp_path / "pair", registry=registry)


def test_mistakes_are_one_line_and_leave_no_folder(registry, tmp_path):
    for members, options, words in [
        (["a", "nobody"], {}, "nobody"),
        (["a@v9.0.0"], {}, "v9.0.0"),
        (["a@main"], {}, "may move"),
        (["a", "b"], {"weights": [0.5, 0.6]}, "sum to 1"),
        (["a", "b"], {"space": "isic8"}, "isic8"),
        ([], {}, "needs members"),
        (["a", "b", "a@v1.1.0"], {}, "a@v1.1.0 is a member twice"),
    ]:
        with pytest.raises(LesionHubError, match=words) as caught:
            create_ensemble(tmp_path / "wrong", members, registry=registry, **options)
        assert "\n" not in str(caught.value)
        assert not (tmp_path / "wrong").exists()


def test_an_ensemble_is_no_member_and_a_full_folder_no_place(registry, tmp_path):
    create_ensemble(tmp_path / "pair", ["a", "b"], registry=registry)
    with pytest.raises(StoreError, match="not an empty folder"):
        create_ensemble(tmp_path / "pair", ["a", "b"], registry=registry)
    store.publish(tmp_path / "pair", "duo", version="1.0.0", notes="First.", registry=registry)
    with pytest.raises(ConfigError, match="is an ensemble itself"):
        create_ensemble(tmp_path / "nested", ["a", "duo"], registry=registry)


def opinions(labels, skill, seed):
    """(N, 7) probabilities that favour the truth by ``skill``."""
    logits = np.random.default_rng(seed).normal(size=(len(labels), 7))
    logits[np.arange(len(labels)), labels] += skill
    odds = np.exp(logits)
    return odds / odds.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("combine", ["probabilities", "logits"])
def test_fitting_finds_who_can_be_trusted(combine):
    labels = np.random.default_rng(0).integers(7, size=600)
    rows = [opinions(labels, skill, seed) for seed, skill in enumerate([0.0, 3.0, 1.0])]
    equal = Combination.of([HAM7] * 3, [1 / 3] * 3, combine=combine)
    fit = fit_combination(["noise", "expert", "novice"], equal, rows, labels)
    assert sum(fit.weights) == pytest.approx(1, abs=1e-9)
    assert fit.weights[1] > fit.weights[2] > fit.weights[0]
    assert fit.nll < fit.nll_equal_weights
    assert fit.nll <= min(fit.nll_by_member.values())


def test_fitting_finds_the_temperature_of_the_whole():
    labels = np.random.default_rng(1).integers(7, size=800)
    calibrated = opinions(labels, 2.0, 5)
    sharpened = calibrated**3 / (calibrated**3).sum(axis=1, keepdims=True)
    fit = fit_combination(["a"], Combination.single(HAM7), [sharpened], labels)
    plain = fit_combination(["a"], Combination.single(HAM7), [calibrated], labels)
    assert fit.temperature == pytest.approx(3 * plain.temperature, rel=0.05)


@pytest.mark.parametrize(
    ("skill", "words"), [(-6.0, "at the end of its range.*check that their labels are right"), (8.0, "right on all of the 60")]
)
def test_a_temperature_at_the_end_of_its_range_is_an_error(skill, words):
    labels = np.random.default_rng(2).integers(7, size=60)
    with pytest.raises(LesionHubError, match=words):
        fit_combination(["a"], Combination.single(HAM7), [opinions(labels, skill, 1)], labels)


def test_fitting_on_images_is_recorded_in_the_folder(registry, tmp_path):
    members = [pin_member(name, registry=registry) for name in ("a", "b")]
    items = [
        {"image": picture(seed=i), "label": i % 7, "image_id": str(i), "group": str(i), "age": None, "sex": None, "site": None}
        for i in range(14)
    ]
    fit = fit_ensemble(load_members(members), RowSource("test", 14, items, HAM7.labels))
    config = create_ensemble(tmp_path / "fitted", members, fit=fit)
    assert config.weights == fit.weights
    assert json.loads((tmp_path / "fitted" / "metrics.json").read_text())["ensemble_fit"]["images"] == 14
    model = lesion_hub.from_pretrained(tmp_path / "fitted", registry=registry)
    expected = dict(zip(HAM7.labels, fit.probabilities[3], strict=True))
    assert model.predict(items[3]["image"]).probabilities == pytest.approx(expected, abs=1e-5)


def test_data_without_labels_cannot_be_fitted_on():
    with pytest.raises(LesionHubError, match="no image has a label"):
        fit_ensemble([Member("a", classifier())], RowSource("none", 0, [], HAM7.labels))
