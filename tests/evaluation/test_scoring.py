"""A data set is scored by the path that users take, in bounded memory, and comes back as a table that can be read again."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

import lesion_hub
from lesion_hub.data.scan import image_sources
from lesion_hub.errors import DataError, TaxonomyError
from lesion_hub.evaluation import operating_points, scoring
from lesion_hub.evaluation.scoring import in_space, read_scored, score_dataset, shared_space, views_of
from lesion_hub.inference import Predictor
from lesion_hub.taxonomy import label_space, space_from_labels, space_from_names
from tests.inference.networks import classifier

HAM7 = label_space("ham7")


@pytest.fixture
def predictor(make_model):
    return lesion_hub.from_pretrained(make_model())


def test_probabilities_are_those_of_predict(predictor, data):
    dataset = data.dataset.select(range(5))
    scored = score_dataset(predictor, dataset, data.space, batch_size=2)
    expected = [list(answer.probabilities.values()) for answer in predictor.predict(list(image_sources(dataset)))]
    assert np.abs(scored.probabilities - expected).max() < 1e-6
    assert scored.labels.tolist() == dataset["label"][:]
    assert scored.groups == dataset["group"][:]
    assert scored.facts["width"].tolist() == [48] * 5


def test_progress_counts_images(predictor, data):
    seen = []
    score_dataset(predictor, data.dataset.select(range(5)), data.space, batch_size=2, progress=lambda *done: seen.append(done))
    assert seen == [(2, 5), (4, 5), (5, 5)]


def test_no_more_than_two_batches_are_in_memory(predictor, data, monkeypatch):
    """Images opened but not yet scored, at any time."""
    opened, scored, most = [0], [0], [0]
    open_and_measure, predict = scoring._open_and_measure, predictor.predict

    def counting_open(source):
        opened[0] += 1
        most[0] = max(most[0], opened[0] - scored[0])
        return open_and_measure(source)

    def counting_predict(images, **options):
        answers = predict(images, **options)
        scored[0] += len(images)
        return answers

    monkeypatch.setattr(scoring, "_open_and_measure", counting_open)
    monkeypatch.setattr(predictor, "predict", counting_predict)
    score_dataset(predictor, data.dataset.select(range(24)), data.space, batch_size=4)
    assert (opened[0], scored[0]) == (24, 24)
    assert most[0] <= 3 * 4  # two batches ahead of the one that is being scored


def test_a_coarser_space_sums_probabilities_and_maps_labels(predictor, data):
    scored = score_dataset(predictor, data.dataset.select(range(6)), data.space)
    binary = in_space(scored, label_space("binary"))
    assert binary.space.name == "binary"
    assert np.allclose(binary.probabilities[:, 1], scored.probabilities[:, [0, 2, 3]].sum(axis=1))
    assert binary.labels.tolist() == HAM7.map_to("binary").labels(scored.labels).tolist()


@pytest.mark.parametrize(
    ("model", "found_in", "expected"),
    [
        ("ham7", "ham7", "ham7"),
        ("isic8", "isic8", "isic8"),
        ("isic8", "isic9", "isic9"),
        ("ham7", "isic8", "ham7"),
        ("isic8", "binary", "binary"),
        ("ham7", "isic2017", "ham7"),
    ],
)
def test_the_shared_space_is_the_finest_that_both_map_into(model, found_in, expected):
    assert shared_space(label_space(model), label_space(found_in)).name == expected


def test_a_model_of_full_names_is_measured_on_a_set_of_codes(data):
    """Its labels stay the words that it was trained on; what they mean is known."""
    model = Predictor.of(classifier(space=space_from_names(["nevus", "Melanom"])))
    answer = model.predict(next(iter(image_sources(data.dataset))))
    assert answer.malignancy == answer.probabilities["Melanom"]
    assert shared_space(model.space, data.space).name == "ham7"
    malignancy = score_dataset(model, data.dataset, data.space, space="binary").predictions.malignancy()
    assert malignancy.truth.sum() == (HAM7.map_to("binary").labels(data.dataset["label"][:]) == 1).sum()
    assert operating_points.choose(malignancy.scores, malignancy.truth)


def test_a_models_own_labels_in_its_own_order_are_those_that_it_is_measured_in():
    known, shuffled = space_from_names(["bcc", "bkl", "mel", "nv"]), space_from_labels("custom", ["nv", "mel", "bkl", "bcc"])
    assert shared_space(known, known) == known
    assert shared_space(shuffled, known) == shuffled
    assert shared_space(HAM7, known) == HAM7 == shared_space(known, HAM7)


def test_a_named_space_keeps_no_label_that_neither_side_has():
    model, found_in = space_from_names(["df", "mel", "nv"]), space_from_names(["bcc", "nv"])
    assert shared_space(model, found_in).labels == ("mel", "nv", "bcc", "df")
    assert shared_space(model, found_in).malignancy_map.indices == (1, 0, 1, 0)


def test_spaces_with_nothing_in_common_are_one_line():
    with pytest.raises(TaxonomyError, match="no label space in common"):
        shared_space(HAM7, space_from_names(["tinea", "vitiligo"]))


def test_a_space_that_would_split_labels_is_refused():
    with pytest.raises(TaxonomyError):
        shared_space(HAM7, HAM7, "isic8")


def test_predictions_can_be_read_again(predictor, data, tmp_path):
    scored = score_dataset(predictor, data.dataset.select(range(4)), data.space)
    scored.save(tmp_path / "predictions.parquet")
    again = read_scored(tmp_path / "predictions.parquet", HAM7)
    assert np.array_equal(again.probabilities, scored.probabilities)
    assert np.array_equal(again.labels, scored.labels)
    assert again.facts["image_id"].tolist() == scored.facts["image_id"].tolist()


def test_predictions_of_other_labels_are_one_line(predictor, data, tmp_path):
    score_dataset(predictor, data.dataset.select(range(4)), data.space).save(tmp_path / "predictions.parquet")
    with pytest.raises(DataError, match="p_ak"):
        read_scored(tmp_path / "predictions.parquet", label_space("isic8"))


def test_an_image_that_cannot_be_read_is_named(predictor, data, tmp_path):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no image")
    paths = [str(broken)]
    dataset = data.dataset.select([0]).remove_columns("image").add_column("image", paths).cast(data.dataset.features)
    with pytest.raises(DataError, match=r"broken\.jpg"):
        score_dataset(predictor, dataset, data.space)


def test_views_average_and_change_the_scores(predictor, data):
    dataset = data.dataset.select(range(3))
    plain, turned = (score_dataset(predictor, dataset, data.space, tta=views_of(predictor, tta)) for tta in (False, True))
    assert views_of(predictor, False) == 1 and views_of(predictor, True) == 8
    assert not np.allclose(plain.probabilities, turned.probabilities)
    mirrored = [image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for image in dataset["image"]]
    assert predictor.predict(mirrored[0], tta=8).probabilities == pytest.approx(
        dict(zip(HAM7.labels, turned.probabilities[0], strict=True)), abs=1e-4
    )
