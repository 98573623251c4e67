"""``HF_HUB_OFFLINE=1``: what is cached loads, what is not says so at once, and nothing asks for a network."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lesion_hub.hub import store
from tests.hub.publishable import is_one_line, refused, write_ensemble

ROOT = Path(__file__).parents[2]
AT_ONCE_SECONDS = 5.0  # generous for a busy machine: any wait for a network would be ten and more

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
