"""The local registry: a version is there whole or not at all, whoever publishes and whatever stops them."""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path

import pytest

import lesion_hub
from lesion_hub.hub import registry, store
from lesion_hub.hub.registry import Registries, Registry, packaged_root
from lesion_hub.hub.versions import changelog_notes
from tests.hub.publishable import attempt, holds_weights_of, refused, write_ensemble


def publish(folder, root, version="1.0.0", name="m", notes=None):
    return store.publish(folder, name, version=version, notes=notes or f"Notes of {version}.", registry=root)


def notes_in(place: Path) -> dict[str, str]:
    return changelog_notes((place / "CHANGELOG.md").read_text(encoding="utf-8"))


def test_each_version_loads_its_own_weights_and_none_means_the_highest(make_folder, tmp_path):
    first, second = make_folder(1), make_folder(2)
    publish(first, tmp_path, "1.9.9")
    publish(second, tmp_path, "1.10.0")
    assert holds_weights_of(lesion_hub.from_pretrained("m", registry=tmp_path), second)
    assert holds_weights_of(lesion_hub.from_pretrained("m", revision="v1.9.9", registry=tmp_path), first)
    assert lesion_hub.list_versions("m", registry=tmp_path) == ["v1.9.9", "v1.10.0"]


def test_a_version_holds_exactly_the_files_of_a_repo(make_folder, tmp_path):
    folder = make_folder(plots=("roc.png",))
    (folder / "checkpoint.pt").write_bytes(b"stays at home")
    publish(folder, tmp_path)
    place = tmp_path / "m" / "v1.0.0"
    held = {str(path.relative_to(place)) for path in place.rglob("*") if path.is_file()}
    papers = {"README.md", "metrics.json", "split.json", "CHANGELOG.md"}
    assert held == papers | {"config.json", "model.safetensors", "modeling_lesion.py", "plots/roc.png"}
    assert [path.name for path in (tmp_path / "m").iterdir() if not path.name.startswith(".")] == ["v1.0.0"]


def test_the_same_again_is_published_already(make_folder, tmp_path):
    folder = make_folder(plots=("roc.png",))
    first, again = publish(folder, tmp_path), publish(folder, tmp_path)
    assert (first.already, again.already, again.location) == (False, True, first.location)
    assert str(again) == f"already published m v1.0.0: {tmp_path / 'm' / 'v1.0.0'}"
    with refused("m v1.0.0", "already exists"):
        publish(folder, tmp_path, notes="Other notes.")
    (folder / "plots" / "roc.png").unlink()
    with refused("m v1.0.0", "already exists"):
        publish(folder, tmp_path)


def test_an_existing_version_is_refused_and_unchanged(make_folder, tmp_path):
    first = make_folder(1)
    publish(first, tmp_path)
    with refused("m v1.0.0", "already exists"):
        publish(make_folder(2), tmp_path)
    assert holds_weights_of(lesion_hub.from_pretrained("m", registry=tmp_path), first)


def test_notes_go_on_top_of_what_was_published_last_even_for_an_older_line(make_folder, tmp_path):
    folder = make_folder()
    for version in ("1.0.0", "2.0.0", "1.0.1"):
        publish(folder, tmp_path, version)
    for changelog in (tmp_path / "m").glob("*/CHANGELOG.md"):
        os.utime(changelog, (0, 0))  # a checkout or a wheel keeps no times
    publish(folder, tmp_path, "1.0.2")
    assert list(notes_in(tmp_path / "m" / "v1.0.2")) == ["v1.0.2", "v1.0.1", "v2.0.0", "v1.0.0"]


@pytest.mark.parametrize("moment", ["_write_durably", "sync_folder"])
def test_killed_in_the_middle_leaves_no_version_and_can_be_run_again(make_folder, tmp_path, moment):
    folder = make_folder()
    child = os.fork()
    if child == 0:
        setattr(registry, moment, lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        attempt(folder, "m", "1.0.0", tmp_path)
        os._exit(1)
    assert os.WIFSIGNALED(os.waitpid(child, 0)[1])
    with refused("'m' is not in the registry"):
        store.list_versions("m", registry=tmp_path)
    publish(folder, tmp_path)
    assert holds_weights_of(lesion_hub.from_pretrained("m", registry=tmp_path), folder)
    assert not list((tmp_path / "m").glob(".*tmp*"))


@pytest.mark.parametrize("call", ["write", "fsync", "rename"])
def test_a_full_disk_is_one_line_and_leaves_nothing(make_folder, tmp_path, monkeypatch, call):
    folder = make_folder()

    def full(*_, **__):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        target = {"write": "shutil.copyfileobj", "fsync": "os.fsync", "rename": "pathlib.Path.rename"}[call]
        patch.setattr(target, full)
        with refused("v1.0.0", "No space left on device"):
            publish(folder, tmp_path)
    assert [path.name for path in (tmp_path / "m").iterdir()] in ([], [".lock"])
    publish(folder, tmp_path)


def test_of_two_publishers_of_one_version_one_wins(make_folder, tmp_path, two_processes):
    folders = [make_folder(1), make_folder(2)]
    running = [two_processes.submit(attempt, folder, "m", "1.0.0", tmp_path) for folder in folders]
    outcomes = [task.result() for task in running]
    assert sorted(outcome == "published" for outcome in outcomes) == [False, True]
    assert any("already exists" in outcome for outcome in outcomes)
    winner = folders[outcomes.index("published")]
    assert holds_weights_of(lesion_hub.from_pretrained("m", registry=tmp_path), winner)


def test_of_two_publishers_of_different_versions_both_win(make_folder, tmp_path, two_processes):
    folders = {"1.0.0": make_folder(1), "1.1.0": make_folder(2)}
    running = [two_processes.submit(attempt, folder, "m", version, tmp_path) for version, folder in folders.items()]
    assert [task.result() for task in running] == ["published", "published"]
    for version, folder in folders.items():
        assert holds_weights_of(lesion_hub.from_pretrained("m", revision=f"v{version}", registry=tmp_path), folder)
    logs = [notes_in(place) for place in (tmp_path / "m").glob("v*")]
    assert max(logs, key=len) == {"v1.0.0": "Notes of 1.0.0.", "v1.1.0": "Notes of 1.1.0."}


def test_a_held_lock_is_waited_for_only_so_long(make_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(registry, "_LOCK_SECONDS", 0.05)
    (tmp_path / "m").mkdir()
    with registry.FileLock(tmp_path / "m" / ".lock"), refused("another publisher holds the lock"):
        publish(make_folder(), tmp_path)


def test_unknown_names_and_versions_are_one_line(make_folder, tmp_path):
    publish(make_folder(), tmp_path, name="ham-lite0")
    with refused("'ham-lite1'", "did you mean 'ham-lite0'"):
        lesion_hub.from_pretrained("ham-lite1", registry=tmp_path)
    with refused("ham-lite0", "'v2.0.0'", "v1.0.0"):
        lesion_hub.from_pretrained("ham-lite0", revision="v2.0.0", registry=tmp_path)
    with refused("../ham-lite0"):
        lesion_hub.from_pretrained("../ham-lite0", registry=tmp_path)
    with refused("nowhere"):
        lesion_hub.list_versions("m", registry=tmp_path / "nowhere")


def test_names_lists_what_has_a_version(make_folder, tmp_path):
    publish(make_folder(), tmp_path, name="b")
    publish(make_folder(), tmp_path, name="a")
    (tmp_path / "empty").mkdir()
    assert Registry(tmp_path).names() == ["a", "b"]


# ------------------------------------------------------------------------------------------------------ several of them


def test_the_roots_are_those_of_the_argument_then_of_the_variable_and_last_the_packaged_one(tmp_path, monkeypatch):
    one, two = tmp_path / "one", tmp_path / "two"
    assert Registries().roots == [packaged_root()]
    monkeypatch.setenv("LESION_HUB_REGISTRY", f"{one}{os.pathsep}{two}")
    assert Registries().roots == [one, two, packaged_root()]
    assert Registries(two).roots == [two, packaged_root()]
    assert Registries(f"{one}{os.pathsep}packaged{os.pathsep}{two}{os.pathsep}").roots == [one, packaged_root(), two]
    assert Registries(str(packaged_root())).roots == [packaged_root()]


def test_models_are_found_in_any_and_the_first_that_has_a_name_counts(make_folder, tmp_path):
    folders = {place: make_folder(seed) for seed, place in enumerate(("mine", "ours"))}
    publish(folders["mine"], tmp_path / "mine", "1.0.0", name="both")
    publish(folders["ours"], tmp_path / "ours", "2.0.0", name="both")
    publish(folders["ours"], tmp_path / "ours", name="theirs")
    both = f"{tmp_path / 'mine'}{os.pathsep}{tmp_path / 'ours'}"
    assert holds_weights_of(lesion_hub.from_pretrained("both", registry=both), folders["mine"])
    assert holds_weights_of(lesion_hub.from_pretrained("both@2.0.0", registry=both), folders["ours"])
    assert store.list_versions("both", registry=both) == ["v1.0.0"]
    facts = store.info("both", registry=both)
    assert (facts.registry, facts.also_in) == (str(tmp_path / "mine"), [str(tmp_path / "ours")])
    assert store.info("theirs", registry=both).also_in == []
    with refused("both", "'v3.0.0'", "it has v1.0.0, v2.0.0"):
        store.resolve("both@3.0.0", registry=both)


def test_the_shipped_models_are_found_beside_ones_own(make_folder, tmp_path):
    publish(make_folder(), tmp_path, name="m")
    assert store.resolve("dermoscopy-lite0", registry=tmp_path).registry == packaged_root()
    assert {"m", "dermoscopy-lite0"} <= set(Registries(tmp_path).names())


def test_publish_takes_the_first_that_can_be_written_into_and_never_the_packaged_one(make_folder, tmp_path):
    folder, mine = make_folder(), tmp_path / "new" / "mine"
    (tmp_path / "file").write_text("no folder")
    places = os.pathsep.join(["packaged", str(tmp_path / "file"), str(mine)])
    assert publish(folder, places).location == str(mine / "m" / "v1.0.0")
    for nowhere in (None, "packaged"):
        with refused("no registry to publish into", "--registry", "LESION_HUB_REGISTRY"):
            publish(folder, nowhere)
    with refused("file", "cannot be written"):
        publish(folder, tmp_path / "file")


def test_an_ensemble_finds_its_members_beside_it_whatever_else_bears_their_name(make_folder, tmp_path):
    members = {"a": make_folder(1), "b": make_folder(2)}
    for name, folder in members.items():
        publish(folder, tmp_path / "theirs", name=name)
    publish(write_ensemble(tmp_path / "run-e", members), tmp_path / "theirs", name="e")
    publish(make_folder(3), tmp_path / "mine", name="a")
    both = f"{tmp_path / 'mine'}{os.pathsep}{tmp_path / 'theirs'}"
    assert [member.name for member in lesion_hub.from_pretrained("e", registry=both).members] == ["a", "b"]


def test_damaged_weights_are_refused(make_folder, tmp_path):
    publish(make_folder(), tmp_path)
    weights = tmp_path / "m" / "v1.0.0" / "model.safetensors"
    blob = bytearray(weights.read_bytes())
    blob[-1] ^= 1
    weights.write_bytes(blob)
    with refused("model.safetensors", "sha256"):
        lesion_hub.from_pretrained("m", registry=tmp_path)


# ------------------------------------------------------------------------------------------------------------- ensembles


@pytest.fixture
def trio(make_folder, tmp_path):
    """A registry root with members a and b and the ensemble e."""
    members = {"a": make_folder(1), "b": make_folder(2)}
    for name, folder in members.items():
        publish(folder, tmp_path, name=name)
    publish(write_ensemble(tmp_path / "run-e", members), tmp_path, name="e")
    return tmp_path


def test_an_ensemble_loads_its_members_from_the_same_root(trio):
    assert [member.name for member in lesion_hub.from_pretrained("e", registry=trio).members] == ["a", "b"]


@pytest.mark.parametrize("name", ["../a", "/etc", "a/../../b", "a/b/c", "..", "", "a\n"])
def test_a_member_outside_the_root_is_refused(trio, name):
    path = trio / "e" / "v1.0.0" / "ensemble.json"
    path.write_text(path.read_text().replace('"name": "a"', f'"name": {name!r}'.replace("'", '"')))
    with refused("ensemble.json", "member"):
        lesion_hub.from_pretrained("e", registry=trio)


def test_a_missing_member_is_named(trio):
    (trio / "b" / "v1.0.0").rename(trio / "b" / "v1.0.1")
    with refused("e", "member b v1.0.0"):
        lesion_hub.from_pretrained("e", registry=trio)


def test_a_member_with_other_weights_is_named(trio, make_folder):
    (trio / "b" / "v1.0.0").rename(trio / "aside")
    publish(make_folder(3), trio, name="b")
    with refused("e", "member b v1.0.0", "not the one"):
        lesion_hub.from_pretrained("e", registry=trio)


def test_a_folder_near_by_is_never_taken_for_a_member(trio, make_folder, monkeypatch):
    make_folder(9).rename(trio / "elsewhere")
    (trio / "cwd").mkdir()
    (trio / "elsewhere").rename(trio / "cwd" / "a")
    monkeypatch.chdir(trio / "cwd")
    assert len(lesion_hub.from_pretrained("e", registry=trio).members) == 2


def test_an_ensemble_of_unknown_members_is_not_published(make_folder, tmp_path):
    ensemble = write_ensemble(tmp_path / "run-e", {"ghost": make_folder()})
    with refused("member ghost v1.0.0"):
        publish(ensemble, tmp_path, name="e")
