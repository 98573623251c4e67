"""Data sets that carry their images: Parquet as the Hub holds it, whole and streamed, with nothing reached over a network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import huggingface_hub.constants
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, Features, Image, Value

from lesion_hub.data import COLUMNS, image_paths, load_rgb, read, undecoded
from lesion_hub.data.sources.hub import has_pixels
from lesion_hub.errors import DataError, ImageError, TaxonomyError

from .bad_files import BROKEN, RED, good_jpeg


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))


FEATURES = Features(
    {
        "img": Image(),
        "diagnosis": ClassLabel(names=["nevus", "melanoma"]),
        "lesion": Value("string"),
        "years": Value("int64"),
        "gender": Value("string"),
    }
)
MAP = {"image": "img", "label": "diagnosis", "group": "lesion", "age": "years", "sex": "gender"}


def rows(count: int, first: int = 0) -> dict[str, list[Any]]:
    numbers = range(first, first + count)
    return {
        "img": [{"bytes": good_jpeg(), "path": f"picture_{number}.jpg"} for number in numbers],
        "diagnosis": [number % 2 for number in numbers],
        "lesion": [f"lesion_{number // 2}" for number in numbers],
        "years": [40 + number for number in numbers],
        "gender": ["F"] * count,
    }


def hub_copy(root: Path, test_rows: dict[str, list[Any]] | None = None) -> Path:
    """A folder laid out as a data set on the Hub: ``data/train-….parquet`` and ``data/test-….parquet``."""
    (root / "data").mkdir(parents=True)
    parts = {"train": rows(4), "test": test_rows or rows(2, first=4)}
    for split, content in parts.items():
        table = Dataset.from_dict(content, features=FEATURES)
        table.to_parquet(root / "data" / f"{split}-00000-of-00001.parquet")
    return root


def test_columns_and_class_names_become_the_schema(tmp_path: Path) -> None:
    result = read(hub_copy(tmp_path / "set"), columns=MAP, space="isic8")
    assert tuple(result.dataset.column_names) == COLUMNS
    assert [result.space.labels[label] for label in result.dataset["label"]] == ["nv", "mel"] * 3
    assert list(result.dataset["image_id"]) == [f"picture_{number}" for number in range(6)]
    assert list(result.dataset["group"])[:3] == ["lesion_0", "lesion_0", "lesion_1"]
    assert (result.dataset["age"][0], result.dataset["sex"][0]) == (40.0, "female")
    assert load_rgb(undecoded(result.dataset)[0]["image"]).getpixel((3, 3)) == pytest.approx(RED, abs=3)
    assert result.official_split is not None
    assert sorted(result.official_split.values()) == ["test"] * 2 + ["train"] * 4


def test_one_parquet_file_reads_too(tmp_path: Path) -> None:
    file = hub_copy(tmp_path / "set") / "data" / "train-00000-of-00001.parquet"
    result = read(file, columns=MAP, space="binary")
    assert list(result.dataset["label"]) == [0, 1, 0, 1]
    assert result.official_split is None


def test_a_split_by_name(tmp_path: Path) -> None:
    result = read(hub_copy(tmp_path / "set"), columns=MAP, split="test")
    assert len(result.dataset) == 2


def test_defects_are_counted_and_left_out(tmp_path: Path) -> None:
    content = rows(4, first=4)
    content["img"][0] = None
    content["diagnosis"][1] = None
    root = hub_copy(tmp_path / "set", content)
    with pytest.raises(DataError, match=r"1 row without an image.*1 row with an unknown label"):
        read(root, columns=MAP)
    result = read(root, columns=MAP, allow_missing=True)
    assert len(result.dataset) == 6
    assert result.report.kept == 6
    assert load_rgb(undecoded(result.dataset)[5]["image"]).size == (24, 16)


def test_a_stream_has_the_same_rows(tmp_path: Path) -> None:
    root = hub_copy(tmp_path / "set")
    whole = read(root, columns=MAP, space="binary", split="train")
    stream = read(root, columns=MAP, space="binary", split="train", streaming=True)
    assert isinstance(stream.dataset, datasets.IterableDataset)
    assert stream.dataset.features == whole.dataset.features
    streamed = [{**row, "image": None, "source": None} for row in stream.dataset]
    assert streamed == [{**row, "image": None, "source": None} for row in whole.dataset]
    assert (stream.report.rows, stream.report.kept) == (None, None)


def test_a_stream_decodes_lazily(tmp_path: Path) -> None:
    content = rows(2, first=4)
    content["img"][0]["bytes"] = BROKEN["text.jpg"]()
    root = hub_copy(tmp_path / "set", content)
    stream = read(root, columns=MAP, split="test", streaming=True)
    first, second = undecoded(stream.dataset)
    with pytest.raises(ImageError, match=r"picture_4.jpg: not an image"):
        load_rgb(first["image"])
    assert load_rgb(second["image"]).size == (24, 16)


def test_a_stream_stops_at_a_defect_or_leaves_it_out(tmp_path: Path) -> None:
    content = rows(3, first=4)
    content["diagnosis"][0] = None
    content["img"][1] = None
    root = hub_copy(tmp_path / "set", content)
    with pytest.raises(DataError, match=r"row 0 \(picture_4\): label None is not in 'custom'"):
        list(read(root, columns=MAP, split="test", streaming=True).dataset)
    kept = list(read(root, columns=MAP, split="test", streaming=True, allow_missing=True).dataset)
    assert [row["image_id"] for row in kept] == ["picture_6"]


def test_a_stream_of_several_splits_asks_for_one(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="choose one of test, train"):
        read(hub_copy(tmp_path / "set"), columns=MAP, streaming=True)


def test_the_space_must_hold_the_labels(tmp_path: Path) -> None:
    table = Dataset.from_dict({"image": [good_jpeg()] * 4, "label": ["akiec", "akiec", "nv", "nv"]})
    table.to_parquet(tmp_path / "table.parquet")
    assert list(read(tmp_path / "table.parquet", space="ham7").dataset["label"]) == [3, 3, 1, 1]
    with pytest.raises(TaxonomyError, match="split between ak and scc"):
        read(tmp_path / "table.parquet", space="isic8")


def test_a_column_without_images_says_what_it_holds(tmp_path: Path) -> None:
    root = hub_copy(tmp_path / "set")
    with pytest.raises(DataError, match="column 'lesion' holds no images"):
        read(root, columns={**MAP, "image": "lesion"})
    with pytest.raises(DataError, match=r"no column 'diagnoses'; did you mean 'diagnosis'\?"):
        read(root, columns={**MAP, "label": "diagnoses"})
    with pytest.raises(DataError, match=r"no column 'image' among .* map one with --column image=NAME"):
        read(root)


def test_a_hub_id_offline_is_one_line_at_once() -> None:
    with pytest.raises(DataError, match="nobody/nothing: neither a folder here nor a data set that can be loaded") as error:
        read("nobody/nothing", revision="v1.0.0")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"PAR1 no parquet PAR1"])
def test_a_damaged_parquet_file_is_one_line(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "table.parquet").write_bytes(content)
    for place in (tmp_path, tmp_path / "table.parquet"):
        with pytest.raises(DataError, match="no readable Parquet file"):
            read(place)


def test_embedded_images_have_no_paths(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="embedded"):
        image_paths(read(hub_copy(tmp_path / "set"), columns=MAP).dataset)


def test_a_split_is_named_in_any_case(tmp_path: Path) -> None:
    root = tmp_path / "set"
    root.mkdir()
    for file, first in (("a.parquet", 0), ("b.parquet", 2)):
        Dataset.from_dict(rows(2, first), features=FEATURES).to_parquet(root / file)
    files = "\n".join(
        ["---", "configs:", "- config_name: default", "  data_files:"]
        + [f"  - split: {name}\n    path: {file}" for name, file in (("Train", "a.parquet"), ("TEST", "b.parquet"))]
        + ["---"]
    )
    (root / "README.md").write_text(files)
    assert list(read(root, columns=MAP, split="test").dataset["image_id"]) == ["picture_2", "picture_3"]


@pytest.mark.parametrize("kind", ["binary", "large_binary"])
def test_a_parquet_file_of_plain_bytes_holds_images(kind: str, tmp_path: Path) -> None:
    table = pa.table({"image": pa.array([good_jpeg()] * 4, getattr(pa, kind)()), "label": ["mel", "nv"] * 2})
    path = tmp_path / "set.parquet"
    pq.write_table(table, path)
    assert has_pixels(path)
    result = read(path)
    assert (result.report.source, len(result.dataset)) == ("hub", 4)
    assert load_rgb(undecoded(result.dataset)[0]["image"]).size == (24, 16)


def test_columns_that_were_not_mapped_are_proposed(tmp_path: Path) -> None:
    root = hub_copy(tmp_path / "set")
    unmapped = {name: MAP[name] for name in ("image", "label")}
    assert [str(one) for one in read(root, columns=unmapped).report.proposals][:1] == [
        "6 groups; `--column group=lesion` would make 3"
    ]


def test_folders_of_further_images_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="leave --images out"):
        read(hub_copy(tmp_path / "set"), columns=MAP, images=[tmp_path])
