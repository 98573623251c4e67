"""Fetching from the Hub: the right version, whole and undamaged, or one clear line."""

from __future__ import annotations

import errno
import logging
import os
from pathlib import Path

import pytest
import timm
import torch
from huggingface_hub import HfApi
from transformers import AutoModelForImageClassification

import lesion_hub
from lesion_hub.hub import store
from tests.hub.publishable import holds_weights_of, refused

WEIGHTS = r"GET /_cdn/"


@pytest.fixture
def published(hub, make_folder, repo_id):
    """A repo with v1.0.0 (seed 1) and v1.1.0 (seed 2); (repo id, the two folders)."""
    folders = make_folder(1), make_folder(2)
    for folder, version in zip(folders, ("1.0.0", "1.1.0"), strict=True):
        store.publish(folder, repo_id, version=version, notes=f"Notes of {version}.")
    hub.clear_log()
    return repo_id, *folders


def test_each_revision_loads_its_own_weights(published):
    repo_id, first, second = published
    assert holds_weights_of(lesion_hub.from_pretrained(repo_id, revision="v1.0.0"), first)
    assert holds_weights_of(lesion_hub.from_pretrained(repo_id, revision="v1.1.0"), second)


def test_no_revision_is_the_highest_version_not_the_newest_commit(published, make_folder):
    repo_id, _, second = published
    store.publish(make_folder(3), repo_id, version="1.0.1", notes="A late fix.")
    assert lesion_hub.list_versions(repo_id) == ["v1.0.0", "v1.0.1", "v1.1.0"]
    predictor = lesion_hub.from_pretrained(repo_id)
    assert predictor.revision == "v1.1.0"
    assert holds_weights_of(predictor, second)


def test_a_commit_id_and_a_branch_load_too(published, hub):
    repo_id, first, second = published
    commit = hub.git(repo_id, "rev-parse", "v1.0.0").strip()
    assert holds_weights_of(lesion_hub.from_pretrained(repo_id, revision=commit), first)
    assert holds_weights_of(lesion_hub.from_pretrained(repo_id, revision="main"), second)


@pytest.mark.parametrize("backbone", ["lesion_cnn_shallow", "test_resnet"])
def test_timm_and_transformers_load_the_same(hub, make_folder, repo_id, backbone):
    for seed, version in ((1, "1.0.0"), (2, "1.1.0")):
        store.publish(make_folder(seed, backbone=backbone), repo_id, version=version, notes="n")
    ours = lesion_hub.from_pretrained(repo_id, revision="v1.0.0").classifier
    by_timm = timm.create_model(f"hf-hub:{repo_id}@v1.0.0", pretrained=True).eval()
    by_transformers = AutoModelForImageClassification.from_pretrained(repo_id, revision="v1.0.0").eval()
    images = torch.randn(2, 3, 32, 32)
    with torch.inference_mode():
        expected = ours(images)
        torch.testing.assert_close(by_timm(images), expected, rtol=0, atol=1e-4)
        torch.testing.assert_close(by_transformers(images).logits, expected, rtol=0, atol=1e-4)


# ----------------------------------------------------------------------------------------------------------- the cache


def test_a_cached_version_loads_without_any_request(published, hub):
    repo_id, first, _ = published
    lesion_hub.from_pretrained(repo_id, revision="v1.0.0")
    hub.clear_log()
    assert holds_weights_of(lesion_hub.from_pretrained(repo_id, revision="v1.0.0"), first)
    assert hub.log() == []
    hub.kill()
    assert holds_weights_of(lesion_hub.from_pretrained(repo_id, revision="v1.0.0"), first)


def test_what_timm_left_in_the_cache_is_completed(published, hub):
    repo_id, _, second = published
    timm.create_model(f"hf-hub:{repo_id}@v1.1.0", pretrained=True)
    found = store.resolve(repo_id, "v1.1.0")
    assert {path.name for path in found.folder.iterdir()} == hub.files(repo_id)
    assert holds_weights_of(lesion_hub.from_pretrained(repo_id, revision="v1.1.0"), second)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "README.md", "plots/roc.png"])
def test_a_byte_flipped_in_the_cache_is_found_and_mended(hub, make_folder, repo_id, name):
    folder = make_folder(1, plots=("roc.png",))
    store.publish(folder, repo_id, version="1.0.0", notes="n")
    path = store.resolve(repo_id, "v1.0.0").folder / name
    blob = bytearray(path.read_bytes())
    blob[len(blob) // 2] ^= 1
    path.resolve().write_bytes(blob)
    assert (store.resolve(repo_id, "v1.0.0").folder / name).read_bytes() == (folder / name).read_bytes()
    assert holds_weights_of(lesion_hub.from_pretrained(repo_id, revision="v1.0.0"), folder)


# -------------------------------------------------------------------------------------------------------------- faults


@pytest.mark.parametrize("target", [WEIGHTS, r"GET /.*config\.json", r"GET /.*metrics\.json"])
def test_one_byte_flipped_on_the_way_is_fetched_again(published, hub, target):
    repo_id, first, _ = published
    hub.spoil({"match": target, "corrupt": True, "times": 1})
    assert holds_weights_of(lesion_hub.from_pretrained(repo_id, revision="v1.0.0"), first)
    assert '"seed"' in (store.resolve(repo_id, "v1.0.0").folder / "metrics.json").read_text()


@pytest.mark.parametrize(("target", "name"), [(WEIGHTS, "model.safetensors"), (r"GET /.*config\.json", "config.json")])
def test_bytes_flipped_every_time_are_refused_and_not_kept(published, hub, target, name):
    repo_id, first, _ = published
    hub.spoil({"match": target, "corrupt": True})
    with refused(repo_id, name, "damaged"):
        lesion_hub.from_pretrained(repo_id, revision="v1.0.0")
    hub.spoil()
    assert holds_weights_of(lesion_hub.from_pretrained(repo_id, revision="v1.0.0"), first)


def test_a_download_cut_in_the_middle_is_taken_up_again(published, hub, short_naps):
    repo_id, first, _ = published
    hub.spoil({"match": WEIGHTS, "cut": 0.5, "times": 1})
    assert holds_weights_of(lesion_hub.from_pretrained(repo_id, revision="v1.0.0"), first)
    assert sum(request["request"].startswith("GET /_cdn/") for request in hub.log()) == 2


def test_a_download_cut_and_then_refused_is_one_line_and_leaves_nothing_half(published, hub, short_naps):
    repo_id, first, _ = published
    hub.spoil({"match": WEIGHTS, "cut": 0.5, "times": 1}, {"match": WEIGHTS, "status": 503})
    with refused(repo_id, "503"):
        lesion_hub.from_pretrained(repo_id, revision="v1.0.0")
    hub.spoil()
    assert holds_weights_of(lesion_hub.from_pretrained(repo_id, revision="v1.0.0"), first)


@pytest.mark.parametrize("target", ["GET /api/", WEIGHTS, "(GET|HEAD) "])
def test_three_times_503_is_sat_out(published, hub, short_naps, target):
    repo_id, _, second = published
    hub.spoil({"match": target, "status": 503, "times": 3})
    assert holds_weights_of(lesion_hub.from_pretrained(repo_id), second)


@pytest.mark.parametrize("revision", [None, "v1.0.0"])
def test_503_for_ever_is_one_line_after_bounded_retries(published, hub, short_naps, revision):
    repo_id, *_ = published
    hub.spoil({"status": 503})
    with refused(repo_id, "503"):
        lesion_hub.from_pretrained(repo_id, revision=revision)
    assert len(hub.log()) < 10


def test_a_hub_that_is_down_is_one_line(published, hub, short_naps):
    repo_id, *_ = published
    hub.kill()
    with refused(repo_id, "could not be reached"):
        lesion_hub.from_pretrained(repo_id, revision="v1.0.0")


def test_a_full_disk_is_one_line_and_leaves_nothing_half(published, monkeypatch):
    repo_id, first, _ = published

    def full(_url, temp_file, **_):
        temp_file.write(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("huggingface_hub.file_download.http_get", full)
        with refused(repo_id, "disk is full"):
            lesion_hub.from_pretrained(repo_id, revision="v1.0.0")
    assert holds_weights_of(lesion_hub.from_pretrained(repo_id, revision="v1.0.0"), first)


# ---------------------------------------------------------------------------------------------------- names and tokens


def test_missing_repos_and_revisions_are_one_line(published):
    repo_id, *_ = published
    with refused("user/nothing-here", "not found"):
        lesion_hub.from_pretrained("user/nothing-here")
    with refused(repo_id, "no such revision", "v9.9.9"):
        lesion_hub.from_pretrained(repo_id, revision="v9.9.9")
    with refused("user/a--b", "name"):
        lesion_hub.from_pretrained("user/a--b")


def test_a_repo_without_a_model_is_one_line(hub, repo_id):
    HfApi().create_repo(repo_id)
    with refused("config.json"):
        lesion_hub.from_pretrained(repo_id)


def test_wrong_tokens_and_no_tokens_are_one_line(hub, make_folder, repo_id, monkeypatch):
    store.publish(make_folder(), repo_id, version="1.0.0", notes="n", private=True)
    with refused(repo_id, "refused the token"):
        lesion_hub.from_pretrained(repo_id, token="hf_wrong")
    with refused(repo_id, "private"):
        lesion_hub.from_pretrained(repo_id, token="hf_other")
    monkeypatch.delenv("HF_TOKEN")
    with refused(repo_id, "private"):
        lesion_hub.from_pretrained(repo_id)
    assert lesion_hub.from_pretrained(repo_id, token="hf_read").revision == "v1.0.0"


@pytest.mark.parametrize("token", ["hf_two words", "hf_line\nbreak", "hf_überall"])
def test_a_token_that_cannot_be_sent_is_refused_without_quoting_it(hub, token):
    with refused("token", "copy it again"):
        lesion_hub.from_pretrained("user/m", token=token)


def test_the_token_is_in_no_log_and_no_error(hub, make_folder, repo_id, caplog, short_naps, fresh_cache):
    caplog.set_level(logging.DEBUG)
    store.publish(make_folder(), repo_id, version="1.0.0", notes="n", private=True, token="hf_test")
    lesion_hub.from_pretrained(repo_id, token="hf_test")
    fresh_cache()
    hub.spoil({"match": "_cdn", "cut": 0.5, "times": 1}, {"match": "GET /api", "status": 503, "times": 2})
    lesion_hub.from_pretrained(repo_id, token="hf_test")
    with refused("refused the token"):
        lesion_hub.from_pretrained(repo_id, token="hf_wrong", revision="main")
    assert len(caplog.records) > 10
    assert "hf_test" not in caplog.text
    assert "hf_wrong" not in caplog.text


def test_an_unusable_cache_folder_is_named(published, monkeypatch, tmp_path):
    repo_id, *_ = published
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "file" / "hub"))
    with refused(repo_id, str(Path("file") / "hub")):
        lesion_hub.from_pretrained(repo_id, revision="v1.0.0")
