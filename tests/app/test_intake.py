"""What strangers send is judged before anything is done with it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lesion_hub.app import AppOptions
from lesion_hub.app.intake import NAME_LENGTH, Upload, check_batch, open_upload, safe_cell, safe_name
from lesion_hub.errors import ConfigError, ImageError
from tests.app.models import photograph
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
