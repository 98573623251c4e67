"""The images of a data set, as paths or fetched one at a time, and one pass over them."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from datasets import Dataset, Features, Image

from lesion_hub.data.images import load_rgb
from lesion_hub.data.scan import image_sources, scan
from lesion_hub.errors import DataError, ImageError

from .bad_files import good_jpeg


def stored(*images: object) -> Dataset:
    return Dataset.from_dict({"image": list(images)}, features=Features({"image": Image()}))


def test_files_are_given_by_their_paths() -> None:
    assert image_sources(stored("a.jpg", "b.jpg", "c.jpg").select([2, 0])) == ["c.jpg", "a.jpg"]


def test_embedded_images_are_fetched_when_asked_for_whatever_the_format() -> None:
    embedded = stored(*({"path": f"{side}.jpg", "bytes": good_jpeg(size=(side, 8))} for side in (8, 9, 10)))
    for dataset in (embedded, embedded.with_format("numpy")):
        sources = image_sources(dataset)
        assert len(sources) == 3 and sources[1]["path"] == "9.jpg"
        assert [load_rgb(source).width for source in sources] == [8, 9, 10]
        assert [load_rgb(source).width for source in sources[1:]] == [9, 10]
        assert pickle.loads(pickle.dumps(sources))[2] == sources[2]


def test_files_beside_embedded_images_keep_their_places() -> None:
    sources = image_sources(stored("a.jpg", {"path": None, "bytes": good_jpeg()}))
    assert sources[0]["path"] == "a.jpg" and sources[1]["bytes"] == good_jpeg()


def test_an_image_that_is_not_there_is_an_error_in_its_place() -> None:
    missing, nowhere, found = scan(_size, ["gone.jpg", {"path": None, "bytes": None}, b"123"])
    assert isinstance(missing, ImageError) and "gone.jpg: no such file" in str(missing)
    assert isinstance(nowhere, ImageError) and "neither image bytes nor a path" in str(nowhere)
    assert found == 3


def test_a_stream_has_no_sources() -> None:
    with pytest.raises(DataError, match="read it without streaming"):
        image_sources(stored("a.jpg").to_iterable_dataset())


def _size(encoded: bytes, name: str) -> int:
    return len(encoded)


def test_processes_give_the_same_results_in_order() -> None:
    sizes = np.random.default_rng(0).integers(1, 99, 300).tolist()
    sources = [bytes(size) for size in sizes]
    seen: list[tuple[int, int | None]] = []
    assert list(scan(_size, sources, workers=2, progress=lambda done, total: seen.append((done, total)))) == sizes
    assert seen[-1] == (300, 300)
