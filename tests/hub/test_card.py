"""A card is made of the files beside it, word for word as expected, and the Hub's own classes read it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml
from huggingface_hub import ModelCard
from huggingface_hub.repocard_data import eval_results_to_model_index, model_index_to_eval_results

from lesion_hub.config import EnsembleConfig, EnsembleMember, dump_json
from lesion_hub.errors import LesionHubError
from lesion_hub.hub.card import dataset_slug, render_card, template_path, write_card
from lesion_hub.hub.card_check import check_card, problems
from lesion_hub.taxonomy import label_space

GOLDEN = Path(__file__).parent / "golden_card"
NAME = "org/isic2017-lite0"
SECTIONS = [
    "How to load",
    "Labels",
    "Intended use",
    "Out-of-scope use",
    "Training",
    "Data and licence",
    "Split",
    "Results",
    "Calibration",
    "Operating points",
    "Results by group",
    "Robustness",
    "Attribution checks",
    "Limits",
    "Citation",
    "Changelog",
]


@pytest.fixture
def folder(tmp_path):
    """A copy of the golden model folder."""
    return Path(shutil.copytree(GOLDEN, tmp_path / "model"))


def change(folder: Path, file: str, *keys: str, to) -> None:
    """Set (or with ``to=None`` remove) an entry of a JSON file."""
    content = json.loads((folder / file).read_text())
    place = content
    for key in keys[:-1]:
        place = place[key]
    if to is None:
        place.pop(keys[-1])
    else:
        place[keys[-1]] = to
    (folder / file).write_text(json.dumps(content))


def test_the_whole_card_is_as_expected():
    assert render_card(GOLDEN, name=NAME) == (GOLDEN / "README.md").read_text()


def test_every_section_is_there_in_order(folder):
    text = render_card(folder)
    assert [line[3:] for line in text.splitlines() if line.startswith("## ")] == SECTIONS
    assert "Not a medical device" in text


def test_a_file_in_8_bits_is_shown_with_what_its_gate_measured(folder):
    counts = {"images": 40, "right_before": 31, "right_after": 30, "sensitivity_before": 31 / 40, "sensitivity_after": 30 / 40}
    section = {
        "file": "onnx/model_int8.onnx",
        "sha256": "ab" * 32,
        "bytes": 4_100_000,
        "configuration": "weights of 7 bits",
        "tried": 2,
        "data": "ham10000",
        "images": 640,
        "limits": {"sensitivity_loss": 0.01, "agreement": 0.98},
        "agreement": 0.9875,
        "largest_change": 0.0912,
        "classes": {"mel": counts},
        "speedup": {"1 thread, batch 1": 1.432},
    }
    change(folder, "metrics.json", "int8", to=section)
    text = render_card(folder)
    assert "## Reduced precision" in text
    assert "| mel | 40 | 31 | 30 | 0.775 | 0.750 |" in text
    assert "98.8 % of its answers" in text
    assert "| 1 thread, batch 1 | 1.43 |" in text


def test_a_bare_model_has_every_section_too(folder):
    for key in ("robustness", "by_group", "calibration", "data"):
        change(folder, "metrics.json", "test", key, to=None)
    change(folder, "metrics.json", "attribution", to=None)
    change(folder, "metrics.json", "training", to=None)
    change(folder, "metrics.json", "test", "operating_points", to={})
    for name in ("CHANGELOG.md", "split.json"):
        (folder / name).unlink()
    write_card(folder)
    text = (folder / "README.md").read_text()
    assert [line[3:] for line in text.splitlines() if line.startswith("## ")] == SECTIONS
    assert text.count("Not measured for this version") == 3
    check_card(folder)


def test_the_hubs_own_classes_read_it_and_write_it_back():
    text = (GOLDEN / "README.md").read_text()
    card = ModelCard(text)
    front = yaml.safe_load(text.split("---\n")[1])
    assert card.data.to_dict() == front
    name, results = model_index_to_eval_results(front["model-index"])
    assert name == NAME
    assert eval_results_to_model_index(name, results) == front["model-index"]
    assert str(ModelCard(str(card))) == str(card)


def test_metadata_is_what_the_hub_expects():
    front = yaml.safe_load((GOLDEN / "README.md").read_text().split("---\n")[1])
    assert set(front) == {
        "base_model", "datasets", "library_name", "license", "metrics", "model-index", "pipeline_tag", "tags",
    }  # fmt: skip
    assert front["license"] == "cc-by-nc-4.0"
    (index,) = front["model-index"]
    measured = json.loads((GOLDEN / "metrics.json").read_text())["test"]["intervals"]
    for result in index["results"]:
        assert result["task"]["type"] == front["pipeline_tag"] == "image-classification"
        assert result["dataset"]["split"] == "test" and result["dataset"]["revision"]
        for metric in result["metrics"]:
            assert metric["type"] in front["metrics"]
            assert any(abs(metric["value"] - value["value"]) < 1e-4 for value in measured.values())


def test_data_without_a_version_are_pinned_by_the_split(folder):
    change(folder, "config.json", "lesion_hub", "training", "data", to=[{"name": "HAM10000", "license": "cc-by-nc-4.0"}])
    front = yaml.safe_load(render_card(folder).split("---\n")[1])
    assert front["model-index"][0]["results"][0]["dataset"]["revision"] == "split-" + "ab" * 6


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("org/x", ['from_pretrained("org/x")', "hf-hub:org/x", 'pipeline("image-classification", "org/x")']),
        ("x", ['from_pretrained("x")', "local-dir:path/to/x", '"path/to/x"']),
    ],
)
def test_it_says_how_to_load_with_all_three(folder, name, words):
    text = render_card(folder, name=name)
    assert all(word in text for word in words)


def test_custom_networks_say_what_they_need(folder):
    change(folder, "config.json", "auto_map", to={"AutoModelForImageClassification": "modeling_lesion.X"})
    change(folder, "config.json", "architecture", to="lesion_net")
    text = render_card(folder)
    assert "import lesion_hub.models" in text and "trust_remote_code=True" in text
    change(folder, "config.json", "architecture", to="net_of_mine")
    text = render_card(folder)
    assert "import modeling_lesion" in text and "import lesion_hub.models" not in text


def test_without_results_there_is_no_card(folder):
    change(folder, "metrics.json", "test", "intervals", to=None)
    with pytest.raises(LesionHubError, match=r"no results with intervals; measure with lesion-hub evaluate .* --record"):
        render_card(folder)


def test_validation_results_are_called_what_they_are(folder):
    metrics = json.loads((folder / "metrics.json").read_text())
    (folder / "metrics.json").write_text(json.dumps({"validation": metrics["test"]}))
    assert "these are validation results" in render_card(folder)


@pytest.fixture
def ensemble(folder):
    """The golden results as those of an ensemble."""
    (folder / "config.json").unlink()
    config = EnsembleConfig(
        label_space="isic2017",
        label_names=label_space("isic2017").labels,
        members=tuple(EnsembleMember(name=f"org/{name}", revision="v1.0.0", weights_sha256="0" * 64) for name in "ab"),
        weights=(0.25, 0.75),
        temperature=1.4,
    )
    (folder / "ensemble.json").write_text(dump_json(config))
    (folder / "README.md").unlink()
    return folder


def test_an_ensemble_lists_its_members(ensemble):
    write_card(ensemble, name="org/pair", licence="cc-by-nc-4.0")
    text = (ensemble / "README.md").read_text()
    front = yaml.safe_load(text.split("---\n")[1])
    assert front["base_model"] == ["org/a", "org/b"] and front["library_name"] == "lesion-hub"
    assert "| org/b | v1.0.0 | 0.750 |" in text
    assert list(problems(ensemble)) == []


def test_a_licence_that_nobody_knows_is_asked_for(ensemble):
    with pytest.raises(LesionHubError, match="--licence"):
        render_card(ensemble)


def test_names_of_data_sets_become_ids():
    assert [dataset_slug(name) for name in ("ISIC 2019", "org/data", "...", "HAM10000")] == [
        "isic-2019",
        "org/data",
        None,
        "ham10000",
    ]


def test_the_template_is_where_the_package_looks_for_it():
    assert template_path().is_file()
