"""Files that are none, names that are no text, and links in circles: each is one error, and everything else is done."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lesion_hub.cli import app
from lesion_hub.data import load_rgb, read
from lesion_hub.data.audit import audit
from lesion_hub.data.scan import scan
from lesion_hub.errors import DataError, ImageError, LesionHubError
from lesion_hub.hub.format import write_model
from lesion_hub.inference.bulk import ShardFolder
from lesion_hub.inference.rows import open_rows
from tests.inference.networks import classifier

from . import layouts
from .pictures import spot

GOOD = 4


@pytest.fixture(autouse=True)
def _no_test_hangs() -> Iterator[None]:
    """Turn what would wait for ever into a failure."""

    def ring(*_: object) -> None:
        raise AssertionError("still waiting for a file that is none")

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(120)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The current folder: the path of a socket may not be long."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def hostile(root: Path) -> list[str]:
    """Two classes of good images, and in one of them a pipe, a socket, a device and a link to itself."""
    for seed in range(GOOD):
        place = root / ("mel", "nv")[seed % 2] / f"{seed}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        spot(seed, (64, 48)).save(place)
    os.mkfifo(root / "nv" / "pipe.jpg")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(root / "nv" / "socket.jpg"))
    (root / "nv" / "device.jpg").symlink_to("/dev/zero")
    (root / "nv" / "circle.jpg").symlink_to("circle.jpg")
    return ["nv/circle.jpg", "nv/device.jpg", "nv/pipe.jpg", "nv/socket.jpg"]


def misnamed(root: Path) -> None:
    """One more image, under a name that is not UTF-8."""
    try:
        shutil.copyfile(root / "nv" / "1.jpg", os.fsencode(root / "nv") + b"/caf\xe9.jpg")
    except OSError:
        pytest.skip("this file system takes UTF-8 names alone")


def test_only_regular_files_are_opened(short: Path) -> None:
    names = hostile(short / "set")
    for name in names:
        with pytest.raises(ImageError) as error:
            load_rgb(short / "set" / name)
        assert Path(name).name in str(error.value) and "\n" not in str(error.value)
    found = list(scan(_size, [str(short / "set" / name) for name in names]))
    assert all(isinstance(one, ImageError) for one in found)


def _size(encoded: bytes, name: str) -> int:
    return len(encoded)


def test_a_pipe_named_like_a_table_is_no_table(tmp_path: Path) -> None:
    layouts.tree(tmp_path, ("mel", "nv"))
    os.mkfifo(tmp_path / "train.csv")
    os.mkfifo(tmp_path / "set.parquet")
    assert read(tmp_path).report.source == "folders"


def test_the_audit_lists_them_and_audits_the_others(short: Path) -> None:
    names = hostile(short / "set")
    report = audit(short / "set", split=None, workers=1)
    assert sorted(report.unreadable) == names
    assert len(report.columns["width"]) == GOOD
    assert report.verdict.startswith(f"ok, but {len(names)} images cannot be read: ") and "allow_missing" in report.verdict


def test_a_name_that_is_no_text_is_left_out_by_name_and_refused_unasked(tmp_path: Path) -> None:
    layouts.tree(tmp_path, ("mel", "nv"))
    shutil.copyfile(tmp_path / "nv" / "0.jpg", tmp_path / "nv" / "1.jpg")
    misnamed(tmp_path)
    with pytest.raises(DataError, match=r"1 image whose file name is not UTF-8 \(first: nv/caf\\xe9.jpg\)"):
        read(tmp_path)
    assert len(read(tmp_path, allow_missing=True).dataset) == 4


def test_a_class_whose_name_is_no_text_makes_no_class(tmp_path: Path) -> None:
    layouts.tree(tmp_path, ("mel", "nv"))
    try:
        shutil.copytree(tmp_path / "nv", os.fsdecode(os.fsencode(tmp_path) + b"/na\xefv"))
    except OSError:
        pytest.skip("this file system takes UTF-8 names alone")
    assert read(tmp_path, allow_missing=True).space.labels == ("mel", "nv")


def test_a_folder_whose_name_is_no_text_is_one_line(tmp_path: Path) -> None:
    place = os.fsdecode(os.fsencode(tmp_path) + b"/na\xefv")
    try:
        Path(place).mkdir()
    except OSError:
        pytest.skip("this file system takes UTF-8 names alone")
    layouts.tree(Path(place), ("mel", "nv"))
    with pytest.raises(DataError, match=r"na\\xefv: the name is not UTF-8; rename the folder"):
        read(place)


def test_rows_of_a_folder_bear_names_that_can_be_stored(short: Path) -> None:
    hostile(short / "set")
    misnamed(short / "set")
    ids = [row.image_id for row in open_rows(short / "set")]
    assert r"nv/caf\xe9.jpg" in ids and len(ids) == GOOD + 5
    "\n".join(ids).encode()


# ------------------------------------------------------------------------------------------------ the commands


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "m"
    write_model(folder, classifier())
    return folder


def run(*arguments: object) -> tuple[str, str | None]:
    """What a command prints, and the line that it ends with where it fails."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if isinstance(result.exception, LesionHubError):
        return result.stdout, str(result.exception)
    assert result.exception is None, result.output
    return result.stdout, None


def test_predict_answers_for_the_good_ones_and_names_the_bad_one(short: Path, model: Path) -> None:
    hostile(short / "set")
    good, bad = "set/mel/0.jpg", "set/nv/pipe.jpg"
    told, line = run("predict", good, bad, "set/nv/1.jpg", "--model", model)
    assert told.count("most probable") == 2 and bad not in told
    assert line is not None and line.startswith(f"{bad}: ")
    told, line = run("predict", good, bad, "--model", model, "--json")
    assert ["error" in row for row in json.loads(told)["predictions"]] == [False, True]
    assert line is not None


def test_score_has_a_row_for_each(short: Path, model: Path) -> None:
    names = hostile(short / "set")
    misnamed(short / "set")
    told, line = run("score", "set", "--model", model, "--out", "scores", "--json")
    assert (json.loads(told)["scored"], json.loads(told)["errors"], line) == (GOOD + 5, len(names), None)
    rows = {row["image_id"]: row for row in ShardFolder("scores").table().to_pylist()}
    assert all(rows[name]["error"] and rows[name]["label"] is None for name in names)
    assert rows[r"nv/caf\xe9.jpg"]["label"] == rows["nv/1.jpg"]["label"] is not None


def test_show_and_audit_do_the_others_and_end_with_the_bad_one(short: Path) -> None:
    hostile(short / "set")
    misnamed(short / "set")
    for command in (["show", "set"], ["audit", "set", "--workers", 1, "--out", "audit"]):
        told, line = run("data", *command, "--json")
        assert json.loads(told)["images"] == GOOD + 4
        assert line is not None and "1 image whose file name is not UTF-8" in line
        assert run("data", *command, "--json", "--allow-missing")[1] is None
    assert any(r"caf\xe9.jpg" in warning for warning in json.loads((short / "audit" / "audit.json").read_text())["warnings"])
