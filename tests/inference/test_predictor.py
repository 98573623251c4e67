"""Predictor: one input gives one result, a list a list, whatever the input is made of."""

from __future__ import annotations

import gc
import io
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image

import lesion_hub
from lesion_hub.config import OperatingPoint
from lesion_hub.errors import ConfigError, ImageError
from lesion_hub.evaluation.predictions import Predictions
from lesion_hub.hub.format import write_model
from lesion_hub.inference import Predictor
from lesion_hub.inference.members import Combination, Member
from lesion_hub.models import LesionClassifier
from tests.inference.networks import classifier, ensemble, picture


@pytest.fixture
def photo() -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8))


def test_one_image_gives_one_result_and_a_list_a_list(photo):
    model = Predictor.of(classifier())
    one = model.predict(photo)
    assert one.probabilities.keys() == set(model.labels)
    assert sum(one.probabilities.values()) == pytest.approx(1, abs=1e-6)
    assert [p.label for p in model.predict([photo, photo])] == [one.label] * 2
    assert model.predict([]) == []
    assert len(model.predict((photo,))) == 1


def test_every_kind_of_input_gives_the_same_answer(photo, tmp_path):
    model = Predictor.of(classifier())
    photo.save(tmp_path / "photo.png")
    buffer = io.BytesIO()
    photo.save(buffer, "PNG")
    inputs = [photo, tmp_path / "photo.png", str(tmp_path / "photo.png"), buffer.getvalue(), np.asarray(photo)]
    answers = [p.probabilities for p in model.predict(inputs)]
    for answer in answers[1:]:
        assert answer == pytest.approx(answers[0], abs=1e-6)


def test_batching_does_not_change_the_answer(photo):
    model = Predictor.of(classifier())
    other = photo.rotate(90, expand=True)
    together = model.predict([photo, other])
    assert together[0].probabilities == pytest.approx(model.predict(photo).probabilities, abs=1e-6)
    assert together[1].probabilities == pytest.approx(model.predict(other).probabilities, abs=1e-6)


def test_malignancy_is_the_malignant_labels_mass_and_meets_the_operating_points(photo):
    points = {
        "low": OperatingPoint(threshold=0.0, metric="sensitivity", target=0.95),
        "high": OperatingPoint(threshold=1.0, metric="specificity", target=0.95),
    }
    prediction = Predictor.of(classifier(), operating_points=points).predict(photo)
    expected = sum(prediction.probabilities[label] for label in ("mel", "bcc", "akiec"))
    assert prediction.malignancy == pytest.approx(expected)
    assert prediction.decisions == {"low": True, "high": False}


def test_the_mass_of_a_label_that_abstains_is_shared_out_as_evaluation_does(photo):
    torch.manual_seed(0)
    model = Predictor.of(LesionClassifier.create("lesion_cnn_shallow", "isic9", image_size=32))
    prediction = model.predict(photo)
    row = np.array([list(prediction.probabilities.values())])
    expected = Predictions(row, np.zeros(1, dtype=np.int64), model.space).malignancy().scores[0]
    assert prediction.malignancy == pytest.approx(expected, abs=1e-12)
    assert prediction.malignancy > row[0, [0, 2, 3, 7]].sum() + 0.01


def test_a_probability_is_told_however_small_it_is():
    model = classifier()
    with torch.no_grad():
        for part in model.last_layer.parameters():
            part.mul_(1500)
    predictor = Predictor.of(model)
    logits = predictor.members[0].score(predictor.members[0].prepare([picture(3)])).double().numpy()[0]
    assert 150 < np.ptp(logits) < 700  # beyond what float32 can hold
    found = np.log(list(predictor.predict(picture(3)).probabilities.values()))
    np.testing.assert_allclose(found - found.max(), logits - logits.max(), atol=1e-6)


def test_a_space_without_malignancy_says_none(photo):
    model = classifier(space=lesion_hub.taxonomy.space_from_names(["tinea", "vitiligo"]))
    prediction = Predictor.of(model).predict(photo)
    assert prediction.malignancy is None
    assert prediction.decisions == {}


def test_an_ensemble_keeps_its_members_views(photo):
    members = [Member("a", classifier(seed=1)), Member("b", classifier(space="isic8", seed=2))]
    ensemble = Predictor(members, Combination.of([m.space for m in members], [0.25, 0.75]))
    prediction = ensemble.predict(photo)
    assert ensemble.labels == lesion_hub.label_space("ham7").labels
    assert set(prediction.members) == {"a", "b"}
    a, b = prediction.members["a"], prediction.members["b"]
    assert prediction.probabilities["nv"] == pytest.approx(0.25 * a["nv"] + 0.75 * b["nv"])
    assert prediction.probabilities["akiec"] == pytest.approx(0.25 * a["akiec"] + 0.75 * (b["ak"] + b["scc"]))
    with pytest.raises(ConfigError, match="ensemble of 2"):
        _ = ensemble.classifier


def test_the_result_is_plain_data_when_asked(photo):
    import json

    data = json.loads(json.dumps(Predictor.of(classifier()).predict(photo).to_dict()))
    assert data["label"] in data["probabilities"]


def test_a_bad_image_is_one_line_that_names_it(tmp_path):
    (tmp_path / "bad.jpg").write_text("no image")
    with pytest.raises(ImageError, match=r"bad\.jpg") as caught:
        Predictor.of(classifier()).predict(tmp_path / "bad.jpg")
    assert "\n" not in str(caught.value)


def test_from_pretrained_reads_a_folder(photo, tmp_path):
    model = classifier()
    write_model(tmp_path, model, storage="float32")
    loaded = lesion_hub.from_pretrained(tmp_path)
    assert loaded.predict(photo).probabilities == pytest.approx(Predictor.of(model).predict(photo).probabilities)
    with pytest.raises(lesion_hub.LesionHubError, match="no versions"):
        lesion_hub.from_pretrained(tmp_path, revision="v1.0.0")


def test_any_number_of_images_goes_through_in_chunks_with_progress(photo):
    model, seen, alive = Predictor.of(classifier()), [], []

    def pictures():
        for i in range(11):
            alive.append(i)
            yield photo.rotate(i)

    stream = model.stream(pictures(), batch_size=2, progress=lambda done, total: seen.append((done, total)))
    first = next(stream)
    assert len(alive) <= 4, "more than two batches were opened before the first answer"
    answers = [first, *stream]
    assert len(answers) == 11
    assert seen == [(2, None), (4, None), (6, None), (8, None), (10, None), (11, None)]
    expected = model.predict(photo.rotate(10)).probabilities
    assert answers[10].probabilities == pytest.approx(expected, abs=1e-6)
    model.predict([photo] * 3, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (3, 3)


def test_a_bad_image_among_many_is_named_and_ends_the_stream(photo, tmp_path):
    (tmp_path / "bad.jpg").write_bytes(b"")
    stream = Predictor.of(classifier()).stream([photo, photo, tmp_path / "bad.jpg"], batch_size=2)
    assert next(stream).label
    next(stream)
    with pytest.raises(ImageError, match=r"bad\.jpg"):
        next(stream)


@pytest.mark.slow
@pytest.mark.parametrize(("explain", "rounds"), [(None, 3), ("gradcam", 3), ("hirescam", 1), ("gradient_shap", 1)])
def test_sixteen_threads_say_what_one_says(explain, rounds):
    model = ensemble() if rounds > 1 else Predictor.of(classifier())
    images = [picture(seed=i) for i in range(16)]
    expected = [model.predict(image, explain=explain) for image in images]
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda i: model.predict(images[i % 16], explain=explain), range(16 * rounds)))
    for i, answer in enumerate(answers):
        assert answer.probabilities == pytest.approx(expected[i % 16].probabilities, abs=1e-6)
        if explain:
            np.testing.assert_allclose(answer.heat, expected[i % 16].heat, atol=1e-5)


@pytest.mark.slow
def test_many_predictions_with_maps_leave_nothing_behind():
    model, image = ensemble(), picture()
    for _ in range(5):
        model.predict(image, explain="gradcam")
    gc.collect()
    tracemalloc.start()
    counts = len(gc.get_objects()), tracemalloc.get_traced_memory()[0]
    for _ in range(100):
        model.predict(image, explain="gradcam")
    gc.collect()
    grown = len(gc.get_objects()) - counts[0], tracemalloc.get_traced_memory()[0] - counts[1]
    tracemalloc.stop()
    assert grown[0] < 100, "an object is left behind by each prediction"
    assert grown[1] < 200_000, "memory grew with the number of predictions"
    hooked = [m for member in model.members for m in member.classifier.modules() if m._forward_hooks or m._backward_hooks]
    assert not hooked


def test_a_mirrored_image_has_the_same_answer_and_the_mirrored_map_with_all_views():
    model = Predictor.of(classifier(size=64))
    image = picture(64, 64)
    straight = model.predict(image, explain="gradcam", target="mel", tta=8)
    mirrored = model.predict(image.transpose(Image.Transpose.FLIP_LEFT_RIGHT), explain="gradcam", target="mel", tta=8)
    turned = model.predict(image.transpose(Image.Transpose.ROTATE_90), explain="gradcam", target="mel", tta=8)
    assert mirrored.probabilities == pytest.approx(straight.probabilities, abs=1e-5)
    assert turned.probabilities == pytest.approx(straight.probabilities, abs=1e-5)
    np.testing.assert_allclose(mirrored.heat, straight.heat[:, ::-1], atol=1e-4)
    np.testing.assert_allclose(turned.heat, np.rot90(straight.heat), atol=1e-4)
    assert model.predict(image).probabilities != pytest.approx(straight.probabilities, abs=1e-4)


def test_views_that_do_not_fit_the_input_are_refused():
    with pytest.raises(ConfigError, match="at most 4 views"):
        Predictor.of(classifier(size=(32, 48))).predict(picture(), tta=5)
    with pytest.raises(ConfigError, match="tta"):
        Predictor.of(classifier()).predict(picture(), tta=9)


def test_several_images_of_a_lesion_get_one_answer():
    model = ensemble()
    images = [picture(seed=i) for i in range(3)]
    case = model.predict_case(images, explain="gradcam")
    singles = model.predict(images)
    for label in model.labels:
        assert case.probabilities[label] == pytest.approx(np.mean([s.probabilities[label] for s in singles]), abs=1e-6)
    assert case.malignancy == pytest.approx(np.mean([s.malignancy for s in singles]), abs=1e-6)
    assert [image.explanation.label for image in case.images] == [case.label] * 3
    assert len(case.to_dict()["images"]) == 3
    one = model.predict_case(images[:1])
    assert one.probabilities == pytest.approx(singles[0].probabilities, abs=1e-6)
    with pytest.raises(ConfigError, match="one or more images"):
        model.predict_case([])


def test_features_come_for_one_image_and_for_many():
    model = ensemble()
    images = [picture(seed=i) for i in range(3)]
    features = model.embed(images, batch_size=2)
    assert features.dtype == np.float32
    assert features.shape == (3, sum(m.classifier.last_layer.in_features for m in model.members))
    np.testing.assert_allclose(model.embed(images[1]), features[1], atol=1e-5)
    alone = Predictor.of(model.members[0].classifier)
    logits = torch.from_numpy(alone.embed(images[0])) @ alone.classifier.last_layer.weight.T + alone.classifier.last_layer.bias
    expected = list(alone.predict(images[0]).probabilities.values())
    np.testing.assert_allclose(logits.softmax(0).detach(), expected, atol=1e-5)


def test_metadata_reaches_the_network(photo):
    model = Predictor.of(classifier("resnet10t", size=32, metadata=True))
    nothing = model.predict(photo).probabilities
    known = model.predict(photo, metadata={"age": 80, "sex": "female", "site": "face"}, explain="gradcam")
    assert known.probabilities != pytest.approx(nothing, abs=1e-6)
    both = model.predict([photo, photo], metadata=[None, {"age": 80, "sex": "f", "site": "head"}])
    assert both[0].probabilities == pytest.approx(nothing, abs=1e-5)
    assert both[1].probabilities == pytest.approx(known.probabilities, abs=1e-5)
    with pytest.raises(ConfigError, match="did you mean 'age'"):
        model.predict(photo, metadata={"agee": 80})
    with pytest.raises(ConfigError, match="fewer metadata than images"):
        model.predict([photo, photo], metadata=[None])


def test_top_and_flags_and_disagreement_are_told():
    prediction = ensemble().predict(picture(), top=2)
    assert [label for label, _ in prediction.top()] == sorted(prediction.probabilities, key=prediction.probabilities.get)[
        :-3:-1
    ]
    assert len(prediction.top(5)) == 5
    assert prediction.flags == ("tiny", *prediction.flags[1:])
    assert 0 < prediction.disagreement < 1
    assert Predictor.of(classifier()).predict(picture()).disagreement is None


def test_arrays_that_are_no_images_are_one_line():
    for array in (np.zeros((4, 5, 3)), np.zeros((2, 4, 5, 3), np.uint8), np.zeros((4, 5, 2), np.uint8)):
        with pytest.raises(ImageError, match="uint8"):
            Predictor.of(classifier()).predict(array)
    with pytest.raises(ImageError, match="int is no image"):
        Predictor.of(classifier()).predict([3])


def test_a_network_in_training_mode_is_put_into_evaluation_mode(photo):
    model = Predictor.of(classifier().train())
    assert model.predict(photo).probabilities == model.predict(photo).probabilities


def test_the_maps_of_a_case_are_about_the_cases_label_not_the_first_images():
    members = [Member(name, classifier(seed=seed)) for name, seed in (("a", 1), ("b", 2))]
    with torch.no_grad():
        for member in members:
            member.classifier.last_layer.weight.mul_(6)
    model = Predictor(members, Combination.of([m.space for m in members], [0.5, 0.5]))
    images = [picture(seed=i) for i in range(40)]
    labels = [prediction.label for prediction in model.predict(images)]
    odd = next(i for i, label in enumerate(labels) if label != labels[0])
    usual = [image for image, label in zip(images, labels, strict=True) if label == labels[0]][:4]
    case = model.predict_case([images[odd], *usual], explain="gradcam")
    assert case.label == labels[0] != case.images[0].label
    assert [image.explanation.label for image in case.images] == [case.label] * (1 + len(usual))


def test_open_files_are_images_alone_and_in_a_list():
    content = io.BytesIO()
    picture().save(content, "PNG")
    model = Predictor.of(classifier())
    expected = model.predict(content.getvalue()).probabilities
    assert model.predict(content).probabilities == expected
    for one in model.predict([content, content]):
        assert one.probabilities == pytest.approx(expected, abs=1e-6)
    assert model.predict_case([content]).probabilities == expected
    assert model.predict(content, explain="gradcam").heat.shape == (48, 64)
    assert next(model.stream(content)).probabilities == expected
    assert model.embed(content).ndim == 1


@pytest.mark.parametrize("given", [None, 5, [None], "https://example.org/mole.jpg"])
def test_what_is_no_image_is_one_line(given):
    for ask in (
        Predictor.of(classifier()).predict,
        Predictor.of(classifier()).embed,
        lambda images: list(Predictor.of(classifier()).stream(images)),
    ):
        with pytest.raises(ImageError) as caught:
            ask(given)
        assert "\n" not in str(caught.value)
