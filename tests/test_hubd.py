"""The loopback Hub that other tests lean on does what the real one does."""

from __future__ import annotations

from pathlib import Path

import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError


@pytest.fixture
def space(hub, request):
    name = f"user/{request.node.name.replace('_', '-')[:60]}"
    HfApi().create_repo(name, repo_type="space", space_sdk="gradio")
    return name


def test_a_space_takes_a_folder_of_text_and_binary_files(hub, space, tmp_path):
    (tmp_path / "examples").mkdir()
    (tmp_path / "app.py").write_text("print()")
    (tmp_path / "examples" / "a.png").write_bytes(b"\x89PNG\0" * 100)
    HfApi().upload_folder(repo_id=space, repo_type="space", folder_path=tmp_path, commit_message="First")
    assert hub.git(space, "ls-tree", "-r", "--name-only", "main", kind="space").split() == [
        ".gitattributes",
        "README.md",
        "app.py",
        "examples/a.png",
    ]
    path = HfApi().hf_hub_download(space, "examples/a.png", repo_type="space")
    assert Path(path).read_bytes() == b"\x89PNG\0" * 100
    assert HfApi().space_info(space).sdk == "gradio"
    assert HfApi().list_repo_commits(space, repo_type="space")[0].title == "First"


def test_a_stale_parent_a_taken_tag_and_a_foreign_repo_are_refused(hub, space):
    api = HfApi()
    first = api.list_repo_commits(space, repo_type="space")[0].commit_id
    api.create_tag(space, tag="v1", repo_type="space")
    upload = {"path_in_repo": "a.txt", "repo_id": space, "repo_type": "space", "parent_commit": first}
    api.upload_file(path_or_fileobj=b"1", **upload)
    statuses = []
    for action in (
        lambda: api.upload_file(path_or_fileobj=b"2", **upload),
        lambda: api.create_tag(space, tag="v1", repo_type="space"),
        lambda: HfApi(token="hf_read").create_tag(space, tag="v2", repo_type="space"),
        lambda: HfApi(token="hf_wrong").whoami(),
    ):
        with pytest.raises(HfHubHTTPError) as caught:
            action()
        statuses.append(caught.value.response.status_code)
    assert statuses == [412, 409, 403, 401]


def test_a_private_repo_is_hidden_from_others(hub):
    HfApi().create_repo("user/hidden", private=True)
    assert HfApi().repo_exists("user/hidden")
    with pytest.raises(RepositoryNotFoundError):
        HfApi(token="hf_other").model_info("user/hidden")


def test_it_goes_on_where_it_was_killed(hub):
    HfApi().create_repo("user/kept")
    hub.kill()
    hub.start()
    assert HfApi().repo_exists("user/kept")
