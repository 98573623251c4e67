from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import mean, stdev

import pandas as pd
import pytest

from lesion_hub.training import cross_validate, run
from lesion_hub.training.cross_validate import CROSS_VALIDATION_NAME
from lesion_hub.training.launch import LaunchOptions

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]

QUICK = (
    "model.image_size=32",
    "model.backbone=lesion_cnn_shallow",
    "epochs=1",
    "data.split={validation: 0.2, near_duplicates: false}",
)


def arguments(options: LaunchOptions) -> list[str]:
    places = ["--data", str(options.data), "--out", str(options.out), "--cache", str(options.cache)]
    return ["--recipe", "demo", "--folds", "3", *places, "--set", *QUICK]


@pytest.mark.timeout(600)
def test_every_image_is_tested_once_and_an_interrupted_validation_goes_on(
    options: LaunchOptions, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], brief: None
) -> None:
    train, trained = run.train_recipe, []

    def second_fold_dies(recipe, place, claim):  # type: ignore[no-untyped-def]
        trained.append(recipe.name)
        if len(trained) == 2:
            raise KeyboardInterrupt
        return train(recipe, place, claim=claim)

    monkeypatch.setattr(run, "train_recipe", second_fold_dies)
    with pytest.raises(KeyboardInterrupt):
        cross_validate.main(arguments(options))
    first = (options.out / "fold-0-of-3" / "model.safetensors").stat().st_mtime_ns
    assert cross_validate.main(arguments(options)) == 0
    assert (options.out / "fold-0-of-3" / "model.safetensors").stat().st_mtime_ns == first

    pooled = pd.read_parquet(options.out / "predictions.parquet")
    assert len(pooled) == 71 == pooled["image_id"].nunique()
    assert pooled.groupby("group")["fold"].nunique().max() == 1
    result = json.loads((options.out / CROSS_VALIDATION_NAME).read_text())
    scores = [fold["accuracy"] for fold in result["folds"]]
    assert result["mean"]["accuracy"] == pytest.approx(mean(scores)) and result["sd"]["accuracy"] == pytest.approx(
        stdev(scores)
    )
    assert result["pooled"]["accuracy"] == pytest.approx((pooled["label"] == pooled["predicted"]).mean())
    assert "mean ± sd" in capsys.readouterr().out

    # Two workers: the same predictions, byte for byte, and no fold is trained twice.
    shared = options.model_copy(update={"out": options.out.with_name("shared")})
    command = [sys.executable, "training/cross_validate.py", *arguments(shared), "--workers", "2", "--cpu"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stderr
    assert (shared.out / "predictions.parquet").read_bytes() == (options.out / "predictions.parquet").read_bytes()
    said = done.stdout + (shared.out / "workers" / "2.log").read_text()
    assert [said.count(f"model folder: {shared.out}/fold-{fold}-of-3") for fold in range(3)] == [1, 1, 1]
    assert "Traceback" not in said


def test_an_ensemble_has_no_folds(options: LaunchOptions, capsys: pytest.CaptureFixture[str]) -> None:
    assert cross_validate.main(["--recipe", "ham10000_trio", "--out", str(options.out)]) == 1
    assert "cross-validate its members" in capsys.readouterr().err
