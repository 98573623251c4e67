"""The commands about data, run as a user runs them."""

from __future__ import annotations

import json
import re

import pytest

from lesion_hub.cli.data import app
from tests.cli.runner import object_of, run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    folder = tmp_path_factory.mktemp("samples") / "set"
    run("data", "sample", folder, "--count", 120, "--size", "64x48", "--balanced", "--plant-leaks", 4, "--plant-duplicates", 3)
    return folder


def test_every_command_shows_an_example():
    for command in app.registered_commands:
        assert re.search(r"Example: .*lesion-hub data", run("data", command.callback.__name__, "--help").stdout)


def test_show_counts_what_sample_drew(samples):
    facts = object_of("data", "show", samples)
    assert facts["source"] == "ham10000"
    assert facts["images"] == 127
    assert sum(facts["classes"].values()) == 127
    assert object_of("data", "show", samples, "--space", "binary")["labels"] == ["benign", "malignant"]


def test_a_split_is_written_described_and_audited(samples, tmp_path):
    manifest = tmp_path / "folds.json"
    told = object_of("data", "split", samples, "--folds", 3, "--out", manifest)
    assert told["parts"] == ["fold0", "fold1", "fold2"]
    assert json.loads(manifest.read_text())["hash"] == told["hash"]
    report = object_of("data", "audit", samples, "--manifest", manifest, "--out", tmp_path / "audit")
    assert report["ok"]
    assert report["leaks"] == []
    assert report["images"] == 127
    assert len(report["exact_duplicate_pairs"]) + len(report["near_duplicate_pairs"]) >= 6
    assert report == json.loads((tmp_path / "audit" / "audit.json").read_text())
    assert "<html" in (tmp_path / "audit" / "audit.html").read_text()


def test_a_leaking_split_fails_the_audit(samples, tmp_path):
    """Every planted copy is put into the other part than its original, behind the splitter's back."""
    planted = json.loads((samples / "planted.json").read_text())["leaks"]
    copies = {entry["image"] for entry in planted}
    manifest = tmp_path / "split.json"
    run("data", "split", samples, "--out", manifest, "--folds", 2)
    data = json.loads(manifest.read_text())
    from lesion_hub.data.splits import SplitManifest

    rows = [(i, label, unit + 10_000 * (i in copies), 1 if i in copies else 0) for i, label, unit, _ in data["images"]]
    names = ("seed", "method", "space", "classes", "parts")
    columns = dict(zip(("ids", "labels", "units", "places"), zip(*rows, strict=True), strict=True))
    SplitManifest(**{name: data[name] for name in names}, **columns).save(manifest)
    done = run("data", "audit", samples, "--manifest", manifest, "--out", tmp_path / "audit", ok=False)
    assert done.returncode == 1
    assert "split leaks" in done.stderr


def test_two_data_sets_that_overlap_fail_the_audit(samples, tmp_path):
    done = run("data", "audit", samples, "--against", samples, "--out", tmp_path, ok=False)
    assert "shares 127 ids" in done.stderr


def test_cache_reports_what_it_made(samples, tmp_path):
    made = object_of("data", "cache", samples, "--size", 32, "--out", tmp_path, "--processes", 1)
    assert made["images"] == 127
    assert made["bytes"] == 127 * 32 * 42 * 3


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["show", "nowhere/at/all"], "no such folder"),
        (["show", "SAMPLES", "--source", "ham1000"], "did you mean 'ham10000'"),
        (["show", "SAMPLES", "--space", "isic8"], "does not map to 'isic8'"),
        (["show", "SAMPLES", "--column", "image_id"], "not of the form"),
        (["sample", "OUT", "--classes", "5"], "no sample set has 5 classes"),
        (["sample", "OUT", "--size", "big"], "neither a number nor WIDTHxHEIGHT"),
        (["sample", "SAMPLES", "--count", "7"], "another spec"),
        (["split", "SAMPLES", "--out", "OUT", "--folds", "1"], "use 2 or more"),
        (["split", "SAMPLES", "--out", "OUT", "--fractions", "0.5", "0.1", "0.1"], "sum to 1"),
        (["cache", "SAMPLES", "--out", "OUT", "--fit", "stretch"], "squash, crop, pad"),
    ],
)
def test_a_mistake_is_one_line_and_a_failure(samples, tmp_path, arguments, told):
    places = {"SAMPLES": samples, "OUT": tmp_path / "out"}
    done = run("data", *(places.get(argument, argument) for argument in arguments), ok=False)
    assert told in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
