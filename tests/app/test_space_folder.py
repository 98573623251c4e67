"""The Space as it is committed: what its README promises the Hub is true, and its pictures are what a program draws."""

from __future__ import annotations

import io
import json
import re
from importlib.metadata import version

import numpy as np
import pytest
from huggingface_hub import SpaceCard, SpaceHardware
from PIL import Image

from lesion_hub.app import AppOptions
from lesion_hub.hub.space import packaged_space
from tests.app.example_images import EXAMPLES, drawn

PLACE = packaged_space()
CARD = SpaceCard((PLACE / "README.md").read_text(encoding="utf-8"))
COLOURS = {"red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray"}


def test_the_front_matter_is_what_the_hub_takes():
    facts = CARD.data.to_dict()
    assert {"title", "emoji", "colorFrom", "colorTo", "license", "models", "preload_from_hub", "tags"} <= set(facts)
    assert {facts["colorFrom"], facts["colorTo"]} <= COLOURS
    assert (facts["sdk"], facts["license"]) == ("gradio", "apache-2.0")
    assert (PLACE / facts["app_file"]).is_file()
    assert len(facts["short_description"]) <= 60
    assert facts["suggested_hardware"] in {flavour.value for flavour in SpaceHardware}
    assert re.fullmatch(r"3\.1\d", facts["python_version"])


def test_the_gradio_of_the_front_matter_is_the_tested_one():
    assert CARD.data.sdk_version == version("gradio")


def test_its_requirements_are_written_when_it_is_published():
    assert not (PLACE / "requirements.txt").exists()  # a list of its own would be a second one


def test_the_template_answers_with_the_default_model():
    assert tuple(json.loads((PLACE / "models.json").read_text())) == AppOptions().models


def test_its_app_is_a_few_lines():
    assert len((PLACE / "app.py").read_text().splitlines()) <= 20


def test_there_are_no_other_examples_than_drawn_ones():
    assert {path.name for path in (PLACE / "examples").iterdir()} == set(EXAMPLES)


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_an_example_is_what_the_program_draws(name):
    committed, anew = (np.asarray(Image.open(source), int) for source in (PLACE / "examples" / name, io.BytesIO(drawn(name))))
    assert np.abs(committed - anew).mean() < 1.0  # JPEG encoders differ by a little
    assert (PLACE / "examples" / name).stat().st_size < 60_000
