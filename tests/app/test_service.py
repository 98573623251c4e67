"""The page's work without the page."""

from __future__ import annotations

import shutil
import sys
import threading

import numpy as np
import pytest

import lesion_hub
from lesion_hub.app import service as service_module
from lesion_hub.app.model_facts import model_summary
from lesion_hub.app.options import AppOptions
from lesion_hub.app.service import BatchItem, BatchResults, Service
from lesion_hub.app.uploads import Upload
from lesion_hub.errors import ConfigError, ImageError, LesionHubError, TaxonomyError
from tests.app.models import as_json, options_over, photograph
from tests.data.bad_files import BROKEN

PHOTO = Upload("phone.jpg", photograph())


def test_it_says_what_the_library_says(service, app_registry):
    answer = service.predict(PHOTO, method="gradcam", label="mel")
    alone = lesion_hub.from_pretrained("trio", registry=app_registry).predict(PHOTO.content, explain="gradcam", target="mel")
    assert answer.prediction.probabilities == pytest.approx(alone.probabilities)
    np.testing.assert_allclose(answer.prediction.heat, alone.heat, atol=1e-6)
    told = answer.to_dict()
    assert (told["model"], told["version"]) == ("trio", "v1.0.0")
    assert set(told["members"]) == {"one", "two", "three"}
    assert set(told["decisions"]) == {"sensitivity_90", "specificity_95"}


def test_prediction_and_map_are_one_model_call(service, monkeypatch):
    calls = []
    predict = type(service.default.predictor).predict
    monkeypatch.setattr(type(service.default.predictor), "predict", lambda *a, **k: calls.append(k) or predict(*a, **k))
    service.predict(PHOTO, method="gradcam")
    assert len(calls) == 1


def test_a_model_is_chosen_by_name_and_pinned_by_revision(app_registry):
    pinned = Service(options_over(app_registry, models=("one@v1.0.0", "two")))
    assert list(pinned.models) == ["one", "two"]
    assert pinned.predict(PHOTO, model="two").served.title == "two v1.0.0"
    with pytest.raises(ConfigError, match="did you mean 'two'"):
        pinned.predict(PHOTO, model="twoo")


def test_models_of_one_name_are_told_apart_or_refused(app_registry, tmp_path):
    for name, served in (("one", "same"), ("two", "other/same"), ("two", "one/v2.0.0")):
        shutil.copytree(app_registry / name / "v1.0.0", tmp_path / served)
    shutil.copytree(app_registry / "one" / "v1.0.0", tmp_path / "one" / "v1.0.0")
    versions = Service(options_over(tmp_path, models=("one@v1.0.0", "one@v2.0.0")))
    assert list(versions.models) == ["one v1.0.0", "one v2.0.0"]
    answers = [versions.predict(PHOTO, model=key) for key in versions.models]
    assert [answer.to_dict()["version"] for answer in answers] == ["v1.0.0", "v2.0.0"]
    assert answers[0].prediction.probabilities != answers[1].prediction.probabilities
    folders = tuple(str(tmp_path / place) for place in ("same", "other/same"))
    with pytest.raises(ConfigError, match="two models would be served as 'same'"):
        Service(options_over(app_registry, models=folders))


def test_a_folder_is_served_without_a_version(app_registry):
    served = Service(options_over(app_registry, models=(str(app_registry / "one" / "v1.0.0"),))).default
    assert served.version is None
    assert served.title == "one v1.0.0"
    told = as_json([served.predictor.predict(PHOTO.content).to_dict(), model_summary(served)])
    assert str(app_registry) not in told


def test_a_missing_model_is_one_line(app_registry):
    with pytest.raises(LesionHubError, match="cannot serve on: 'on' is not in the registry") as caught:
        Service(options_over(app_registry, models=("on",)))
    assert "\n" not in str(caught.value)


def test_what_is_known_of_the_patient_counts_where_it_is_taken(service):
    aware = [
        service.predict(PHOTO, model="aware", patient=p).prediction.probabilities for p in (None, {"age": 90, "sex": "male"})
    ]
    assert aware[0] != pytest.approx(aware[1])
    blind = [service.predict(PHOTO, patient=p).prediction.probabilities for p in (None, {"age": 90, "sex": "male"})]
    assert blind[0] == pytest.approx(blind[1])
    assert service.served("aware").takes_metadata
    assert not service.default.takes_metadata


def test_mistakes_are_one_line(service):
    for options, kind, words in [
        ({"patient": {"age": 300}}, ConfigError, "age 300"),
        ({"method": "gradcan"}, ConfigError, "did you mean 'gradcam'"),
        ({"method": "gradcam", "label": "melamon"}, TaxonomyError, "mel"),
    ]:
        with pytest.raises(kind, match=words) as caught:
            service.predict(PHOTO, **options)
        assert "\n" not in str(caught.value)


def test_malignancy_can_be_explained(service):
    assert service.default.targets[-1] == "malignant"
    assert service.predict(PHOTO, method="gradcam", label="malignant").prediction.explanation.label == "malignant"


def test_a_bad_file_in_a_batch_costs_nobody_else(service):
    uploads = [PHOTO, *(Upload(name, make()) for name, make in BROKEN.items()), PHOTO]
    items = list(service.predict_batch(uploads))
    assert [item.answer is not None for item in items] == [True, *[False] * len(BROKEN), True]
    assert all(item.error.startswith(f"{item.name}: ") for item in items[1:-1])
    assert items[0].answer.prediction.probabilities == pytest.approx(items[-1].answer.prediction.probabilities)


def test_a_batch_over_the_limit_is_refused_whole(service):
    with pytest.raises(ImageError, match="over the limit of 30"):
        next(service.predict_batch([PHOTO] * 31))


def test_no_more_model_calls_run_at_once_than_allowed(service, monkeypatch):
    running, most = 0, 0
    lock = threading.Lock()
    inside = service._predict

    def watched(*args):
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        try:
            return inside(*args)
        finally:
            with lock:
                running -= 1

    monkeypatch.setattr(service, "_predict", watched)
    threads = [threading.Thread(target=service.predict, args=(PHOTO,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == AppOptions().concurrency == 1


def test_a_batch_keeps_no_pixels(service):
    answer = service.predict(PHOTO, method="gradcam")
    results = BatchResults(200)
    results.add(BatchItem("a.jpg", answer))
    assert results.items[0].answer.prediction.explanation is None
    assert len(results.overlays) == 1


def test_zero_gpu_is_prepared_before_a_model_is_loaded(app_registry, monkeypatch, tmp_path):
    """Its package shows CUDA from its import on; a model that was loaded before stays on the CPU for good."""
    (tmp_path / "spaces.py").write_text("def GPU(function):\n    function.lent = True\n    return function\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "spaces", raising=False)
    seen = []
    load = service_module._load
    monkeypatch.setattr(service_module, "_load", lambda *args: seen.append("spaces" in sys.modules) or load(*args))
    lent = Service(options_over(app_registry, models=("one",)))
    sys.modules.pop("spaces")
    assert seen == [True]
    assert lent._predict.lent
