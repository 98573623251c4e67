"""The decode-once cache: right pixels, whichever way they are read, whatever happens while it is built."""

from __future__ import annotations

import errno
import io
import json
import os
import pickle
import signal
import subprocess
import sys
import textwrap
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lesion_hub.data.cache import (
    CacheSpec,
    ImageCache,
    ImageStream,
    build_cache,
    cache_dataset,
    cache_or_stream,
    open_cache,
    plan_access,
)
from lesion_hub.data.cache import build as building
from lesion_hub.data.cache.spec import decode_into
from lesion_hub.errors import ConfigError, DataError, ImageError

from .bad_files import BROKEN, ODD, write_broken, write_odd

SPEC = CacheSpec(12, 16)
PHOTOS = 22
SHARD = 4


def photo(seed: int, size: tuple[int, int] = (40, 30)) -> Image.Image:
    coarse = np.random.default_rng(seed).integers(0, 256, (4, 5, 3), np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def jpeg(image: Image.Image, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=92, **options)
    return stream.getvalue()


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    folder = tmp_path / "photos"
    folder.mkdir()
    paths = [folder / f"{index:02d}.jpg" for index in range(PHOTOS)]
    for index, path in enumerate(paths):
        path.write_bytes(jpeg(photo(index, (40 + index, 30))))
    return paths


def build(photos: list[Path], root: Path, **options: object) -> ImageCache:
    return build_cache(photos, root, **{"spec": SPEC, "processes": 1, "shard_images": SHARD, **options})


def expected(photos: list[Path], spec: CacheSpec = SPEC) -> np.ndarray:
    images = (Image.open(path).resize((spec.width, spec.height), Image.Resampling.BICUBIC) for path in photos)
    return np.stack([np.asarray(image) for image in images])


def shard_bytes(cache: ImageCache) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in cache.directory.iterdir() if path.suffix in (".u8", ".json")}


def run_script(script: str, *arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        **options,
    )


# --- pixels and geometry


def test_cached_pixels_are_the_resized_photographs_in_the_given_order(photos, tmp_path):
    shuffled = photos[::-1]
    cache = build(shuffled, tmp_path)
    assert cache.shape == (PHOTOS, 12, 16, 3)
    np.testing.assert_array_equal(cache.to_numpy(), expected(shuffled))
    assert cache.sizes[:2].tolist() == [[30, 40 + PHOTOS - 1], [30, 40 + PHOTOS - 2]]
    assert cache.valid.all()


def test_single_images_are_read_only_views(photos, tmp_path):
    cache = build(photos, tmp_path)
    np.testing.assert_array_equal(cache[-1], expected(photos[-1:])[0])
    with pytest.raises(ValueError, match="read-only"):
        cache[0][:] = 0


def fitted(image: Image.Image, spec: CacheSpec) -> np.ndarray:
    out = np.full(spec.shape, 77, np.uint8)
    decode_into(out, image, spec)
    return out


def test_crop_keeps_the_middle_and_pad_keeps_everything():
    thirds = Image.new("RGB", (30, 10), "red")
    thirds.paste("lime", (10, 0, 20, 10))
    assert (fitted(thirds, CacheSpec(10, 10, fit="crop")) == (0, 255, 0)).all()
    padded = fitted(thirds, CacheSpec(30, 30, fit="pad"))
    assert (padded[:10] == 0).all() and (padded[20:] == 0).all()
    assert (padded[10:20, 11:19] == (0, 255, 0)).all() and (padded[10:20, :9] == (255, 0, 0)).all()


@given(
    size=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    box=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    fit=st.sampled_from(["squash", "crop", "pad"]),
)
def test_any_image_fits_any_box(size, box, fit):
    out = fitted(Image.new("RGB", size, "white"), CacheSpec(*box, fit=fit))
    assert set(np.unique(out)) <= ({0, 255} if fit == "pad" else {255})
    assert out.max() == 255


@pytest.mark.slow
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("fit", ["squash", "crop", "pad"])
def test_decoding_large_jpegs_at_a_fraction_is_not_visible(orientation, fit):
    exif = Image.Exif()
    exif[0x0112] = orientation
    # Sides that an eighth does not divide, by nearly a whole pixel, and detail up to the edges.
    detail = np.random.default_rng(3).integers(0, 256, (24, 26, 3), np.uint8)
    encoded = jpeg(Image.fromarray(detail).resize((721, 649), Image.Resampling.BICUBIC), exif=exif)
    spec = CacheSpec(40, 40, fit=fit)
    fast, slow = np.empty(spec.shape, np.uint8), np.empty(spec.shape, np.uint8)
    size = decode_into(fast, encoded, spec)
    lossless = io.BytesIO()
    Image.open(io.BytesIO(encoded)).save(lossless, "PNG", exif=exif)
    assert decode_into(slow, lossless.getvalue(), spec) == size == ((649, 721) if orientation < 5 else (721, 649))
    assert np.abs(fast.astype(int) - slow).max() <= 6


def test_large_jpegs_are_decoded_at_a_fraction(monkeypatch):
    loaded = []
    original = Image.Image.resize
    monkeypatch.setattr(Image.Image, "resize", lambda image, *a, **k: (loaded.append(image.size), original(image, *a, **k))[1])
    decode_into(np.empty(SPEC.shape, np.uint8), jpeg(photo(0, (400, 300))), SPEC)
    assert loaded[-1] == (50, 38)


def test_stretch_undoes_the_squash_only():
    sizes = np.array([[300, 400], [400, 300], [0, 0]])
    np.testing.assert_allclose(CacheSpec(100, 100).stretch(sizes), [4 / 3, 3 / 4, 1])
    np.testing.assert_allclose(CacheSpec(100, 100, fit="pad").stretch(sizes), 1)


@pytest.mark.parametrize(
    "options",
    [{"height": 0}, {"width": 2.5}, {"fit": "stretch"}, {"resample": "nearest"}, {"max_pixels": -1}],
    ids=lambda options: next(iter(options)),
)
def test_a_nonsense_spec_is_refused_in_one_line(options):
    with pytest.raises(ConfigError, match=next(iter(options))) as caught:
        CacheSpec(**options)
    assert "\n" not in str(caught.value)


# --- reading


@pytest.fixture(scope="module")
def opened(tmp_path_factory: pytest.TempPathFactory) -> ImageCache:
    encoded = [jpeg(photo(index)) for index in range(PHOTOS)]
    return build_cache(encoded, tmp_path_factory.mktemp("cache"), SPEC, processes=1, shard_images=SHARD)


@given(indices=st.lists(st.integers(-PHOTOS, PHOTOS - 1), max_size=40))
def test_a_batch_is_its_single_images_stacked(opened, indices):
    batch = opened.read(indices)
    assert batch.shape == (len(indices), *SPEC.shape) and batch.dtype == np.uint8
    for row, index in zip(batch, indices, strict=True):
        np.testing.assert_array_equal(row, opened[index])


@given(indices=st.lists(st.lists(st.integers(0, PHOTOS - 1), max_size=9), max_size=7), prefetch=st.integers(1, 4))
@settings(deadline=None, max_examples=25)
def test_prefetched_batches_come_in_order(opened, indices, prefetch):
    batches = list(opened.batches(indices, prefetch=prefetch))
    assert len(batches) == len(indices)
    for batch, wanted in zip(batches, indices, strict=True):
        np.testing.assert_array_equal(batch, opened.read(wanted))


def test_reading_ahead_is_bounded_and_ends_with_its_consumer(opened):
    asked = []
    batches = opened.batches((asked.append(index) or [index % PHOTOS] for index in range(1000)), prefetch=3)
    next(batches)
    assert len(asked) <= 4
    batches.close()
    assert len(asked) <= 4


def test_read_fills_a_given_buffer_and_refuses_a_wrong_one(opened):
    out = np.zeros((2, *SPEC.shape), np.uint8)
    assert opened.read(np.array([3, 1]), out=out) is out
    np.testing.assert_array_equal(out, opened.read([3, 1]))
    for wrong in (out[:1], out.astype(np.float32)):
        with pytest.raises(ValueError, match="out is"):
            opened.read([3, 1], out=wrong)


@pytest.mark.parametrize("indices", [[PHOTOS], [-PHOTOS - 1], [0.5], [[0, 1]], [True]])
def test_impossible_indices_are_refused(opened, indices):
    with pytest.raises(IndexError):
        opened.read(indices)


def test_a_pickled_cache_is_reopened_not_copied(opened):
    pickled = pickle.dumps(opened)
    assert len(pickled) < 1000
    np.testing.assert_array_equal(pickle.loads(pickled).to_numpy(), opened.to_numpy())


# --- one contract, three accesses


def test_streamed_resident_and_mapped_pixels_are_identical(photos, tmp_path):
    photos[5].write_bytes(jpeg(photo(5, (400, 300))))
    indices = [7, 0, 21, 5, 5]
    cache = build(photos, tmp_path)
    with ImageStream(photos, SPEC, threads=2) as stream:
        (streamed,) = stream.batches([indices])
        np.testing.assert_array_equal(streamed, cache.read(indices))
        np.testing.assert_array_equal(stream.to_numpy(), cache.to_numpy())
        np.testing.assert_array_equal(stream.sizes, cache.sizes)
        np.testing.assert_array_equal(pickle.loads(pickle.dumps(stream)).read(indices), streamed)


def test_the_budgets_choose_the_access():
    needed = SPEC.nbytes(100)
    assert plan_access(100, SPEC, device_budget=needed, disk_budget=0) == "resident"
    assert plan_access(100, SPEC, device_budget=needed - 1, disk_budget=needed) == "mapped"
    assert plan_access(100, SPEC, device_budget=0, disk_budget=needed - 1) == "stream"


def test_the_reader_follows_the_budgets(photos, tmp_path):
    options = {"spec": SPEC, "processes": 1}
    access, streaming = cache_or_stream(photos, tmp_path / "cache", disk_budget=0, **options)
    assert access == "stream" and not (tmp_path / "cache").exists()
    access, mapped = cache_or_stream(photos, tmp_path / "cache", **options)
    assert access == "mapped" and isinstance(mapped, ImageCache)
    access, resident = cache_or_stream(photos, tmp_path / "cache", device_budget=1 << 30, **options)
    assert access == "resident" and resident.fits(1 << 30) and not resident.fits(1)
    np.testing.assert_array_equal(streaming.to_numpy(), resident.to_numpy())


def test_a_cache_that_fills_the_disk_is_still_used(photos, tmp_path, monkeypatch):
    build_cache(photos, tmp_path, SPEC, processes=1)
    full = type("Usage", (), {"free": 0})
    monkeypatch.setattr("shutil.disk_usage", lambda path: full)
    assert cache_or_stream(photos, tmp_path, SPEC)[0] == "mapped"


def test_a_dataset_is_cached_row_by_row(photos, tmp_path):
    datasets = pytest.importorskip("datasets")
    embedded = [{"bytes": path.read_bytes(), "path": None} for path in photos]
    features = datasets.Features(image=datasets.Image(), image_id=datasets.Value("string"))
    rows = {"image": embedded, "image_id": [path.stem for path in photos]}
    cache = cache_dataset(datasets.Dataset.from_dict(rows, features), tmp_path, SPEC, processes=1)
    np.testing.assert_array_equal(cache.to_numpy(), expected(photos))
    assert cache.ids == tuple(path.stem for path in photos)


def test_a_streamed_dataset_is_refused(photos, tmp_path):
    datasets = pytest.importorskip("datasets")
    rows = datasets.Dataset.from_dict({"image": [str(path) for path in photos]}).to_iterable_dataset()
    with pytest.raises(DataError, match="without streaming"):
        cache_dataset(rows, tmp_path, SPEC)


# --- the fingerprint


def test_the_fingerprint_follows_files_order_and_spec(photos, tmp_path):
    fingerprints = [build(photos, tmp_path).fingerprint]
    for options in ({"spec": CacheSpec(12, 17)}, {"spec": CacheSpec(12, 16, resample="box")}, {"identify": "content"}):
        fingerprints.append(build(photos, tmp_path, **options).fingerprint)
    fingerprints.append(build(photos[::-1], tmp_path).fingerprint)
    fingerprints.append(build(photos[:-1], tmp_path).fingerprint)
    fingerprints.append(build(photos, tmp_path, ids=[path.stem for path in photos]).fingerprint)
    os.utime(photos[0], ns=(1, 1))
    fingerprints.append(build(photos, tmp_path).fingerprint)
    assert len(set(fingerprints)) == len(fingerprints)


def test_the_content_fingerprint_ignores_times_and_follows_bytes(photos, tmp_path):
    first = build(photos, tmp_path, identify="content")
    os.utime(photos[0], ns=(1, 1))
    assert build(photos, tmp_path, identify="content").fingerprint == first.fingerprint
    photos[0].write_bytes(photos[0].read_bytes() + b"\0")
    assert build(photos, tmp_path, identify="content").fingerprint != first.fingerprint


def test_a_moved_dataset_keeps_its_cache(photos, tmp_path):
    first = build(photos, tmp_path)
    moved = photos[0].parent.rename(tmp_path / "elsewhere")
    assert build([moved / path.name for path in photos], tmp_path).fingerprint == first.fingerprint


def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The keys of the shards made from now on, in this process."""
    made: list[str] = []
    original = building.make_shard
    monkeypatch.setattr(building, "make_shard", lambda folder, key, *rest: (made.append(key), original(folder, key, *rest))[1])
    return made


# --- builds that are interrupted, damaged or repeated

KILLED_AT_AN_IMAGE = """
import os, signal, sys
from lesion_hub.data.cache import CacheSpec, build, build_cache
from pathlib import Path

calls, original = [], build.decode_into
def decode_or_die(*arguments):
    calls.append(1)
    if len(calls) == int(sys.argv[3]):
        os.kill(os.getpid(), signal.SIGKILL)
    return original(*arguments)

build.decode_into = decode_or_die
build_cache(sorted(Path(sys.argv[1]).iterdir()), sys.argv[2], CacheSpec(12, 16), processes=1, shard_images=4)
"""

KILLED_IN_PARALLEL = """
import os, signal, sys
from lesion_hub.data.cache import CacheSpec, build_cache
from pathlib import Path

def die(done, total):
    os.kill(os.getpid(), signal.SIGKILL)

build_cache(sorted(Path(sys.argv[1]).iterdir()), sys.argv[2], CacheSpec(12, 16), processes=2, shard_images=4, progress=die)
"""


@pytest.mark.parametrize("image", [1, 6, PHOTOS])
def test_a_build_killed_at_any_image_resumes_to_the_same_bytes(photos, tmp_path, monkeypatch, image):
    killed = run_script(KILLED_AT_AN_IMAGE, photos[0].parent, tmp_path / "killed", image)
    assert killed.returncode == -signal.SIGKILL
    (directory,) = (tmp_path / "killed").iterdir()
    with pytest.raises(DataError, match="no finished image cache"):
        open_cache(directory)
    made = counted(monkeypatch)
    resumed = build(photos, tmp_path / "killed")
    assert len(made) == 6 - (image - 1) // SHARD
    assert resumed.directory == directory
    assert shard_bytes(resumed) == shard_bytes(build(photos, tmp_path / "whole"))
    assert not list(directory.glob(".*.tmp-*"))


def test_a_killed_parallel_build_resumes(photos, tmp_path):
    command = [sys.executable, "-c", KILLED_IN_PARALLEL, photos[0].parent, tmp_path / "killed"]
    # In a session of its own, so that its worker processes, which end once they have been idle for a while, end here.
    killed = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    try:
        assert killed.wait(60) == -signal.SIGKILL
        resumed = build(photos, tmp_path / "killed")
    finally:
        with suppress(ProcessLookupError):
            os.killpg(killed.pid, signal.SIGKILL)
    assert shard_bytes(resumed) == shard_bytes(build(photos, tmp_path / "whole"))


def test_a_parallel_build_gives_the_same_bytes_as_a_serial_one(photos, tmp_path):
    progress: list[tuple[int, int]] = []
    parallel = build(photos, tmp_path / "a", processes=2, progress=lambda done, total: progress.append((done, total)))
    assert shard_bytes(parallel) == shard_bytes(build(photos, tmp_path / "b"))
    assert progress == sorted(progress) and progress[-1] == (PHOTOS, PHOTOS) and len(progress) == 6


def test_simultaneous_builds_of_one_cache_agree(photos, tmp_path):
    script = KILLED_AT_AN_IMAGE.replace("int(sys.argv[3])", "-1")
    command = [sys.executable, "-c", script, photos[0].parent, tmp_path / "shared"]
    for process in [subprocess.Popen(command) for _ in range(3)]:
        assert process.wait(60) == 0
    cache = build(photos, tmp_path / "shared")
    assert len(list((tmp_path / "shared").iterdir())) == 1
    assert shard_bytes(cache) == shard_bytes(build(photos, tmp_path / "alone"))


@pytest.mark.parametrize("damage", ["flip", "truncate", "remove", "record", "index", "finish"])
def test_damage_is_detected_and_only_that_is_made_again(photos, tmp_path, monkeypatch, damage):
    cache = build(photos, tmp_path)
    whole, key = shard_bytes(cache), cache.records[2].key
    shard, record, index = (cache.directory / name for name in (f"{key}.u8", f"{key}.json", "index.json"))
    content = bytearray(shard.read_bytes())
    content[100] ^= 1
    harm = {
        "flip": lambda: shard.write_bytes(content),
        "truncate": lambda: os.truncate(shard, 100),
        "remove": shard.unlink,
        "record": lambda: record.write_text('{"key": 1}'),
        "index": lambda: index.write_text('{"format": 1, "spec"'),
        "finish": index.unlink,
    }
    harm[damage]()
    messages = {
        "flip": "checksum is wrong; build the cache again",
        "truncate": "truncated; build the cache again",
        "remove": "cannot be read .*; build the cache again",
        "index": "index is damaged; build the cache again",
        "finish": "holds no finished image cache; build it",
    }
    if damage in messages:
        with pytest.raises(DataError, match=messages[damage]) as caught:
            open_cache(cache.directory, verify=True)
        assert "\n" not in str(caught.value)
    made = counted(monkeypatch)
    assert shard_bytes(build(photos, tmp_path)) == whole
    assert made == ([] if damage in ("index", "finish") else [key])
    open_cache(cache.directory, verify=True)


def test_an_unfinished_build_is_not_trusted_even_without_verification(photos, tmp_path):
    cache = build(photos, tmp_path)
    whole = shard_bytes(cache)
    (cache.directory / "index.json").unlink()
    shard = cache.directory / f"{cache.records[0].key}.u8"
    shard.write_bytes(bytes(len(shard.read_bytes())))
    assert shard_bytes(build(photos, tmp_path, verify=False)) == whole


def test_a_finished_cache_is_opened_without_writing(photos, tmp_path, monkeypatch):
    first = build(photos, tmp_path)
    made = counted(monkeypatch)
    monkeypatch.setattr(building, "FileLock", None)
    for verify in (True, False):
        assert build(photos, tmp_path, verify=verify).directory == first.directory
    assert made == []


def test_a_full_disk_is_one_line_and_loses_nothing(photos, tmp_path, monkeypatch):
    original, synced = os.fsync, []

    def fsync(descriptor: int) -> None:
        synced.append(descriptor)
        if len(synced) > 8:  # four for each shard: file, folder, record, folder
            raise OSError(errno.ENOSPC, "No space left on device")
        original(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(DataError, match="disk is full; free some space") as caught:
        build(photos, tmp_path)
    assert "\n" not in str(caught.value)
    monkeypatch.setattr(os, "fsync", original)
    (directory,) = (folder for folder in tmp_path.iterdir() if folder.name != "photos")
    assert len(list(directory.glob("*.u8"))) == 2 and not list(directory.glob(".*.tmp-*"))
    made = counted(monkeypatch)
    np.testing.assert_array_equal(build(photos, tmp_path).to_numpy(), expected(photos))
    assert len(made) == 4


def test_too_little_room_is_noticed_before_decoding(photos, tmp_path, monkeypatch):
    made = counted(monkeypatch)
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": SPEC.nbytes(PHOTOS) - 1}))
    with pytest.raises(DataError, match="the disk is full, the cache needs"):
        build(photos, tmp_path)
    assert made == []


def test_a_folder_that_cannot_be_written_is_one_line(photos, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="cannot write the cache"):
        build(photos, tmp_path / "file" / "cache")


def test_what_cannot_be_cached_is_streamed(photos, tmp_path, caplog):
    (tmp_path / "file").write_text("")
    access, reader = cache_or_stream(photos, tmp_path / "file" / "cache", SPEC)
    assert access == "stream" and isinstance(reader, ImageStream)
    assert "cannot write the cache" in caplog.text and "decoded in every epoch" in caplog.text
    np.testing.assert_array_equal(reader.to_numpy(), expected(photos))


# --- images that cannot be read


@pytest.fixture
def flawed(photos: list[Path]) -> list[Path]:
    photos[3].write_bytes(photos[3].read_bytes()[:200])
    photos[10].write_bytes(b"")
    photos[11].write_text("not an image")
    photos[21].unlink()
    return photos


def test_unreadable_images_are_skipped_and_listed(flawed, tmp_path):
    cache = build(flawed, tmp_path, on_error="skip", ids=[path.stem for path in flawed])
    assert sorted(cache.errors) == [3, 10, 11, 21] == np.flatnonzero(~cache.valid).tolist()
    assert all(str(flawed[index]) in reason and "\n" not in reason for index, reason in cache.errors.items())
    assert not cache.read(list(cache.errors)).any() and not cache.sizes[list(cache.errors)].any()
    good = np.flatnonzero(cache.valid)
    np.testing.assert_array_equal(cache.read(good), expected([flawed[index] for index in good]))
    assert sorted(json.loads(json.dumps(cache.summary()))["errors"]) == ["03", "10", "11", "21"]
    with ImageStream(flawed, SPEC, threads=1, on_error="skip") as stream:
        np.testing.assert_array_equal(stream.to_numpy(), cache.to_numpy())
        assert stream.errors == cache.errors


def test_every_kind_of_broken_file_is_skipped_and_every_odd_one_read(tmp_path):
    paths = write_broken(tmp_path / "broken") + write_odd(tmp_path / "odd")
    cache = build(paths, tmp_path / "cache", on_error="skip")
    assert set(cache.errors) == set(range(len(BROKEN)))
    corner = cache.to_numpy()[len(BROKEN) :, 1:3, 1:3].mean((1, 2))
    np.testing.assert_allclose(corner, [colour for _, colour in ODD.values()], atol=6)


@pytest.mark.parametrize("processes", [1, 2])
def test_an_unreadable_image_ends_a_strict_build_which_continues_where_it_was(photos, tmp_path, monkeypatch, processes):
    photos[10].write_bytes(b"")
    for _ in range(2):
        with pytest.raises(ImageError, match=r"10\.jpg"):
            build(photos, tmp_path, processes=processes)
    made = counted(monkeypatch)
    with pytest.raises(ImageError, match=r"10\.jpg"):
        build(photos, tmp_path)
    assert len(made) < 3
    photos[10].write_bytes(jpeg(photo(10)))
    np.testing.assert_array_equal(build(photos, tmp_path).to_numpy(), expected(photos))


def test_a_strict_build_refuses_what_a_lenient_one_skipped(flawed, tmp_path):
    lenient = build(flawed, tmp_path, on_error="skip")
    with pytest.raises(ImageError, match=r"03\.jpg"):
        build(flawed, tmp_path)
    assert build(flawed, tmp_path, on_error="skip").errors == lenient.errors
    flawed[12].write_bytes(jpeg(photo(12, (44, 33))))
    with pytest.raises(ImageError, match=r"03\.jpg"):
        build(flawed, tmp_path)


def test_a_strict_stream_raises(flawed):
    with ImageStream(flawed, SPEC, threads=1) as stream, pytest.raises(ImageError, match=r"11\.jpg"):
        list(stream.batches([[0, 11]]))


def test_embedded_images_are_named_by_their_id(tmp_path):
    with pytest.raises(ImageError, match="ISIC_7"):
        build_cache([b"nonsense"], tmp_path, SPEC, ids=["ISIC_7"])


def test_impossible_builds_are_refused_in_one_line(photos, tmp_path):
    with pytest.raises(DataError, match="no images"):
        build([], tmp_path)
    with pytest.raises(DataError, match="2 ids for 22 images"):
        build(photos, tmp_path, ids=["a", "b"])
    for options in ({"on_error": "ignore"}, {"processes": 0}, {"identify": "name"}, {"shard_images": 0}):
        with pytest.raises(ConfigError, match=next(iter(options))):
            build(photos, tmp_path, **options)
    with pytest.raises(DataError, match="holds no finished image cache"):
        open_cache(tmp_path)


# --- memory

PEAK = """
import resource, sys
from lesion_hub.data.cache import CacheSpec, ImageStream, build_cache
photo, root, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
spec = CacheSpec(160, 160)
build_cache([photo] * count, root, spec, processes=1)
with ImageStream([photo] * count, spec, threads=2) as stream:
    for batch in stream.batches([range(start, start + 32) for start in range(0, count, 32)]):
        pass
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_set(photos, tmp_path):
    peaks = [int(run_script(PEAK, photos[0], tmp_path / str(count), count).stdout) for count in (256, 1536)]
    assert peaks[1] - peaks[0] < 30, f"{CacheSpec(160, 160).nbytes(1280) >> 20} MB more images took {peaks} MB"
