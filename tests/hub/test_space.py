"""A Space on the Hub: the packaged folder with pinned models, one commit for everything, nothing of anybody else's lost."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from pathlib import Path

import pytest
import yaml
from huggingface_hub import CommitOperationAdd, HfApi, snapshot_download

import lesion_hub
from lesion_hub.app import web_runtime
from lesion_hub.app.static_page import publish_static_page
from lesion_hub.cli import serve
from lesion_hub.errors import LesionHubError
from lesion_hub.hub import space as space_module
from lesion_hub.hub import store
from lesion_hub.hub.space import packaged_space, publish_space
from lesion_hub.hub.space_build import CPU_TORCH, package_files
from tests.cli.runner import object_of, run
from tests.hub.publishable import refused, write_ensemble, write_folder

pytestmark = pytest.mark.slow

PLACE = packaged_space()
PACKAGE = {name: path for name, path in package_files().items() if name in ("lesion_hub/__init__.py", "lesion_hub/LICENSE")}


@pytest.fixture(autouse=True)
def small_package(monkeypatch):
    """Two files stand for the package: every one is a process of git's in the Hub of the tests."""
    monkeypatch.setattr(space_module, "package_files", PACKAGE.copy)


def release(folder, name, version="1.0.0", registry=None, **options):
    store.publish(folder, name, version=version, notes=f"Notes of {version}.", registry=registry, **options)
    return f"{name}@v{version}"


@pytest.fixture(scope="module")
def published(hub_process, tmp_path_factory):
    """A version of a repo that has a higher one too; they never change, so all tests share them."""
    hub_process.start()
    for version, seed in (("1.0.0", 1), ("1.1.0", 2)):
        folder = write_folder(tmp_path_factory.mktemp("models") / version, seed, plots=("roc.png",))
        release(folder, "user/shared", version, token="hf_test")
    return "user/shared@v1.0.0"


@pytest.fixture
def model(hub, published):
    return published


@pytest.fixture
def space(hub, repo_id):
    return repo_id.replace("model", "space")


class Pushed:
    """What stands in a Space."""

    def __init__(self, hub, name):
        self.hub, self.name = hub, name

    def text(self, path):
        return self.hub.git(self.name, "show", f"main:{path}", kind="space")

    @property
    def files(self):
        return set(self.hub.git(self.name, "ls-tree", "-r", "--name-only", "main", kind="space").split()) - {".gitattributes"}

    @property
    def commits(self):
        return len(self.hub.git(self.name, "log", "--format=%H", "main", kind="space").split()) - 1

    @property
    def card(self):
        return yaml.safe_load(self.text("README.md").split("---\n")[1])

    @property
    def models(self):
        return json.loads(self.text("models.json"))


def packaged_files():
    files = {
        path.relative_to(PLACE).as_posix() for path in PLACE.rglob("*") if path.is_file() and "__pycache__" not in path.parts
    }
    return files | {"requirements.txt"} | set(PACKAGE)


def test_one_commit_holds_the_packaged_folder_and_the_pinned_model(hub, model, space):
    done = publish_space(space, [model])
    pushed, name = Pushed(hub, space), model.split("@")[0]
    assert (pushed.files, pushed.commits) == (packaged_files(), 1)
    assert pushed.models == list(done.models) == [model]
    assert pushed.text("app.py") == (PLACE / "app.py").read_text()
    assert pushed.card["models"] == [name]
    assert done.location == f"{hub.endpoint}/spaces/{space}"
    assert done.changed
    assert not done.needs_token


def test_the_front_matter_keeps_the_rest_and_preloads_the_pinned_commit(hub, model, space):
    publish_space(space, [model])
    card, ours = Pushed(hub, space).card, yaml.safe_load((PLACE / "README.md").read_text().split("---\n")[1])
    changed = {"models", "preload_from_hub"}
    assert {k: v for k, v in card.items() if k not in changed} == {k: v for k, v in ours.items() if k not in changed}
    name, files, commit = card["preload_from_hub"][0].split()
    assert name == model.split("@")[0]
    assert commit == hub.git(name, "rev-parse", "v1.0.0^{commit}").strip()
    assert set(files.split(",")) == hub.files(name, "v1.0.0")


def test_what_is_preloaded_is_all_that_the_model_needs(hub, model, space, fresh_cache):
    publish_space(space, [model])
    name, files, commit = Pushed(hub, space).card["preload_from_hub"][0].split()
    fresh_cache()
    snapshot_download(name, revision=commit, allow_patterns=files.split(","))
    hub.clear_log()
    lesion_hub.from_pretrained(name, revision="v1.0.0")
    assert not [entry for entry in hub.log() if "/resolve/" in entry["request"] and "GET" in entry["request"]]


@pytest.fixture
def runtime(tmp_path, monkeypatch):
    """Files that stand for ONNX Runtime Web, which no Space of these tests runs."""
    for name in web_runtime.PINNED:
        (tmp_path / name).write_bytes(name.encode())
    pinned = {name: hashlib.sha256(name.encode()).hexdigest() for name in web_runtime.PINNED}
    monkeypatch.setattr(web_runtime, "PINNED", pinned)
    return tmp_path


def test_a_static_space_holds_the_page_and_the_model_and_is_one_commit(hub, model, space, runtime):
    done = publish_static_page(space, model, runtime=runtime)
    again = publish_static_page(space, model, runtime=runtime)
    pushed, name = Pushed(hub, space), model.split("@")[0]
    assert (done.changed, again.changed, pushed.commits, done.models) == (True, False, 1, (model,))
    assert {"index.html", "model.json", "page.js", "service-worker.js", f"runtime/{web_runtime.WASM}"} <= pushed.files
    assert not {file for file in pushed.files if file.endswith((".jinja", ".py"))}
    assert pushed.card["sdk"] == "static"
    assert pushed.card["models"] == [name]
    assert pushed.card["license"] == "cc-by-nc-4.0"  # that of the weights, which travel along
    graph = json.loads(pushed.text("model.json"))["members"][0]["graph"]["file"]
    publish_static_page(space, name, runtime=runtime)  # the highest version, in place of the first
    assert pushed.commits == 2
    assert graph not in pushed.files


def test_a_space_of_the_other_kind_is_not_written_over(hub, model, space, runtime):
    publish_space(space, [model])
    with refused("is a gradio Space"):
        publish_static_page(space, model, runtime=runtime)


def test_a_model_without_a_version_is_pinned_to_its_highest(hub, model, space):
    name = model.split("@")[0]
    assert publish_space(space, [name]).models == (f"{name}@v1.1.0",)
    assert Pushed(hub, space).models == [f"{name}@v1.1.0"]


def test_a_second_run_changes_nothing_and_another_model_is_a_second_commit(hub, model, space):
    first = publish_space(space, [model])
    again = publish_space(space, [model])
    assert (again.commit, again.changed) == (first.commit, False)
    other = publish_space(space, [model.replace("1.0.0", "1.1.0")])
    assert other.changed
    assert Pushed(hub, space).commits == 2
    assert Pushed(hub, space).models == [model.replace("1.0.0", "1.1.0")]


def test_a_model_named_twice_is_there_once(hub, model, space):
    assert publish_space(space, [model, model]).models == (model,)


def test_the_members_of_an_ensemble_are_preloaded_too(hub, make_folder, repo_id, space, tmp_path):
    member = make_folder()
    release(member, repo_id)
    ensemble = release(write_ensemble(tmp_path / "e", {repo_id: member}), f"{repo_id}-trio")
    publish_space(space, [ensemble])
    card = Pushed(hub, space).card
    assert card["models"] == [f"{repo_id}-trio", repo_id]
    assert [entry.split()[0] for entry in card["preload_from_hub"]] == card["models"]
    assert Pushed(hub, space).models == [ensemble]


def test_a_registry_model_travels_within_the_space_and_leaves_with_it(hub, make_folder, tmp_path, space, model):
    root, member = tmp_path / "root", make_folder()
    release(member, "lite", registry=root)
    release(write_ensemble(tmp_path / "e", {"lite": member}), "trio", registry=root)
    assert publish_space(space, ["trio"], registry=root).models == ("trio@v1.0.0",)
    pushed = Pushed(hub, space)
    bundled = {name for name in pushed.files if name.startswith("registry/")}
    assert bundled == {
        path.relative_to(root.parent).as_posix().replace("root", "registry", 1)
        for path in root.rglob("*")
        if path.is_file() and not path.name.startswith(".")
    }
    assert pushed.card["models"] == pushed.card["preload_from_hub"] == []
    assert pushed.card["license"] == "cc-by-nc-4.0", "the weights' licence, which is stricter than that of the code"
    folder = Path(HfApi().snapshot_download(space, repo_type="space"))
    assert lesion_hub.from_pretrained("trio", revision="v1.0.0", registry=folder / "registry").members[0].name == "lite"
    publish_space(space, [model])
    assert not [name for name in Pushed(hub, space).files if name.startswith("registry/")]
    assert Pushed(hub, space).card["license"] == "apache-2.0"


def test_what_somebody_added_to_the_space_stays(hub, model, space):
    publish_space(space, [model])
    HfApi().create_commit(space, [CommitOperationAdd("notes.txt", b"mine")], commit_message="Mine", repo_type="space")
    publish_space(space, [model.replace("1.0.0", "1.1.0")])
    assert Pushed(hub, space).text("notes.txt") == "mine"


def test_somebody_elses_space_is_not_overwritten(hub, model, space):
    HfApi().create_repo(space, repo_type="space", space_sdk="gradio")
    HfApi().create_commit(space, [CommitOperationAdd("app.py", b"game()")], commit_message="Mine", repo_type="space")
    with refused(space, "something else", "another name"):
        publish_space(space, [model])
    assert Pushed(hub, space).text("app.py") == "game()"


def test_a_folder_of_ones_own_is_pushed_instead(hub, model, space, tmp_path):
    mine = tmp_path / "mine"
    shutil.copytree(PLACE, mine)
    (mine / "README.md").write_text((PLACE / "README.md").read_text().replace("Skin lesion ensemble", "My page"))
    shutil.rmtree(mine / "examples")
    publish_space(space, [model], folder=mine)
    assert Pushed(hub, space).card["title"] == "My page"
    assert not [name for name in Pushed(hub, space).files if name.startswith("examples/")]


@pytest.mark.parametrize("name", ["app.py", "README.md", "models.json"])
def test_a_folder_that_is_no_space_is_refused(hub, model, space, tmp_path, name):
    shutil.copytree(PLACE, tmp_path / "mine")
    (tmp_path / "mine" / name).unlink()
    with refused(name, "missing"):
        publish_space(space, [model], folder=tmp_path / "mine")


def test_front_matter_that_is_no_yaml_is_refused(hub, model, space, tmp_path):
    shutil.copytree(PLACE, tmp_path / "mine")
    (tmp_path / "mine" / "README.md").write_text("---\ntitle: [\n---\n")
    with refused("README.md", "front matter"):
        publish_space(space, [model], folder=tmp_path / "mine")


@pytest.mark.parametrize(
    ("models", "words"),
    [
        (["{name}@v9.0.0"], ("v9.0.0", "no such revision")),
        (["{name}@main"], ("main", "may move")),
        (["user/never-seen@v1.0.0"], ("user/never-seen", "not found")),
        (["no-such-name"], ("no-such-name", "registry")),
        (["./runs/x"], ("./runs/x", "publish it first")),
        ([], ("--model",)),
    ],
)
def test_a_model_that_cannot_be_pinned_is_refused_before_anything_is_written(hub, model, space, models, words, tmp_path):
    with refused(*words):
        publish_space(space, [m.format(name=model.split("@")[0]) for m in models], registry=tmp_path)
    assert not HfApi().repo_exists(space, repo_type="space")


def test_a_repo_without_versions_is_refused(hub, make_folder, space, repo_id):
    HfApi().create_repo(repo_id)
    HfApi().upload_folder(repo_id=repo_id, folder_path=make_folder())
    with refused(repo_id, "no published version"):
        publish_space(space, [repo_id])


@pytest.mark.parametrize(
    ("token", "words"), [("hf_wrong", ("token",)), ("hf_read", ("write access",)), ("hf other", ("Hub token",))]
)
def test_a_token_that_may_not_is_one_line(hub, model, space, token, words):
    with refused(*words):
        publish_space(space, [model], token=token)


def test_a_name_or_hardware_that_cannot_be_is_refused(hub, model):
    with refused("'demo'", "org/name"):
        publish_space("demo", [model])
    with refused("t4-smal", "did you mean 't4-small'"):
        publish_space("user/demo", [model], hardware="t4-smal")


def test_hardware_is_suggested_and_asked_for(hub, model, space):
    publish_space(space, [model], hardware="cpu-upgrade")
    assert Pushed(hub, space).card["suggested_hardware"] == "cpu-upgrade"
    assert HfApi().space_info(space).runtime.requested_hardware == "cpu-upgrade"


def test_without_hardware_the_requirements_are_for_what_the_space_runs_on(hub, model, space):
    publish_space(space, [model])
    assert CPU_TORCH in Pushed(hub, space).text("requirements.txt")
    HfApi().request_space_hardware(space, "t4-small")
    done = publish_space(space, [model])
    assert (done.hardware, done.changed) == ("t4-small", True)
    assert CPU_TORCH not in Pushed(hub, space).text("requirements.txt")
    assert Pushed(hub, space).card["suggested_hardware"] == "cpu-basic"


def test_files_of_an_earlier_package_and_of_docker_leave(hub, model, space):
    publish_space(space, [model], sdk="docker")
    assert Pushed(hub, space).card["sdk"] == "docker"
    old = [CommitOperationAdd("lesion_hub/gone.py", b"1"), CommitOperationAdd("mine.py", b"1")]
    HfApi().create_commit(space, old, commit_message="Older", repo_type="space")
    publish_space(space, [model])
    assert Pushed(hub, space).files == packaged_files() | {"mine.py"}
    assert Pushed(hub, space).card["sdk"] == "gradio"


def test_a_duplicate_holds_all_that_it_needs(hub, model, space):
    """A duplicate is the same files under another name, and nothing in them names the first."""
    done, pushed = publish_space(space, [model]), Pushed(hub, space)
    assert not [name for name in done.files if not name.endswith((".jpg", ".py")) and space in pushed.text(name)]


def test_a_private_model_is_named_and_not_preloaded(hub, make_folder, repo_id, space):
    pinned = release(make_folder(), repo_id, private=True)
    done = publish_space(space, [pinned], private=True)
    assert done.needs_token == (repo_id,)
    assert Pushed(hub, space).card["preload_from_hub"] == []
    assert HfApi().space_info(space).private


def test_private_never_means_a_public_space(hub, model, space):
    publish_space(space, [model])
    with refused(space, "is public"):
        publish_space(space, [model], private=True)


def test_a_dry_run_writes_nothing(hub, model, space):
    hub.clear_log()
    done = publish_space(space, [model], dry_run=True)
    assert (done.models, done.commit) == ((model,), None)
    assert set(done.files) == packaged_files()
    assert not [entry for entry in hub.log() if not entry["request"].startswith(("GET", "HEAD"))]


@pytest.mark.parametrize("match", ["POST /api/repos/create", "POST /api/spaces/.*/commit"])
@pytest.mark.parametrize("fault", [{"status": 503}, {"lose": True}])
def test_a_busy_hub_or_a_lost_answer_still_ends_with_one_commit(hub, model, space, match, fault, short_pauses):
    hub.spoil({**fault, "match": match, "times": 1})
    publish_space(space, [model])
    assert Pushed(hub, space).commits == 1


def test_a_change_meanwhile_is_refused_and_nothing_is_mixed(hub, model, space, monkeypatch):
    publish_space(space, [model])
    send = HfApi.create_commit

    def overtaken(self, *arguments, **options):
        monkeypatch.setattr(HfApi, "create_commit", send)
        send(self, space, [CommitOperationAdd("a.txt", b"1")], commit_message="Mine", repo_type="space")
        return send(self, *arguments, **options)

    monkeypatch.setattr(HfApi, "create_commit", overtaken)
    with refused(space, "meanwhile", "run it again"):
        publish_space(space, [model.replace("1.0.0", "1.1.0")])
    assert Pushed(hub, space).models == [model]


def test_a_dry_run_says_how_large_the_repo_is_and_what_its_build_installs(hub, model, space, capsys):
    serve.publish_space(space, [model], dry_run=True)
    told = capsys.readouterr().out
    repo, build, *_ = told.splitlines()
    assert re.fullmatch(r"repo: \d\d files, 0\.\d MB: the package 0\.\d, models 0\.0", repo)
    assert build == "build: gradio on cpu-basic, 23 requirements and theirs, PyTorch as its CPU build"
    assert re.search(r"^lesion_hub/ \(\d+ files\)$", told, re.MULTILINE)
    assert not HfApi().repo_exists(space, repo_type="space")


def test_the_command_writes_the_files_and_sends_nothing(hub, model, space, capsys, tmp_path):
    serve.publish_space(space, [model], out=tmp_path / "space", hardware="cpu-basic")
    assert (tmp_path / "space" / "lesion_hub" / "__init__.py").is_file()
    assert f"wrote {tmp_path / 'space'}" in capsys.readouterr().out
    assert not HfApi().repo_exists(space, repo_type="space")
    with pytest.raises(LesionHubError, match="--static is the packaged page"):
        serve.publish_space(space, [model], out=tmp_path / "space", static=True)


def test_a_dry_run_into_a_folder_is_refused(space, tmp_path):
    with refused("--dry-run", "--out"):
        serve.publish_space(space, ["dermoscopy-lite0"], out=tmp_path / "space", dry_run=True, hardware="cpu-basic")
    assert not (tmp_path / "space").exists()


def test_the_command_prints_one_object_or_one_line(hub, model, space):
    told = object_of("publish-space", space, "--model", model, HF_HUB_OFFLINE="0")
    assert (told["name"], told["models"], told["changed"]) == (space, [model], True)
    again = run("publish-space", space, "--model", model, HF_HUB_OFFLINE="0")
    assert re.search("already up to date.*" + re.escape(model), again.stdout)
    wrong = run("publish-space", space, "--model", "user/never-seen", ok=False, HF_HUB_OFFLINE="0")
    assert wrong.stderr.count("\n") == 1
