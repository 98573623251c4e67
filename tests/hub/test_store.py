"""One set of verbs for folders, the registry and the Hub."""

from __future__ import annotations

import errno
import os

import pytest

import lesion_hub
from lesion_hub.hub import store
from tests.hub.publishable import holds_weights_of, refused, write_ensemble


def publish(folder, name, root=None, version="1.0.0"):
    return store.publish(folder, name, version=version, notes=f"Notes of {version}.", registry=root)


def names_in(folder):
    return {path.name for path in folder.iterdir()}


def test_a_model_folder_loads_and_has_no_versions(make_folder):
    folder = make_folder()
    found = store.resolve(folder)
    assert (found.folder, found.revision) == (folder, None)
    with refused(str(folder), "has no versions"):
        store.resolve(folder, "v1.0.0")


def test_a_folder_wins_over_a_hub_id_of_the_same_spelling(make_folder, tmp_path, monkeypatch):
    (tmp_path / "org").mkdir()
    make_folder().rename(tmp_path / "org" / "model")
    monkeypatch.chdir(tmp_path)
    assert store.resolve("org/model").folder.is_dir()


@pytest.mark.parametrize("name", ["no/such/folder", "/nowhere", "", "a b", "..", "x\0y"])
def test_what_is_neither_folder_nor_name_is_one_line(name, tmp_path):
    with refused("neither a model folder"):
        store.resolve(name, registry=tmp_path)


@pytest.mark.parametrize("place", ["registry", "hub"])
def test_the_verbs_are_the_same_everywhere(place, request, make_folder, tmp_path, repo_id):
    if place == "hub":
        request.getfixturevalue("hub")
    name = repo_id if place == "hub" else "m"
    for version in ("1.0.0", "1.1.0"):
        publish(make_folder(plots=("roc.png",)), name, tmp_path, version)
    facts = store.info(name, registry=tmp_path)
    assert (facts.kind, facts.version, facts.versions) == ("model", "v1.1.0", ["v1.0.0", "v1.1.0"])
    assert (facts.architecture, facts.label_space, facts.licence) == ("lesion_cnn_shallow", "ham7", "cc-by-nc-4.0")
    assert facts.notes == {"v1.1.0": "Notes of 1.1.0.", "v1.0.0": "Notes of 1.0.0."}
    assert facts.metrics == {"seed": 0}
    assert facts.to_dict()["labels"][0] == "mel"
    assert facts.size_bytes > 1_000_000


def test_metrics_that_are_not_json_are_one_line(make_folder):
    folder = make_folder()
    (folder / "metrics.json").write_text("{")
    with refused("metrics.json"):
        store.info(folder)


@pytest.mark.parametrize("place", ["registry", "hub"])
def test_pull_copies_a_version_into_a_folder_that_loads(place, request, make_folder, tmp_path, repo_id):
    if place == "hub":
        request.getfixturevalue("hub")
    name, folder = (repo_id if place == "hub" else "m"), make_folder(plots=("roc.png",))
    publish(folder, name, tmp_path / "root")
    pulled = store.pull(name, to=tmp_path / "here" / "copy", registry=tmp_path / "root")
    assert names_in(pulled.folder) == names_in(folder) | {"CHANGELOG.md"}
    assert not any(path.is_symlink() for path in pulled.folder.rglob("*"))
    assert holds_weights_of(lesion_hub.from_pretrained(pulled.folder), folder)


def test_pull_without_a_target_stays_in_the_cache(hub, make_folder, repo_id):
    publish(make_folder(), repo_id)
    store.pull(repo_id)
    hub.kill()
    assert lesion_hub.from_pretrained(repo_id, revision="v1.0.0").revision == "v1.0.0"


def test_pull_fetches_the_members_of_an_ensemble(hub, make_folder, repo_id, tmp_path):
    member = make_folder()
    publish(member, repo_id)
    ensemble = f"{repo_id}-ensemble"
    publish(write_ensemble(tmp_path / "e", {repo_id: member}), ensemble)
    store.pull(ensemble)
    hub.kill()
    assert lesion_hub.from_pretrained(ensemble, revision="v1.0.0").members[0].name == repo_id


def test_pull_never_writes_into_what_is_there(make_folder, tmp_path):
    publish(make_folder(), "m", tmp_path / "root")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    for target in (tmp_path / "mine", tmp_path / "mine" / "thesis.tex"):
        with refused(str(target), "choose a new one"):
            store.pull("m", to=target, registry=tmp_path / "root")
    (tmp_path / "empty").mkdir()
    assert store.pull("m", to=tmp_path / "empty", registry=tmp_path / "root").folder == tmp_path / "empty"


@pytest.mark.parametrize("call", ["shutil.copyfile", "pathlib.Path.replace"])
def test_pull_onto_a_full_disk_is_one_line_and_leaves_nothing(make_folder, tmp_path, monkeypatch, call):
    publish(make_folder(), "m", tmp_path / "root")
    before = names_in(tmp_path)

    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(call, full)
    with refused("copy", "No space left on device"):
        store.pull("m", to=tmp_path / "copy", registry=tmp_path / "root")
    assert names_in(tmp_path) == before
