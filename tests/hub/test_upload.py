"""Publishing to the Hub: one commit and one tag per version, whatever fails, dies or races."""

from __future__ import annotations

import json
import time
from dataclasses import replace

import pytest
from huggingface_hub import GitCommitInfo, HfApi

import lesion_hub
from lesion_hub.config import ENGINE_VARIABLE
from lesion_hub.hub import store, upload
from lesion_hub.hub.versions import changelog_notes
from tests.hub.publishable import attempt, holds_weights_of, is_one_line, refused

pytestmark = pytest.mark.slow

COMMIT, TAG = r"POST /api/.*/commit/main", r"POST /api/.*/tag/"
LOSERS_LINES = ("someone else published", "under way", "already exists")  # by how close the race was


def publish(folder, repo_id, version="1.0.0", **options):
    options.setdefault("notes", f"Notes of {version}.")
    return store.publish(folder, repo_id, version=version, **options)


def notes_at(hub, repo_id, revision):
    return changelog_notes(hub.git(repo_id, "show", f"{revision}:CHANGELOG.md"))


def assert_published_once(hub, repo_id, folder, version="v1.0.0"):
    """One commit, one tag on it, and that is what loads."""
    assert hub.titles(repo_id) == [f"Release {version}"]
    assert hub.tags(repo_id) == [version]
    assert hub.git(repo_id, "rev-parse", version) == hub.git(repo_id, "rev-parse", "main")
    assert holds_weights_of(lesion_hub.from_pretrained(repo_id, revision=version), folder)


# ----------------------------------------------------------------------------------------------------------- all is well


def test_each_version_is_one_commit_and_one_tag(hub, make_folder, repo_id):
    for seed, version in enumerate(("1.0.0", "1.1.0")):
        done = publish(make_folder(seed), repo_id, version)
        assert hub.git(repo_id, "rev-parse", f"v{version}").strip() == done.commit
        assert (done.version, done.location) == (f"v{version}", f"{hub.endpoint}/{repo_id}/tree/v{version}")
    assert hub.titles(repo_id) == ["Release v1.1.0", "Release v1.0.0"]
    assert hub.tags(repo_id) == ["v1.0.0", "v1.1.0"]


def test_notes_go_on_top_of_the_changelog(hub, make_folder, repo_id):
    folder = make_folder()
    publish(folder, repo_id, "1.0.0", notes="First.\n\nWith detail.")
    publish(folder, repo_id, "1.1.0", notes="Second.")
    assert list(notes_at(hub, repo_id, "v1.1.0").items()) == [("v1.1.0", "Second."), ("v1.0.0", "First.\n\nWith detail.")]
    assert list(notes_at(hub, repo_id, "v1.0.0")) == ["v1.0.0"]
    assert store.info(repo_id).notes["v1.1.0"] == "Second."


def test_files_of_the_older_version_are_removed(hub, make_folder, repo_id):
    publish(make_folder(1, plots=("old.png", "roc.png")), repo_id, "1.0.0")
    publish(make_folder(2, backbone="test_resnet", plots=("roc.png",)), repo_id, "1.1.0")
    papers = {"config.json", "model.safetensors", "README.md", "metrics.json", "split.json", "CHANGELOG.md"}
    assert hub.files(repo_id, "v1.1.0") == papers | {"plots/roc.png"}
    assert hub.files(repo_id, "v1.0.0") == papers | {"plots/old.png", "plots/roc.png", "modeling_lesion.py"}


def test_a_run_folder_s_other_files_stay_at_home(hub, make_folder, repo_id):
    folder = make_folder()
    for name in ("checkpoint.pt", "log.txt", ".env"):
        (folder / name).write_text("private")
    publish(folder, repo_id)
    assert not {"checkpoint.pt", "log.txt", ".env"} & hub.files(repo_id)


def test_text_that_others_wrote_into_the_changelog_stays(hub, make_folder, repo_id):
    HfApi().create_repo(repo_id)
    text = b"# History\n\nWritten by hand.\n"
    HfApi().upload_file(path_or_fileobj=text, path_in_repo="CHANGELOG.md", repo_id=repo_id)
    publish(make_folder(), repo_id)
    assert hub.git(repo_id, "show", "v1.0.0:CHANGELOG.md").startswith("# History\n\nWritten by hand.\n\n## v1.0.0 - ")


# -------------------------------------------------------------------------------------------------------------- refusals


def test_an_existing_version_that_holds_anything_else_is_refused(hub, make_folder, repo_id):
    first = make_folder(1)
    publish(first, repo_id)
    for folder, notes in ((make_folder(2), "Notes of 1.0.0."), (first, "Other notes.")):
        with refused(f"{repo_id} v1.0.0", "already exists"):
            publish(folder, repo_id, notes=notes)
    assert_published_once(hub, repo_id, first)


def test_the_same_again_is_published_already_even_under_a_newer_version(hub, make_folder, repo_id):
    folder = make_folder(1)
    first = publish(folder, repo_id)
    again = publish(folder, repo_id)
    assert (first.already, again.already, again.commit) == (False, True, first.commit)
    assert_published_once(hub, repo_id, folder)
    publish(make_folder(2), repo_id, "1.1.0")
    assert publish(folder, repo_id).already
    assert hub.titles(repo_id) == ["Release v1.1.0", "Release v1.0.0"]


def test_a_graph_that_is_made_on_the_way_is_the_same_again_too(hub, make_folder, repo_id, monkeypatch):
    monkeypatch.delenv(ENGINE_VARIABLE)
    folder = make_folder()
    hub.spoil({"match": COMMIT, "lose": True, "times": 1})
    first = publish(folder, repo_id)
    again = publish(folder, repo_id)
    assert "model.onnx" in hub.files(repo_id) and not (folder / "model.onnx").exists()
    assert (first.already, again.already, again.commit) == (False, True, first.commit)
    assert hub.titles(repo_id) == ["Release v1.0.0"]


def test_private_never_means_a_public_repo(hub, make_folder, repo_id):
    publish(make_folder(1), repo_id)
    hub.clear_log()
    with refused(repo_id, "is public", "--private"):
        publish(make_folder(2), repo_id, "1.1.0", private=True)
    assert not [entry for entry in hub.log() if entry["request"].startswith("PUT") or "/commit/" in entry["request"]]
    assert hub.tags(repo_id) == ["v1.0.0"]


def test_a_private_repo_stays_private(hub, make_folder, repo_id):
    for version in ("1.0.0", "1.1.0"):
        publish(make_folder(), repo_id, version, private=True)
    assert HfApi().model_info(repo_id).private


@pytest.mark.parametrize("notes", [None, "", "  "])
def test_notes_are_required_before_anything_is_sent(hub, make_folder, repo_id, notes):
    with refused("notes"):
        publish(make_folder(), repo_id, notes=notes)
    assert hub.log() == []


@pytest.mark.parametrize("name", ["README.md", "metrics.json", "split.json", "config.json", "model.safetensors"])
def test_a_missing_file_is_named_before_anything_is_sent(hub, make_folder, repo_id, name):
    folder = make_folder()
    (folder / name).unlink()
    with refused(name):
        publish(folder, repo_id)
    assert hub.log() == []


def test_weights_that_are_not_the_config_s_are_refused_before_anything_is_sent(hub, make_folder, repo_id):
    folder = make_folder(1)
    (folder / "model.safetensors").write_bytes((make_folder(2) / "model.safetensors").read_bytes())
    with refused("model.safetensors", "sha256"):
        publish(folder, repo_id)
    assert hub.log() == []


@pytest.mark.parametrize(
    ("token", "words"), [("hf_wrong", "refused the token"), ("hf_read", "may not"), ("hf_other", "may not")]
)
def test_a_token_that_may_not_write_is_one_line(hub, make_folder, repo_id, token, words):
    folder = make_folder()
    with refused(repo_id, words):
        publish(folder, repo_id, token=token)
    publish(folder, repo_id)
    with refused(repo_id, words):
        publish(folder, repo_id, "1.1.0", token=token)
    assert_published_once(hub, repo_id, folder)


def test_front_matter_that_the_hub_refuses_is_one_line(hub, make_folder, repo_id, monkeypatch):
    def verdict(*_, **__):
        raise ValueError("- Error: YAML Metadata Error:\n- no such licence")

    monkeypatch.setattr(HfApi, "_validate_yaml", verdict)
    with refused(repo_id, "README.md", "no such licence"):
        publish(make_folder(), repo_id)
    assert hub.tags(repo_id) == []


def test_a_bad_request_is_not_reported_as_front_matter_to_mend(hub, make_folder, repo_id):
    hub.spoil({"match": COMMIT, "status": 400})
    with refused(repo_id, "the Hub answered 400 while publishing v1.0.0"):
        publish(make_folder(), repo_id)


# ------------------------------------------------------------------------------------------------------ faults on the way


@pytest.mark.parametrize("moment", ["before-ref", "after-ref"])
def test_a_server_killed_in_the_commit_ends_in_one_commit_and_one_tag(hub, make_folder, repo_id, moment, short_pauses):
    folder = make_folder()
    hub.spoil({"match": COMMIT, "die": moment})
    with refused(repo_id, "could not be reached", "run it again"):
        publish(folder, repo_id)
    hub.wait_until_dead()
    hub.start()
    publish(folder, repo_id)
    assert_published_once(hub, repo_id, folder)


@pytest.mark.parametrize("target", [COMMIT, TAG])
def test_a_lost_answer_is_looked_up_not_repeated(hub, make_folder, repo_id, target):
    folder = make_folder()
    hub.spoil({"match": target, "lose": True, "times": 1})
    publish(folder, repo_id)
    assert_published_once(hub, repo_id, folder)


def test_a_publish_that_never_got_its_tag_is_finished_by_the_next(hub, make_folder, repo_id, short_pauses):
    folder = make_folder()
    hub.spoil({"match": TAG, "status": 503})
    with refused(repo_id, "503"):
        publish(folder, repo_id)
    with refused(repo_id, "no such revision"):
        lesion_hub.from_pretrained(repo_id, revision="v1.0.0")
    hub.spoil()
    publish(folder, repo_id)
    assert_published_once(hub, repo_id, folder)


def test_it_is_finished_even_when_another_version_came_in_between(hub, make_folder, repo_id, short_pauses):
    late, other = make_folder(1), make_folder(2)
    hub.spoil({"match": TAG, "status": 503})
    with refused("503"):
        publish(late, repo_id, "1.0.0")
    hub.spoil()
    publish(other, repo_id, "1.1.0")
    publish(late, repo_id, "1.0.0")
    assert hub.titles(repo_id) == ["Release v1.1.0", "Release v1.0.0"]
    assert holds_weights_of(lesion_hub.from_pretrained(repo_id, revision="v1.0.0"), late)
    assert holds_weights_of(lesion_hub.from_pretrained(repo_id), other)


@pytest.mark.parametrize("target", ["", COMMIT, TAG, "PUT /_lfs/", "GET /api/", "POST /api/.*/preupload"])
def test_three_times_503_is_sat_out(hub, make_folder, repo_id, target, short_pauses):
    folder = make_folder()
    hub.spoil({"match": target, "status": 503, "times": 3})
    publish(folder, repo_id)
    assert_published_once(hub, repo_id, folder)


@pytest.mark.parametrize("target", ["", COMMIT])
def test_503_for_ever_is_one_line_after_bounded_retries(hub, make_folder, repo_id, target, short_pauses):
    folder = make_folder()
    hub.spoil({"match": target, "status": 503})
    with refused(repo_id, "503", "nothing is half done"):
        publish(folder, repo_id)
    assert len(hub.log()) < 60
    hub.spoil()
    publish(folder, repo_id)
    assert_published_once(hub, repo_id, folder)


def test_a_changelog_damaged_on_the_way_is_not_published(hub, make_folder, repo_id):
    publish(make_folder(1), repo_id, "1.0.0")
    hub.spoil({"match": r"GET /.*CHANGELOG\.md", "corrupt": True, "times": 1})
    publish(make_folder(2), repo_id, "1.1.0")
    assert list(notes_at(hub, repo_id, "v1.1.0").values()) == ["Notes of 1.1.0.", "Notes of 1.0.0."]


# ------------------------------------------------------------------------------------------------------- two publishers


def test_of_two_publishers_of_one_version_one_wins(hub, make_folder, repo_id, two_processes):
    HfApi().create_repo(repo_id)
    folders = [make_folder(1), make_folder(2)]
    hub.spoil({"match": COMMIT, "delay": 0.4})
    outcomes = [task.result() for task in [two_processes.submit(attempt, f, repo_id, "1.0.0") for f in folders]]
    assert sorted(outcome == "published" for outcome in outcomes) == [False, True], outcomes
    line = next(outcome for outcome in outcomes if outcome != "published")
    assert is_one_line(line)
    assert any(words in line for words in LOSERS_LINES), line
    assert_published_once(hub, repo_id, folders[outcomes.index("published")])


def test_of_two_publishers_of_different_versions_none_overwrites_the_other(hub, make_folder, repo_id, two_processes):
    HfApi().create_repo(repo_id)
    folders = {"1.0.0": make_folder(1), "1.1.0": make_folder(2)}
    hub.spoil({"match": COMMIT, "delay": 0.4})
    running = {version: two_processes.submit(attempt, folder, repo_id, version) for version, folder in folders.items()}
    outcomes = {version: task.result() for version, task in running.items()}
    assert "published" in outcomes.values(), outcomes
    hub.spoil()
    for version, outcome in outcomes.items():
        if outcome != "published":
            assert "someone else published" in outcome
            publish(folders[version], repo_id, version)
    for version, folder in folders.items():
        assert holds_weights_of(lesion_hub.from_pretrained(repo_id, revision=f"v{version}"), folder)
    assert set(notes_at(hub, repo_id, "main")) == {"v1.0.0", "v1.1.0"}
    assert len(hub.titles(repo_id)) == 2


def test_two_publishers_of_the_very_same_folder_end_in_one_commit(hub, make_folder, repo_id, two_processes):
    HfApi().create_repo(repo_id)
    folder = make_folder()
    hub.spoil({"match": COMMIT, "delay": 0.4})
    outcomes = [task.result() for task in [two_processes.submit(attempt, folder, repo_id, "1.0.0") for _ in "ab"]]
    assert outcomes == ["published", "published"]
    assert_published_once(hub, repo_id, folder)


@pytest.fixture
def untagged(hub, make_folder, repo_id, short_pauses):
    """Somebody's v1.0.0 whose commit is there and whose tag is not yet."""
    folder = make_folder(1)
    hub.spoil({"match": TAG, "status": 503})
    with refused("503"):
        publish(folder, repo_id)
    hub.spoil()
    return folder


def test_a_publish_that_is_under_way_is_not_overtaken(hub, make_folder, repo_id, untagged):
    with refused(repo_id, "under way", "wait a minute"):
        publish(make_folder(2), repo_id)
    assert hub.titles(repo_id) == ["Release v1.0.0"]


def test_an_abandoned_one_is_replaced_and_its_owner_told(hub, make_folder, repo_id, untagged, monkeypatch):
    monkeypatch.setattr(upload, "IN_FLIGHT_SECONDS", 0.0)
    second = make_folder(2)
    publish(second, repo_id)
    assert holds_weights_of(lesion_hub.from_pretrained(repo_id, revision="v1.0.0"), second)
    assert list(notes_at(hub, repo_id, "v1.0.0")) == ["v1.0.0"]
    with refused("already exists"):
        publish(untagged, repo_id)


def test_a_tag_that_somebody_else_took_is_told(hub, make_folder, repo_id, untagged, monkeypatch):
    tagged = upload.ReleaseUpload._tagged_commit
    answers = iter([None, None])
    monkeypatch.setattr(upload.ReleaseUpload, "_tagged_commit", lambda self: next(answers, tagged(self)))
    initial = hub.git(repo_id, "rev-list", "--max-parents=0", "main").strip()
    hub.git(repo_id, "tag", "v1.0.0", initial)
    with refused(repo_id, "someone else", "raise the number"):
        publish(untagged, repo_id)


def test_clocks_that_differ_do_not_block_for_ever(hub, repo_id, make_folder):
    publish(make_folder(), repo_id)
    newest: GitCommitInfo = HfApi().list_repo_commits(repo_id)[0]
    ahead = replace(newest, created_at=newest.created_at.replace(year=newest.created_at.year + 1))
    assert upload._age(newest) < upload.IN_FLIGHT_SECONDS < upload._age(ahead)


def test_what_is_published_twice_in_a_row_takes_no_second_upload(hub, make_folder, repo_id):
    folder = make_folder()
    publish(folder, repo_id, "1.0.0")
    hub.clear_log()
    started = time.monotonic()
    publish(folder, repo_id, "1.0.1")
    assert not [request for request in hub.log() if request["request"].startswith("PUT /_lfs/")]
    assert json.loads((store.resolve(repo_id).folder / "metrics.json").read_text()) == {"seed": 0}
    assert time.monotonic() - started < 10
