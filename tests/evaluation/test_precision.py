"""The ranges of an 8-bit file are measured on training images, and it is judged on others."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from lesion_hub.evaluation.precision import quantize

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

ALL_PASS = {"sensitivity_loss": 1.0, "agreement": 0.0, "least_speedup": 0.0}


@pytest.mark.slow
@pytest.mark.parametrize("held", [None, 10, 0])
def test_ranges_are_measured_on_the_training_images_that_the_data_hold(make_model, data, manifest, tmp_path, held):
    ids = list(data.dataset["image_id"][:])
    rows = {part: manifest.rows(ids, part)[: held if part == "train" else None] for part in manifest.parts}
    some = replace(data, dataset=data.dataset.select(np.sort(np.concatenate(list(rows.values())))), official_split=None)
    done = quantize(make_model(), some, tmp_path / "small.onnx", **ALL_PASS)
    assert done.kept.gate.images == len(rows["val"])
    assert done.calibration == (len(rows["train"]) or len(rows["val"]))
