"""Every row exactly once, whatever was killed, however many processes shared the work."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator

import pyarrow.parquet as pq
import pytest

from lesion_hub import score as entry
from lesion_hub.data.synthetic import SampleSpec, write_sample_set
from lesion_hub.errors import ConfigError, DataError
from lesion_hub.hub.format import write_model
from lesion_hub.inference.bulk import Process, ScoreOptions, ShardFolder, score_in_bulk
from lesion_hub.inference.rows import RowSource, open_rows
from tests.inference.networks import IMAGES, classifier, ensemble, picture, predictor

SMALL = ScoreOptions(batch_size=4, shard_size=8)


def check_whole(out, total=IMAGES):
    table = ShardFolder(out).table()
    assert table.column("index").to_pylist() == list(range(total))
    assert len(set(table.column("image_id").to_pylist())) == total
    return table


def test_every_image_is_a_row_and_a_bad_one_a_row_with_an_error(folder, tmp_path):
    model, steps = ensemble(), []
    report = score_in_bulk(model, open_rows(folder), tmp_path, SMALL, progress=lambda done, total: steps.append((done, total)))
    assert (report.scored, report.errors, report.already_there, report.complete) == (IMAGES, 2, 0, True)
    assert steps[-1] == (IMAGES, IMAGES)
    for row in check_whole(tmp_path).to_pylist():
        if row["image_id"] in ("part0/004.jpg", "part1/007.jpg"):
            assert row["image_id"] in row["error"]
            assert row["label"] is None
            assert row["p_mel"] is None
        else:
            alone = model.predict(folder / row["image_id"])
            assert row["error"] is None
            assert row["label"] == alone.label
            assert row["p_mel"] == pytest.approx(alone.probabilities["mel"], abs=1e-6)
            assert row["disagreement"] == pytest.approx(alone.disagreement, abs=1e-5)


def test_what_stands_there_is_not_scored_again(folder, tmp_path):
    model = predictor()
    score_in_bulk(model, open_rows(folder), tmp_path, SMALL)
    stamp = ShardFolder(tmp_path).path(1).stat().st_mtime_ns
    ShardFolder(tmp_path).path(0).unlink()
    report = score_in_bulk(model, open_rows(folder), tmp_path, SMALL)
    assert (report.scored, report.already_there) == (8, 13)
    assert ShardFolder(tmp_path).path(1).stat().st_mtime_ns == stamp
    check_whole(tmp_path)


@pytest.mark.parametrize("count", [2, 3, 5])
def test_processes_share_the_work(folder, tmp_path, count):
    model = predictor()
    reports = [score_in_bulk(model, open_rows(folder), tmp_path, SMALL, process=Process(rank, count)) for rank in range(count)]
    assert sum(report.scored for report in reports) == IMAGES
    assert [report.complete for report in reports][-1]
    check_whole(tmp_path)


def test_a_run_can_be_continued_with_another_number_of_processes(folder, tmp_path):
    model = predictor()
    score_in_bulk(model, open_rows(folder), tmp_path, SMALL, process=Process(1, 2))
    assert ShardFolder(tmp_path).done() == {1}
    report = score_in_bulk(model, open_rows(folder), tmp_path, SMALL)
    assert (report.scored, report.already_there, report.complete) == (13, 8, True)
    check_whole(tmp_path)


def test_another_run_is_refused(folder, tmp_path):
    score_in_bulk(predictor(), open_rows(folder), tmp_path, SMALL)
    with pytest.raises(DataError, match="weights_sha256 differs"):
        score_in_bulk(predictor(seed=5), open_rows(folder), tmp_path, SMALL)
    with pytest.raises(DataError, match="shard_size differs"):
        score_in_bulk(predictor(), open_rows(folder), tmp_path, ScoreOptions(batch_size=4, shard_size=16))
    with pytest.raises(DataError, match="data differs"):
        score_in_bulk(predictor(), open_rows(folder / "part0"), tmp_path, SMALL)


def test_sizes_that_do_not_fit_are_one_line():
    from lesion_hub.config import validated

    with pytest.raises(ConfigError, match="not a multiple"):
        validated(ScoreOptions, {"batch_size": 5, "shard_size": 8}, "score")


def test_a_stream_is_read_once_and_never_held(tmp_path):
    """Rows come from a generator that fails if it is asked for far more than is being scored."""
    done = [0]

    def items() -> Iterator[dict]:
        for i in range(30):
            assert i - done[0] <= 16, "the stream is read ahead without bound"
            yield {
                "image": picture(20, 20, seed=i),
                "label": i % 7,
                "image_id": f"i{i}",
                "group": f"g{i // 2}",
            } | dict.fromkeys(("age", "sex", "site"))

    model = predictor()
    source = RowSource("stream of a test", None, items(), model.labels)
    report = score_in_bulk(model, source, tmp_path, SMALL, progress=lambda rows, total: done.__setitem__(0, rows))
    assert report.complete
    table = check_whole(tmp_path, 30)
    assert table.column("truth").to_pylist() == [model.labels[i % 7] for i in range(30)]
    assert table.column("group").to_pylist()[:3] == ["g0", "g0", "g1"]


@pytest.mark.parametrize("streaming", [False, True])
def test_a_data_set_brings_its_labels(tmp_path, streaming):
    write_sample_set(tmp_path / "set", SampleSpec(count=14, size=32, balanced=True))
    model = predictor(backbone="resnet10t", metadata=True)
    source = open_rows(tmp_path / "set", source="ham10000", streaming=streaming)
    assert score_in_bulk(model, source, tmp_path / "out", SMALL).complete
    table = check_whole(tmp_path / "out", 14)
    assert set(table.column("truth").to_pylist()) <= set(model.labels)
    assert all(table.column("group").to_pylist())


# ------------------------------------------------------------------------------------------------ kill -9

MANY = 160


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    root = tmp_path_factory.mktemp("published")
    write_model(root / "model", classifier(), storage="float32")
    (root / "images").mkdir()
    picture(20, 24).save(root / "first.jpg")
    for i in range(MANY):
        (root / "images" / f"{i:04}.jpg").write_bytes((root / "first.jpg").read_bytes())
    return root


def start(published, out, rank=0, world=1):
    arguments = [str(published / "images"), "--model", str(published / "model"), "--out", str(out)]
    arguments += ["--batch-size", "2", "--shard-size", "4", "--tta", "8"]
    environment = {**os.environ, "RANK": str(rank), "WORLD_SIZE": str(world), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "lesion_hub.score", *arguments]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def shards(out, rank=0, world=1) -> int:
    return len([s for s in ShardFolder(out).done() if s % world == rank]) if out.is_dir() else 0


def kill_in_the_middle(process, out, rank=0, world=1) -> None:
    deadline = time.monotonic() + 120
    while shards(out, rank, world) < 3:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert shards(out, rank, world) < MANY // 4 // world, "it was over before it could be killed"


def finish(process) -> dict:
    output, errors = process.communicate(timeout=240)
    assert process.returncode == 0, errors
    return json.loads(output)


@pytest.mark.slow
def test_kill_9_loses_no_row_and_doubles_none(published, tmp_path):
    out = tmp_path / "out"
    kill_in_the_middle(start(published, out), out)
    (out / ".shard-000030.parquet.tmp-abc").write_bytes(b"half a shard")
    before = shards(out)
    report = finish(start(published, out))
    assert report["complete"]
    assert report["already_there"] == 4 * before
    assert report["scored"] == MANY - 4 * before
    check_whole(out, MANY)
    assert not list(out.glob(".shard*"))


@pytest.mark.slow
def test_kill_9_of_one_of_two_processes(published, tmp_path):
    out = tmp_path / "out"
    killed, survivor = start(published, out, 0, 2), start(published, out, 1, 2)
    kill_in_the_middle(killed, out, 0, 2)
    assert not finish(survivor)["complete"]
    assert shards(out, 1, 2) == len(range(1, MANY // 4, 2))
    again = [start(published, out, rank, 2) for rank in range(2)]
    reports = [finish(process) for process in again]
    assert any(report["complete"] for report in reports)
    assert reports[1]["scored"] == 0
    check_whole(out, MANY)


def test_the_entry_says_a_mistake_in_one_line(published, tmp_path, capsys):
    assert entry.main([str(tmp_path / "nowhere"), "--model", str(published / "model"), "--out", str(tmp_path / "o")]) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_shards_are_readable_by_any_parquet_reader(folder, tmp_path):
    score_in_bulk(predictor(), open_rows(folder), tmp_path, SMALL)
    assert pq.read_table(tmp_path / "shard-000002.parquet").num_rows == IMAGES - 16
