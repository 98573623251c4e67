"""An evaluation writes predictions, numbers, plots and a report; it refuses what the model has seen, or says so in red."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from datasets import ClassLabel

from lesion_hub.errors import ConfigError, DataError, LesionHubError
from lesion_hub.evaluation import metrics
from lesion_hub.evaluation.run import evaluate, record
from lesion_hub.hub.format import write_model
from lesion_hub.taxonomy import label_space
from tests.evaluation.conftest import POINT
from tests.inference.networks import classifier

pytestmark = pytest.mark.slow

QUICK = {"resamples": 50}


@pytest.fixture(scope="module")
def done(make_model, samples, tmp_path_factory):
    return evaluate(make_model(), samples, out=tmp_path_factory.mktemp("done"), **QUICK)


def test_it_writes_every_file(done):
    assert {path.name for path in done.out.iterdir()} == {"predictions.parquet", "metrics.json", "report.html", "plots"}
    assert {path.name for path in (done.out / "plots").iterdir()} >= {
        "confusion_test.png",
        "roc_test.png",
        "group_sex_test.png",
    }


def test_the_test_part_of_the_models_own_split_is_taken(done, manifest):
    table = pd.read_parquet(done.out / "predictions.parquet")
    assert set(table["image_id"]) == {image_id for image_id, part in manifest.part_of.items() if part == "test"}
    assert {"group", "label", "predicted", "age", "sex", "site", "width", "height", "skin_tone", "p_mel"} <= set(table)


def test_the_numbers_are_those_of_the_predictions(done):
    table = pd.read_parquet(done.out / "predictions.parquet")
    space = label_space("ham7")
    probabilities = table[[f"p_{label}" for label in space.labels]].to_numpy()
    expected = metrics.compute(probabilities, np.array([space.index(label) for label in table["label"]]), space)
    section = json.loads((done.out / "metrics.json").read_text())["test"]
    assert {name: section[name] for name in expected} == json.loads(json.dumps(expected))
    assert set(section) >= {"intervals", "operating_points", "by_group", "calibration", "overlap", "data"}
    assert section["calibration"]["temperature"] == 2.0
    assert section["data"]["name"] == "synthetic lesions"


@pytest.mark.parametrize("split", ["train", "all"])
def test_images_that_the_model_has_seen_are_refused(make_model, samples, tmp_path, split):
    with pytest.raises(DataError, match=r"was made with some of these images: \d+ images \(first: ISIC_") as caught:
        evaluate(make_model(), samples, out=tmp_path / "out", split=split, **QUICK)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out" / "metrics.json").exists()


def test_a_planted_near_duplicate_is_refused_when_asked_for(make_model, data, manifest, tmp_path):
    ids = list(data.dataset["image_id"][:])
    train, test = (set(manifest.rows(ids, part).tolist()) for part in ("train", "test"))
    planted = min(train)
    renamed = {"image_id": "renamed", "group": "renamed"}
    changed = data.dataset.select([*sorted(train | test), planted]).map(
        lambda row, i: renamed if i == len(train | test) else row, with_indices=True
    )
    rows = changed.select([*(i for i, row in enumerate(sorted(train | test)) if row in test), len(train | test)])
    other = data.__class__(rows, data.space, dict.fromkeys(rows["image_id"][:], "test"), data.report)
    model = make_model(records=True)
    assert evaluate(model, other, out=tmp_path / "unasked", split="all", **QUICK).overlap.near == ()
    folder = tmp_path / "training"
    changed.select(range(len(train | test))).to_parquet(str(folder) + ".parquet")
    options = {"near_duplicates": True, "training_data": str(folder) + ".parquet"}
    with pytest.raises(DataError, match="1 near-duplicate image"):
        evaluate(model, other, out=tmp_path / "asked", split="all", **options, **QUICK)


def test_robustness_shows_how_far_it_is(make_model, samples, tmp_path):
    told = []
    done = evaluate(make_model(), samples, out=tmp_path / "out", stress=True, progress=lambda *done: told.append(done), **QUICK)
    images = done.section["robustness"]["images"]
    assert told.count((images, images)) == 2 and told[-2] == (16, images)


def test_a_forced_evaluation_says_so_in_red(make_model, samples, tmp_path):
    done = evaluate(make_model(), samples, out=tmp_path / "out", split="train", force=True, **QUICK)
    assert done.section["overlap"]["forced"] and done.section["overlap"]["images"] > 0
    assert '<p class="notice red">Forced' in done.report.read_text()
    with pytest.raises(ConfigError, match="not recorded"):
        record(done)


def test_a_clean_evaluation_has_no_red(done):
    assert "notice red" not in done.report.read_text()


def test_a_model_without_a_record_is_evaluated_with_a_warning(make_model, samples, tmp_path):
    done = evaluate(make_model(records=False), samples, out=tmp_path / "out", **QUICK)
    assert done.section["overlap"]["checked"] is False
    assert "could not be checked" in done.report.read_text()


def test_another_label_space(make_model, samples, tmp_path):
    done = evaluate(make_model(), samples, out=tmp_path / "out", as_space="binary", **QUICK)
    assert done.section["labels"] == ["benign", "malignant"]
    assert done.section["operating_points"]["sensitivity_90"]["threshold"] == 0.4
    other = evaluate(make_model("b"), samples, out=tmp_path / "out2", **QUICK)
    assert other.section["malignancy"]["auroc"] == pytest.approx(done.section["malignancy"]["auroc"])


@pytest.fixture
def isic9(data, tmp_path):
    """A model of isic9's labels, and images of which a quarter have the one that no other space knows."""
    write_model(tmp_path / "model", classifier(space="isic9"), operating_points={"sensitivity_90": POINT})
    space = label_space("isic9")
    labels = [space.index("unk") if i % 4 == 0 else label for i, label in enumerate(data.dataset["label"][:])]
    dataset = data.dataset.remove_columns("label").add_column("label", labels)
    dataset = dataset.cast_column("label", ClassLabel(names=list(space.labels)))
    return tmp_path / "model", replace(data, dataset=dataset, space=space, official_split=None)


def test_images_without_a_label_in_the_space_asked_for_are_left_out(isic9, tmp_path):
    model, given = isic9
    done = evaluate(model, given, out=tmp_path / "out", split="all", as_space="binary", **QUICK)
    assert done.section["examples"] == len(done.scored) == 45
    nothing = replace(given, dataset=given.dataset.filter(lambda row: row["label"] == given.space.index("unk")))
    with pytest.raises(DataError, match="no image has a label in 'binary'"):
        evaluate(model, nothing, out=tmp_path / "out", split="all", as_space="binary", **QUICK)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"split": "tets"}, "did you mean 'test'"),
        ({"as_space": "ham8"}, "did you mean 'ham7'"),
        ({"spilt": "test"}, "unknown key 'spilt'"),
        ({"as_space": "isic8"}, "akiec"),
        ({"external": "Far clinic"}, "--data-licence"),
        ({"decide": "sensitivity_99"}, "did you mean 'sensitivity_90'"),
    ],
)
def test_mistakes_are_one_line_before_anything_is_scored(make_model, samples, tmp_path, options, words):
    with pytest.raises(LesionHubError, match=words) as caught:
        evaluate(make_model(), samples, out=tmp_path / "out", progress=no_progress, **options)
    assert "\n" not in str(caught.value)


def no_progress(done, total):
    raise AssertionError(f"{done} of {total} images were scored")


def test_an_operating_point_that_the_space_does_not_know_is_told_of_before_anything_is_scored(isic9, tmp_path):
    asked = {"split": "all", "as_space": "binary_ak_benign", "decide": "sensitivity_90", "progress": no_progress}
    with pytest.raises(ConfigError, match="unknown decision 'sensitivity_90'"):
        evaluate(*isic9, out=tmp_path / "out", **asked)


def test_a_result_is_recorded_in_the_model_folder(done):
    folder = done.model.folder
    (folder / "metrics.json").write_text(json.dumps({"training": {"epochs": 3}, "test": {"attribution": {"gradcam": {}}}}))
    record(done)
    kept = json.loads((folder / "metrics.json").read_text())
    assert kept["training"] == {"epochs": 3}
    assert kept["test"]["attribution"] == {"gradcam": {}}
    assert kept["test"]["balanced_accuracy"] == done.section["balanced_accuracy"]
    assert (folder / "plots" / "confusion_test.png").is_file()


def test_an_ensemble_is_held_to_its_members_training_images(registry, pair, samples, tmp_path):
    options = {"registry": registry, **QUICK}
    done = evaluate(pair, samples, out=tmp_path / "out", **options)
    assert done.overlap.known and not done.overlap
    assert len(done.scored) == 21
    with pytest.raises(DataError, match="was made with some of these images"):
        evaluate(pair, samples, out=tmp_path / "out2", split="train", **options)


def test_a_published_version_is_evaluated_but_never_changed(registry, samples, tmp_path):
    done = evaluate("a", samples, out=tmp_path / "out", registry=registry, **QUICK)
    assert done.model.revision == "v1.0.0"
    with pytest.raises(ConfigError, match="never changes"):
        record(done)
