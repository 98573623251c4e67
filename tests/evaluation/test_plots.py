"""Each picture is a complete file, shows what it is given, repeats byte for byte and leaves no global state behind."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from lesion_hub.errors import LesionHubError
from lesion_hub.evaluation import plots
from lesion_hub.evaluation.intervals import Interval
from lesion_hub.evaluation.predictions import check_predictions
from lesion_hub.taxonomy import label_space

pytestmark = pytest.mark.slow

SPACE = label_space("ham7")
PROBABILITIES = np.random.default_rng(0).dirichlet(np.ones(7), size=60)
LABELS = np.arange(60) % 7
PREDICTIONS = check_predictions(PROBABILITIES, LABELS, SPACE)
BARS = {"head/neck": Interval(0.7, 0.6, 0.8), "torso": Interval(0.5, None, None), "acral": Interval(None, None, None, 0.0)}

PICTURES: dict[str, Callable[[plots.Format], bytes]] = {
    "counts": lambda fmt: plots.confusion_matrix(np.eye(7) * 5, SPACE.labels, fmt=fmt),
    "shares": lambda fmt: plots.confusion_matrix(np.eye(7) * 5, SPACE.labels, normalised=True, fmt=fmt),
    "roc": lambda fmt: plots.roc_curves(PREDICTIONS, fmt=fmt),
    "precision": lambda fmt: plots.precision_recall_curves(PREDICTIONS, fmt=fmt),
    "reliability": lambda fmt: plots.reliability_diagram(PROBABILITIES, LABELS, fmt=fmt),
    "risk": lambda fmt: plots.risk_coverage_plot(PROBABILITIES, LABELS, fmt=fmt),
    "bars": lambda fmt: plots.group_bars(BARS, "Sensitivity", fmt=fmt),
    "lines": lambda fmt: plots.robustness_lines({"blur": [0.8, 0.6]}, [0, 1], "Balanced accuracy", fmt=fmt),
}


@pytest.mark.parametrize("name", PICTURES)
def test_a_png_opens_is_legible_and_repeats(name: str) -> None:
    first = PICTURES[name]("png")
    image = Image.open(io.BytesIO(first))
    image.load()
    assert image.format == "PNG" and min(image.size) > 250
    assert len(image.convert("RGB").getcolors(1 << 20) or []) > 10
    assert first == PICTURES[name]("png")


@pytest.mark.parametrize("name", PICTURES)
def test_an_svg_is_xml_and_repeats(name: str) -> None:
    first = PICTURES[name]("svg")
    assert ElementTree.fromstring(first).tag.endswith("svg")
    assert first == PICTURES[name]("svg")


def texts(svg: bytes) -> list[str]:
    """matplotlib notes each text as a comment beside its outlines."""
    return [line.strip()[4:-3].strip() for line in svg.decode().splitlines() if line.strip().startswith("<!--")]


def test_a_confusion_matrix_names_its_labels_and_writes_counts_or_percent() -> None:
    matrix = [[8, 2], [1, 3]]
    counts = texts(plots.confusion_matrix(matrix, ["benign", "malignant"], fmt="svg"))
    shares = texts(plots.confusion_matrix(matrix, ["benign", "malignant"], normalised=True, fmt="svg"))
    assert {"8", "2", "1", "3", "benign", "malignant", "True"} <= set(counts)
    assert {"80", "20", "25", "75"} <= set(shares)


def test_undefined_bars_say_so() -> None:
    words = texts(PICTURES["bars"]("svg"))
    assert {"0.70", "0.50", "not defined", "Sensitivity", "torso"} <= set(words)


def test_labels_without_examples_are_left_out_of_curves() -> None:
    kept = SPACE.index("df") != LABELS
    words = texts(plots.roc_curves(check_predictions(PROBABILITIES[kept], LABELS[kept], SPACE), fmt="svg"))
    assert any(word.startswith("mel 0.") for word in words) and not any(word.startswith("df") for word in words)


def test_one_class_alone_still_makes_a_picture() -> None:
    alone = check_predictions(PROBABILITIES[:3], np.zeros(3, dtype=int), SPACE)
    assert "nothing to show" in texts(plots.roc_curves(alone, fmt="svg"))
    assert "nothing to show" in texts(plots.precision_recall_curves(alone, fmt="svg"))


def test_what_does_not_fit_is_one_line() -> None:
    with pytest.raises(LesionHubError, match="does not fit 3 labels"):
        plots.confusion_matrix(np.eye(2), ["a", "b", "c"])
    with pytest.raises(LesionHubError, match="'blur' has 1 values for 2 severities"):
        plots.robustness_lines({"blur": [0.5]}, [0, 1], "accuracy")


def test_pyplot_is_not_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)  # importing it now raises
    for draw in PICTURES.values():
        assert draw("png")
