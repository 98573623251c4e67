"""An index of shards says what reading them whole says."""

from __future__ import annotations

import json
from pathlib import Path

import datasets
import pytest

from lesion_hub.data import read, summarise
from lesion_hub.data.scan import encoded, image_sources
from lesion_hub.data.sources.rows import ReadOptions
from lesion_hub.data.sources.sharded import read_index
from lesion_hub.data.write_shards import PLAN_NAME, write_shards
from lesion_hub.errors import ConfigError, DataError

from . import layouts
from .bad_files import good_jpeg
from .test_shards import tar

FACTS = ["label", "image_id", "group", "age", "sex", "site"]


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))


def facts(dataset: datasets.Dataset) -> dict[str, tuple[object, ...]]:
    columns = dataset.select_columns(FACTS).to_dict()
    return {row[1]: row for row in zip(*(columns[name] for name in FACTS), strict=True)}


@pytest.mark.parametrize("format_", ["parquet", "webdataset"])
def test_shards_hold_what_they_were_written_from(format_: str, tmp_path: Path) -> None:
    """Read as a source, streamed and by the index alike, in one order, with images to the byte."""
    original = read(layouts.isic2017(tmp_path / "source"))
    out = tmp_path / "shards"
    written = write_shards(original, out, format=format_, shard_size=2)
    assert written["shards"] == len(list(out.glob("*-of-*")))
    whole, index = read(out), read_index(str(out), ReadOptions())
    assert facts(whole.dataset) == facts(index.dataset) == facts(original.dataset)
    assert list(whole.dataset["image_id"]) == list(index.dataset["image_id"])
    assert whole.official_split == index.official_split == original.official_split
    assert whole.space == index.space == original.space and index.report.kept == len(original.dataset)
    assert summarise(index)["classes"] == summarise(original)["classes"]
    bytes_of = dict(
        zip(original.dataset["image_id"], (encoded(one)[0] for one in image_sources(original.dataset)), strict=True)
    )
    for found in (whole, index):
        ids = found.dataset["image_id"]
        assert all(encoded(one)[0] == bytes_of[name] for name, one in zip(ids, image_sources(found.dataset), strict=True))
    stream = read(out, streaming=True, split="train").dataset
    assert [row["image_id"] for row in stream] == [
        name for name in index.dataset["image_id"] if index.official_split and index.official_split[name] == "train"
    ]


def test_an_interrupted_writer_goes_on_and_spares_other_folders(tmp_path: Path) -> None:
    original = read(layouts.ham10000(tmp_path / "source"))
    out = tmp_path / "shards"
    write_shards(original, out, shard_size=1)
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in out.glob("*.parquet")}
    lost = sorted(before)[1]
    (out / lost).unlink()
    write_shards(original, out, shard_size=1)
    after = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in out.glob("*.parquet")}
    assert {name for name in before if before[name] != after[name]} == {lost} and before[lost][0] == after[lost][0]
    with pytest.raises(DataError, match="holds shards of other data or in other pieces"):
        write_shards(original, out, shard_size=2)
    assert json.loads((out / PLAN_NAME).read_text())["shard_size"] == 1
    with pytest.raises(DataError, match="is not empty"):
        write_shards(original, tmp_path / "source")
    with pytest.raises(ConfigError, match="did you mean 'parquet'"):
        write_shards(original, tmp_path / "new", format="parket")


def test_numbers_for_labels_are_named_by_the_caller(tmp_path: Path) -> None:
    members = {}
    for number in range(4):
        members |= {f"{number}.jpg": good_jpeg(), f"{number}.cls": str(number % 2).encode()}
    (tmp_path / "set").mkdir()
    tar(tmp_path / "set" / "a.tar", members)
    for found in (read(tmp_path / "set", labels={"0": "nv", "1": "mel"}, space="binary"), read(tmp_path / "set" / "a.tar")):
        assert list(found.dataset["label"]) == [0, 1, 0, 1]
    assert list(found.dataset["group"]) == list(found.dataset["image_id"]) == ["0", "1", "2", "3"]


def test_defects_of_shards_are_counted_like_any(tmp_path: Path) -> None:
    members = {"a.jpg": good_jpeg(), "a.cls": b"nv", "b.cls": b"nv", "c.jpg": good_jpeg(), "d.jpg": good_jpeg(), "d.cls": b"nv"}
    path = tar(tmp_path / "a.tar", members)
    with pytest.raises(DataError, match=r"1 row without an image .*1 row with an unknown label"):
        read_index(path, ReadOptions())
    assert list(read_index(path, ReadOptions(allow_missing=True)).dataset["image_id"]) == ["a", "d"]


def test_a_folder_without_shards_says_how_to_make_some(tmp_path: Path) -> None:
    layouts.ham10000(tmp_path)
    with pytest.raises(DataError, match="write some with lesion-hub data shards"):
        read_index(str(tmp_path), ReadOptions())
