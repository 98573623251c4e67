"""Files are written whole or not at all, and read strictly."""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from pathlib import Path

import pytest

from lesion_hub import files
from lesion_hub.errors import ConfigError, FileWriteError, StoreError


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_was_written_is_read_back_and_folders_are_made(tmp_path):
    path = tmp_path / "run" / "metrics.json"
    files.write_json(path, {"site": "Rücken", "auroc": 0.5})
    assert path.read_text(encoding="utf-8") == '{\n  "site": "Rücken",\n  "auroc": 0.5\n}\n'
    assert files.read_json(path) == {"site": "Rücken", "auroc": 0.5}
    assert names(path.parent) == ["metrics.json"]


def test_a_value_that_is_no_number_is_never_written(tmp_path):
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(tmp_path / "metrics.json", {"auroc": float("nan")})
    assert names(tmp_path) == []


def test_a_full_disk_keeps_the_old_file_and_is_one_line(tmp_path, monkeypatch):
    path = tmp_path / "config.json"
    files.write_text(path, "old")

    def full(_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(FileWriteError, match=r"config\.json: cannot be written .No space left") as caught:
        files.write_text(path, "new")
    assert "\n" not in str(caught.value)
    assert path.read_text() == "old" and names(tmp_path) == ["config.json"]


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(FileWriteError, match="cannot be written"):
        files.write_text(tmp_path / "file" / "inside", "text")


def test_an_interrupted_block_leaves_nothing(tmp_path):
    path = tmp_path / "weights"
    with pytest.raises(KeyboardInterrupt), files.replacing(path) as stream:
        stream.write(b"half")
        assert not path.exists()
        raise KeyboardInterrupt
    assert names(tmp_path) == []


def test_readers_see_the_old_file_or_the_new_one_and_never_a_part(tmp_path):
    path = tmp_path / "index"
    contents = {bytes([letter]) * 200_000 for letter in b"ab"}
    files.write_bytes(path, min(contents))
    seen: set[bytes] = set()
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            seen.add(path.read_bytes())

    reader = threading.Thread(target=read)
    reader.start()
    for content in sorted(contents) * 10:
        files.write_bytes(path, content)
    stop.set()
    reader.join()
    assert seen <= contents


def test_only_the_leftovers_of_the_named_file_are_removed(tmp_path):
    for name in (".a.json.tmp-1", ".b.json.tmp-1", "a.json", ".hidden"):
        (tmp_path / name).touch()
    files.remove_leftovers(tmp_path, "a.json")
    assert names(tmp_path) == [".b.json.tmp-1", ".hidden", "a.json"]
    files.remove_leftovers(tmp_path)
    assert names(tmp_path) == [".hidden", "a.json"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"[1]", "holds a list"),
        (b"{", "not readable as JSON"),
        (b"\xff", "not readable as JSON"),
        (b"[" * 100_000, "not readable"),
    ],
)
def test_a_broken_json_file_is_one_line(tmp_path, content, words):
    path = tmp_path / "config.json"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=words) as caught:
        files.read_json(path)
    assert str(path) in str(caught.value)


def test_a_missing_json_file_is_an_error_unless_it_may_be_missing(tmp_path):
    with pytest.raises(ConfigError, match="no such file"):
        files.read_json(tmp_path / "config.json")
    assert files.read_json(tmp_path / "config.json", missing_ok=True) == {}


def test_a_new_folder_is_missing_or_empty(tmp_path):
    for free in (tmp_path, tmp_path / "missing"):
        files.require_new_folder(free)
    (tmp_path / "file").touch()
    for taken in (tmp_path, tmp_path / "file"):
        with pytest.raises(StoreError, match="exists and is not an empty folder"):
            files.require_new_folder(taken)


def test_hashes(tmp_path):
    path = tmp_path / "weights"
    data = os.urandom(3 << 20)
    path.write_bytes(data)
    assert files.sha256_of(path) == hashlib.sha256(data).hexdigest()
    assert files.sha256_of_json({"a": 1, "b": [2]}) == files.sha256_of_json({"b": [2], "a": 1})
    assert files.sha256_of_json({"a": 1}) != files.sha256_of_json({"a": 2})
