"""load_rgb: every kind of image becomes upright 8-bit RGB; what cannot be read is one line, whatever the damage."""

from __future__ import annotations

import tempfile
import warnings
from io import BytesIO, StringIO
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from lesion_hub.data.images import ImageFacts, is_image_name, load_rgb, probe
from lesion_hub.errors import ImageError

from .bad_files import BROKEN, ODD, RED, SIZE, WHITE, good_jpeg


def assert_one_line(error: pytest.ExceptionInfo[ImageError], name: str) -> None:
    message = str(error.value)
    assert message.startswith(f"{name}: ")
    assert message.isprintable()
    assert ";" in message


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_file_is_one_line_that_names_it(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(BROKEN[name]())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ImageError) as error:
            load_rgb(path)
    assert_one_line(error, str(path))


@pytest.mark.parametrize("name", ODD)
def test_an_odd_file_decodes_to_its_colour(name: str) -> None:
    make, colour = ODD[name]
    image = load_rgb(make())
    assert (image.mode, image.size) == ("RGB", SIZE)
    assert np.allclose(image.getpixel((4, 4)), colour, atol=4)


def test_exif_rotation_is_applied_and_metadata_dropped() -> None:
    image = load_rgb(ODD["rotated.jpg"][0]())
    assert np.allclose(image.getpixel((2, 8)), RED, atol=6)
    assert np.allclose(image.getpixel((21, 8)), WHITE, atol=6)
    assert image.info == {}
    assert not image.getexif()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_matches_pillow(orientation: int) -> None:
    from PIL import ImageOps

    pixels = np.random.default_rng(1).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stream = BytesIO()
    Image.fromarray(pixels).save(stream, "PNG", exif=exif)
    expected = ImageOps.exif_transpose(Image.open(BytesIO(stream.getvalue())))
    loaded = load_rgb(stream.getvalue())
    assert np.array_equal(loaded, expected)
    assert probe(stream.getvalue()).upright_size == loaded.size


@given(st.lists(st.integers(0, 65535), min_size=1, max_size=20))
def test_sixteen_bits_are_scaled_in_order_and_within_half_a_step(values: list[int]) -> None:
    stored = np.array([values], dtype=np.uint16)
    loaded = np.asarray(load_rgb(Image.fromarray(stored)))[0, :, 0]
    assert np.all(np.abs(loaded - stored[0] / 257) <= 0.5)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(["truncated.png", "cmyk.jpg", "animated.gif", "bits16.tif", "animated.webp", "bitmap.bmp"]), st.data())
def test_damage_anywhere_gives_an_image_or_an_image_error(name: str, data: st.DataObject) -> None:
    make = BROKEN[name] if name in BROKEN else ODD[name][0]
    content = bytearray(make())
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    content = content[: data.draw(st.integers(0, len(content)))]
    for read in (load_rgb, probe):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                read(bytes(content))
        except ImageError as error:
            assert str(error).isprintable()


def test_the_limit_is_judged_before_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("decoded"))
    with pytest.raises(ImageError, match=r"24x16 is over the limit of 383 pixels"):
        load_rgb(good_jpeg(), max_pixels=24 * 16 - 1)


def test_the_limit_itself_is_allowed() -> None:
    assert load_rgb(good_jpeg(), max_pixels=24 * 16).size == SIZE


def test_pillows_own_settings_neither_change_nor_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    assert load_rgb(good_jpeg()).size == SIZE
    assert Image.MAX_IMAGE_PIXELS == 10
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


def test_every_kind_of_source_gives_the_same_pixels(tmp_path: Path) -> None:
    content = good_jpeg()
    path = tmp_path / "a.jpg"
    path.write_bytes(content)
    sources = [path, str(path), content, {"path": str(path), "bytes": None}, {"path": "gone.jpg", "bytes": content}]
    expected = np.asarray(Image.open(path))
    for source in [*sources, Image.open(path)]:
        assert np.array_equal(load_rgb(source), expected)


def test_a_pillow_image_is_left_untouched() -> None:
    given_image = Image.new("RGB", SIZE, RED)
    given_image.info["comment"] = "keep"
    loaded = load_rgb(given_image)
    loaded.putpixel((0, 0), WHITE)
    assert given_image.getpixel((0, 0)) == RED
    assert given_image.info == {"comment": "keep"}


def test_a_broken_pillow_image_is_one_line_too(tmp_path: Path) -> None:
    path = tmp_path / "cut.jpg"
    path.write_bytes(BROKEN["truncated.jpg"]())
    with pytest.raises(ImageError):
        load_rgb(Image.open(path))


@pytest.mark.parametrize(("place", "why"), [("gone.jpg", "no such file"), ("folder.jpg", "is a folder")])
def test_what_is_no_file_says_so(place: str, why: str, tmp_path: Path) -> None:
    (tmp_path / "folder.jpg").mkdir()
    with pytest.raises(ImageError, match=why):
        load_rgb(tmp_path / place)


def test_a_row_without_image_says_so() -> None:
    with pytest.raises(ImageError, match="neither image bytes nor a path"):
        load_rgb({"path": None, "bytes": None})


def test_a_name_with_a_line_break_stays_one_line(tmp_path: Path) -> None:
    with pytest.raises(ImageError) as error:
        load_rgb(tmp_path / "a\nb.jpg")
    assert "\n" not in str(error.value)


def test_probe_reads_the_header_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("decoded"))
    facts = probe(BROKEN["bomb.png"]())
    assert facts == ImageFacts(60_000, 60_000, "RGB", "PNG", 1, None)
    tables = probe(good_jpeg()).quantization
    assert tables is not None
    assert {len(table) for table in tables} == {64}


def test_hidden_files_are_no_images() -> None:
    assert is_image_name("x.JPEG")
    assert not is_image_name("._x.jpg")
    assert not is_image_name("jpg")


# ------------------------------------------------------------------------------------------------ what callers give


def jpeg_file(kind: str, tmp_path: Path) -> object:
    """The same picture in every way in which a program may hold it."""
    content = good_jpeg()
    if kind == "open file":
        (tmp_path / "mole.jpg").write_bytes(content)
        return (tmp_path / "mole.jpg").open("rb")
    if kind == "spooled":  # what web frameworks keep an upload in
        file = tempfile.SpooledTemporaryFile()  # noqa: SIM115 - it is the caller's
        file.write(content)
        return file
    return {"bytes": content, "bytearray": bytearray(content), "memoryview": memoryview(content)}.get(kind, BytesIO(content))


@pytest.mark.parametrize("kind", ["open file", "spooled", "BytesIO", "bytes", "bytearray", "memoryview"])
def test_a_picture_is_the_same_however_it_is_held(kind: str, tmp_path: Path) -> None:
    given = jpeg_file(kind, tmp_path)
    assert np.array_equal(load_rgb(given), load_rgb(good_jpeg()))  # type: ignore[arg-type]
    if hasattr(given, "read"):
        assert not given.closed, "it is the caller's to close"
        assert probe(given).format == "JPEG", "it can be read again"


class Upload:
    """What an asynchronous web framework hands over."""

    async def read(self) -> bytes:
        return b""


def closed_file() -> BytesIO:
    file = BytesIO(good_jpeg())
    file.close()
    return file


@pytest.mark.parametrize(
    ("given", "told"),
    [
        (None, "None is no image; give a path, a file opened with 'rb', the bytes of an image file, a Pillow image"),
        (3.5, "float is no image"),
        ("https://example.org/mole.jpg", "is a URL; download it first"),
        (Path("https://example.org/mole.jpg"), "is a URL; download it first"),
        ("data:image/png;base64,AAAA", "is a URL; download it first"),
        (StringIO("text"), "opened as text; open it with mode 'rb'"),
        (Upload(), "give its .file"),
        (closed_file(), "cannot be read"),
        (BytesIO(), "the file is empty"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_image_is_one_line(given: object, told: str) -> None:
    with pytest.raises(ImageError) as error:
        load_rgb(given)  # type: ignore[arg-type]
    assert told in str(error.value)
    assert str(error.value).isprintable()
