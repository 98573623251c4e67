"""Fetching from the Hub: the right version, whole and undamaged, or one clear line; offline, what is cached and at once."""

from __future__ import annotations

import errno
import json
import logging
import os
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
from huggingface_hub import HfApi
from transformers import AutoModelForImageClassification

import lesion_hub
from lesion_hub.hub import store
from tests.hub.publishable import holds_weights_of, is_one_line, refused, write_ensemble

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
AT_ONCE_SECONDS = 5.0  # generous for a busy machine: any wait for a network would be ten and more
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


def test_a_download_cut_in_the_middle_is_taken_up_again(published, hub, short_pauses):
    repo_id, first, _ = published
    hub.spoil({"match": WEIGHTS, "cut": 0.5, "times": 1})
    assert holds_weights_of(lesion_hub.from_pretrained(repo_id, revision="v1.0.0"), first)
    assert sum(request["request"].startswith("GET /_cdn/") for request in hub.log()) == 2


def test_a_download_cut_and_then_refused_is_one_line_and_leaves_nothing_half(published, hub, short_pauses):
    repo_id, first, _ = published
    hub.spoil({"match": WEIGHTS, "cut": 0.5, "times": 1}, {"match": WEIGHTS, "status": 503})
    with refused(repo_id, "503"):
        lesion_hub.from_pretrained(repo_id, revision="v1.0.0")
    hub.spoil()
    assert holds_weights_of(lesion_hub.from_pretrained(repo_id, revision="v1.0.0"), first)


@pytest.mark.parametrize("target", ["GET /api/", WEIGHTS, "(GET|HEAD) "])
def test_three_times_503_is_sat_out(published, hub, short_pauses, target):
    repo_id, _, second = published
    hub.spoil({"match": target, "status": 503, "times": 3})
    assert holds_weights_of(lesion_hub.from_pretrained(repo_id), second)


@pytest.mark.parametrize("revision", [None, "v1.0.0"])
def test_503_for_ever_is_one_line_after_bounded_retries(published, hub, short_pauses, revision):
    repo_id, *_ = published
    hub.spoil({"status": 503})
    with refused(repo_id, "503"):
        lesion_hub.from_pretrained(repo_id, revision=revision)
    assert len(hub.log()) < 10


def test_a_hub_that_is_down_is_one_line(published, hub, short_pauses):
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


def test_the_token_is_in_no_log_and_no_error(hub, make_folder, repo_id, caplog, short_pauses, fresh_cache):
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


# ------------------------------------------------------------------------------------------------- HF_HUB_OFFLINE=1

# Runs in a process of its own, because the variable is read when huggingface_hub is imported.
SCRIPT = """
import json, socket, sys, time
import lesion_hub
from lesion_hub.errors import LesionHubError
from lesion_hub.hub import store

asked = []
socket.socket.connect = lambda self, address: asked.append(str(address))
socket.getaddrinfo = lambda *address, **_: asked.append(str(address))

def timed(verb, *arguments, **options):
    start = time.monotonic()
    try:
        result = verb(*arguments, **options)
        outcome = result if isinstance(result, list) else getattr(result, "revision", str(result))
    except LesionHubError as error:
        outcome = str(error)
    return outcome, time.monotonic() - start

verbs = {
    "load": lesion_hub.from_pretrained,
    "versions": lesion_hub.list_versions,
    "pull": store.pull,
    "publish": lambda folder, name: store.publish(folder, name, version="9.0.0", notes="n"),
}
answers = {}
for label, (verb, *arguments) in json.loads(sys.argv[1]).items():
    options = arguments.pop() if isinstance(arguments[-1], dict) else {}
    answers[label] = timed(verbs[verb], *arguments, **options)
print(json.dumps({"answers": answers, "asked": asked}))
"""


def run_offline(questions: dict[str, list[object]]) -> dict[str, str]:
    """The answers of an offline process, once it is sure that each came at once and that no network was asked for."""
    command = [sys.executable, "-c", SCRIPT, json.dumps(questions)]
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, "HF_HUB_OFFLINE": "1"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["asked"] == []
    assert {label: seconds for label, (_, seconds) in told["answers"].items() if seconds > AT_ONCE_SECONDS} == {}
    return {label: outcome for label, (outcome, _) in told["answers"].items()}


@pytest.fixture
def cached(hub, make_folder, repo_id, tmp_path):
    """v1.0.0 and v1.1.0 of a repo and v1.0.0 of an ensemble are in the cache, v2.0.0 is not; then the Hub goes away."""
    first = make_folder(1)
    for version, folder in (("1.0.0", first), ("1.1.0", make_folder(2)), ("2.0.0", make_folder(3))):
        store.publish(folder, repo_id, version=version, notes="n")
    store.publish(write_ensemble(tmp_path / "e", {repo_id: first}), f"{repo_id}-ensemble", version="1.0.0", notes="n")
    store.pull(repo_id, "v1.1.0")
    store.pull(f"{repo_id}-ensemble")
    hub.kill()
    return repo_id, first


def test_what_is_cached_loads_and_what_is_not_says_so_at_once(cached):
    repo_id, folder = cached
    answers = run_offline(
        {
            "pinned": ["load", repo_id, {"revision": "v1.0.0"}],
            "highest that is cached": ["load", repo_id],
            "ensemble": ["load", f"{repo_id}-ensemble"],
            "versions": ["versions", repo_id],
            "pull": ["pull", repo_id],
            "unknown repo": ["load", "org/never-seen"],
            "unknown revision": ["load", repo_id, {"revision": "v2.0.0"}],
            "unknown branch": ["load", repo_id, {"revision": "main"}],
            "versions of an unknown repo": ["versions", "org/never-seen"],
            "publish": ["publish", str(folder), repo_id],
        }
    )
    assert answers["pinned"] == "v1.0.0"
    assert answers["highest that is cached"] == answers["pull"] == "v1.1.0"
    assert answers["ensemble"] == "v1.0.0"
    assert answers["versions"] == ["v1.0.0", "v1.1.0"]
    for label in ("unknown repo", "unknown revision", "unknown branch", "versions of an unknown repo", "publish"):
        line = answers[label]
        assert is_one_line(line)
        assert "offline" in line, line
    assert "v2.0.0" in answers["unknown revision"]


@pytest.fixture
def offline(monkeypatch):
    """Offline within this process, as far as our own code and huggingface_hub's are concerned."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def test_a_half_fetched_version_is_passed_over(cached, offline):
    repo_id, _ = cached
    folder = store.resolve(repo_id, "v1.1.0").folder
    (folder / "metrics.json").unlink()
    assert store.resolve(repo_id).revision == "v1.0.0"
    with refused(repo_id, "not wholly"):
        store.resolve(repo_id, "v1.1.0")


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_damaged_file_is_named(cached, offline, name):
    repo_id, _ = cached
    path = store.resolve(repo_id, "v1.0.0").folder / name
    blob = bytearray(path.read_bytes())
    blob[-2] ^= 1
    path.resolve().write_bytes(blob)
    with refused(name, "damaged"):
        store.resolve(repo_id, "v1.0.0")


@pytest.mark.parametrize("damage", ["folder", "link", "ref"])
def test_a_cache_that_holds_what_the_hub_never_sent_heals_itself(published, fresh_cache, tmp_path, damage):
    repo_id, first, _ = published
    cache = fresh_cache()
    snapshot = lesion_hub.from_pretrained(repo_id, revision="v1.0.0").folder
    precious = tmp_path / "precious.json"
    precious.write_text("{}")
    if damage == "ref":
        (ref,) = cache.rglob("refs/v1.0.0")
        ref.write_bytes(b"\xff\xfe")
    else:
        (snapshot / "config.json").unlink()
        if damage == "folder":
            (snapshot / "config.json").mkdir()
        else:
            (snapshot / "config.json").symlink_to(precious)
    assert holds_weights_of(lesion_hub.from_pretrained(repo_id, revision="v1.0.0"), first)
    assert precious.read_text() == "{}"  # what a link led to is not the cache's to delete
