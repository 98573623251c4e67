"""What strangers send is checked, held in memory for a short time, and served once; no file of this machine is served."""

from __future__ import annotations

import os
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lesion_hub.app import AppOptions, Running
from lesion_hub.app.uploads import NAME_LENGTH, FileStore, Upload, check_batch, open_upload, safe_cell, safe_name
from lesion_hub.errors import ConfigError, ImageError
from tests.app.models import files_on_disk, photograph
from tests.data.bad_files import BROKEN, ODD

OPTIONS = AppOptions(max_bytes=300_000, max_files=3, max_batch_bytes=500_000)


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_one_line_that_names_it(name):
    with pytest.raises(ImageError) as caught:
        open_upload(Upload(name, BROKEN[name]()), OPTIONS)
    assert str(caught.value).startswith(f"{name}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ODD)
def test_an_odd_file_is_read(name):
    assert open_upload(Upload(name, ODD[name][0]()), OPTIONS).mode == "RGB"


def test_nothing_but_pixels_is_kept():
    image = open_upload(Upload("phone.jpg", photograph()), OPTIONS)
    assert image.info == {}
    assert not dict(image.getexif())


def test_limits_are_told():
    for upload, options, words in [
        (None, OPTIONS, "No image was given"),
        (Upload("big.jpg", b"x" * 300_001), OPTIONS, r"big\.jpg: 0\.3 MB is over the limit"),
        (Upload("wide.jpg", photograph()), AppOptions(max_pixels=1000), "160x120 is over the limit of 1,000 pixels"),
    ]:
        with pytest.raises(ImageError, match=words):
            open_upload(upload, options)


def test_a_batch_is_limited_in_files_and_bytes():
    for uploads, words in [
        ([], "No files"),
        ([Upload("a", b"x")] * 4, "4 files are over the limit of 3"),
        ([Upload("a", b"x" * 300_000)] * 2, "0.6 MB in all"),
    ]:
        with pytest.raises(ImageError, match=words):
            check_batch(uploads, OPTIONS)


@given(st.text(max_size=300))
def test_a_name_is_safe_whatever_was_sent(name):
    safe = safe_name(name)
    assert 0 < len(safe) <= NAME_LENGTH
    assert not set(safe) & set("/\\<>\"'&:\n\r\t\0")
    assert safe.strip(". ") == safe
    assert safe_name(safe) == safe


def test_an_ending_survives_a_long_name():
    assert safe_name("x" * 500 + ".jpeg").endswith("x.jpeg")


@pytest.mark.parametrize("text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1"])
def test_formulas_are_disarmed(text):
    assert safe_cell(text) == f"'{text}"


def test_options_refuse_what_they_do_not_know():
    with pytest.raises(ConfigError, match="did you mean 'max_files'"):
        AppOptions.of(max_file=3)
    with pytest.raises(ConfigError, match="max_bytes"):
        AppOptions.of(max_bytes=0)
    assert AppOptions.of(models="one", revision=None).models == ("one",)


# ------------------------------------------------------------------------------------------------ the store


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def store(clock: Clock, capacity: int = 100) -> FileStore:
    return FileStore("/root/memory", capacity=capacity, keep_seconds=10, clock=clock)


def test_a_file_is_taken_once():
    files = store(Clock())
    path = files.put("../a<b>.jpg", b"12345")
    assert path.startswith("/root/memory/")
    assert path.endswith("/a_b_.jpg")
    assert files.take(path).content == b"12345"
    assert files.take(path) is None
    assert len(files) == 0


def test_the_same_picture_twice_is_two_files():
    files = store(Clock())
    first, second = files.put("a.jpg", b"1"), files.put("a.jpg", b"1")
    assert files.take(first).content == files.take(second).content == b"1"


def test_an_old_file_goes():
    clock = Clock()
    files = store(clock)
    path = files.put("a.jpg", b"1")
    clock.now = 10.0
    assert files.take(path) is None


def test_the_oldest_make_room():
    files = store(Clock(), capacity=10)
    paths = [files.put("a.jpg", b"12345") for _ in range(3)]
    assert [files.take(path) is not None for path in paths] == [False, True, True]


def test_other_paths_give_nothing():
    files = store(Clock())
    path = files.put("a.jpg", b"1")
    token = path.split("/")[3]
    for other in ("/etc/passwd", f"/other/{token}/a.jpg", f"/root/memory/x/../{token}/a.jpg/..", "", f"{token}/a.jpg"):
        assert files.take(other) is None
    assert files.take(path)


# ------------------------------------------------------------------------------------------------ over HTTP


def at(page: Running, path: str) -> str:
    return f"{page.url.rstrip('/')}/gradio_api/{path}"


@pytest.mark.slow
@pytest.mark.parametrize(
    "path",
    ["/etc/passwd", "setup.cfg", "./README.md", "../../etc/passwd", "%2e%2e/%2e%2e/etc/passwd", "C:/Windows/win.ini", ""],
)
@pytest.mark.parametrize("route", ["file=", "file/"])
def test_no_file_of_this_machine_is_served(served_page, route, path):
    assert httpx.get(at(served_page, route + path)).status_code in (403, 404)


def test_not_even_a_file_beside_the_store(served_page, app_registry):
    beside = Path(os.environ["GRADIO_TEMP_DIR"]) / "beside.txt"
    beside.write_text("secret")
    try:
        for path in (beside, f"{served_page.page.files.root}/../beside.txt", app_registry / "one" / "v1.0.0" / "config.json"):
            assert httpx.get(at(served_page, f"file={path}")).status_code == 403
    finally:
        beside.unlink()


def test_addresses_elsewhere_are_not_fetched(served_page):
    for route in ("file=http://127.0.0.1:1/x", "proxy=http://127.0.0.1:1/x"):
        assert httpx.get(at(served_page, route)).status_code in (403, 404)


def test_a_path_that_was_not_uploaded_is_no_image(served_page):
    for path in ("/etc/passwd", str(Path(os.environ["GRADIO_TEMP_DIR"]) / "memory" / "x" / "y.jpg")):
        data = [{"path": path, "meta": {"_type": "gradio.FileData"}}, "trio", None, "", ""]
        event = httpx.post(at(served_page, "call/predict"), json={"data": data}).json()["event_id"]
        answer = httpx.get(at(served_page, f"call/predict/{event}"), timeout=30).text
        assert "event: error" in answer
        assert "root:" not in answer
        assert "Traceback" not in answer


def test_an_upload_waits_in_memory_alone_and_is_gone_once_taken(served_page):
    paths = httpx.post(at(served_page, "upload"), files={"files": ("../../x<y>.jpg", photograph())}).json()
    assert files_on_disk() == []
    assert paths[0].endswith("/x_y_.jpg")
    first, second = (httpx.get(at(served_page, f"file={paths[0]}")) for _ in range(2))
    assert first.content == photograph()
    assert first.headers["content-disposition"].startswith("attachment")
    assert second.status_code == 403


@pytest.mark.usefixtures("nothing_waits")
def test_too_much_is_refused_while_it_arrives(served_page):
    large = httpx.post(at(served_page, "upload"), files={"files": ("big.jpg", b"x" * 500_001)})
    assert (large.status_code, "0.5 MB" in large.text) == (413, True)
    many = httpx.post(at(served_page, "upload"), files=[("files", (f"{i}.jpg", b"x")) for i in range(31)])
    assert many.status_code == 400
    call = httpx.post(at(served_page, "queue/join"), content=b"[" + b"1," * 1_500_000 + b"1]")
    assert call.status_code in (400, 413)
    assert len(served_page.page.files) == 0
