"""Shards read apart: words without pixels, pixels by their places, on disk and over a connection that breaks."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import create_repo, upload_folder
from hypothesis import given, settings
from hypothesis import strategies as st

from lesion_hub.data import image_paths
from lesion_hub.data.shards import ShardedImages, parquet_features, parquet_words, tar_words
from lesion_hub.data.sources.rows import ReadOptions
from lesion_hub.data.sources.sharded import read_index
from lesion_hub.errors import ShardError
from tests.hub_server import HubServer

from .bad_files import good_jpeg


def pixels(number: int) -> bytes:
    """Bytes that tell which image they are: nothing here decodes them."""
    return f"image {number}".encode()


def parquet(path: Path, numbers: range, *, missing: int | None = None) -> str:
    images = [None if number == missing else {"bytes": pixels(number), "path": f"{number}.jpg"} for number in numbers]
    table = pa.table({"image": images, "label": ["nv"] * len(numbers), "wide": ["x" * 50_000] * len(numbers)})
    pq.write_table(table, path, row_group_size=3)
    return str(path)


def tar(path: Path, members: dict[str, bytes]) -> str:
    with tarfile.open(path, "w") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return str(path)


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Twenty images, in two Parquet files and a tar archive."""
    root = tmp_path_factory.mktemp("shards")
    told = parquet_words(parquet(root / "a.parquet", range(8)), "image", ["label"]).places
    told += parquet_words(parquet(root / "b.parquet", range(8, 13)), "image", ["label"]).places
    return told + tar_words(tar(root / "c.tar", {f"{n}.jpg": pixels(n) for n in range(13, 20)})).places


def content(image: Any) -> bytes:
    return image["bytes"]


def test_the_words_of_a_parquet_shard_are_read_without_its_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = parquet(tmp_path / "a.parquet", range(7), missing=4)
    read: list[Any] = []
    real = pq.ParquetFile.read
    monkeypatch.setattr(pq.ParquetFile, "read", lambda self, columns=None: read.append(columns) or real(self, columns=columns))
    words = parquet_words(url, "image", ["label"])
    assert read == [["label"], ["image.path"]]
    assert words.cells["label"].tolist() == ["nv"] * 7 and words.names[:2] == ["0.jpg", "1.jpg"]
    assert words.present == [True, True, True, True, False, True, True]
    assert set(parquet_features(url)) == {"image", "label", "wide"}


def test_the_members_of_a_tar_shard_go_together_by_key(tmp_path: Path) -> None:
    members = {
        "a/001.jpg": b"one",
        "a/001.json": json.dumps({"label": "nv", "age": None, "patient_id": "p"}).encode(),
        "a/002.seg.png": b"two",
        "a/002.cls": b"mel\n",
        "b/002.txt": b"bcc",
        "._b.jpg": b"debris",
    }
    words = tar_words(tar(tmp_path / "a.tar", members))
    assert words.names == ["a/001.jpg", "a/002.seg.png", "b/002.jpg"] and words.present == [True, True, False]
    assert words.cells["label"][0] == "nv" and words.cells["cls"][1] == "mel" and words.cells["txt"][2] == "bcc"
    assert [content(image) for image in ShardedImages(words.places[:2])] == [b"one", b"two"]


@settings(max_examples=30)
@given(st.lists(st.integers(0, 19), max_size=30))
def test_any_rows_come_in_any_order(places: list[str], rows: list[int]) -> None:
    assert [content(image) for image in ShardedImages(places).in_order(rows)] == [pixels(row) for row in rows]


def test_every_shard_is_opened_once_and_only_where_needed(places: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    real = Path.open
    monkeypatch.setattr(Path, "open", lambda self, *mode: opened.append(self.name) or real(self, *mode))
    images = ShardedImages(places)
    assert [content(image) for image in images.in_order([19, 2, 13, 7, 2])] == [pixels(row) for row in (19, 2, 13, 7, 2)]
    assert sorted(opened) == ["a.parquet", "c.tar"]
    assert content(images[-1]) == pixels(19) and [content(image) for image in images[8:10]] == [pixels(8), pixels(9)]


@pytest.mark.parametrize("suffix", ["parquet", "tar"])
def test_a_shard_that_is_cut_short_is_one_line(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{suffix}"
    if suffix == "parquet":
        words = parquet_words(parquet(path, range(8)), "image", ["label"])
    else:
        words = tar_words(tar(path, {f"{number}.jpg": b"x" * 5000 for number in range(8)}))
    path.write_bytes(path.read_bytes()[:3000])
    with pytest.raises(ShardError, match=rf"a\.{suffix}: reading it failed") as error:
        list(ShardedImages(words.places))
    assert "\n" not in str(error.value)
    path.unlink()
    with pytest.raises(ShardError, match="No such file"):
        list(ShardedImages(words.places))


@pytest.mark.slow
def test_a_connection_that_breaks_is_mended_or_one_line(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    for number in range(2):
        members = {}
        for image in range(3):
            members |= {f"{number}-{image}.jpg": good_jpeg(), f"{number}-{image}.cls": b"nv" if image else b"mel"}
        tar(folder / f"train-{number}.tar", members)
    create_repo("user/streamed", repo_type="dataset", exist_ok=True)
    upload_folder(repo_id="user/streamed", folder_path=folder, repo_type="dataset")
    index = read_index("user/streamed", ReadOptions())
    images = ShardedImages(image_paths(index.dataset))
    assert images.urls[0].startswith("hf://datasets/user/streamed@") and len(images) == 6
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    hub.spoil({"match": "_cdn/", "cut": 0.5, "skip": 1, "times": 1})
    assert [content(image) for image in images] == [good_jpeg()] * 6
    hub.spoil({"match": "_cdn/", "cut": 0.5, "skip": 1})
    walk = iter(images)
    assert [content(next(walk)) for _ in range(3)] == [good_jpeg()] * 3
    with pytest.raises(ShardError, match=r"train-1\.tar: reading it failed .* run again") as error:
        next(walk)
    assert "\n" not in str(error.value)
